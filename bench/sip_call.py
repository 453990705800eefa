"""
What one answered call costs the SIP stack in CPU: INVITE, 100, 180, 200, ACK, BYE, 200.

Run `python bench/sip_call.py`. The pure stack alone, without sockets: parsing, transactions, dialog, routing, building
the responses, and the timers of the calls before. The INVITE is of the shape that a carrier sends by way of two
proxies.
"""

from __future__ import annotations

import sys
import time

from offhook.sip.flow import Flow
from offhook.sip.stack import Incoming, Stack, StackConfig, Transmit

INVITE = """\
INVITE sip:proj_test@192.0.2.2;transport=udp SIP/2.0
Record-Route: <sip:192.0.2.1:5060;r2=on;lr>
Record-Route: <sip:192.0.2.9;r2=on;lr>
From: <sip:+10987654321@trunk.example.com:5060>;tag=08601002_{n}
To: <sip:+11234567890@192.0.2.2;transport=udp>
CSeq: 29044 INVITE
Max-Forwards: 60
P-Asserted-Identity: <sip:+10987654321@192.0.2.1:5060>
Diversion: <sip:+11234567890@example.com>;reason=unconditional
Call-ID: fb3e{n}@0.0.0.0
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{n}.0
Via: SIP/2.0/UDP 172.25.75.240:5060;rport=5060;branch=z9hG4bK{n}.1
Contact: <sip:+10987654321@172.25.75.240:5060;transport=udp>
Allow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY
User-Agent: Gateway
X-Account: AC00000000000000000000000000000000
X-CallSid: CA00000000000000000000000000000000
Content-Type: application/sdp
"""
IN_DIALOG = """\
{method} sip:192.0.2.2:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{n}.{method}
From: <sip:+10987654321@trunk.example.com:5060>;tag=08601002_{n}
To: {to}
CSeq: {cseq} {method}
Max-Forwards: 60
Call-ID: fb3e{n}@0.0.0.0
Content-Length: 0

"""
SDP = b"v=0\r\n" + b"a=rtpmap:101 telephone-event/8000\r\n" * 10
FLOW = Flow("udp", ("192.0.2.2", 5060), ("192.0.2.1", 5060))


def encode(text: str, body: bytes = b"") -> bytes:
    if body:
        text += f"Content-Length: {len(body)}\n\n"
    return text.replace("\n", "\r\n").encode() + body


def run_call(stack: Stack, n: str, now: float) -> None:
    stack.receive(encode(INVITE.format(n=n), SDP), FLOW, now=now)
    usage = next(out.usage for out in stack.outputs() if isinstance(out, Incoming))
    usage.tracer = lambda trace: None
    usage.ring(now=now)
    usage.answer(SDP, now=now)
    sent = [out.data for out in stack.outputs() if isinstance(out, Transmit)]
    to = next(line[4:] for line in sent[-1].decode().split("\r\n") if line.startswith("To: "))
    for method, cseq in (("ACK", 29044), ("BYE", 29045)):
        stack.receive(encode(IN_DIALOG.format(method=method, n=n, to=to, cseq=cseq)), FLOW, now=now)
    stack.outputs()
    stack.handle_timer(now=now)
    assert usage.state == "ended"


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    tokens = iter(range(10**9))
    stack = Stack(StackConfig(), new_token=lambda: f"{next(tokens):016x}")
    stack.listen("udp", "192.0.2.2", 5060)
    started = time.process_time()
    for number in range(calls):
        run_call(stack, f"{number:08d}", number / 200)
    spent = time.process_time() - started
    print(f"{calls} calls, {1e3 * spent / calls:.3f} ms CPU each, at 200 calls/s of protocol time")
    print(f"transactions kept at the end: {stack.transaction_count}")


if __name__ == "__main__":
    main()
