"""
What `@openai/agents-realtime` takes of a frame, by its own rules.

The SDK makes an event that fails its schema a generic one, of which it does nothing, and says nothing (API rows V10 to
V13). `agents_js.json` holds its schemas as JSON Schema; `tests/compat/agents-js/schema.mjs` prints it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["RULES", "faults"]

RULES = Path(__file__).with_suffix(".json")

_Rules = dict[str, Any]
_RULES: _Rules = json.loads(RULES.read_text())
_OF_ITEMS = frozenset(
    {
        "conversation.item.added", "conversation.item.done", "conversation.item.retrieved",
        "response.output_item.added", "response.output_item.done",
    }
)  # fmt: skip
_KEYWORDS = frozenset(
    {
        "additionalProperties", "anyOf", "const", "enum", "items", "oneOf", "properties", "propertyNames", "required",
        "type",
    }
)  # fmt: skip
_KINDS: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


def faults(event: dict[str, Any]) -> list[str]:
    """
    Return why the SDK would not take an event for what it is; nothing of one that it does not know.

    Nothing of images and MCP either: only upstreams have these, and what they say of them comes down as it is.
    """
    if _is_an_upstreams_own(event):
        return []
    rules = _RULES["events"].get(event["type"])
    found = list(_faults(event, rules, event["type"])) if rules is not None else []
    if event["type"] in _OF_ITEMS and event["item"].get("type") == "message":
        found += _faults(_remembered(event), _RULES["message"], f"{event['type']} in the history")
    return found


def _is_an_upstreams_own(event: dict[str, Any]) -> bool:
    item = event.get("item", {})
    parts = item.get("content") or []
    return (
        "mcp" in event["type"]
        or str(item.get("type")).startswith("mcp")
        or any(part.get("type") == "input_image" for part in parts)
    )


def _remembered(event: dict[str, Any]) -> dict[str, Any]:
    """What the SDK makes of a message before it goes into the history."""
    item = event["item"]
    return {
        "itemId": item["id"],
        "previousItemId": event.get("previous_item_id"),
        "type": "message",
        "role": item["role"],
        "content": item["content"],
        "status": item.get("status", "completed"),
    }


def _faults(value: Any, rules: _Rules, where: str) -> Iterator[str]:
    """Judge a value by as much of JSON Schema as there is in the rules."""
    if unknown := rules.keys() - _KEYWORDS:
        raise AssertionError(f"{RULES.name} has rules that are not judged here: {sorted(unknown)}")
    kinds = rules.get("type", [])
    if kinds and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{where} is {value!r}, not {kinds}"
        return
    if "const" in rules and value != rules["const"]:
        yield f"{where} is {value!r}, not {rules['const']!r}"
    if "enum" in rules and value not in rules["enum"]:
        yield f"{where} is {value!r}, not one of {rules['enum']}"
    forms = [list(_faults(value, form, where)) for form in rules.get("anyOf") or rules.get("oneOf") or ()]
    if forms and all(forms):
        yield from min(forms, key=len)
    if isinstance(value, dict):
        yield from (f"{where} has no {name}" for name in rules.get("required", ()) if name not in value)
        for name, of_it in rules.get("properties", {}).items():
            if name in value:
                yield from _faults(value[name], of_it, f"{where}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _faults(part, rules.get("items", {}), f"{where}[{number}]")


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
