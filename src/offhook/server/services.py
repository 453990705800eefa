"""What the server is handed by `offhook.app`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from offhook.calls.past import NoPastCalls, PastCalls
from offhook.calls.statistics import CallStatistics
from offhook.clock import Clock
from offhook.metrics import Metrics
from offhook.realtime.client_secrets import ClientSecrets
from offhook.tenants import Deliveries, DeliveryRecord, EventRecord, Projects

from .admin_key import AdminKey
from .endpoint_desk import EndpointDesk
from .metrics import MetricsReaders
from .passthrough import Passthrough
from .passthrough_model import PassthroughModel
from .plain import Sessions
from .project_desk import ProjectDesk
from .sideband_limits import SidebandLimits

if TYPE_CHECKING:
    from offhook.calls.call import Call
    from offhook.calls.recording import Recording
    from offhook.calls.refused import RefusedSource

__all__ = ["Calls", "KeptCaptures", "KeptRecordings", "ServerServices", "WebhookServices"]


class Calls(Protocol):
    """What the server needs of `CallManager`."""

    def find(self, project_id: str | None, call_id: str) -> Call:
        """Raises `CallError` 404 for a call that is unknown or another project's; `None`: whosever it is."""

    def refused_sources(self, project_id: str | None) -> Sequence[RefusedSource]:
        """Return who was turned away, the latest first, as far as this project may know; `None`: all of them."""

    def list(self, project_id: str | None) -> list[Call]: ...


class KeptRecordings(Protocol):
    """What the server needs of the store's recordings."""

    async def find(self, project_id: str | None, call_id: str) -> Recording | None:
        """
        Return a call's recording; `None` when there is none, or it is another project's than the one that is named.

        Raises `PastUnavailable`.
        """

    def file_of(self, recording: Recording) -> Path: ...

    def url(self, call_id: str) -> str: ...

    async def delete(self, recording: Recording) -> None:
        """Remove what is over. Raises `PastUnavailable`."""


class KeptCapture(Protocol):
    """What is there of one call's packets. Reading blocks."""

    @property
    def packets(self) -> Path | None:
        """Their file; `None`: none were kept."""

    @property
    def messages(self) -> Sequence[str] | None:
        """SIP messages with media keys in them; `None`: such were not kept."""

    def pieces(self) -> Iterator[bytes]:
        """Return what is in the file."""


class KeptCaptures(Protocol):
    """What the server needs of the packets that were kept."""

    def find(self, call_id: str) -> KeptCapture:
        """Return what is there of a call that the asker may see. Blocks."""


@dataclass(frozen=True, slots=True)
class WebhookServices:
    """What the server needs of webhooks."""

    endpoints: EndpointDesk
    deliveries: Deliveries | None
    "`None`: this node keeps none."
    redeliver: Callable[[EventRecord, DeliveryRecord], DeliveryRecord]


@dataclass(frozen=True, slots=True)
class ServerServices:
    projects: Projects
    calls: Calls
    clock: Clock
    not_ready: Callable[[], Sequence[str]] = tuple
    "Returns the reasons why `/readyz` answers 503; none when calls can be taken."
    details: Callable[[], Mapping[str, object]] = dict
    "Returns what `/readyz` says besides."
    past: PastCalls = field(default_factory=NoPastCalls)
    "Calls that only the database remembers."
    statistics: CallStatistics | None = None
    "Figures of them over time; `None`: nothing is kept."
    project_desk: ProjectDesk | None = None
    "Makes and changes projects and keys; `None`: not served."
    capacity: Callable[[], Mapping[str, object]] = dict
    "Returns how much of the node is taken."
    sideband: SidebandLimits = field(default_factory=SidebandLimits)
    sessions: Sessions | None = None
    "Sessions without a call; `None`: not served."
    client_secrets: ClientSecrets | None = None
    "Tokens for sessions without a call; `None`: none are made."
    passthrough: Passthrough | None = None
    "Where requests about calls that are not ours go; `None`: no project has an upstream for them."
    recordings: KeptRecordings | None = None
    "What calls have recorded; `None`: nothing is kept."
    captures: KeptCaptures | None = None
    "Their packets; `None`: nothing is kept."
    models: PassthroughModel | None = None
    "Sessions without a call whose model an upstream serves; `None`: no model is an upstream's."
    metrics: Metrics = field(default_factory=Metrics)
    "What requests are counted in."
    exposition: Callable[[], Awaitable[bytes]] | None = None
    "Returns what `GET /metrics` says; `None`: it is not served."
    metrics_for: MetricsReaders = "local"
    admin_key: AdminKey | None = None
    "Opens the pages and `/admin/api`; `None`: neither is served."
    webhooks: WebhookServices | None = None
    "Endpoints and deliveries; `None`: not served."
