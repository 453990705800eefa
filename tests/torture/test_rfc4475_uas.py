"""What our user agent answers to each torture message of RFC 4475, and that it still works afterwards."""

import itertools
import pathlib

import pytest

from offhook.sip.flow import Flow
from offhook.sip.message import parse_message
from offhook.sip.stack import Incoming, Stack, StackConfig, Transmit

FILES = pathlib.Path(__file__).parent / "rfc4475"
OURS = ("192.0.2.2", 5060)
SOURCE = ("192.0.2.99", 5555)
FLOW = Flow("udp", OURS, SOURCE)

CALL = "a call"
DROPPED = None

# One verdict per file: the status, a call that is handed up, or silence. The section is that of RFC 4475.
VERDICTS = {
    # 3.1.1 Valid messages. REGISTER and MESSAGE are not our business: 405.
    "wsinv": 481,  # 3.1.1.1: its To has a tag, of a dialog that is not ours
    "intmeth": 501,
    "esc01": CALL,
    "escnull": 405,
    "esc02": 501,  # 3.1.1.5: escaping in a method is no escaping, so the method is unknown
    "lwsdisp": 200,
    "longreq": CALL,
    "dblreq": 405,  # 3.1.1.8: what follows in the datagram is ignored
    "semiuri": 200,
    "transports": 200,
    "mpart01": 405,
    "unreason": DROPPED,  # 3.1.1.12, 3.1.1.13: responses to nothing that we sent
    "noreason": DROPPED,
    # 3.1.2 Invalid messages.
    "badinv01": 400,
    "clerr": 400,
    "ncl": 400,
    "scalar02": 400,
    "scalarlg": DROPPED,
    "quotbal": 400,
    "ltgtruri": 400,
    "lwsruri": 400,
    "lwsstart": CALL,  # 3.1.2.9, 3.1.2.10: spaces that cannot be misunderstood are forgiven
    "trws": 200,
    "escruri": CALL,  # 3.1.2.11: headers in the Request-URI are ignored
    "baddate": CALL,  # 3.1.2.12: a header that we do not read
    "regbadct": 400,
    "badaspec": 200,  # 3.1.2.14, 3.1.2.15: odd, and not ambiguous
    "baddn": 200,
    "badvers": 505,
    "mismatch01": 400,
    "mismatch02": 501,
    "bigcode": DROPPED,
    # 3.2 Transaction layer semantics.
    "badbranch": 200,
    # 3.3 Application layer semantics.
    "insuf": 400,
    "unkscm": 416,
    "novelsc": 416,
    "unksm2": 405,  # 3.3.4: the schemes are no fault in a parser's eyes; a registrar says 400, and we are none
    "bext01": 420,
    "invut": 415,
    "regaut01": 405,
    "multi01": 400,
    "mcl01": 400,
    "bcast": DROPPED,
    "zeromf": 200,  # 3.3.11: Max-Forwards is for proxies; an endpoint processes the request
    "cparam01": 405,
    "cparam02": 405,
    "regescrt": 405,
    "sdp01": 406,  # 3.3.15: its Accept leaves no room for the SDP that answers a call
    # 3.4 Backward compatibility.
    "inv2543": CALL,
}


def create_stack():
    tokens = itertools.count(1)
    stack = Stack(StackConfig(), new_token=lambda: f"{next(tokens):08x}")
    stack.listen("udp", *OURS)
    return stack


def receive(stack, name):
    """Return the responses sent and the calls handed up."""
    stack.receive((FILES / f"{name}.dat").read_bytes(), FLOW, now=0.0)
    outputs = stack.outputs()
    sent = [output for output in outputs if isinstance(output, Transmit)]
    return sent, [output.usage for output in outputs if isinstance(output, Incoming)]


def test_every_file_has_a_verdict():
    assert {path.stem for path in FILES.glob("*.dat")} == set(VERDICTS)


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_verdict(name):
    stack = create_stack()
    sent, calls = receive(stack, name)
    verdict = VERDICTS[name]
    statuses = [parse_message(output.data).status for output in sent]
    if verdict is DROPPED:
        assert statuses == []
        assert stack.counters.total() == 1
    elif verdict == CALL:
        assert statuses == [100]
        assert len(calls) == 1
    else:
        assert statuses == [verdict]
        assert calls == []


@pytest.mark.parametrize("name", sorted(name for name, verdict in VERDICTS.items() if verdict is not DROPPED))
def test_response_goes_to_the_source_and_names_it(name):
    stack = create_stack()
    sent, _ = receive(stack, name)
    # RFC 3261 section 18.2.2: to `received`, which is the source address, never to what the Via says.
    assert {output.flow.remote[0] for output in sent} == {SOURCE[0]}
    assert parse_message(sent[0].data).top_via.received == SOURCE[0]


@pytest.mark.parametrize("name", sorted(name for name, verdict in VERDICTS.items() if verdict == CALL))
def test_a_repeated_invite_is_one_call(name):
    stack = create_stack()
    receive(stack, name)
    sent, calls = receive(stack, name)
    assert calls == []
    assert [parse_message(output.data).status for output in sent] == [100]


def test_refusals_carry_what_the_rfc_asks_for():
    stack = create_stack()
    (sent,), _ = receive(stack, "bext01")
    unsupported = parse_message(sent.data).headers.values("Unsupported")
    assert unsupported == ["nothingSupportsThis", "nothingSupportsThisEither"]
    (sent,), _ = receive(stack, "intmeth")
    assert "INVITE" in parse_message(sent.data).headers.values("Allow")
    (sent,), _ = receive(stack, "invut")
    assert "application/sdp" in parse_message(sent.data).headers.values("Accept")


def test_one_stack_survives_them_all():
    stack = create_stack()
    for _ in range(3):
        for name in VERDICTS:
            receive(stack, name)
    stack.handle_timer(now=100.0)
    stack.outputs()
    (sent,), _ = receive(stack, "zeromf")
    assert parse_message(sent.data).status == 200
