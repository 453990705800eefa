"""
A rules brain's file: what it may say, read and checked before the first call.

The format is described in docs/reference/rules-brain.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

__all__ = ["BUILT_IN", "Rule", "Rulebook", "RulesError", "ToolCall", "load", "parse", "placeholders"]

BUILT_IN = Path(__file__).with_name("rules") / "receptionist.toml"

Occasion = Literal["start", "said", "unheard", "result", "again"]

_FILE_KEYS = {"format", "name", "description", "start", "slots", "words", "rules"}
_RULE_KEYS = {
    "name", "on", "state", "tools", "without_tools", "pattern", "unless", "instructions", "has", "lacks", "times",
    "set", "say", "call", "next", "go_on", "repeat",
}  # fmt: skip
_SLOT = r"[A-Za-z_][A-Za-z0-9_]*"
_PLACEHOLDER = re.compile(rf"\{{({_SLOT}(?:\.{_SLOT})?)(:digits|:word)?\}}")
_WORD = re.compile(rf"\{{\{{({_SLOT})\}}\}}")
GIVEN = frozenset({"text", "tool", "result"})
"""Slots that every turn fills by itself."""


class RulesError(ValueError):
    """The file cannot be used; the message names the file, the rule and the field, and says what to do."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    tool: str
    arguments: Mapping[str, tuple[Any, ...]]
    "For each parameter its candidates; the first that fits is used."


@dataclass(frozen=True, slots=True)
class Rule:
    """When something is said and done, and what."""

    number: int
    name: str
    on: Occasion
    states: frozenset[str]
    "Empty: any state."
    tools: frozenset[str]
    without_tools: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]
    "Any of them must be found. None given: any text."
    unless: tuple[re.Pattern[str], ...]
    instructions: tuple[re.Pattern[str], ...]
    has: frozenset[str]
    lacks: frozenset[str]
    times: int | None
    set: Mapping[str, str]
    say: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    next: str | None
    go_on: bool
    repeat: bool


@dataclass(frozen=True, slots=True)
class Rulebook:
    name: str
    description: str
    start: str
    slots: Mapping[str, str]
    rules: tuple[Rule, ...]


def placeholders(template: str) -> set[str]:
    """Return the slots that a template names."""
    return {match.group(1) for match in _PLACEHOLDER.finditer(template)}


def fill(template: str, slots: Mapping[str, str]) -> str | None:
    """Return a template with its slots filled in; None if one of them is empty."""
    if any(not slots.get(name) for name in placeholders(template)):
        return None
    return _PLACEHOLDER.sub(lambda m: _shown(slots[m.group(1)], m.group(2)), template)


def _shown(value: str, form: str | None) -> str:
    if form is None:
        return value
    if form == ":word":
        # What was spelt, S-M-I-T-H, as the word that it is.
        return "".join(char for char in value if char.isalpha()).capitalize() or value
    # Digits one by one, in groups of three: read out, not added up.
    digits = re.sub(r"\D", "", value)
    return ", ".join(" ".join(digits[i : i + 3]) for i in range(0, len(digits), 3)) or value


def load(path: Path | None) -> Rulebook:
    """Read a file, or the built-in receptionist. Raises `RulesError`."""
    path = path or BUILT_IN
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RulesError(f"engine.brain.rules: {path} cannot be read: {exc}") from exc
    return parse(text, str(path))


