"""
A brain that follows a file of rules, not instructions.

It is pure: the answer is a function of the rules, the conversation and the tools. The conversation is gone through
from its beginning for each answer, so nothing is kept between them, and what the app deletes or adds is seen.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offhook import ids

from ...engine import EngineUnavailable, Respond
from ...tokens import Allowance
from . import rulebook
from .brain import BrainPart, CallArguments, CallStarted, Ended, Say
from .config import BrainConfig
from .rulebook import Occasion, Rule, Rulebook, ToolCall, fill

__all__ = ["Reply", "RulesBrain", "reply"]

REMEDY = 'for a language model set [engine.brain] kind = "chat_completions", base_url and model'

_EDGES = " \t\n.,;:!?\"'"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the rules answer."""

    say: tuple[str, ...] = ()
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    "Tool names and arguments."
    rule: Rule | None = None
    state: str = ""
    slots: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Event:
    on: Occasion
    text: str = ""
    tool: str = ""


def reply(
    book: Rulebook,
    items: Sequence[Mapping[str, Any]],
    *,
    instructions: str = "",
    tools: Sequence[Mapping[str, Any]] = (),
    tool_choice: str | Mapping[str, Any] = "auto",
) -> Reply:
    """Return the answer to a conversation's last turn."""
    # What is over happened with the tools of its time; only the answer to come is bound by this response's choice.
    called: dict[str, Mapping[str, Any]] = {
        item["name"]: {} for item in items if item.get("type") == "function_call" and item.get("name")
    }
    *earlier, now = _events(items)
    talk = _Talk(book, instructions)
    for event in earlier:
        talk.take(event, called | _offered(tools, "auto"))
    return talk.take(now, _offered(tools, tool_choice))


