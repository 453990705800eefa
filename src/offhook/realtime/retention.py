"""What of a long conversation an engine still gets (row G16)."""

from __future__ import annotations

from typing import Any

import orjson

from offhook.realtime.conversation import Conversation, Item
from offhook.realtime.response import ResponsePlan
from offhook.realtime.session_config import RetentionRatio
from offhook.realtime.tokens import count_tokens

__all__ = ["ContextTooLong", "Retention"]

ANSWER_TOKENS = 4096
"Kept free for an answer without a limit of its own: the most that the API lets one ask for."
ITEM_TOKENS = 4
"What an item costs besides its words."


class ContextTooLong(Exception):  # noqa: N818 - what the context is, not a fault
    """The conversation does not fit, and must not be cut; the message says by how much."""


class Retention:
    """
    Leaves out a conversation's oldest items once it is too long, as the session's `truncation` says.

    What was left out stays out, so that the beginning of what a model reads stays the same from turn to turn; only
    the engine misses it: it can be retrieved as before.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._context_tokens = conversation.rules.context_tokens
        self.left_out = 0
        "How many items the last `items` left out that the one before had."

    def items(self, plan: ResponsePlan) -> list[dict[str, Any]]:
        """Return the conversation for a response. Raises `ContextTooLong` when `truncation` is `disabled`."""
        self.left_out = 0
        if (newest := next(self._conversation.newest_first(), None)) is not None:
            # What came after it may have been deleted.
            newest.left_out = False
        room = self._room(plan)
        if room is None or self._fits(room):
            return self._conversation.to_engine()
        if plan.truncation == "disabled":
            raise ContextTooLong(
                f"The conversation is longer than the {max(room, 0)} tokens that the model has room for besides its "
                "instructions, tools and answer, and truncation is 'disabled'."
            )
        ratio = plan.truncation.retention_ratio if isinstance(plan.truncation, RetentionRatio) else 1.0
        self._cut(room * ratio)
        return self._conversation.to_engine()

    def _room(self, plan: ResponsePlan) -> int | None:
        """Return how many tokens the conversation may have."""
        limits = plan.truncation.token_limits if isinstance(plan.truncation, RetentionRatio) else None
        asked = limits.post_instructions if limits is not None else None
        if self._context_tokens is None:
            return asked
        tools = count_tokens(orjson.dumps(plan.tools).decode()) if plan.tools else 0
        answer = ANSWER_TOKENS if plan.max_output_tokens == "inf" else plan.max_output_tokens
        room = self._context_tokens - count_tokens(plan.instructions) - tools - answer
        return room if asked is None else min(room, asked)

    def _fits(self, room: int) -> bool:
        for item in self._conversation.newest_first():
            room -= 0 if item.left_out else _weight(item)
            if room < 0:
                return False
        return True

    def _cut(self, room: float) -> None:
        """Leave out all but the newest items that fit; the newest of all is what is to be answered, and stays."""
        kept: list[Item] = []
        full = False
        for item in self._conversation.newest_first():
            if item.left_out:
                continue
            room -= _weight(item)
            full = full or (room < 0 and bool(kept))
            if full:
                self._leave_out(item)
            else:
                kept.append(item)
        called = {item.call_id for item in kept if item.type == "function_call"}
        for item in kept[1:]:
            # A result says nothing without its call.
            if item.type == "function_call_output" and item.call_id not in called:
                self._leave_out(item)

    def _leave_out(self, item: Item) -> None:
        item.left_out = True
        self.left_out += 1


def _weight(item: Item) -> int:
    words = sum(count_tokens(part.get("text") or part.get("transcript") or "") for part in item.content)
    return ITEM_TOKENS + words + count_tokens(item.name + item.arguments + item.output)
