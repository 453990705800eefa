"""
Offer and answer (RFC 3264) for one stream of telephone sound.

One audio stream, G.711 and telephone-event, packets of 20 ms, in the clear or as SRTP by SDES keys. An offer becomes an
answer and a `MediaPlan`, or a reason why not. Addresses in an offer decide where we send, so those that could turn us
against others are refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from offhook.audio.frames import FRAME_MS, SAMPLE_RATE, Law
from offhook.media.crypto import Crypto, CryptoError, SrtpKeys, SrtpTerms, choose, offered
from offhook.media.formats import CODECS, NoCommonCodec, choose_formats, event_types
from offhook.media.host import HostError, judge_host
from offhook.media.sdp import (
    Connection,
    Direction,
    MediaDescription,
    RtpMap,
    SdpError,
    SessionDescription,
)

__all__ = [
    "UNSPECIFIED",
    "Address",
    "Answer",
    "Direction",
    "Disagreement",
    "Judgement",
    "LocalMedia",
    "MediaPlan",
    "NotAcceptable",
    "answer",
    "complete",
    "is_same",
    "judge",
    "offer",
]

Address = tuple[str, int]
UNSPECIFIED: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound to
"""The hosts that mean silence: nothing is sent there, neither RTP nor RTCP (RFC 3264 section 8.4)."""
_PLAIN_PROFILES: Final = ("RTP/AVP", "RTP/AVPF")
_SECURE_PROFILES: Final = ("RTP/SAVP", "RTP/SAVPF")
_PAYLOAD_TYPE: Final[dict[Law, int]] = {"PCMU": 0, "PCMA": 8}
_OFFERED_EVENT_TYPE: Final = 101
_EVENTS: Final = "0-15"
_LONGEST_PACKET_MS: Final = 60


Disagreement = Literal["codec", "srtp required", "srtp", "description"]
"""What both sides cannot agree about. `srtp required`: the peer brings none; `srtp`: not as it wants it."""


class NotAcceptable(Exception):  # noqa: N818 - the name of the SIP answer it becomes
    """The description cannot be agreed to. The message is the reason, fit for a 488 and for people."""

    def __init__(self, reason: str, about: Disagreement = "description") -> None:
        super().__init__(reason)
        self.about = about


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """What we bring to the negotiation."""

    host: str
    "The literal address that peers shall send to."
    port: int
    session_id: int
    "Numeric, the same for the whole call (RFC 4566 section 5.2)."
    session_version: int
    "To be raised with every description that differs from the last."
    codecs: tuple[Law, ...] = ("PCMU", "PCMA")
    "What we take; in an answer the offer's order decides, in an offer ours."
    direction: Direction = "sendrecv"
    "What we want; the answer gives no more than the offer allows."
    allow_loopback: bool = False
    "Take loopback addresses although our own is none."
    rtcp_mux: bool = True
    "Take reports on the port of the sound, from a peer that proposes it."
    signalling_host: str = ""
    "Where the peer's SIP comes from, for peers behind a NAT."
    own_ports: tuple[int, int] | None = None
    "First and last of our media ports: an offer that names one of them at our own address is refused."
    srtp: SrtpTerms | None = None
    "What we want of SRTP; `None` when there shall be none."


@dataclass(frozen=True, slots=True)
class MediaPlan:
    """What was agreed: all that a stream needs to know."""

    codec: Law
    payload_type: int
    dtmf_payload_type: int | None
    "What digits are sent as; `None` when the peer takes none."
    remote: Address
    remote_rtcp: Address
    direction: Direction = "sendrecv"
    "Ours: `recvonly` means that we send nothing."
    ptime_ms: int = FRAME_MS
    "How much sound each packet has that we send; the peer's may have any."
    dtmf_receive: frozenset[int] = frozenset()
    "Payload types that digits may come as, `dtmf_payload_type` among them."
    comfort_noise: frozenset[int] = frozenset()
    "Payload types that the peer may send comfort noise as, besides 13."
    rtcp_mux: bool = False
    "Reports share the port of the sound (RFC 5761)."
    signalling_host: str = ""
    held: bool = False
    "The peer put us on hold, by direction or by the address 0.0.0.0 (RFC 3264 section 8.4)."
    srtp: SrtpKeys | None = None
    "What RTP and RTCP are protected by; `None` when they are sent in the clear."

    @property
    def sends(self) -> bool:
        """Whether we send sound."""
        return self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """Whether the peer may send sound."""
        return self.direction in ("sendrecv", "recvonly")


@dataclass(frozen=True, slots=True)
class Answer:
    sdp: bytes
    plan: MediaPlan


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an offer leads to, before it is known what port the answer will name."""

    plan: MediaPlan
    _session: SessionDescription
    _chosen: MediaDescription
    _crypto: Crypto | None

    def answer(self, local: LocalMedia) -> bytes:
        """Return the answer: one line per offered line, in order, all but one stream refused (RFC 3264 section 6)."""
        return _answer_text(self._session, self._chosen, self.plan, local, self._crypto)


