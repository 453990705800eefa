"""Chat Completions as text: conversations out, streams in, with the oddities of real servers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.realtime.engine import Respond
from offhook.realtime.engines.local.brain import CallArguments, CallStarted, Ended, Say
from offhook.realtime.engines.local.chat_completions import (
    Answer,
    ChatError,
    SseReader,
    create_request,
    messages_of,
)


def respond(**changes):
    given = {
        "response_id": "resp_1",
        "generation": 1,
        "items": [],
        "instructions": "Be brief.",
        "tools": [],
        "tool_choice": "auto",
        "audio": True,
        "voice": "ash",
        "speed": 1.0,
        "max_output_tokens": "inf",
    }
    return Respond(**{**given, **changes})


def message(role, **content):
    return {"type": "message", "role": role, "content": [content]}


def call(call_id, name="f", arguments="{}"):
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id, text="done"):
    return {"type": "function_call_output", "call_id": call_id, "output": text}


# The request


def test_a_conversation_becomes_messages():
    items = [
        message("assistant", type="output_audio", transcript="Hello."),
        message("user", type="input_audio", transcript="Hi."),
        message("user", type="input_text", text="(pressed 1)"),
        message("system", type="input_text", text="The caller is a guest."),
        message("user", type="input_audio", transcript=None),
    ]
    assert messages_of("Be brief.", items) == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Hi."},
        {"role": "user", "content": "(pressed 1)"},
        {"role": "system", "content": "The caller is a guest."},
    ]


def test_results_follow_their_calls_even_if_the_caller_spoke_in_between():
    items = [
        call("call_1", "weather", '{"city": "Rome"}'),
        call("call_2"),
        message("user", type="input_audio", transcript="Well?"),
        output("call_1", "sunny"),
    ]
    first, *rest = messages_of("", items)
    assert [made["id"] for made in first["tool_calls"]] == ["call_1", "call_2"]
    assert first["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert rest == [
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_2", "content": "(no result yet)"},
        {"role": "user", "content": "Well?"},
    ]


def test_a_result_without_a_call_is_still_told():
    assert messages_of("", [output("call_9", "42")]) == [{"role": "system", "content": "A tool's result: 42"}]


def test_the_request_carries_tools_and_limits():
    tool = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
    body = create_request(
        respond(
            tools=[tool, {"type": "mcp"}], tool_choice={"type": "function", "name": "f"}, max_output_tokens=50
        ),
        "m",
    )
    assert body["stream"] is True
    assert body["max_tokens"] == 50
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert "parallel_tool_calls" not in body  # not every server knows it


@pytest.mark.parametrize("parallel", [True, False])
def test_the_request_says_whether_tools_may_be_called_at_once_if_the_session_does(parallel):
    command = respond(tools=[{"type": "function", "name": "f"}], parallel_tool_calls=parallel)
    assert create_request(command, "m")["parallel_tool_calls"] is parallel
    assert "parallel_tool_calls" not in create_request(respond(parallel_tool_calls=parallel), "m")


def test_without_tools_nothing_is_said_of_tools():
    body = create_request(respond(), "m")
    assert "tools" not in body
    assert "tool_choice" not in body
    assert "max_tokens" not in body


# The stream


@given(st.integers(1, 30), st.sampled_from([b"\n", b"\r\n"]))
def test_events_come_out_however_the_bytes_are_cut(size, end):
    lines = [
        b": comment",
        b"data: one",
        b"",
        b"event: x",
        b"data:two",
        b"data: three",
        b"",
        b"id: 4",
        b"",
        b"",
    ]
    data = end.join(lines)
    reader = SseReader()
    events = []
    for at in range(0, len(data), size):
        events += reader.receive_data(data[at : at + size])
    assert events == [b"one", b"two\nthree"]


def test_a_last_event_needs_no_empty_line():
    reader = SseReader()
    assert reader.receive_data(b"data: one\n") == []
    assert reader.finish() == [b"one"]


def test_an_endless_event_is_refused():
    with pytest.raises(ChatError):
        SseReader().receive_data(b"data: " + b"x" * (2 << 20))


def stream(*chunks, expect_words=True):
    """Feed chunks of `choices[0]`, or whole objects; return the parts."""
    numbers = iter(range(1, 99))
    answer = Answer(lambda: f"call_{next(numbers)}")
    parts = []
    for chunk in chunks:
        whole = chunk if "delta" not in chunk else {"choices": [{"index": 0, **chunk}]}
        parts += answer.receive_event(json.dumps(whole).encode())
    return parts + answer.finish(expect_words=expect_words)


def delta(finish=None, **fields):
    return {"delta": fields, "finish_reason": finish}


def fragment(**fields):
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    return delta(tool_calls=[{**fields, "function": function}])


def arguments_of(parts):
    found = {}
    for part in parts:
        if isinstance(part, CallStarted):
            found[part.call_id] = [part.name, ""]
        elif isinstance(part, CallArguments):
            found[part.call_id][1] += part.delta
    return [(name, json.loads(arguments)) for name, arguments in found.values()]


def test_words_and_usage():
    parts = stream(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo."),
        delta("stop"),
        {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}},
    )
    assert parts == [Say("Hel"), Say("lo."), Ended("completed", input_tokens=12, output_tokens=3)]


@pytest.mark.parametrize(("details", "cached"), [({"cached_tokens": 8}, 8), ({}, 0), (None, 0), ("x", 0)])
def test_what_the_server_had_cached_is_counted(details, cached):
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": details}
    end = stream(delta(content="Hi."), delta("stop"), {"choices": [], "usage": usage})[-1]
    assert (end.input_tokens, end.output_tokens, end.cached_tokens) == (12, 3, cached)


@pytest.mark.parametrize("field", ["message", "delta"])
def test_a_server_that_does_not_stream_is_understood(field):
    whole = {"choices": [{field: {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}]}
    assert stream(whole) == [Say("Hello."), Ended()]


@pytest.mark.parametrize(
    "fragments",
    [
        # numbered and interleaved
        [
            fragment(index=0, id="a", name="f", arguments=""),
            fragment(index=1, id="b", name="g", arguments='{"y"'),
            fragment(index=0, arguments='{"x": '),
            fragment(index=1, arguments=": 2}"),
            fragment(index=0, arguments="1}"),
        ],
        # whole, all with number 0
        [
            fragment(index=0, id="a", name="f", arguments='{"x": 1}'),
            fragment(index=0, id="b", name="g", arguments='{"y": 2}'),
        ],
        # without numbers or ids
        [
            fragment(name="f", arguments='{"x":'),
            fragment(arguments=" 1}"),
            fragment(name="g", arguments='{"y": 2}'),
        ],
        # the id with each piece
        [
            fragment(index=0, id="a", name="f", arguments='{"x":'),
            fragment(index=0, id="a", arguments=" 1}"),
            fragment(index=1, id="b", name="g", arguments='{"y": 2}'),
        ],
        # parsed
        [fragment(index=0, name="f", arguments={"x": 1}), fragment(index=1, name="g", arguments={"y": 2})],
    ],
)
def test_tool_calls_in_pieces(fragments):
    parts = stream(*fragments, delta("tool_calls"))
    assert arguments_of(parts) == [("f", {"x": 1}), ("g", {"y": 2})]
    assert parts[-1] == Ended()


def test_a_call_without_arguments_has_an_empty_object():
    assert arguments_of(stream(fragment(index=0, name="f"), delta("tool_calls"))) == [("f", {})]


@pytest.mark.parametrize(
    ("reason", "ended"),
    [
        ("length", Ended("incomplete", "max_output_tokens")),
        ("content_filter", Ended("incomplete", "content_filter")),
        ("stop", Ended()),
        ("tool_calls", Ended()),
    ],
)
def test_ends(reason, ended):
    assert stream(delta(content="Hm"), delta(reason)) == [Say("Hm"), ended]


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (["<think>hm", "m</think>Hello."], "Hello."),
        (["<thi", "nk>a</th", "ink>Hello."], "Hello."),
        (["a < b", " and <this>"], "a < b and <this>"),
        (["Hello. <"], "Hello. <"),
        (["A<think>x</think>B"], "AB"),
    ],
)
def test_thoughts_are_not_said(pieces, said):
    parts = stream(*(delta(content=piece) for piece in pieces), delta("stop"))
    assert "".join(part.text for part in parts if isinstance(part, Say)) == said


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([delta(content="Hal")], "brain_cut"),
        ([], "brain_cut"),
        ([delta("stop")], "brain_empty"),
        ([{"error": {"message": "out of memory"}}], "brain_error"),
        ([{"error": "out of memory"}], "brain_error"),
        ([{"choices": 3}], "brain_garbage"),
        ([{"choices": ["x"]}], "brain_garbage"),
        ([{"choices": [{"delta": "x"}]}], "brain_garbage"),
        ([delta(tool_calls=3)], "brain_garbage"),
        ([delta(tool_calls=["x"])], "brain_garbage"),
        ([fragment(index=0, arguments="{}")], "brain_garbage"),
        ([fragment(index=1, id="a", arguments="{}")], "brain_garbage"),
        ([fragment(index=0, name="f", arguments='{"x": '), delta("tool_calls")], "brain_bad_arguments"),
        ([fragment(index=0, name="f", arguments="[1]"), delta("tool_calls")], "brain_bad_arguments"),
    ],
)
def test_failures_have_codes(chunks, code):
    with pytest.raises(ChatError) as caught:
        stream(*chunks)
    assert caught.value.code == code


def test_nothing_more_to_say_after_a_tool_is_no_failure():
    assert stream(delta("stop"), expect_words=False) == [Ended()]


def test_no_json_is_garbage():
    with pytest.raises(ChatError) as caught:
        Answer(lambda: "call_1").receive_event(b"<html>")
    assert caught.value.code == "brain_garbage"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "delta",
                        "tool_calls",
                        "function",
                        "name",
                        "index",
                        "id",
                        "content",
                        "usage",
                        "error",
                        "finish_reason",
                        "arguments",
                        "message",
                    ]
                ),
                x,
            )
        ),
    )
)
def test_no_chunk_raises_anything_else(chunk):
    answer = Answer(lambda: "call_1")
    try:
        answer.receive_object({"choices": [{"delta": chunk}]})
        answer.receive_object(chunk)
        answer.receive_object({"choices": [{"delta": {"tool_calls": [chunk]}}]})
        answer.finish(expect_words=True)
    except ChatError:
        pass
