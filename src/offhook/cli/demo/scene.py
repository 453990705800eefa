"""What the caller of the demo says, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CALLER", "MESSAGE", "TRANSFER", "Scene"]

CALLER = "Anna Miller"


@dataclass(frozen=True, slots=True)
class Scene:
    sentences: tuple[str, ...]
    decision: str
    "What the app's tool must be told."
    outcome: str
    "What is said at the end, when all went well."

    @property
    def leaves_message(self) -> bool:
        """Whether the last sentence is a message, to be recorded."""
        return self.decision == "VOICEMAIL"


TRANSFER = Scene(
    (
        "Hello, am I talking to a real person?",
        f"All right, this is {CALLER} from the dental clinic.",
        "I am calling about our meeting on Tuesday.",
    ),
    "ALLOW",
    "transferred",
)
MESSAGE = Scene(
    (
        f"Hello, this is {CALLER}.",
        "I just wanted to chat about the book club.",
        "Please tell them that we start at eight on Friday.",
    ),
    "VOICEMAIL",
    "left a message",
)
