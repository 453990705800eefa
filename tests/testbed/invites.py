"""INVITEs as carriers' edges write them, and the means to bend them."""

from __future__ import annotations

import re

from .trunk import Trunk, new_branch

__all__ = ["PLAIN", "SIGNALWIRE", "TELNYX", "TWILIO", "add_media", "bend", "sdp_of", "with_body", "write"]

TWILIO = """\
INVITE sip:{project}@{host}:{port};transport={transport} SIP/2.0
{routes}
From: <sip:+10987654321@grable.pstn.twilio.com:5060>;tag=08601002_c3356d0b_658bbbdc-4f2a
To: <sip:+11234567890@sip.example.net;transport=tls>
CSeq: 29044 INVITE
Max-Forwards: 60
P-Asserted-Identity: <sip:+10987654321@184.150.215.12:5060>
Diversion: <sip:+11234567890@twilio.com>;reason=unconditional
Call-ID: fb3e{unique}@0.0.0.0
Via: SIP/2.0/{TRANSPORT} {local};branch={branch}{rport}
Via: SIP/2.0/UDP 172.25.75.240:5060;rport=5060;received=2a05:d018::1;branch=z9hG4bKe3b0
Contact: <sip:+10987654321@172.25.75.240:5060;transport=udp>
Allow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY
User-Agent: Twilio Gateway
X-Twilio-AccountSid: AC000102030405060708090a0b0c0d0e0f
X-Twilio-CallSid: CA{unique}
X-Twilio-CallToken: {token}
Content-Type: application/sdp
Content-Length: {length}

v=0
o=root 1 1 IN IP4 172.25.75.240
s=Twilio Media Gateway
c=IN IP4 127.0.0.1
t=0 0
m=audio {rtp} RTP/AVP 0 8 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:20
a=sendrecv
"""

# Compact names with no space after the colon, long and short Via mixed, two telephone-events, a stream of text.
TELNYX = """\
INVITE sip:{project}@{host}:{port} SIP/2.0
{routes}
Via:SIP/2.0/{TRANSPORT} {local};branch={branch}{rport}
v:SIP/2.0/UDP 10.255.0.1:5070;rport=5070;received=10.255.0.1;branch=z9hG4bK0cBQ
v:SIP/2.0/UDP 10.13.37.12;branch=z9hG4bKj9
f:"+13125550100"<sip:+13125550100@192.76.120.10>;tag=pvN1{unique}
t:<sip:+13125550199@10.31.4.2:5060>
i:{unique}-6b2e-123d
CSeq:60918722 INVITE
m:<sip:mod_sofia@10.255.0.1:5070>
Max-Forwards:28
k:timer, path, replaces
Allow:INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, REGISTER, REFER, NOTIFY
Session-Expires:1800;refresher=uac
Min-SE:90
P-Asserted-Identity:"+13125550100"<sip:+13125550100@192.76.120.10>;verstat=TN-Validation-Passed-A
X-call_leg_id:428c31b6-7af4-4bcb-b68e-5013ef9657c1
Identity:{token};info=<https://cert.example.org/p.cer>;alg=ES256;ppt=shaken
Identity:{token};info=<https://cert.example.net/d.cer>;alg=ES256;ppt=div
P-Charging-Vector:icid-value="a=b;c,d";icid-generated-at=[2001:db8::1];orig-ioi="x\\"y"
c:application/sdp
l:{length}

v=0
o=FreeSWITCH 1 2 IN IP4 127.0.0.1
s=FreeSWITCH
t=0 0
m=audio {rtp} RTP/AVP 9 0 8 18 102 101 103
c=IN IP4 127.0.0.1
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:18 G729/8000
a=fmtp:18 annexb=no
a=rtpmap:102 opus/48000/2
a=rtpmap:103 telephone-event/48000
a=fmtp:103 0-15
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=silenceSupp:off - - - -
a=ptime:20
m=text 40000 RTP/AVP 98
a=rtpmap:98 t140/1000
"""

