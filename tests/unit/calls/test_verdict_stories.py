"""
The judge on stories as the API tells them: faults that a test cannot make in seconds.

What a running node can be made to do is in `tests/flow/test_verdicts.py`.
"""

import itertools
import pathlib

import pytest

from offhook.calls.record import Fault
from offhook.calls.verdict import Story, judge
from offhook.calls.verdict.catalogue import CATALOGUE
from testbed.tale import Tale, codes, talk

# The example of the issue, to the word.


def test_a_webhook_after_the_carriers_cancel():
    found = Tale().webhook(0.0, 9800).cancelled(9.0).judge()
    assert found.sentence == "your webhook answered after 9.8 s; the carrier cancelled at 9.0 s"
    assert (found.code, found.blame, found.also) == ("webhook_slow", "app", ())
    assert found.evidence == (3, 4)


def test_its_late_accept_is_told_in_the_same_breath():
    tale = Tale().webhook(0.0, 9800).cancelled(9.0).rest(9.7, "accept", 404, "No session found")
    found = tale.judge()
    assert codes(found) == ["webhook_slow"]
    assert found.sentence.endswith("the carrier cancelled at 9.0 s, and the accept came at 9.7 s")


STOPPED = [
    ("connect", "cannot connect to app.example: 192.0.2.1: Connection refused", "webhook_unreachable"),
    ("connect", "cannot connect to secret.example: Connection refused", "webhook_unreachable"),
    ("connect", "no connection within 1 s", "webhook_unreachable"),
    ("protocol", "the connection broke off before an answer", "webhook_unreachable"),
    ("dns", "cannot resolve app.example: Name or service not known", "webhook_dns"),
    ("tls", "TLS with app.example failed: certificate has expired", "webhook_tls"),
    ("timeout", "no answer within 10 s", "webhook_timeout"),
    ("refused", "app.example is at 10.0.0.1, a private address", "webhook_refused"),
    ("url", "'http://app.example' is not https", "webhook_refused"),
    ("secret", "a secret begins whsec_", "webhook_refused"),
    ("gone", "the endpoint is gone", "nobody_subscribed"),
]
ANSWERED = [
    (400, "the endpoint said: bad signature", "webhook_unauthorized"),
    (401, "not a 2xx", "webhook_unauthorized"),
    (403, "not a 2xx", "webhook_unauthorized"),
    (404, "not a 2xx", "webhook_wrong_path"),
    (405, "not a 2xx", "webhook_wrong_path"),
    (301, "redirects are not followed (to 'https://x')", "webhook_redirected"),
    (500, "not a 2xx", "webhook_error"),
    (500, "the endpoint said: no answer within 3 s, nobody is subscribed", "webhook_error"),
    (502, "the endpoint said: Bad Gateway", "webhook_error"),
    (429, "not a 2xx", "webhook_error"),
]
ATTEMPTS = [(None, *one) for one in STOPPED] + [(status, "", *rest) for status, *rest in ANSWERED]


@pytest.mark.parametrize(("status", "fault", "error", "code"), ATTEMPTS)
@pytest.mark.parametrize("how", ["cancelled", "unanswered"])
def test_why_the_app_could_not_be_told(status, fault, error, code, how):
    tale = Tale().webhook(0, 20, status, error, fault=fault)
    tale.webhook(0.6, 20, status, error, number=2, fault=fault)
    if how == "cancelled":
        tale.cancelled(8.0)
    else:
        tale.ended(30, "unanswered", f"nobody accepted within 30 s; {error}", sip_status=480)
    found = tale.judge()
    assert (codes(found), found.blame) == ([code], "app")
    assert "after 2 attempts" in found.sentence
    assert found.remedy


def test_a_fault_of_ours_is_not_called_the_endpoints():
    tale = Tale().webhook(0, 20, None, "internal error: KeyError('x')", fault="internal").cancelled(9)
    assert (codes(tale.judge()), tale.judge().blame) == (["internal_error"], "node")


def test_an_attempt_of_which_nobody_kept_where_it_stopped_is_not_guessed_at():
    assert codes(Tale().webhook(0, 20, None, "TLS, perhaps").cancelled(9).judge()) == ["unknown"]