def answer(offer: bytes, local: LocalMedia) -> Answer:
    """Judge an offer, and answer it at once. Raises `NotAcceptable` as `judge` does."""
    judgement = judge(offer, local)
    return Answer(judgement.answer(local), judgement.plan)


def judge(offer: bytes, local: LocalMedia) -> Judgement:
    """
    Return what an offer leads to; `local` may still lack its port and its session's numbers.

    Raises `NotAcceptable` when no audio stream can be agreed on, with the reason for each that was offered.
    """
    session = _parse(offer, "offer")
    faults: list[str] = []
    about: set[Disagreement] = set()
    usable = []
    for media in session.media:
        if media.kind != "audio":
            continue
        try:
            crypto, keys = _accept_security(media, local.srtp)
            plan = _plan(session, media, local, keys)
        except (NotAcceptable, SdpError) as error:
            faults.append(str(error))
            about.add(error.about if isinstance(error, NotAcceptable) else "description")
        else:
            usable.append((media, plan, crypto))
    if not usable:
        # Of several lines, each with a fault of its own, none is the one that counts.
        only = about.pop() if len(about) == 1 else "description"
        raise NotAcceptable("; ".join(faults) or "the offer has no m=audio line", only)
    # Optional SRTP is offered as two lines on one port, in whatever order: we take the protected one.
    chosen, plan, crypto = next((each for each in usable if each[1].srtp), usable[0])
    return Judgement(plan, session, chosen, crypto)


def offer(local: LocalMedia, before: bytes = b"") -> bytes:
    """
    Return an offer of one audio stream: our codecs, then telephone-event.

    SRTP that may be left out is offered on RTP/AVP, where a peer without it passes the `a=crypto` lines over. What is
    required, or runs already, is offered on RTP/SAVP.

    `before` is what we said last in this call: its lines keep their places and profiles, and its numbers what they
    stand for (RFC 3264 section 8).
    """
    terms = local.srtp
    secure = terms is not None and (terms.required or terms.standing is not None)
    first = MediaDescription("audio", 0, "RTP/SAVP" if secure else "RTP/AVP", ())
    lines = SessionDescription.parse(before).media if before else [first]
    standing = next((media for media in lines if media.kind == "audio" and media.port), lines[0])
    agreed = standing.rtpmap()
    numbers = {entry.encoding.upper(): number for number, entry in agreed.items()}
    maps = [
        RtpMap(numbers.get(codec, _PAYLOAD_TYPE[codec]), codec, SAMPLE_RATE)
        for codec in local.codecs
        if codec in numbers or _PAYLOAD_TYPE[codec] not in agreed
    ]
    used = {entry.payload_type for entry in maps}
    free = next(number for number in range(_OFFERED_EVENT_TYPE, 128) if number not in used)
    media = _audio(
        local, standing.protocol, maps, numbers.get("TELEPHONE-EVENT", free), local.direction,
        offered(terms) if terms is not None else [],
    )  # fmt: skip
    if standing.attribute("rtcp-mux") is not None:
        media.lines.append(("a", "rtcp-mux"))
    placed = [media if each is standing else _refused(each) for each in lines]
    return bytes(SessionDescription(_session_lines(local, "0 0"), placed))


