"""
An accept body whose model somebody else serves: judged in what is known, passed on in what is not.

What the API has that this server has not, or has not yet, is the upstream's to judge: fields, kinds of tools, words of
an enumeration. What is known keeps its type, so that a slip is a 400 while the phone still rings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from offhook.realtime.session_config import ConfigError, SessionConfig, parse_accept, without_nulls
from offhook.realtime.validation import JsonObject

__all__ = ["parse_relayed"]

_WHOLE = TypeAdapter(JsonObject)
_GONE = object()
_Path = tuple[int | str, ...]


def parse_relayed(body: Any) -> tuple[SessionConfig, dict[str, Any]]:
    """Return what is known of the session, and all that was given. Raises `ConfigError`."""
    if not isinstance(body, Mapping):
        return parse_accept(body), {}
    try:
        known = copy.deepcopy(_WHOLE.validate_python(dict(body)))
    except ValidationError as error:
        raise ConfigError(
            "invalid_value", f"Invalid session: {error.errors()[0]['msg']}.", "session"
        ) from None
    removed: set[_Path] = set()
    while True:
        try:
            SessionConfig.model_validate(without_nulls(known))
        except ValidationError as error:
            unknown = {path for fault in error.errors() if (path := _unknown(fault, known, removed))}
            if not unknown:
                break
            _remove(known, unknown)
            removed |= unknown
        else:
            break
    return parse_accept(known, stored_prompts=True), without_nulls(body)


def _unknown(fault: Mapping[str, Any], known: Mapping[str, Any], removed: set[_Path]) -> _Path | None:
    """Return the place of what we do not know, if that is the fault."""
    path, value = _resolve(known, fault["loc"]), fault["input"]
    match fault["type"]:
        case "extra_forbidden":
            return path
        case "union_tag_not_found" | "type_not_found" if _names_type(value):
            return path
        case "literal_error" if isinstance(value, str) and path != ("type",):
            return path
        case "missing" if path in removed:
            # Its kind was not known: neither is what it is the kind of.
            return path[:-1]
        case _:
            return None


def _names_type(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


def _resolve(value: Any, location: Sequence[int | str]) -> _Path:
    """Return a location without the tags of unions, which are no part of the body."""
    path: list[int | str] = []
    for number, part in enumerate(location):
        last = number == len(location) - 1
        if isinstance(value, Mapping) and (part in value or (last and not str(part).startswith("@"))):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _remove(known: dict[str, Any], paths: set[_Path]) -> None:
    for path in paths:
        holder: Any = known
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = _GONE
    _sweep(known)


def _sweep(value: Any) -> None:
    if isinstance(value, dict):
        for name in [name for name, part in value.items() if part is _GONE]:
            del value[name]
        for part in value.values():
            _sweep(part)
    elif isinstance(value, list):
        value[:] = [part for part in value if part is not _GONE]
        for part in value:
            _sweep(part)
