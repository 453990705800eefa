"""Whether the agent is saying something, told from what its session tells its clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Saying"]


class Saying:
    """
    Pure: give it every server event of a phone call's session, in order.

    The agent is saying something from `response.created` until its response is done and the caller has heard the last
    of it, or will hear no more of it.
    """

    def __init__(self) -> None:
        self.cuts = 0
        "How often it was cut short: by the caller's voice, `response.cancel` or `output_audio_buffer.clear`."
        self._making: set[object] = set()
        self._sounding: object = None

    @property
    def busy(self) -> bool:
        return bool(self._making) or self._sounding is not None

    def receive(self, event: Mapping[str, Any]) -> None:
        """Take an event. Look at `busy` after all events of one cause: one response may follow another."""
        match event.get("type"):
            case "response.created":
                self._making.add(_response_id(event))
            case "response.done":
                self._making.discard(_response_id(event))
                self.cuts += _field(event, "status") == "cancelled"
            case "output_audio_buffer.started":
                self._sounding = event.get("response_id")
            case "output_audio_buffer.stopped":
                self._sounding = None
            case "output_audio_buffer.cleared":
                self._sounding = None
                self.cuts += 1


def _response_id(event: Mapping[str, Any]) -> object:
    found = _field(event, "id")
    return found if isinstance(found, str) else None


def _field(event: Mapping[str, Any], name: str) -> object:
    response = event.get("response")
    return response.get(name) if isinstance(response, Mapping) else None
