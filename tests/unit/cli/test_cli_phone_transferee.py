"""The phone's side of a REFER (RFC 3515 section 2.4)."""

import pytest

from offhook.cli.phone.transferee import Transferee
from offhook.sip.message import Request, Response, create_response, parse_message

REFER = parse_message(
    b"REFER sip:caller@127.0.0.1:40000 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1\r\n"
    b"From: <sip:p@h>;tag=a\r\nTo: <sip:c@h>;tag=b\r\nCall-ID: 1\r\nCSeq: 7 REFER\r\nMax-Forwards: 70\r\n"
    b"Refer-To: <tel:+15550100>\r\nContact: <sip:p@127.0.0.1>\r\nContent-Length: 0\r\n\r\n"
)


class FakeLeg:
    def __init__(self) -> None:
        self.sent: list[object] = []

    def respond(self, request: Request, status: int, reason: str | None = None) -> None:
        self.sent.append(status)

    async def request(
        self, method: str, *, headers: tuple[tuple[str, str], ...], body: bytes, content_type: str
    ) -> Response:
        fields = dict(headers)
        self.sent.append((method, fields["Event"], fields["Subscription-State"].split(";")[0], body))
        assert content_type.startswith("message/sipfrag")
        assert isinstance(REFER, Request)
        return create_response(REFER, 200)


async def play(**settings: int) -> tuple[bool, list[object], list[tuple[str, dict[str, object]]]]:
    leg, told = FakeLeg(), []
    assert isinstance(REFER, Request)

    def report(event: str, **fields: object) -> None:
        told.append((event, fields))

    done = await Transferee(leg, report, ring_s=0, **settings).take(REFER)
    return done, leg.sent, told


async def test_a_refer_is_accepted_then_each_step_of_the_call_to_the_target_is_told() -> None:
    done, sent, told = await play()
    assert done
    assert sent == [
        202,
        ("NOTIFY", "refer;id=7", "active", b"SIP/2.0 100 Trying\r\n"),
        ("NOTIFY", "refer;id=7", "active", b"SIP/2.0 180 Ringing\r\n"),
        ("NOTIFY", "refer;id=7", "terminated", b"SIP/2.0 200 OK\r\n"),
    ]
    assert told[0] == ("refer", {"target": "<tel:+15550100>", "answer": 202})
    assert [fields["status"] for event, fields in told if event == "notify"] == [100, 180, 200]


@pytest.mark.parametrize("outcome", [486, 503, 603])
async def test_a_target_that_does_not_answer_is_told_too(outcome: int) -> None:
    done, sent, _ = await play(outcome=outcome)
    assert not done
    assert len(sent) == 4
    assert f"SIP/2.0 {outcome} ".encode() in sent[-1][3]  # type: ignore[index]
    assert sent[-1][2] == "terminated"  # type: ignore[index]


async def test_a_refer_can_be_refused() -> None:
    done, sent, _ = await play(refuse=603)
    assert not done
    assert sent == [603]