@pytest.mark.parametrize("fallback", [False, True])
def test_nobody_is_subscribed_whether_or_not_a_fallback_takes_the_call(fallback):
    tale = Tale().add(0, "webhook", "nobody is subscribed to realtime.call.incoming", endpoints=0)
    if fallback:
        tale.add(0, "call", "fallback accepts: nobody is subscribed to realtime.call.incoming").answered(
            0.1, accept=False
        )
        found = tale.said(1).ended(9, "remote_hangup").judge()
        assert codes(found) == ["fallback_answered", "nobody_subscribed"]
    else:
        assert codes(tale.ended(0.01, "unanswered", "x", sip_status=480).judge()) == ["nobody_subscribed"]


def test_two_endpoints_with_different_faults_are_both_named():
    tale = Tale().webhook(0, 20, 500, "not a 2xx", endpoint="https://a/")
    tale.webhook(0, 20, None, "no answer within 10 s", endpoint="https://b/", fault="timeout").cancelled(11)
    assert sorted(codes(tale.judge())) == ["webhook_error", "webhook_timeout"]


def test_one_endpoint_that_knew_outweighs_one_that_was_down():
    tale = Tale().webhook(0, 20, 500, "not a 2xx", endpoint="https://a/")
    tale.webhook(0, 20, endpoint="https://b/").cancelled(11)
    assert codes(tale.judge()) == ["never_accepted"]


FAILURES = [
    ("no common codec: G729 offered, PCMU and PCMA taken", 488, "no_common_codec", "trunk"),
    ("RTP/AVP: SRTP is required, offer RTP/SAVP with a=crypto (no a=crypto)", 488, "srtp_required", "trunk"),
    ("RTP/SAVP: SRTP is off here, offer RTP/AVP", 488, "srtp_refused", "trunk"),
    ("INVITE has no SDP", 488, "offer_unusable", "trunk"),
    ("node is draining", 503, "node_draining", "node"),
    ("node is full: 400 calls", 503, "node_full", "node"),
    ("30 calls of yours are not answered", 503, "source_full", "trunk"),
    ("the engine is not warm yet", 503, "node_not_ready", "node"),
    ("node is full: no engine has a free session", 503, "engine_full", "node"),
    ("project is full: 10 calls", 480, "project_full", "app"),
]


@pytest.mark.parametrize(("cause", "status", "code", "blame"), FAILURES)
def test_an_invite_that_was_turned_away(cause, status, code, blame):
    found = Tale().ended(0.01, "failed", cause, sip_status=status, fault=code).judge()
    assert (codes(found), found.blame) == ([code], blame)
    assert cause in found.sentence


ACCEPTED_AND_FAILED = [
    ("the engine was not ready within 5 s", "engine_slow", "engine_slow"),
    ("no free media port", "node_full", "node_full"),
    ("no worker could be started", "engine_unavailable", "engine_failed"),
    ("internal error: KeyError('x')", "internal_error", "internal_error"),
    ("the node crashed", "node_crashed", "node_crashed"),
]


@pytest.mark.parametrize(("cause", "fault", "code"), ACCEPTED_AND_FAILED)
@pytest.mark.parametrize("sip_status", [503, 488])
def test_an_accepted_call_that_could_not_be_served(cause, fault, code, sip_status):
    """A project's fallback may be any status: 488 says nothing of the offer then."""
    tale = Tale().accepted().ended(6, "failed", cause, sip_status=sip_status, fault=fault)
    found = tale.judge()
    assert (codes(found), found.blame) == ([code], "node")


REFUSALS = [
    ((), "upstream_unreachable"),
    (("unreachable",), "upstream_unreachable"),
    (("refused",), "upstream_refused"),
    (("error",), "upstream_error"),
    (("rate_limited",), "upstream_rate_limited"),
    (("unreachable", "rate_limited"), "upstream_rate_limited"),
]


@pytest.mark.parametrize(("kinds", "code"), REFUSALS)
def test_an_accepted_call_that_no_upstream_took(kinds, code):
    tale = Tale(engine="upstream").accepted()
    for kind in kinds:
        tale.upstream(2, "a: what it said", refused=kind)
    cause = "no upstream took the call. a: what it said"
    found = tale.ended(6, "failed", cause, sip_status=503, fault="upstream_unavailable").judge()
    assert (codes(found), found.blame) == ([code], "upstream")
    assert cause in found.sentence


