"""Why a call went as it did: one sentence, whose affair it is, and what would help."""

from .judge import judge
from .record import Verdict
from .story import Story

__all__ = ["Story", "Verdict", "judge"]
