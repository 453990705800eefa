"""One finding of the doctor's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "fault", "ok", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    level: Literal["ok", "warning", "fault"]
    check: str
    "What was looked at: `ports`, `addresses`, `certificate` ..."
    text: str
    remedy: str = ""
    "What would help; every warning and fault has one."

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, text: str, remedy: str = "") -> Finding:
    return Finding("ok", check, text, remedy)


def warning(check: str, text: str, remedy: str) -> Finding:
    return Finding("warning", check, text, remedy)


def fault(check: str, text: str, remedy: str) -> Finding:
    return Finding("fault", check, text, remedy)