@pytest.mark.parametrize(("fault", "blame"), [("engine_slow", "node"), ("upstream_unavailable", "upstream")])
def test_the_fallback_stood_in_for_an_engine_that_could_not_be_had(fault, blame):
    tale = Tale().accepted(1).add(6, "call", "fallback stands in: not ready within 5 s", fault=fault)
    found = tale.answered(6.1, accept=False).said(7).ended(9, "remote_hangup").judge()
    assert (codes(found), found.blame) == (["fallback_stood_in"], blame)
    assert "not ready within 5 s" in found.sentence


def test_the_fallback_fails_too_and_why_it_was_needed_is_said():
    cause = "nobody accepted within 30 s; the fallback failed: node is full, all 2 slots are taken"
    tale = Tale().webhook(0, 9, 500, "not a 2xx")
    tale.ended(30, "failed", cause, sip_status=503, fault="fallback_failed")
    assert codes(tale.judge()) == ["fallback_failed", "webhook_error"]


TREACHEROUS = (
    "the node crashed, node is full, project is full, no ACK, no upstream took the call. HTTP 429, rate limit, quota, "
    "no common codec, SRTP is required, 481, 408, no answer, internal error, nobody is subscribed, time limit"
)


@pytest.mark.parametrize("fault", [*Fault, None])
def test_the_words_of_a_cause_are_not_read(fault):
    """They come from exceptions, other services and peers, who may say anything."""
    tale = talk().ended(9, "failed", TREACHEROUS, fault=fault)
    expected = {None: "unknown", Fault.UPSTREAM_UNAVAILABLE: "upstream_unreachable"}
    # The last three are no reasons of a call that failed.
    expected |= {Fault.ENGINE_UNAVAILABLE: "engine_failed"}
    expected |= dict.fromkeys((Fault.SESSION_LIMIT, Fault.SESSION_TIMER), "unknown")
    assert tale.judge().code == expected.get(fault, fault)


def test_a_carrier_that_cancels_while_the_engine_warms():
    found = Tale().accepted(1).cancelled(5.5).judge()
    assert (codes(found), found.blame) == (["engine_slow"], "node")
    assert found.sentence.startswith("accepted at 1.0 s, the engine was not ready 4.5 s later")


@pytest.mark.parametrize("reason", ['SIP;cause=200;text="Call completed elsewhere"', "Q.850;cause=26"])
def test_a_call_that_another_phone_took(reason):
    found = Tale().webhook(0, 20).cancelled(7, f"Reason: {reason}\r\n").judge()
    assert (codes(found), found.blame) == (["answered_elsewhere"], "nobody")


@pytest.mark.parametrize("line", ["X-Said: answered elsewhere", "Reason: SIP;cause=487", "Reason: elsewhere"])
def test_a_cancel_that_does_not_say_so_is_not_read_that_way(line):
    assert codes(Tale().webhook(0, 20).cancelled(7, f"{line}\r\n").judge()) == ["never_accepted"]


def test_no_engine_was_free_for_the_accept():
    tale = Tale().webhook(0, 9).rest(0.2, "accept", 503, "No engine is free").cancelled(9)
    assert codes(tale.judge()) == ["engine_full"]


@pytest.mark.parametrize(
    ("contact", "code", "blame"),
    [("198.51.100.4", "no_ack", "trunk"), ("10.0.0.4", "contact_unreachable", "node")],
)
def test_a_200_that_nobody_acknowledged(contact, code, blame):
    tale = Tale().answered(contact=contact)
    for at in (1.7, 2.7, 4.7, 8.7):
        tale.sip(at, "out", "SIP/2.0 200 OK", "1 INVITE")
    found = tale.sound(33, packets=0).ended(33, "failed", "32 s", fault="no_ack").judge()
    assert (found.code, found.blame) == (code, blame)
    assert "sent 5 times" in found.sentence


# Sound.


