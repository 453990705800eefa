"""Any JSON may be told as a story, by a newer node or by somebody who means ill: the judge says something."""

from hypothesis import given, settings
from hypothesis import strategies as st

from offhook.calls.ladder import from_timeline
from offhook.calls.record import Fault
from offhook.calls.verdict import Story, judge
from offhook.calls.verdict.catalogue import CATALOGUE
from testbed.tale import codes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = sorted(
    {
        *(
            "accepted",
            "ended: x",
            "INVITE sip:a SIP/2.0",
            "SIP/2.0 200 OK",
            "CANCEL sip:a SIP/2.0",
            "attached",
        ),
        *(
            "lost: x",
            "a is open",
            "rtp: 1",
            "the caller holds the call",
            "fallback accepts: x",
            "response.create",
        ),
        *("response failed: x", "x: no more attempts: y", "session timer: x", "could not send BYE: x"),
        *("BYE: failed (x)", "BYE sip:a SIP/2.0", "SIP/2.0 481 x"),
    }
)
KINDS = "sip route sdp webhook rest sideband relay session turn media call error upstream response tool_call said heard"
ENTRY = st.dictionaries(
    st.sampled_from(
        [
            "direction",
            "remote",
            "message",
            "type",
            "attempt",
            "endpoint",
            "status",
            "duration_ms",
            "error",
            "verb",
            "event",
            "foreign",
            "refer",
            "target_uri",
            "packets_in",
            "packets_out",
            "skipped_ticks",
            "quality",
            "first_played_ms",
            "committed_ms",
            "upstream_status",
            "code",
            "fault",
            "refused",
            "lost",
            "opened",
            "endpoints",
        ]
    ),
    JSON
    | st.sampled_from(
        [
            "in",
            "out",
            "realtime.call.incoming",
            "accept",
            "refer",
            "media_timeout",
            200,
            404,
            503,
            "completed",
            *Fault,
        ]
    ),
).flatmap(
    lambda details: st.builds(
        lambda kind, title, ms: {**details, "kind": kind, "title": title, "ms": ms},
        st.sampled_from(KINDS.split()) | JSON,
        st.sampled_from(WORDS) | JSON,
        st.floats(0, 1e5) | JSON,
    )
)
CALL = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["ringing", "active", "ended", "accepted"]) | JSON,
        "hosted": st.booleans() | JSON,
        "answered_at": st.integers() | JSON,
        "engine": st.just({"kind": "upstream"}) | JSON,
        "events": JSON,
        "media": JSON,
        "refers": st.lists(
            st.fixed_dictionaries(
                {"status": st.sampled_from(["failed", "timeout", "unknown", "pending", "accepted"]) | JSON},
                optional={"refer": JSON, "sip_status": JSON, "reason": JSON, "headers": JSON},
            )
            | JSON,
            max_size=3,
        ),
        "termination": st.fixed_dictionaries(
            {
                "reason": st.sampled_from(
                    [
                        "cancelled",
                        "unanswered",
                        "rejected",
                        "failed",
                        "media_timeout",
                        "session_expired",
                        "shutdown",
                        "remote_hangup",
                        "hangup",
                        "transferred",
                    ]
                )
                | JSON
            },
            optional={
                "cause": JSON
                | st.sampled_from(
                    [
                        "node is full",
                        "no ACK",
                        "the engine failed: x",
                        "no upstream took the call. x",
                        "no common codec",
                    ]
                ),
                "sip_status": JSON,
            },
        )
        | JSON,
    },
)


@settings(max_examples=400, deadline=None)
@given(CALL | JSON, st.fixed_dictionaries({"data": st.lists(ENTRY | JSON, max_size=12) | JSON}) | JSON)
def test_the_judge_and_the_ladder_raise_at_no_story(described, timeline):
    found = judge(Story.of(described, timeline))
    for row in from_timeline(timeline if isinstance(timeline, dict) else {}):
        assert row.at >= 0
    for each in (found, *found.also):
        assert each.code in CATALOGUE
        assert each.sentence
    assert len(codes(found)) == len(set(codes(found)))