# FreeSWITCH behind Kamailio; PCMA only, and no ptime.
SIGNALWIRE = """\
INVITE sip:{project}@{host}:{port};transport={transport} SIP/2.0
{routes}
Via: SIP/2.0/{TRANSPORT} {local};branch={branch}{rport}
Via: SIP/2.0/TLS 138.197.198.13:35181;received=138.197.198.13;rport=36607;branch=z9hG4bKyXQ
Max-Forwards: 68
From: "J\u00fcrgen \\"JJ\\" O'Neil, Jr." <sip:+15125550100@sip.swire.io>;tag=N4{unique}
To: <sip:inbound@kamailio.example.org:5060;transport=UDP>
Call-ID: {unique}-a1b2
CSeq: 1 INVITE
Contact: <sip:mod_sofia@138.197.198.13:35181;transport=tls;swrad=138.197.198.13~36607~3>
User-Agent: SignalWire STACK/1.0
Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, REGISTER, REFER, NOTIFY,
 PUBLISH, SUBSCRIBE
Supported: timer, path, replaces
Allow-Events: talk, hold, conference, refer
Session-Expires: 600;refresher=uac
Min-SE: 90
X-Relay-Call-ID: {token}
Remote-Party-ID: "J" <sip:+15125550100@sip.swire.io>;party=calling;screen=yes;privacy=off
Content-Disposition: session
Content-Type: application/sdp;charset=utf-8
Content-Length: {length}

v=0
o=FreeSWITCH 1700000000 1700000001 IN IP4 127.0.0.1
s=FreeSWITCH
c=IN IP4 127.0.0.1
t=0 0
m=audio {rtp} RTP/AVP 8 97
a=rtpmap:97 telephone-event/8000
"""

# What a plain telephone sends; the tests below bend it.
PLAIN = """\
INVITE sip:{project}@{host}:{port} SIP/2.0
Via: SIP/2.0/{TRANSPORT} {local};branch={branch}{rport}
From: <sip:+14155550100@edge.example.net>;tag=f{unique}
To: <sip:+14155550199@{host}>
Call-ID: {unique}
CSeq: 7 INVITE
Max-Forwards: 70
Contact: <sip:caller@{local}>
Content-Type: application/sdp
Content-Length: {length}

v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio {rtp} RTP/AVP 0 8 96 97
a=rtpmap:96 telephone-event/48000
a=rtpmap:97 telephone-event/8000
"""


def write(
    template: str,
    trunk: Trunk,
    project: str,
    *,
    rtp: int = 40_000,
    routes: str = "",
    rport: str = "",
    local: str = "",
    token: str = "",
) -> str:
    """Fill in a template, and end its lines as SIP does."""
    head, _, body = template.replace("\n\n", "\0", 1).partition("\0")
    body = body.replace("\n", "\r\n").replace("{rtp}", str(rtp))
    own = "{}:{}".format(*trunk.local)
    text = head.replace("{routes}\n", routes + "\n" if routes else "").format(
        project=project,
        host=trunk.remote[0],
        port=trunk.remote[1],
        transport=trunk.transport,
        TRANSPORT=trunk.transport.upper(),
        local=local or own,
        branch=new_branch(),
        unique=new_branch()[7:],
        rport=rport,
        token=token or "t0ken." * 300,
        length=len(body),
    )
    return text.replace("\n", "\r\n") + "\r\n\r\n" + body


def bend(invite: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in invite, old
        invite = invite.replace(old, new, 1)
    return invite


def with_body(invite: str, content_type: str, body: str) -> str:
    head = invite.partition("\r\n\r\n")[0]
    head = re.sub(r"Content-Type: .*", lambda _: f"Content-Type: {content_type}", head.replace("\r", ""))
    head = re.sub(r"Content-Length: .*", f"Content-Length: {len(body)}", head)
    return head.replace("\n", "\r\n") + "\r\n\r\n" + body


def sdp_of(invite: str) -> str:
    return invite.partition("\r\n\r\n")[2]


def add_media(invite: str, lines: str) -> str:
    """Append lines to the offer."""
    return with_body(invite, "application/sdp", sdp_of(invite) + lines)