@pytest.mark.parametrize(
    ("ours", "theirs", "counts", "code", "blame"),
    [
        ("198.51.100.4", "203.0.113.9", {}, "no_audio_received", "trunk"),
        ("192.168.1.5", "203.0.113.9", {}, "media_address_private", "node"),
        ("127.0.0.1", "203.0.113.9", {}, "media_address_private", "node"),
        ("198.51.100.4", "10.1.2.3", {}, "caller_behind_nat", "trunk"),
        ("198.51.100.4", "100.64.2.3", {}, "caller_behind_nat", "trunk"),
        ("198.51.100.4", "203.0.113.9", {"foreign": 200}, "audio_from_elsewhere", "trunk"),
        ("198.51.100.4", "203.0.113.9", {"unauthentic": 200}, "srtp_keys_wrong", "trunk"),
        ("198.51.100.4", "203.0.113.9", {"malformed": 200}, "audio_unusable", "trunk"),
    ],
)
@pytest.mark.parametrize("reason", ["media_timeout", "remote_hangup"])
def test_why_nothing_was_heard_of_the_caller(ours, theirs, counts, code, blame, reason):
    tale = Tale(theirs=theirs).answered(ours=ours).sound(31, packets=0, **counts)
    if reason == "media_timeout":
        tale.add(31, "media", "no RTP for 30 s, and none since the answer", event="media_timeout")
    found = tale.ended(31, reason, "no RTP for 30 s").judge()
    assert (codes(found), found.blame) == ([code], blame)


def test_what_was_saved_of_the_sound_before_a_crash_is_not_what_came():
    """The record is of the answer; the timeline has that sound came afterwards."""
    tale = Tale().answered().add(1.4, "media", "first packet from 203.0.113.9:4000", event="receiving")
    tale.call["media"] = {"inbound": {"packets": 0}}
    found = tale.ended(40, "failed", "the node crashed", fault="node_crashed", sound=False).judge()
    assert codes(found) == ["node_crashed"]


def test_sound_that_stops_in_mid_call():
    tale = talk().add(90, "media", "no RTP for 30 s, after 2900 packets", event="media_timeout").sound(90)
    assert codes(tale.ended(90, "media_timeout", "no RTP for 30 s").judge()) == ["audio_stopped"]


@pytest.mark.parametrize(
    ("counts", "code", "blame"),
    [
        ({"inbound": {"loss_percent": 12.0, "mos": 2.9}}, "loss_from_caller", "trunk"),
        ({"inbound": {"jitter_ms": 90.0}}, "jitter", "trunk"),
        ({"outbound": {"loss_percent": 11.0}}, "loss_to_caller", "trunk"),
        ({"outbound": {"loss_percent": 100.0}}, "audio_not_arriving", "trunk"),
        ({"skipped_ticks": 200}, "node_overloaded", "node"),
    ],
)
def test_sound_that_was_poor(counts, code, blame):
    found = talk().sound(20, **counts).ended(20, "remote_hangup").judge()
    assert (codes(found), found.blame) == ([code], blame)


# Voice.


def test_answers_that_come_late_say_where_the_time_went():
    tale = Tale().answered().said(2)
    for at in (5, 15, 25):
        tale.add(
            at, "turn", "x", committed_ms=500, transcript_ms=900, first_text_ms=5900, first_audio_ms=6200
        )
    found = tale.ended(30, "remote_hangup").judge()
    assert (codes(found), found.blame) == (["slow_answers"], "node")
    assert "6.2 s" in found.sentence
    assert "5.0 s went by for the model's first text" in found.sentence


@pytest.mark.parametrize(
    ("kinds", "code"),
    [((), "upstream_lost"), (("unreachable",), "upstream_unreachable"), (("refused",), "upstream_refused")],
)
def test_an_upstream_that_is_lost_for_good(kinds, code):
    tale = Tale(engine="upstream").answered().upstream(1.1, "b: HTTP 429", refused="rate_limited")
    tale.upstream(1.2, "a is open", opened="a").said(2).upstream(9, "lost: a: closed with 1006", lost=True)
    for kind in kinds:
        tale.upstream(10, "a: what it said", refused=kind)
    found = tale.ended(12, "failed", "the engine failed: x", fault="engine_failed").judge()
    assert (found.code, found.blame) == (code, "upstream")


def test_an_upstream_that_comes_back_is_a_note_beside_a_normal_end():
    tale = talk(engine="upstream").upstream(9, "lost: openai: closed with 1006", lost=True)
    tale.upstream(9.4, "openai is open", opened="openai").said(11)
    found = tale.ended(12, "remote_hangup").judge()
    assert (codes(found), found.blame) == (["caller_hung_up", "upstream_interrupted"], "nobody")


