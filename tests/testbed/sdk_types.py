"""The Realtime types of the openai package, field by field: models for what comes, typed dicts for what goes."""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import typing_extensions
from openai.types.realtime import (
    RealtimeClientEvent,
    RealtimeClientEventParam,
    RealtimeServerEvent,
    ResponseCreateEventWithReferencesParam,
)
from pydantic import BaseModel

__all__ = [
    "CLIENT_EVENTS",
    "OBJECTS",
    "SERVER_EVENTS",
    "Kind",
    "Way",
    "body",
    "fields",
    "name_of",
    "path_of",
    "values",
    "walk",
]

Kind = type[Any]
"A pydantic model, or a typed dict."


@dataclass(frozen=True)
class Step:
    """A field on the way from a root object to what is looked at."""

    kind: Kind
    name: str
    annotation: Any

    @property
    def shown(self) -> str:
        return f"{self.name}[]" if _lists(self.annotation) else self.name


Way = tuple[Step, ...]


def name_of(kind: Kind) -> str:
    """Return a type's name; a typed dict's without the `Param` that tells it from the model of the same fields."""
    return kind.__name__.removesuffix("Param")


@cache
def fields(kind: Kind) -> dict[str, Any]:
    """Return the annotations of a type's fields, by the names that go over the wire."""
    if issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    return typing_extensions.get_type_hints(kind)


def required(kind: Kind) -> frozenset[str]:
    if issubclass(kind, BaseModel):
        return frozenset(
            field.alias or name for name, field in kind.model_fields.items() if field.is_required()
        )
    # What `Required[...]` marks cannot be read from `__required_keys__` where annotations are kept as text.
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    return frozenset(name for name, hint in hints.items() if typing.get_origin(hint) in _REQUIRED)


def objects_of(annotation: Any) -> list[Kind]:
    """Return the objects among what a field may hold, in lists too."""
    return [one for one in _alternatives(annotation) if _is_object(one)]


def walk(kind: Kind, stops: frozenset[str], before: Way = ()) -> Iterator[Way]:
    """Yield the way to each field, objects before their parts. Objects in `stops` are not entered."""
    for name, annotation in fields(kind).items():
        way = (*before, Step(kind, name, annotation))
        yield way
        for inner in objects_of(annotation):
            if name_of(inner) not in stops and all(inner is not step.kind for step in way):
                yield from walk(inner, stops, way)


def path_of(way: Way) -> str:
    return ".".join(step.shown for step in way)


def values(way: Way) -> Iterator[Any]:
    """Yield a value for each kind of thing that the last field of a way may hold, but null."""
    step = way[-1]
    of_list = _lists(step.annotation)
    for value in _values(step.name, step.annotation):
        yield [value] if of_list and step.name not in _SAMPLES else value


def body(way: Way, value: Any) -> dict[str, Any]:
    """Return a root object with that value at the end of the way, and besides only what must be there."""
    for number, step in enumerate(reversed(way)):
        inner = [value] if number and _lists(step.annotation) else value
        value = minimal(step.kind) | {step.name: inner}
    return typing.cast("dict[str, Any]", value)


def minimal(kind: Kind) -> dict[str, Any]:
    """Return an object with the least that it must have, and its `type`."""
    must = required(kind) | (fields(kind).keys() & _ALWAYS.get(name_of(kind), {"type"}))
    least = {}
    for name in fields(kind):
        if name in must:
            first = next(_values(name, fields(kind)[name]))
            least[name] = [first] if _lists(fields(kind)[name]) else first
    return least


_REQUIRED = (typing_extensions.Required, typing.Required)
_ALWAYS = {"Content": {"type", "text"}, "RealtimeFunctionTool": {"type", "name"}}
"What the types call optional, and nobody can do without."
_SAMPLES: dict[str, Sequence[Any]] = {
    "audio": ["AAAA" * 1600],
    "arguments": ['{"a":1}'],
    "conversation": ["auto", "none"],
    "expires_at": [1_800_000_000],
    "idle_timeout_ms": [5000, 30000],
    "input_schema": [{"type": "object"}],
    "max_output_tokens": [1, 4096, "inf"],
    "metadata": [{"a": "b"}],
    "model": ["gpt-realtime", "whisper-1", "my-deployment"],
    "output_modalities": [["text"], ["audio"]],
    "parameters": [{"type": "object", "properties": {}}],
    "prefix_padding_ms": [0, 300],
    "retention_ratio": [0.8, 1.0],
    "silence_duration_ms": [200],
    "speed": [0.25, 1.5],
    "strength": [0.5],
    "threshold": [0.0, 0.7],
    "variables": [{"city": "Rome"}],
}
_PLAIN: dict[Any, Sequence[Any]] = {
    str: ["some_words"],
    int: [7],
    float: [0.5],
    bool: [True, False],
    object: [{"any": 1}],
}


def _values(name: str, annotation: Any) -> Iterator[Any]:
    """Yield what may stand in a field; for a list, what may stand in it."""
    if name in _SAMPLES and not objects_of(annotation):
        yield from _SAMPLES[name]
        return
    found = _alternatives(annotation)
    literals = [value for one in found if typing.get_origin(one) is Literal for value in typing.get_args(one)]
    for one in found:
        if _is_object(one):
            yield minimal(one)
        elif typing.get_origin(one) is dict:
            yield {"name": "value"}
        elif typing.get_origin(one) is not Literal and not (literals and one is str):
            yield from _PLAIN[one]
    yield from literals


@cache
def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return what may be held, without null, unions, lists, and what marks annotations."""
    origin = typing.get_origin(annotation)
    if origin in (
        typing.Annotated,
        typing_extensions.Required,
        typing_extensions.NotRequired,
        typing.Required,
    ):
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(itertools.chain.from_iterable(map(_alternatives, typing.get_args(annotation))))
    if _is_list(annotation):
        return _alternatives(typing.get_args(annotation)[0])
    if hasattr(annotation, "__value__"):
        return _alternatives(annotation.__value__)
    return () if annotation is type(None) else (annotation,)


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (list, Iterable, Sequence)


@cache
def _lists(annotation: Any) -> bool:
    """Whether what a field holds is a list, or may be one."""
    if _is_list(annotation):
        return True
    return (
        any(map(_lists, typing.get_args(annotation)))
        if typing.get_origin(annotation) is not Literal
        else False
    )


def _is_object(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or typing_extensions.is_typeddict(kind))


def _by_type(*unions: Any) -> dict[str, tuple[Kind, ...]]:
    found: dict[str, tuple[Kind, ...]] = {}
    for union in unions:
        for kind in _alternatives(union):
            (name,) = _values("type", fields(kind)["type"])
            found[name] = (*found.get(name, ()), kind)
    return found


def _reachable(*events: dict[str, tuple[Kind, ...]]) -> dict[str, tuple[Kind, ...]]:
    found: dict[str, tuple[Kind, ...]] = {}
    for kind in itertools.chain.from_iterable(itertools.chain.from_iterable(one.values() for one in events)):
        for way in walk(kind, frozenset()):
            for inner in objects_of(way[-1].annotation):
                if inner not in found.get(name_of(inner), ()):
                    found[name_of(inner)] = (*found.get(name_of(inner), ()), inner)
    return found


CLIENT_EVENTS = _by_type(
    RealtimeClientEvent, RealtimeClientEventParam, ResponseCreateEventWithReferencesParam
)
"Each event's type, and what the package knows it as: models and typed dicts."
SERVER_EVENTS = _by_type(RealtimeServerEvent)
OBJECTS = _reachable(CLIENT_EVENTS, SERVER_EVENTS)
"""What events hold, by the types' names."""