def parse(text: str, source: str = "rules") -> Rulebook:
    """Read the file's text. Raises `RulesError`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise RulesError(f"{source}: not TOML: {exc}") from exc
    reader = _Reader(source)
    reader.known(table, _FILE_KEYS)
    if table.get("format") != 1:
        reader.fail("format", "must be 1, the only format there is")
    start = reader.text(table, "start", "start")
    words = {name: reader.text(table.get("words", {}), name) for name in reader.table(table, "words")}
    slots = {name: reader.text(table.get("slots", {}), name) for name in reader.table(table, "slots")}
    rules_given = table.get("rules")
    if not isinstance(rules_given, list) or not rules_given:
        reader.fail("rules", "give at least one [[rules]] table")
    rules = tuple(
        _RuleReader(source, number, given, words).read() for number, given in enumerate(rules_given, 1)
    )
    book = Rulebook(
        reader.text(table, "name", "rules"), reader.text(table, "description", ""), start, slots, rules
    )
    _check_states(book, reader)
    _check_slots(book, source)
    return book


def _check_states(book: Rulebook, reader: _Reader) -> None:
    reachable = {book.start} | {rule.next for rule in book.rules if rule.next}
    for rule in book.rules:
        for state in sorted(rule.states - reachable):
            reader.fail(f"rule {rule.number} ({rule.name}): state", f"no rule's next leads to {state!r}")


def _check_slots(book: Rulebook, source: str) -> None:
    filled = set(book.slots) | GIVEN
    for rule in book.rules:
        filled |= rule.set.keys()
        for pattern in (*rule.patterns, *rule.instructions):
            filled |= pattern.groupindex.keys()
    for rule in book.rules:
        used = set(rule.has | rule.lacks)
        for template in (*rule.say, *rule.set.values(), *_argument_templates(rule)):
            used |= {name.partition(".")[0] for name in placeholders(template)}
        for name in sorted(used - filled):
            raise RulesError(
                f"{source}: rule {rule.number} ({rule.name}): nothing fills the slot {name!r}; "
                f"name a pattern's group so, or put it in set or [slots]"
            )


def _argument_templates(rule: Rule) -> list[str]:
    return [
        candidate
        for call in rule.calls
        for candidates in call.arguments.values()
        for candidate in candidates
        if isinstance(candidate, str)
    ]


class _Reader:
    """Takes values out of a table, with errors that say where."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, key: str, fault: str) -> NoReturn:
        raise RulesError(f"{self.where}: {key}: {fault}")

    def known(self, table: Mapping[str, Any], keys: set[str]) -> None:
        for key in table:
            if key not in keys:
                self.fail(key, f"unknown key; known are {', '.join(sorted(keys))}")

    def text(self, table: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            raise RulesError(f"{self.where}: {key}: must be a string")
        return value

    def table(self, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise RulesError(f"{self.where}: {key}: must be a table")
        return value

    def texts(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        """Return a string, or a list of strings, as a tuple."""
        value = table.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise RulesError(f"{self.where}: {key}: must be a string or a list of strings")
        return tuple(values)


class _RuleReader(_Reader):
    """Reads one `[[rules]]` table."""

    def __init__(self, source: str, number: int, given: Any, words: Mapping[str, str]) -> None:
        super().__init__(f"{source}: rule {number}")
        if not isinstance(given, dict):
            self.fail("rules", "must be a table")
        self._number = number
        self._given: dict[str, Any] = given
        self._words = words
        if isinstance(name := given.get("name"), str):
            self.where += f" ({name})"

    def read(self) -> Rule:
        given = self._given
        self.known(given, _RULE_KEYS)
        on = self.text(given, "on", "said")
        if on not in get_args(Occasion):
            self.fail("on", f"must be one of {', '.join(get_args(Occasion))}")
        rule = Rule(
            number=self._number,
            name=self.text(given, "name", ""),
            on=on,  # type: ignore[arg-type]  # checked above
            states=frozenset(self.texts(given, "state")),
            tools=frozenset(self.texts(given, "tools")),
            without_tools=frozenset(self.texts(given, "without_tools")),
            patterns=self._patterns("pattern"),
            unless=self._patterns("unless"),
            instructions=self._patterns("instructions"),
            has=frozenset(self.texts(given, "has")),
            lacks=frozenset(self.texts(given, "lacks")),
            times=self._times(),
            set={name: self.text(self.table(given, "set"), name) for name in self.table(given, "set")},
            say=self.texts(given, "say"),
            calls=self._calls(),
            next=self.text(given, "next") if "next" in given else None,
            go_on=self._flag("go_on"),
            repeat=self._flag("repeat"),
        )
        self._check(rule)
        return rule

    def _check(self, rule: Rule) -> None:
        if rule.go_on and (rule.say or rule.calls or rule.repeat):
            self.fail(
                "go_on",
                "a rule that goes on to the next one only sets slots and the state: leave out say, call and repeat",
            )
        if not (rule.go_on or rule.say or rule.calls or rule.repeat or rule.next or rule.set):
            self.fail("say", "the rule does nothing: give it say, call, next, set or repeat")

    def _patterns(self, key: str) -> tuple[re.Pattern[str], ...]:
        return tuple(self._pattern(key, text) for text in self.texts(self._given, key))

    def _pattern(self, key: str, text: str) -> re.Pattern[str]:
        try:
            return re.compile(_WORD.sub(lambda m: f"(?:{self._word(key, m.group(1))})", text), re.IGNORECASE)
        except re.error as exc:
            raise RulesError(f"{self.where}: {key}: {text!r} is no regular expression: {exc}") from exc

    def _word(self, key: str, name: str) -> str:
        if name not in self._words:
            self.fail(key, f"there is no {name!r} in [words]")
        return self._words[name]

    def _times(self) -> int | None:
        times = self._given.get("times")
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
            self.fail("times", "must be a whole number from 1")
        return times

    def _flag(self, key: str) -> bool:
        value = self._given.get(key, False)
        if not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return bool(value)

    def _calls(self) -> tuple[ToolCall, ...]:
        given = self._given.get("call", [])
        calls = [given] if isinstance(given, dict) else given
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            self.fail("call", "must be a table { tool, arguments }, or a list of them")
        return tuple(self._call(call) for call in calls)

    def _call(self, call: Mapping[str, Any]) -> ToolCall:
        self.known(call, {"tool", "arguments"})
        arguments = self.table(call, "arguments")
        candidates = {
            name: tuple(value) if isinstance(value, list) else (value,) for name, value in arguments.items()
        }
        for name, values in candidates.items():
            if not all(isinstance(value, str | int | float) for value in values):
                self.fail(
                    f"call.arguments.{name}",
                    "must be a string, a number or a boolean, or a list of candidates",
                )
        return ToolCall(self.text(call, "tool"), candidates)