def test_an_upstream_that_does_not_come_back():
    tale = talk(engine="upstream").upstream(9, "lost: openai: closed with 1006", lost=True)
    assert codes(tale.ended(12, "remote_hangup").judge()) == ["upstream_lost"]


def test_an_upstreams_rate_limit():
    tale = talk(engine="upstream").add(9, "error", "upstream: Rate limit reached", code="rate_limit_exceeded")
    assert tale.ended(12, "remote_hangup").judge().code == "upstream_rate_limited"


def test_an_upstreams_quota_as_it_is_said_of_a_response():
    tale = talk(engine="upstream").add(
        9, "response", "response failed: insufficient_quota", status="failed", code="insufficient_quota"
    )
    assert codes(tale.ended(12, "remote_hangup").judge()) == ["upstream_rate_limited"]


@pytest.mark.parametrize("engine", ["upstream", "local"])
def test_an_error_that_merely_speaks_of_quotas_is_no_rate_limit(engine):
    title = "upstream: Unknown parameter: 'session.quota'."
    tale = talk(engine=engine).add(9, "error", title, code="unknown_parameter")
    assert codes(tale.ended(12, "remote_hangup").judge()) == ["caller_hung_up"]


def test_an_answer_that_fails():
    tale = talk().add(9, "response", "response failed: out of memory", status="failed")
    assert codes(tale.ended(12, "remote_hangup").judge()) == ["response_failed"]


def test_an_answer_that_never_makes_a_sound():
    tale = Tale().answered().add(2, "session", "response.create").sound(20, played_ms=0)
    found = tale.ended(20, "remote_hangup").judge()
    assert (codes(found), found.blame) == (["agent_never_spoke"], "node")


# Transfers.


@pytest.mark.parametrize(
    ("refer", "code", "blame"),
    [
        ({"status": "failed", "sip_status": 403, "reason": "Forbidden"}, "refer_refused", "trunk"),
        (
            {
                "status": "failed",
                "sip_status": 486,
                "reason": "Busy Here",
                "before": ("accepted", "progress"),
            },
            "refer_target_failed",
            "nobody",
        ),
        (
            {"status": "failed", "reason": "could not send REFER: tcp: timed out"},
            "refer_unreachable",
            "trunk",
        ),
        (
            {"status": "timeout", "reason": "no NOTIFY for 60 s", "before": ("accepted",)},
            "refer_no_notify",
            "trunk",
        ),
        ({"status": "timeout", "reason": "no answer to REFER"}, "refer_no_answer", "trunk"),
        (
            {"status": "pending", "reason": "no answer within 8 s; one may still come"},
            "refer_no_answer",
            "trunk",
        ),
        (
            {"status": "unknown", "reason": "subscription ended without a verdict", "before": ("accepted",)},
            "refer_unknown",
            "unknown",
        ),
    ],
)
def test_why_a_transfer_failed(refer, code, blame):
    found = talk().refer(10, **refer).ended(20, "remote_hangup").judge()
    assert (codes(found), found.blame) == ([code], blame)
    assert "tel:+1" in found.sentence


def test_what_a_carrier_says_of_its_refusal_is_told():
    headers = {"X-Twilio-Error": "13224 Dial: Invalid phone number"}
    found = talk().refer(10, "failed", sip_status=400, reason="Bad Request", headers=headers)
    assert "13224" in found.ended(20, "hangup").judge().sentence


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (502, "The peer does not take REFER: its INVITE allows INVITE, ACK.", "refer_not_supported"),
        (403, "tel:+44 is not among this project's refer_targets.", "refer_bad_request"),
        (400, "Invalid value for 'target_uri'.", "refer_bad_request"),
    ],
)
def test_a_transfer_that_never_left(status, error, code):
    assert codes(talk().rest(9, "refer", status, error).ended(20, "hangup").judge()) == [code]


def test_a_transfer_that_was_not_sent_is_told_beside():
    tale = talk().refer(9, "cancelled", reason="the agent was interrupted before the REFER was sent")
    assert codes(tale.ended(20, "remote_hangup").judge()) == ["caller_hung_up", "refer_interrupted"]