def is_same(one: bytes, other: bytes) -> bool:
    """Return whether two descriptions of ours say the same, whatever their versions are."""

    def said(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if not line.startswith(b"o=")]

    return said(one) == said(other)


def complete(
    offer: bytes, answer: bytes, *, allow_loopback: bool = False, signalling_host: str = ""
) -> MediaPlan:
    """
    Return what the peer's answer to our offer agreed on. `signalling_host` is as in `LocalMedia`.

    Raises `NotAcceptable` when the audio stream was refused or the answer does not fit the offer.
    """
    ours = _parse(offer, "offer")
    theirs = _parse(answer, "answer")
    # What we once answered may be offered again, with the lines that we refused.
    index = next((i for i, media in enumerate(ours.media) if media.kind == "audio" and media.port), None)
    if index is None:
        raise NotAcceptable("our offer has no m=audio line")
    if index >= len(theirs.media) or theirs.media[index].kind != "audio":
        raise NotAcceptable("the answer has no m=audio line where the offer has one")
    brought, answered = ours.media[index], theirs.media[index]
    local = _local_of(ours, brought, allow_loopback)
    try:
        plan = _plan(theirs, answered, local)
    except SdpError as error:
        raise NotAcceptable(str(error)) from None
    # The peer may send digits under its own number or, as RFC 3264 section 5.1 has it, under ours.
    events = frozenset(number for number, _ in event_types(brought.rtpmap()))
    return replace(
        plan,
        dtmf_receive=plan.dtmf_receive | events,
        signalling_host=signalling_host,
        srtp=_agreed_security(brought, answered),
    )


def _parse(data: bytes, what: str) -> SessionDescription:
    try:
        return SessionDescription.parse(data)
    except SdpError as error:
        raise NotAcceptable(f"the {what} cannot be understood: {error}") from None


def _plan(
    session: SessionDescription,
    media: MediaDescription,
    local: LocalMedia,
    keys: SrtpKeys | None = None,
) -> MediaPlan:
    """Return what the peer's audio stream and ours have in common, or raise why not."""
    if media.port == 0:
        raise NotAcceptable("the m=audio line has port 0")
    try:
        formats = choose_formats(media, local.codecs)
    except NoCommonCodec as error:
        raise NotAcceptable(str(error), "codec") from None
    connection = media.connection or session.connection
    if connection is None:
        raise NotAcceptable("m=audio has no c= line, nor has the session")
    host, silent = _remote_host(connection, media.port, local)
    direction, held = _direction(session, media, local, silent)
    mux = local.rtcp_mux and media.attribute("rtcp-mux") is not None
    return MediaPlan(
        codec=formats.codec,
        payload_type=formats.payload_type,
        dtmf_payload_type=formats.dtmf_payload_type,
        remote=(host, media.port),
        remote_rtcp=(host, media.port) if mux else _remote_rtcp(media, host, local),
        direction=direction,
        ptime_ms=_packet_length(media),
        dtmf_receive=formats.dtmf_receive,
        comfort_noise=formats.comfort_noise,
        rtcp_mux=mux,
        signalling_host=local.signalling_host,
        held=held,
        srtp=keys,
    )


def _accept_security(
    media: MediaDescription, terms: SrtpTerms | None
) -> tuple[Crypto | None, SrtpKeys | None]:
    """Return the `a=crypto` line to answer an offered stream with, and the keys; no keys for plain RTP."""
    profile = media.protocol.upper()
    if profile not in _PLAIN_PROFILES + _SECURE_PROFILES:
        raise _unknown_profile(media.protocol)
    secure = profile in _SECURE_PROFILES
    if terms is None:
        if secure:
            raise NotAcceptable(f"{media.protocol}: SRTP is off here, offer RTP/AVP", "srtp")
        return None, None
    lines = list(media.attributes("crypto"))
    if not (lines or secure or terms.required or terms.standing):
        return None, None
    try:
        return choose(lines, terms)
    except CryptoError as error:
        if secure:
            unusable = f"{media.protocol}: no a=crypto line can be used: {error}"
            raise NotAcceptable(unusable, "srtp") from None
        why = str(error)
    if terms.required:
        required = f"{media.protocol}: SRTP is required, offer RTP/SAVP with a=crypto ({why})"
        raise NotAcceptable(required, "srtp required")
    if terms.standing is not None:
        raise NotAcceptable(f"{media.protocol}: the call runs by SRTP and stays with it ({why})", "srtp")
    return None, None


