"""The upstream's voice on a call: what of it was really played, and cutting it short (rows O04, O09)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from offhook.realtime import server_events as events
from offhook.realtime.conversation import Item
from offhook.realtime.engine import AudioFormat
from offhook.realtime.outbox import ClearPlayout, Outbox, PlayAudio
from offhook.realtime.playout import Playout, PlayoutChange
from offhook.realtime.sideband_audio import bytes_per_ms, sample_bytes

__all__ = ["RelayVoice"]

T = TypeVar("T")
MAX_KNOWN = 512
"How many spoken items and cut responses are remembered."


class RelayVoice:
    """
    The played clock of a relayed call.

    `on_cut(item_id, content_index, heard_ms, made_ms)` is called for each item that was cut short.
    """

    def __init__(
        self,
        outbox: Outbox,
        audio_format: AudioFormat,
        on_cut: Callable[[str, int, int, int], None],
    ) -> None:
        width = sample_bytes(audio_format)
        self._outbox = outbox
        self._bytes_per_ms = bytes_per_ms(audio_format)
        self._samples_per_ms = self._bytes_per_ms // width
        self._playout = Playout(self._samples_per_ms, width)
        self._on_cut = on_cut
        self._items: dict[str, Item] = {}
        self._indexes: dict[str, int] = {}
        self._silenced: dict[str, None] = {}
        self._finished: dict[str, None] = {}
        self._truncated: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        return self._playout.busy

    @property
    def holding(self) -> bool:
        """Whether the caller hears something that is no answer."""
        return self._playout.filling

    @property
    def ahead_ms(self) -> int:
        """How much sound waits to be played."""
        return self._playout.ahead // self._samples_per_ms

    @property
    def item_ids(self) -> set[str]:
        """The items that spoke."""
        return set(self._items)

    def truncated_ms(self, item_id: str) -> int | None:
        """Return where we cut an item, if we did."""
        return self._truncated.get(item_id)

    def play(self, event: dict[str, Any], audio: bytes) -> None:
        """Take the sound of a `response.output_audio.delta`."""
        response_id, item_id = str(event.get("response_id")), str(event.get("item_id"))
        if not audio or response_id in self._silenced:
            return
        item = self._items.get(item_id)
        if item is None:
            item = _remember(self._items, item_id, Item(item_id, "message", role="assistant"))
            index = event.get("content_index")
            _remember(self._indexes, item_id, index if isinstance(index, int) else 0)
        item.audio_ms += len(audio) / self._bytes_per_ms
        changes = self._playout.add(response_id, item, audio)
        self._outbox.put(PlayAudio(audio))
        if response_id in self._finished:
            # It came after its response's end, and nothing more will say that it is over.
            changes += self._playout.finish(response_id)
        self._tell(changes)

    def hold(self, sound: bytes) -> float:
        """Play sound that is no item's; return how many seconds it takes."""
        self._playout.fill(len(sound) // (self._bytes_per_ms // self._samples_per_ms))
        self._outbox.put(PlayAudio(sound))
        return len(sound) / self._bytes_per_ms / 1000

    def finish(self, response_id: str) -> None:
        """The response has made all its sound."""
        _remember(self._finished, response_id, None)
        self._tell(self._playout.finish(response_id))

    def finish_all(self) -> None:
        """No response will make any more sound, also none whose end nobody told."""
        self._tell(self._playout.finish(None))

    def progress(self, played: int) -> None:
        if changes := self._playout.progress(played):
            self._tell(changes)

    def drain(self, played: int) -> None:
        self.progress(played)
        self._tell(self._playout.drain(played))

    def cut(self, active: set[str]) -> bool:
        """
        Stop the sound now; of the responses in `active` nothing more is played. Returns whether anything sounded.
        """
        for response_id in active:
            _remember(self._silenced, response_id, None)
        if not self._playout.busy and not self._playout.filling:
            return False
        sounding = self._playout.sounding
        self._outbox.put(ClearPlayout())
        cuts = self._playout.cut()
        if sounding is not None:
            self._outbox.event(events.audio_cleared(sounding))
        for cut in cuts:
            # Its end may have come already, and more of its sound late.
            _remember(self._silenced, cut.response_id, None)
            _remember(self._truncated, cut.item.id, cut.heard_ms)
            self._on_cut(cut.item.id, self._indexes[cut.item.id], cut.heard_ms, int(cut.item.audio_ms))
        return True

    def _tell(self, changes: list[PlayoutChange]) -> None:
        for change in changes:
            told = events.audio_started if change.kind == "started" else events.audio_stopped
            self._outbox.event(told(change.response_id))


def _remember(known: dict[str, T], key: str, value: T) -> T:
    known[key] = value
    if len(known) > MAX_KNOWN:
        del known[next(iter(known))]
    return value
