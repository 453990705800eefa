"""What is wrong with a configuration, in one line for each key."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from offhook.config_trunks import ConfigError

__all__ = ["explain", "explain_environment", "refuse_unknown_variables"]

_REFERENCE = "no such key; see docs/reference/configuration.md"


def explain(error: ValidationError, path: Path | None) -> str:
    """Return a line for each fault: the file, the key, what is wrong with it."""
    where = str(path) if path is not None else "environment"
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = _REFERENCE
        elif fault["type"] == "tuple_type":
            message = 'write a list, in brackets: ["..."]'  # what was given may be a key
        lines.append(": ".join(part for part in (where, key, message) if part))
    return "\n".join(lines)


def explain_environment(error: SettingsError) -> str:
    """Return which variable is no JSON, though its key wants a list or a table."""
    text = getattr(error.__cause__, "doc", None)
    named = [name for name, value in os.environ.items() if name.startswith("OFFHOOK_") and value == text]
    which = ", ".join(named) or "OFFHOOK_..."
    return (
        f"environment: {which}: lists and tables are written as JSON, such as "
        """OFFHOOK_SIP__LISTEN='["udp:127.0.0.1:5060"]'"""
    )


def refuse_unknown_variables(tables: Container[str]) -> None:
    """Raises `ConfigError` for `OFFHOOK_<TABLE>__<KEY>` of a table that does not exist: it would be passed over."""
    for name in sorted(os.environ):
        table, nested, _ = name.upper().removeprefix("OFFHOOK_").partition("__")
        if nested and name.upper().startswith("OFFHOOK_") and table.lower() not in tables:
            raise ConfigError(f"environment: {name}: {_REFERENCE}")
