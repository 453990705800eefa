"""What clients ask of responses (API rows E11 to E16)."""

from __future__ import annotations

from offhook.realtime import client_events as client
from offhook.realtime.conversation import Conversation, Item
from offhook.realtime.engine import AudioFormat
from offhook.realtime.item_requests import ItemRequests
from offhook.realtime.listening import Listening
from offhook.realtime.response import ResponsePlan
from offhook.realtime.responses import Responses
from offhook.realtime.session_config import NamedToolChoice, SessionConfig
from offhook.realtime.validation import RequestError

__all__ = ["ResponseRequests"]


class ResponseRequests:
    """
    Starts and cancels responses; raises `RequestError` for what cannot be done.

    `needs_transcript`: the engine answers words, so a response waits for those of the sound in its context.
    """

    def __init__(
        self,
        conversation: Conversation,
        items: ItemRequests,
        listening: Listening,
        responses: Responses,
        needs_transcript: bool,
    ) -> None:
        self._conversation = conversation
        self._items = items
        self._listening = listening
        self._responses = responses
        self._needs_transcript = needs_transcript

    def create(
        self,
        event: client.ResponseCreate,
        config: SessionConfig,
        audio_format: AudioFormat,
        now: float,
    ) -> None:
        plan = ResponsePlan.create(config, event.response)
        _check_choice(event.response, plan)
        context = self._items.context(event.response, config.audio, audio_format)
        if not self._needs_transcript:
            self._responses.create(plan, context=context)
            return
        waits_for = self._listening.pending_items
        unheard: list[Item] = []
        if context is not None:
            unheard = [item for item in context if item.needs_words and item.id not in self._conversation]
            waits_for = waits_for.intersection(item.id for item in context).union(item.id for item in unheard)
        self._responses.create(plan, context=context, waits_for=waits_for)
        for item in unheard:
            self._listening.transcribe_item(item, now)

    def cancel(self, event: client.ResponseCancel) -> None:
        response = self._responses.find(event.response_id)
        if response is None:
            raise RequestError("response_cancel_not_active", "Cancellation failed: no active response found.")
        self._responses.cancel(response, "client_cancelled")


def _check_choice(params: client.ResponseParams | None, plan: ResponsePlan) -> None:
    choice = params.tool_choice if params is not None else None
    if isinstance(choice, NamedToolChoice) and choice.name not in {tool["name"] for tool in plan.tools}:
        message = f"Tool choice '{choice.name}' is not among the tools of this response: add it to 'tools'."
        raise RequestError("invalid_value", message, "response.tool_choice.name")