def _agreed_security(brought: MediaDescription, answered: MediaDescription) -> SrtpKeys | None:
    """Return the keys that an answer to our offer leads to. Raises `NotAcceptable` when it does not fit."""
    profile = answered.protocol.upper()
    if profile not in _PLAIN_PROFILES + _SECURE_PROFILES:
        raise _unknown_profile(answered.protocol)
    lines = {crypto.tag: crypto for crypto in map(Crypto.parse, brought.attributes("crypto"))}
    value = answered.attribute("crypto")
    if not lines or value is None:
        if profile in _SECURE_PROFILES or brought.protocol in _SECURE_PROFILES:
            raise NotAcceptable(
                f"{answered.protocol} in answer to {brought.protocol}, without a key for SRTP", "srtp"
            )
        return None
    try:
        theirs = Crypto.parse(value)
    except CryptoError as error:
        raise NotAcceptable(f"the answer's a=crypto cannot be used: {error}", "srtp") from None
    own = lines.get(theirs.tag)
    if own is None or own.suite != theirs.suite:
        raise NotAcceptable(f"the answer's a=crypto:{theirs.tag} {theirs.suite.name} was not offered", "srtp")
    return SrtpKeys(own.suite, own.key, theirs.key)


def _unknown_profile(protocol: str) -> NotAcceptable:
    if "SAVP" in protocol.upper():
        remedy = "SRTP by DTLS is not available here, offer RTP/SAVP with a=crypto, or RTP/AVP"
        return NotAcceptable(f"{protocol[:60]}: {remedy}", "srtp")
    return NotAcceptable(f"{protocol[:60]}: offer RTP/AVP")


def _remote_host(connection: Connection, port: int, local: LocalMedia) -> tuple[str, bool]:
    """Return the host to send to, and whether it is the address that means silence."""
    try:
        peer = judge_host(connection.host, local.host, allow_loopback=local.allow_loopback)
    except HostError as error:
        raise NotAcceptable(f"c= {error}") from None
    if peer.is_own and _is_ours(port, local):
        raise NotAcceptable(f"c= and m= name {peer.host}:{port}, a media port of ours")
    return peer.host, peer.host in UNSPECIFIED


def _is_ours(port: int, local: LocalMedia) -> bool:
    if port in (local.port, local.port + 1):
        return True
    return local.own_ports is not None and local.own_ports[0] <= port <= local.own_ports[1]


def _remote_rtcp(media: MediaDescription, host: str, local: LocalMedia) -> Address:
    """Return where reports go: `a=rtcp` (RFC 3605) or the port above. A bad `a=rtcp` is passed over."""
    default = (host, min(media.port + 1, 65535))
    words = (media.attribute("rtcp") or "").split(None, 1)
    if not words or not words[0].isascii() or not words[0].isdigit() or not 0 < len(words[0]) <= 5:
        return default
    port = int(words[0])
    if not 0 < port < 65536:
        return default
    try:
        other = _remote_host(Connection.parse(words[1]), port, local)[0] if len(words) > 1 else host
    except (SdpError, NotAcceptable):
        return default
    return other, port


