"""
Chat Completions as text: the request that a conversation becomes, and the stream that comes back.

Pure: `brain_chat` owns the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from ...engine import Respond
from .brain import BrainPart, CallArguments, CallStarted, Ended, Say

__all__ = ["Answer", "ChatError", "SseReader", "create_request", "messages_of"]

_MAX_EVENT = 1 << 20


class ChatError(Exception):
    """
    No answer, or only a part of one.

    `code` and the message go into the response's error, which the app sees; `detail` into the node's log alone, since
    the endpoint's address and its own words are the operator's affair.
    """

    def __init__(self, code: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


# The request.


def create_request(command: Respond, model: str) -> dict[str, Any]:
    """Return the body of `POST {base_url}/chat/completions` for a response."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages_of(command.instructions, command.items),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    tools = [_tool(tool) for tool in command.tools if tool.get("type") == "function"]
    if tools:
        body["tools"] = tools
        body["tool_choice"] = _tool_choice(command.tool_choice)
        if command.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = command.parallel_tool_calls
    if command.max_output_tokens != "inf":
        body["max_tokens"] = command.max_output_tokens
    return body


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {key: tool[key] for key in ("name", "description", "parameters") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | Mapping[str, Any]) -> Any:
    if isinstance(choice, str):
        return choice
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return "auto"


