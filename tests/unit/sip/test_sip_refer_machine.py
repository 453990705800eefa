"""Any order of responses, NOTIFYs, BYEs, timeouts and lost transactions gives a REFER exactly one verdict."""

from hypothesis import given, settings
from hypothesis import strategies as st

from offhook.sip.headers import Headers
from offhook.sip.message import Request, Response
from offhook.sip.refer import Refer

NOTIFY_TIMEOUT = 60.0
VERDICTS = ("completed", "completed_unconfirmed", "failed", "unknown", "timeout")
GUESSES = ("completed_unconfirmed", "unknown", "timeout")

RESPONSES = st.tuples(
    st.just("response"),
    st.sampled_from([100, 180, 200, 202, 302, 403, 481, 503, 603]),
    st.sampled_from([None, "true", "false", "FALSE;x=y"]),
)
NOTIFIES = st.tuples(
    st.just("notify"),
    st.sampled_from(["", "100 Trying", "183 Progress", "200 OK", "302 Moved", "486 Busy Here", "nonsense"]),
    st.sampled_from(["active;expires=60", "pending", "terminated;reason=noresource", "Terminated", ""]),
)
OTHERS = st.sampled_from([("bye",), ("hang up",), ("give up waiting",), ("no answer",), ("unsent",)])
WAITS = st.tuples(st.just("wait"), st.sampled_from([0.5, 20.0, 59.0, 61.0, 200.0]))
STORIES = st.lists(st.one_of(RESPONSES, NOTIFIES, OTHERS, WAITS), max_size=14)


class Told:
    """A machine that is fed a story, and all that it says."""

    def __init__(self):
        self.refer = Refer(1, 2, notify_timeout=NOTIFY_TIMEOUT)
        self.now = 0.0
        self.updates = []

    def feed(self, step):
        refer = self.refer
        match step:
            case ("response", status, refer_sub):
                headers = Headers([("Refer-Sub", refer_sub)] if refer_sub else [])
                refer.receive_response(Response(status, "x", headers=headers), now=self.now)
            case ("notify", line, state):
                headers = Headers([("Subscription-State", state)] if state else [])
                body = f"SIP/2.0 {line}\r\n".encode() if line else b""
                refer.receive_notify(Request("NOTIFY", "sip:us", headers=headers, body=body), now=self.now)
            case ("bye",):
                refer.receive_bye()
            case ("hang up",):
                refer.hung_up()
            case ("give up waiting",):
                refer.give_up_waiting()
            case ("no answer",):
                refer.transaction_failed("no answer", was_sent=True)
            case ("unsent",):
                refer.transaction_failed("unreachable", was_sent=False)
            case ("wait", seconds):
                self.now += seconds
                refer.handle_timer(now=self.now)
        self.updates += refer.outputs()

    def end(self):
        """What always comes in the end: the transaction is over, and so is the time for news."""
        self.feed(("no answer",))
        self.feed(("wait", NOTIFY_TIMEOUT))

    @property
    def kinds(self):
        return [update.kind for update in self.updates]

    @property
    def verdicts(self):
        return [update for update in self.updates if update.kind in VERDICTS]


def told(story):
    machine = Told()
    for step in story:
        machine.feed(step)
    machine.end()
    return machine


@settings(max_examples=400, deadline=None)
@given(STORIES)
def test_there_is_one_verdict_and_at_most_one_correction(story):
    machine = told(story)
    verdicts = machine.verdicts
    assert 1 <= len(verdicts) <= 2
    if len(verdicts) == 2:
        guess, correction = verdicts
        assert guess.kind in GUESSES
        assert correction.kind in ("completed", "failed")
        assert correction.sipfrag
    first = machine.kinds.index(verdicts[0].kind)
    assert not {"accepted", "progress"} & set(machine.kinds[first:])
    assert machine.kinds.count("accepted") <= 1
    assert not machine.refer.is_pending
    assert machine.refer.next_timer() is None
    assert all(update.refer == 1 for update in machine.updates)


@settings(max_examples=400, deadline=None)
@given(STORIES)
def test_it_is_pending_until_its_verdict_and_waits_only_while_it_is(story):
    machine = Told()
    for step in story:
        machine.feed(step)
        assert machine.refer.is_pending == (not machine.verdicts)
        if not machine.refer.is_pending:
            assert machine.refer.next_timer() is None


@settings(max_examples=400, deadline=None)
@given(STORIES)
def test_what_the_target_said_first_is_the_last_word(story):
    """Unless the peer had refused the REFER itself, or we know that it never left."""
    machine = told(story)
    answers = [
        int(step[1].split()[0])
        for step in story
        if step[0] == "notify" and step[1][:1] in ("2", "3", "4") and step[1] != "nonsense"
    ]
    last = machine.verdicts[-1]
    if answers and (last.sipfrag or machine.verdicts[0].kind in GUESSES):
        assert last.sip_status == answers[0]
        assert last.kind == ("completed" if answers[0] < 300 else "failed")
    if not answers:
        assert last.kind != "completed"


@settings(max_examples=300, deadline=None)
@given(STORIES, STORIES)
def test_nothing_that_comes_later_unsays_a_verdict(story, later):
    machine = told(story)
    before = machine.verdicts[-1]
    for step in later:
        machine.feed(step)
    after = machine.verdicts[-1]
    if before.kind not in GUESSES:
        assert after is before
    elif after is not before:
        assert after.kind in ("completed", "failed")
        assert after.sipfrag


@settings(max_examples=400, deadline=None)
@given(STORIES)
def test_the_end_of_the_call_decides_what_was_taken_and_nothing_else(story):
    """No timer runs for a call that is over; and a REFER without an answer yet may still get one."""
    machine = Told()
    is_over = was_taken = was_decided = False
    for step in story:
        match step:
            case ("bye",) | ("hang up",):
                is_over = True
            case ("notify", *_):
                was_taken = True
            case ("response", status, _):
                was_taken |= 200 <= status < 300
                was_decided |= status >= 300
            case ("no answer",) | ("unsent",):
                was_decided = True
        machine.feed(step)
        if is_over and was_taken:
            assert machine.verdicts
        elif not was_taken and not was_decided:
            assert not machine.verdicts