def _packet_length(media: MediaDescription) -> int:
    """
    Return how many milliseconds each packet of ours shall have: 20, 40 or 60.

    `a=ptime` is what the peer would like to get (RFC 3264 section 5.1), `a=maxptime` the most that it takes (RFC 4566
    section 6). One that likes 30 or 50 ms gets the next length below that the pacer's 20 ms make evenly.
    """
    wanted = _milliseconds(media.attribute("ptime")) or FRAME_MS
    most = _milliseconds(media.attribute("maxptime")) or _LONGEST_PACKET_MS
    return max(FRAME_MS, min(wanted, most, _LONGEST_PACKET_MS) // FRAME_MS * FRAME_MS)


def _milliseconds(value: str | None) -> int:
    """Return the whole milliseconds of an attribute, 0 when it has none."""
    whole = (value or "").strip().partition(".")[0]
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) <= 5 else 0


def _direction(
    session: SessionDescription, media: MediaDescription, local: LocalMedia, silent: bool
) -> tuple[Direction, bool]:
    theirs = media.direction or session.direction or "sendrecv"
    they_receive = theirs in ("sendrecv", "recvonly") and not silent
    they_send = theirs in ("sendrecv", "sendonly")
    send = they_receive and local.direction in ("sendrecv", "sendonly")
    receive = they_send and local.direction in ("sendrecv", "recvonly")
    if send:
        return ("sendrecv" if receive else "sendonly"), False
    return ("recvonly" if receive else "inactive"), not they_receive


def _answer_text(
    session: SessionDescription,
    chosen: MediaDescription,
    plan: MediaPlan,
    local: LocalMedia,
    crypto: Crypto | None,
) -> bytes:
    # The answer's t= line must equal the offer's (RFC 3264 section 6).
    head = _session_lines(local, session.value("t") or "0 0")
    codec = RtpMap(plan.payload_type, plan.codec, SAMPLE_RATE)
    lines = [] if crypto is None else [crypto]
    accepted = _audio(local, chosen.protocol, [codec], plan.dtmf_payload_type, plan.direction, lines)
    if plan.rtcp_mux:
        accepted.lines.append(("a", "rtcp-mux"))
    media = [accepted if each is chosen else _refused(each) for each in session.media]
    return bytes(SessionDescription(head, media))


def _session_lines(local: LocalMedia, timing: str) -> list[tuple[str, str]]:
    connection = Connection.of(local.host)
    return [
        ("v", "0"),
        ("o", f"- {local.session_id} {local.session_version} {connection}"),
        ("s", "-"),
        ("c", str(connection)),
        ("t", timing),
    ]


def _audio(
    local: LocalMedia,
    protocol: str,
    maps: list[RtpMap],
    event_type: int | None,
    direction: Direction,
    crypto: list[Crypto],
) -> MediaDescription:
    media = MediaDescription("audio", local.port, protocol, tuple(str(entry.payload_type) for entry in maps))
    media.lines = [("a", f"crypto:{each}") for each in crypto]
    media.lines += [("a", f"rtpmap:{entry}") for entry in maps]
    if event_type is not None:
        media.formats += (str(event_type),)
        media.lines.append(("a", f"rtpmap:{event_type} telephone-event/{SAMPLE_RATE}"))
        media.lines.append(("a", f"fmtp:{event_type} {_EVENTS}"))
    media.lines.append(("a", f"ptime:{FRAME_MS}"))
    media.lines.append(("a", direction))
    return media


def _refused(media: MediaDescription) -> MediaDescription:
    # A format is required by the grammar even where the port is 0; the offered ones do.
    return MediaDescription(media.kind, 0, media.protocol, media.formats or ("0",))


def _local_of(ours: SessionDescription, media: MediaDescription, allow_loopback: bool) -> LocalMedia:
    """Read back from our offer what we brought."""
    connection = media.connection or ours.connection
    if connection is None or connection.address is None:
        raise NotAcceptable("our offer has no literal address")
    names = (CODECS.get(entry.encoding.upper()) for entry in media.rtpmap().values())
    return LocalMedia(
        host=connection.host,
        port=media.port,
        session_id=0,
        session_version=0,
        codecs=tuple(name for name in names if name is not None),
        direction=media.direction or ours.direction or "sendrecv",
        allow_loopback=allow_loopback,
        rtcp_mux=media.attribute("rtcp-mux") is not None,
    )