def messages_of(instructions: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Return the conversation as chat messages.

    Endpoints insist that each tool call is followed by its result and each result follows its call. On a phone the
    caller may speak in between, or the app may never answer, so results are put right behind their calls, and a call
    without one says so.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    results = {item.get("call_id"): item for item in items if item.get("type") == "function_call_output"}
    calls = {item.get("call_id") for item in items if item.get("type") == "function_call"}
    pending: list[Mapping[str, Any]] = []
    for item in items:
        if item.get("type") == "function_call":
            pending.append(item)
            continue
        messages += _called(pending, results)
        pending = []
        if item.get("type") == "message":
            if text := _text_of(item):
                messages.append({"role": item.get("role", "user"), "content": text})
        elif item.get("type") == "function_call_output" and item.get("call_id") not in calls:
            messages.append({"role": "system", "content": f"A tool's result: {item.get('output', '')}"})
    return messages + _called(pending, results)


def _called(calls: list[Mapping[str, Any]], results: Mapping[Any, Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not calls:
        return []
    made = [
        {
            "id": call.get("call_id"),
            "type": "function",
            "function": {"name": call.get("name"), "arguments": call.get("arguments") or "{}"},
        }
        for call in calls
    ]
    answered = [
        {
            "role": "tool",
            "tool_call_id": call.get("call_id"),
            "content": results.get(call.get("call_id"), {}).get("output", "(no result yet)"),
        }
        for call in calls
    ]
    return [{"role": "assistant", "content": None, "tool_calls": made}, *answered]


def _text_of(item: Mapping[str, Any]) -> str:
    parts = (part.get("text") or part.get("transcript") or "" for part in item.get("content") or ())
    return " ".join(part.strip() for part in parts if part.strip())


# The stream.


class SseReader:
    """Server-sent events: bytes in, each event's data out. Comments, ids and event names are left out."""

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take what came; return the data of the events that are whole. Raises `ChatError` for an endless one."""
        self._buffer += data
        if len(self._buffer) > _MAX_EVENT:
            raise ChatError("brain_garbage", "the language model's endpoint sent an event of more than 1 MiB")
        *lines, self._buffer = self._buffer.split(b"\n")
        events: list[bytes] = []
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line:
                events += self._end()
        return events

    def finish(self) -> list[bytes]:
        """Return a last event that no empty line ended."""
        return self.receive_data(b"\n\n")

    def _end(self) -> list[bytes]:
        data, self._data = b"\n".join(self._data), []
        return [data] if data else []


@dataclass
class _Call:
    call_id: str
    name: str
    index: int
    arguments: str = ""


@dataclass
class Answer:
    """
    One answer, put together from the stream's chunks.

    Servers differ: some number their tool calls, some send each whole, some leave out the number or the id. Ids are
    ours anyway, because some servers use the same ones in every answer.
    """

    new_call_id: Callable[[], str]
    finish_reason: str | None = None
    done: bool = False
    said: bool = False
    _calls: list[_Call] = field(default_factory=list)
    _their_ids: dict[str, _Call] = field(default_factory=dict)
    _input_tokens: int = 0
    _output_tokens: int = 0
    _cached_tokens: int = 0
    _thinking: _ThoughtFilter = field(default_factory=lambda: _ThoughtFilter())

    def receive_event(self, data: bytes) -> list[BrainPart]:
        """Take one event's data. Raises `ChatError`."""
        if data.strip() == b"[DONE]":
            self.done = True
            return []
        return self.receive_object(_parse(data))

    def receive_object(self, chunk: Any) -> list[BrainPart]:
        """Take one chunk, or the whole completion of a server that does not stream."""
        if not isinstance(chunk, dict):
            raise ChatError("brain_garbage", "the language model's endpoint sent JSON that is no object")
        if error := chunk.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            raise ChatError("brain_error", f"the language model's endpoint reports: {message}")
        if isinstance(usage := chunk.get("usage"), dict):
            self._input_tokens = _count(usage.get("prompt_tokens"))
            self._output_tokens = _count(usage.get("completion_tokens"))
            details = usage.get("prompt_tokens_details")
            self._cached_tokens = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
        choices = chunk.get("choices") or []
        if not (isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)):
            raise ChatError(
                "brain_garbage",
                "the language model's endpoint sent a chunk whose choices are no list of objects",
            )
        parts: list[BrainPart] = []
        for choice in choices[:1]:
            delta = choice.get("delta") or choice.get("message") or {}
            if not isinstance(delta, dict):
                raise ChatError(
                    "brain_garbage", "the language model's endpoint sent a delta that is no object"
                )
            parts += self._receive_delta(delta)
            self.finish_reason = _string(choice.get("finish_reason")) or self.finish_reason
        return parts

    def finish(self, *, expect_words: bool) -> list[BrainPart]:
        """Return the last parts. Raises `ChatError` if the answer is cut or empty, or arguments are no JSON object."""
        if not (self.done or self.finish_reason):
            raise ChatError(
                "brain_cut", "the language model's endpoint closed the stream before the answer was whole"
            )
        parts: list[BrainPart] = [Say(text)] if (text := self._thinking.flush()) else []
        self.said = self.said or bool(parts)
        for call in self._calls:
            parts += _closing(call)
        if not self.said and not self._calls and expect_words and self.finish_reason in (None, "stop"):
            raise ChatError("brain_empty", "the language model's answer is empty")
        end = Ended(
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            cached_tokens=self._cached_tokens,
        )
        match self.finish_reason:
            case "length":
                return [*parts, replace(end, status="incomplete", reason="max_output_tokens")]
            case "content_filter":
                return [*parts, replace(end, status="incomplete", reason="content_filter")]
            case _:
                return [*parts, end]

    def _receive_delta(self, delta: Mapping[str, Any]) -> list[BrainPart]:
        parts: list[BrainPart] = []
        content = delta.get("content")
        if isinstance(content, str) and (text := self._thinking.push(content)):
            self.said = self.said or bool(text.strip())
            parts.append(Say(text))
        calls = delta.get("tool_calls") or ()
        if not isinstance(calls, Iterable):
            raise ChatError("brain_garbage", "the language model's endpoint sent tool_calls that are no list")
        for fragment in calls:
            parts += self._receive_call(fragment)
        return parts

    def _receive_call(self, given: Any) -> list[BrainPart]:
        fragment = _Fragment.parse(given)
        parts: list[BrainPart] = []
        call = self._find(fragment)
        if call is None:
            if not fragment.name:
                raise ChatError(
                    "brain_garbage", "the language model's endpoint sent a tool call without a name"
                )
            call = _Call(self.new_call_id(), fragment.name, fragment.index or 0)
            self._calls.append(call)
            if fragment.id:
                self._their_ids[fragment.id] = call
            parts.append(CallStarted(call.call_id, call.name))
        if fragment.arguments:
            call.arguments += fragment.arguments
            parts.append(CallArguments(call.call_id, fragment.arguments))
        return parts

    def _find(self, fragment: _Fragment) -> _Call | None:
        if fragment.id:
            # A known id goes on; an unknown one begins a call, even if its number was used before.
            return self._their_ids.get(fragment.id)
        if fragment.name:
            return None
        if fragment.index is not None:
            return next((call for call in reversed(self._calls) if call.index == fragment.index), None)
        return self._calls[-1] if self._calls else None


@dataclass(frozen=True)
class _Fragment:
    """A piece of a tool call, as far as it is of the right types."""

    id: str
    index: int | None
    name: str
    arguments: str

    @classmethod
    def parse(cls, given: Any) -> _Fragment:
        function = given.get("function") or {} if isinstance(given, dict) else None
        if not isinstance(function, dict):
            raise ChatError(
                "brain_garbage", "the language model's endpoint sent a tool call that is no object"
            )
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # some servers send them parsed
            arguments = orjson.dumps(arguments).decode()
        index = given.get("index")
        return cls(
            _string(given.get("id")),
            index if isinstance(index, int) else None,
            _string(function.get("name")),
            _string(arguments),
        )


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _closing(call: _Call) -> list[BrainPart]:
    if not call.arguments.strip():
        return [CallArguments(call.call_id, "{}")]
    try:
        parsed = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ChatError(
            "brain_bad_arguments", f"the language model's arguments for {call.name} are no JSON object"
        )
    return []


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ChatError(
            "brain_garbage", "the language model's endpoint sent something that is no JSON"
        ) from None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


class _ThoughtFilter:
    """Leaves out `<think>...</think>`, with which some models think aloud; a caller should not hear it."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False

    def push(self, text: str) -> str:
        self._held += text
        out = ""
        while True:
            mark = "</think>" if self._inside else "<think>"
            at = self._held.find(mark)
            if at < 0:
                keep = _overlap(self._held, mark)
                out += "" if self._inside else self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
                return out
            out += "" if self._inside else self._held[:at]
            self._held = self._held[at + len(mark) :]
            self._inside = not self._inside

    def flush(self) -> str:
        held, self._held = self._held, ""
        return "" if self._inside else held


def _overlap(text: str, mark: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
