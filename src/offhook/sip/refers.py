"""All REFERs of one leg: which a NOTIFY is about, and what became of each."""

from __future__ import annotations

from collections.abc import Callable

from .refer import Refer, ReferPending, ReferUpdate

__all__ = ["Refers"]


class Refers:
    """At most one of them is without an outcome at a time. Updates go to `on_update` as they become known."""

    def __init__(self, *, notify_timeout: float, on_update: Callable[[ReferUpdate], None]) -> None:
        self._notify_timeout = notify_timeout
        self._on_update = on_update
        self._refers: list[Refer] = []
        self._by_key: dict[int, Refer] = {}

    def __len__(self) -> int:
        return len(self._refers)

    def create(self) -> Refer:
        """Return the next one; `add` it once its request is on its way. Raises `ReferPending`."""
        if any(refer.is_pending for refer in self._refers):
            raise ReferPending(f"REFER {len(self._refers)} of this leg has no outcome yet")
        return Refer(len(self._refers) + 1, 0, notify_timeout=self._notify_timeout)

    def add(self, refer: Refer, key: int) -> None:
        """Note that `refer` is request number `key`."""
        self._refers.append(refer)
        self._by_key[key] = refer
        self.drain()  # it may have failed at once

    def find(self, event_params: str) -> Refer | None:
        """
        Return the one that a NOTIFY with these parameters of Event is about.

        RFC 3515 section 2.4.6: `id` is the REFER's CSeq; it may be left out, and often is.
        """
        for param in event_params.split(";"):
            name, _, value = param.partition("=")
            if name.strip().lower() == "id":
                return next((r for r in self._refers if r.cseq and str(r.cseq) == value.strip()), None)
        sent = [refer for refer in self._refers if refer.cseq]
        return next((refer for refer in sent if refer.is_pending), sent[-1] if sent else None)

    def stop_waiting(self, key: int, *, was_sent: bool) -> None:
        """Note that nobody waits for the answer to request `key` any more."""
        if refer := self._by_key.get(key):
            refer.give_up_waiting()
            if not was_sent:
                reason = "it was not sent: the ACK to our 200 did not come"
                refer.transaction_failed(reason, was_sent=False)
                self.drain()

    def end(self, *, by_peer: bool) -> None:
        """Note that the call is over."""
        for refer in self._refers:
            if by_peer:
                refer.receive_bye()
            else:
                refer.hung_up()
        self.drain()

    def next_timer(self) -> float | None:
        if not self._refers:
            return None
        return min([d for refer in self._refers if (d := refer.next_timer()) is not None], default=None)

    def handle_timer(self, *, now: float) -> None:
        for refer in self._refers:
            refer.handle_timer(now=now)
        self.drain()

    def drain(self) -> None:
        """Hand on what the REFERs have to say."""
        for refer in self._refers:
            for update in refer.outputs():
                self._on_update(update)