# Other ends.


@pytest.mark.parametrize(
    ("reason", "fault", "code", "blame"),
    [
        ("session_expired", "session_timer_expired", "session_timer_expired", "trunk"),
        ("session_expired", "session_limit", "session_limit", "nobody"),
        ("shutdown", None, "node_shut_down", "node"),
        ("failed", "node_crashed", "node_crashed", "node"),
        ("failed", "dialog_lost", "dialog_lost", "trunk"),
        ("remote_hangup", None, "caller_hung_up", "nobody"),
        ("hangup", None, "app_hung_up", "nobody"),
        ("transferred", None, "transferred", "nobody"),
    ],
)
def test_how_an_answered_call_ended(reason, fault, code, blame):
    found = talk().ended(20, reason, "in words", fault=fault).judge()
    assert (codes(found), found.blame) == ([code], blame)


BYE = "BYE sip:proj_x@h SIP/2.0"


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        (("Q.850;cause=41",), "cut_off_by_trunk"),
        (('Q.850 ;cause=102;text="MEDIA_TIMEOUT"',), "cut_off_by_trunk"),
        (("SIP;cause=503",), "cut_off_by_trunk"),
        (("Q.850;cause=16",), "caller_hung_up"),
        (("Q.850;cause=31",), "caller_hung_up"),
        (("Q.850;cause=127",), "caller_hung_up"),
        (('SIP;cause=200;text="completed elsewhere"',), "caller_hung_up"),
        (("Q.850;cause=16", "SIP;cause=500"), "caller_hung_up"),
        (("X.Y;cause=41",), "caller_hung_up"),
        (("gibberish",), "caller_hung_up"),
        ((), "caller_hung_up"),
    ],
)
def test_what_the_other_end_says_when_it_hangs_up(reasons, code):
    headers = "".join(f"Reason: {reason}\r\n" for reason in reasons)
    tale = talk().sip(20, "in", BYE, "2 BYE", headers=headers)
    assert codes(tale.ended(20, "remote_hangup").judge()) == [code]


def test_a_caller_who_is_cut_off_before_the_first_word_has_not_hung_up():
    tale = (
        Tale()
        .answered()
        .sound(3, played_ms=0)
        .sip(3, "in", BYE, "2 BYE", headers="Reason: Q.850;cause=41\r\n")
    )
    assert codes(tale.ended(3, "remote_hangup").judge()) == ["cut_off_by_trunk"]


def test_a_bye_that_nobody_answers():
    tale = talk().ended(20, "hangup").sip(20, "out", BYE, "2 BYE").add(52, "call", "BYE: failed (no answer)")
    found = tale.judge()
    assert (codes(found), found.blame) == (["bye_not_answered"], "trunk")


def test_a_bye_after_a_transfer_need_not_be_answered():
    tale = talk().ended(20, "transferred").sip(20, "out", BYE, "2 BYE")
    assert codes(tale.add(52, "call", "BYE: failed (no answer)").judge()) == [
        "transferred",
        "bye_not_answered",
    ]


def test_a_bye_that_was_answered_and_is_repeated_after_a_restart():
    tale = talk().ended(20, "hangup").sip(20, "out", BYE, "2 BYE").sip(20, "in", "SIP/2.0 200 OK", "2 BYE")
    tale.sip(60, "out", BYE, "1002 BYE").add(60, "call", "BYE: failed (unreachable)")
    assert codes(tale.judge()) == ["app_hung_up"]


@pytest.mark.parametrize("glare", [False, True])
def test_a_bye_that_is_answered_481(glare):
    tale = talk().ended(20, "hangup").sip(20, "out", BYE, "2 BYE")
    if glare:
        tale.sip(20, "in", BYE, "7 BYE")
    tale.sip(20.1, "in", "SIP/2.0 481 Call/Transaction Does Not Exist", "2 BYE")
    assert codes(tale.judge()) == ["app_hung_up"] + ([] if glare else ["bye_not_answered"])


def test_a_call_between_accept_and_ack():
    assert codes(Tale().accepted().judge()) == ["connecting"]