def _offered(
    tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Return the parameters' schemas of the tools that may be called, by name."""
    if choice == "none":
        return {}
    offered = {tool["name"]: tool.get("parameters") or {} for tool in tools if tool.get("type") == "function"}
    if isinstance(choice, Mapping) and choice.get("name"):
        return {name: schema for name, schema in offered.items() if name == choice["name"]}
    return offered


def _events(items: Sequence[Mapping[str, Any]]) -> list[_Event]:
    events: list[_Event] = []
    tool_of = {
        item.get("call_id"): item.get("name", "") for item in items if item.get("type") == "function_call"
    }
    answered = False
    for item in items:
        kind, role = item.get("type"), item.get("role")
        if kind == "message" and role == "user":
            text = _text_of(item)
            events.append(_Event("said", text) if text else _Event("unheard"))
            answered = False
        elif kind == "function_call_output":
            events.append(
                _Event("result", str(item.get("output") or ""), tool_of.get(item.get("call_id"), ""))
            )
            answered = False
        elif kind == "message" and role == "assistant":
            if not events:
                events.append(_Event("start"))
            answered = True
    if not events:
        return [_Event("start")]
    if answered:
        events.append(_Event("again"))
    return events


def _text_of(item: Mapping[str, Any]) -> str:
    parts = (part.get("transcript") or part.get("text") or "" for part in item.get("content") or ())
    text = " ".join(part.strip() for part in parts)
    return text.replace("\u2019", "'").replace("\u2018", "'").strip()


class _Talk:
    """A conversation as the rules see it: a state, slots, and how often each rule has spoken."""

    def __init__(self, book: Rulebook, instructions: str) -> None:
        self._book = book
        self._instructions = instructions
        self._tools: Mapping[str, Mapping[str, Any]] = {}
        self._state = book.start
        self._slots = dict(book.slots)
        self._used: Counter[int] = Counter()
        self._last: tuple[str, ...] = ()

    def take(self, event: _Event, tools: Mapping[str, Mapping[str, Any]]) -> Reply:
        """Apply the rules to one event, with the tools' schemas by name; return what they answer."""
        self._tools = tools
        self._slots = {name: value for name, value in self._slots.items() if not name.startswith("result.")}
        self._slots |= {"text": event.text.strip(_EDGES), "tool": event.tool, "result": ""}
        if event.on == "result":
            self._slots |= _result_slots(event.text)
        for rule in self._book.rules:
            found = self._match(rule, event)
            if found is None:
                continue
            self._slots |= found
            calls = self._calls(rule)
            self._used[rule.number] += 1
            for name, template in rule.set.items():
                self._slots[name] = fill(template, self._slots) or ""
            self._state = rule.next or self._state
            if not rule.go_on:
                return self._answer(rule, calls)
        return Reply(state=self._state, slots=self._slots)

    def _answer(self, rule: Rule, calls: list[tuple[str, Mapping[str, Any]]]) -> Reply:
        if rule.repeat:
            say = self._last
        else:
            say = tuple(said for template in rule.say if (said := fill(template, self._slots)))
        if say:
            self._last = say
        return Reply(say, tuple(calls), rule, self._state, dict(self._slots))

    def _match(self, rule: Rule, event: _Event) -> dict[str, str] | None:
        """Return the slots that the rule's patterns fill if it applies, else None."""
        if rule.on != event.on or (rule.states and self._state not in rule.states):
            return None
        if not rule.tools <= self._tools.keys() or rule.without_tools & self._tools.keys():
            return None
        if rule.times is not None and self._used[rule.number] >= rule.times:
            return None
        if rule.repeat and not self._last:
            return None
        found = _search(rule.patterns, event.text, strip=_EDGES)
        asked = _search(rule.instructions, self._instructions, strip=None)
        if found is None or asked is None or any(pattern.search(event.text) for pattern in rule.unless):
            return None
        slots = self._slots | found | asked
        # What the rule's own patterns fill counts for `has`, not against `lacks`.
        if not all(slots.get(name) for name in rule.has) or any(self._slots.get(name) for name in rule.lacks):
            return None
        if not all(self._arguments(call, slots) is not None for call in rule.calls):
            return None
        return found | asked

    def _calls(self, rule: Rule) -> list[tuple[str, Mapping[str, Any]]]:
        return [
            (call.tool, arguments)
            for call in rule.calls
            if (arguments := self._arguments(call, self._slots)) is not None
        ]

    def _arguments(self, call: ToolCall, slots: Mapping[str, str]) -> dict[str, Any] | None:
        """Return a call's arguments, limited to what the tool takes; None if it is not offered or needs more."""
        schema = self._tools.get(call.tool)
        if schema is None:
            return None
        properties: Mapping[str, Any] = schema.get("properties") or {}
        arguments: dict[str, Any] = {}
        for name, candidates in call.arguments.items():
            if name not in properties:
                continue
            for candidate in candidates:
                value = fill(candidate, slots) if isinstance(candidate, str) else candidate
                fitted = None if value is None else _fit(value, properties[name])
                if fitted is not None:
                    arguments[name] = fitted
                    break
        if any(name not in arguments for name in schema.get("required") or ()):
            return None
        return arguments


def _search(patterns: Sequence[re.Pattern[str]], text: str, *, strip: str | None) -> dict[str, str] | None:
    """Return the groups of the first pattern that is found, {} if there are no patterns, None if none is found."""
    if not patterns:
        return {}
    for pattern in patterns:
        if match := pattern.search(text):
            groups = match.groupdict()
            return {name: value for name in groups if (value := (groups[name] or "").strip(strip))}
    return None


def _result_slots(output: str) -> dict[str, str]:
    slots = {"result": output}
    try:
        parsed = json.loads(output)
    except ValueError:
        return slots
    if isinstance(parsed, dict):
        slots |= {
            f"result.{name}": str(value)
            for name, value in parsed.items()
            if isinstance(value, str | int | float) and not isinstance(value, bool)
        }
        slots |= {
            f"result.{name}": "yes" if value else "no"
            for name, value in parsed.items()
            if isinstance(value, bool)
        }
    return slots


def _fit(value: Any, schema: Any) -> Any:
    """Return a value as a parameter's schema wants it, or None if it does not fit."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(allowed := schema.get("enum"), list):
        return next((one for one in allowed if _plain(one) == _plain(value)), None)
    kinds = schema.get("type", "string")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        fitted = _as_kind(value, kind)
        if fitted is not None:
            return fitted
    return None


def _as_kind(value: Any, kind: str) -> Any:
    text = str(value)
    try:
        match kind:
            case "string":
                return text
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "boolean":
                return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
    except ValueError:
        pass
    return None


def _plain(value: Any) -> str:
    """Return a word without its case and its kind of joint: PUT_THROUGH is put-through is put through."""
    return re.sub(r"[\s_-]+", "", str(value)).lower()


class RulesBrain:
    """The rules as an engine's brain."""

    def __init__(self, config: BrainConfig) -> None:
        self._config = config
        self._book: Rulebook | None = None

    async def start(self) -> None:
        try:
            self._book = rulebook.load(self._config.rules)
        except rulebook.RulesError as exc:
            raise EngineUnavailable(str(exc)) from exc

    async def close(self) -> None:
        pass

    def describe(self) -> Mapping[str, object]:
        name = self._book.name if self._book else "not loaded"
        return {
            "brain": f"rules: {name}",
            "follows_instructions": False,
            "note": f"follows rules, not instructions; {REMEDY}",
        }

    async def respond(self, command: Respond) -> AsyncGenerator[BrainPart, None]:
        assert self._book is not None
        answer = reply(
            self._book,
            command.items,
            instructions=command.instructions,
            tools=command.tools,
            tool_choice=command.tool_choice,
        )
        allowance = Allowance(command.max_output_tokens)
        if said := allowance.cut(" ".join(answer.say)):
            yield Say(said)
        for name, arguments in answer.calls:
            written = json.dumps(arguments, ensure_ascii=False)
            if allowance.holds(name + written):
                call_id = ids.opaque_id("call")
                yield CallStarted(call_id, name)
                yield CallArguments(call_id, written)
        yield Ended("incomplete", "max_output_tokens") if allowance.spent else Ended()
