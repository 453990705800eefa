"""What every call of a node shares, handed in by `offhook.app`."""

from __future__ import annotations

from dataclasses import dataclass, field

from offhook.clock import Clock
from offhook.media.pacer import Pacer
from offhook.media.port import PortPool
from offhook.metrics import Metrics
from offhook.realtime.directory import EngineDirectory
from offhook.realtime.relay_hold import HoldSentence

from .journal import Journal, NoJournal
from .packet_capture import Captures
from .ports import Announcer
from .recording import Recordings

__all__ = ["CallServices", "CallSettings"]


@dataclass(frozen=True, slots=True)
class CallSettings:
    """Numbers of the `[calls]` and `[media]` tables. Times in seconds."""

    media_host: str
    "The literal address that SDP names."
    media_ports: tuple[int, int]
    "First and last of our media ports; an offer that names one of them at our address is refused."
    ring_timeout_s: float = 30.0
    "How long a phone rings before the fallback."
    engine_timeout_s: float = 5.0
    "How long an accepted call may wait for its engine."
    attach_timeout_s: float = 5.0
    "How long a sideband that came before the accept is held (API row S11)."
    refer_timeout_s: float = 8.0
    "How long `/refer` waits for the peer's final response (API row R17)."
    playout_wait_s: float = 30.0
    "How long `/refer?wait_for_playout=true` lets the agent finish."
    max_unanswered: int = 0
    "Calls that ring here at one time; 0: as many as there may be calls."
    max_unanswered_per_source: int = 0
    "The same of one peer address; 0: no limit of its own (decision 2: a Kamailio is one address)."
    session_limit_s: float = 3600.0
    "How long a session may last (API row S20)."
    media_timeout_s: float = 30.0
    "How long a call may go on with no RTP from its peer, unless it is on hold; 0: for ever."


@dataclass(frozen=True, slots=True)
class CallServices:
    clock: Clock
    announcer: Announcer
    ports: PortPool
    pacer: Pacer
    engines: EngineDirectory
    settings: CallSettings
    journal: Journal = field(default_factory=NoJournal)
    recordings: Recordings | None = None
    "`None`: calls cannot be recorded."
    captures: Captures | None = None
    "`None`: no packets are kept, whatever a project says."
    apology: HoldSentence | None = None
    "What a caller hears before BYE when the voice has failed in mid-call."
    metrics: Metrics = field(default_factory=Metrics)