def test_a_peer_that_cannot_be_reached():
    tale = talk().add(9, "route", "could not send BYE: tcp 192.0.2.1:5060: timed out", method="BYE")
    assert codes(tale.ended(9, "failed", "unreachable", fault="dialog_lost").judge()) == ["dialog_lost"]


@pytest.mark.parametrize("cause", ["", "something nobody thought of"])
def test_what_is_not_known_is_not_guessed(cause):
    for tale in (Tale(), talk()):
        found = tale.ended(9, "failed", cause).judge()
        assert (codes(found), found.blame, found.remedy != "") == (["unknown"], "unknown", True)


def test_an_event_that_was_lost_is_told_beside():
    tale = (
        talk()
        .ended(20, "remote_hangup")
        .add(21, "webhook", "realtime.call.ended: no more attempts: https://app: HTTP 500")
    )
    assert codes(tale.judge()) == ["caller_hung_up", "webhook_events_lost"]


# Hosted calls.


def hosted(state, *entries):
    call = {"id": "rtc_x", "hosted": True, "state": state, "events": {"sent": {}}}
    data = [{"ms": at * 1000, "kind": kind, "title": title, **more} for at, kind, title, more in entries]
    return judge(Story.of(call, {"data": data}))


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("accepted", 200, "in_progress"),
        ("unknown", 429, "upstream_rate_limited"),
        ("unknown", 404, "accepted_too_late"),
        ("unknown", 400, "accept_refused"),
        ("unknown", 500, "upstream_refused"),
        ("unknown", None, "upstream_unreachable"),
    ],
)
def test_a_call_of_another_service(state, status, code):
    relayed = {"verb": "accept", "upstream": "openai", "upstream_status": status}
    found = hosted(state, (0.1, "relay", f"POST accept: {status}", relayed))
    assert codes(found) == [code]
    assert found.sentence


def test_ends_of_calls_of_another_service():
    assert hosted("rejected").code == "rejected"
    assert hosted("referred").code == "transferred"
    assert hosted("ended").code == "caller_hung_up"
    assert hosted("ended", (1, "rest", "POST hangup: 200", {"verb": "hangup", "status": 200})).code == (
        "app_hung_up"
    )
    assert hosted("unknown").code == "unknown"


FAULTS = [
    ("refer_refused", lambda tale: tale.refer(9, "failed", sip_status=403, reason="Forbidden")),
    ("tool_never_answered", lambda tale: tale.add(10, "tool_call", "look_up({})")),
    ("loss_from_caller", lambda tale: tale.sound(30, inbound={"loss_percent": 20.0})),
    ("response_failed", lambda tale: tale.add(12, "response", "response failed: x", status="failed")),
    (
        "upstream_rate_limited",
        lambda tale: tale.add(11, "error", "upstream: quota", code="insufficient_quota"),
    ),
]


@pytest.mark.parametrize(
    "pair", list(itertools.combinations(FAULTS, 2)), ids=lambda p: f"{p[0][0]}+{p[1][0]}"
)
def test_two_faults_at_once_are_both_named(pair):
    tale = talk(engine="upstream")
    for _, make in pair:
        make(tale)
    assert sorted(codes(tale.ended(30, "remote_hangup").judge())) == sorted(code for code, _ in pair)


def test_a_normal_end_is_no_second_verdict_beside_a_fault():
    found = talk().refer(9, "failed", sip_status=403).ended(30, "hangup").judge()
    assert codes(found) == ["refer_refused"]


# The catalogue.


def test_every_verdict_of_the_catalogue_is_reached_by_a_test():
    root = pathlib.Path(__file__).parents[2]
    told = "".join(path.read_text() for path in (root / "flow/test_verdicts.py", pathlib.Path(__file__)))
    assert [code for code in CATALOGUE if f'"{code}"' not in told] == []


def test_the_how_to_has_the_catalogue():
    page = pathlib.Path(__file__).parents[3] / "docs/howto/why-did-a-call-fail.md"
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| `")]
    assert [(code.strip("|` "), blame, means) for code, blame, means, *_ in rows] == [
        (code, kind.blame, kind.means) for code, kind in CATALOGUE.items()
    ]
    remedies = [kind.remedy for kind in CATALOGUE.values()]
    assert [row[3].removesuffix("|").strip() if len(row) > 3 else "" for row in rows] == remedies
