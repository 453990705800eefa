"""What answers look like, for /openapi.json. They say what is always there; there may be more."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

__all__ = [
    "AnyCall",
    "ApiKeyShown",
    "CallRefer",
    "CallTimeline",
    "CallVerdict",
    "CapacityHistory",
    "CapacityShown",
    "ClientSecretShown",
    "Deleted",
    "EventTypes",
    "Health",
    "ListOf",
    "MadeApiKey",
    "MadeEndpoint",
    "PageOf",
    "ProjectShown",
    "RecordingShown",
    "RefusedSourceShown",
    "WebhookDelivery",
    "WebhookDeliveryAttempts",
    "WebhookEndpointShown",
    "WebhookTest",
    "found",
]

T = TypeVar("T")


def found(what: type[BaseModel] | str, description: str = "Found.") -> dict[int | str, dict[str, Any]]:
    """Return the part of a route's `responses` that is about success: a shape of JSON, or a media type."""
    if isinstance(what, str):
        return {200: {"description": description, "content": {what: {}}}}
    return {200: {"description": description, "model": what}}


class ListOf(BaseModel, Generic[T]):
    object: Literal["list"]
    data: list[T]
    has_more: bool


class PageOf(ListOf[T], Generic[T]):
    first_id: str | None
    last_id: str | None


class Deleted(BaseModel):
    id: str
    object: str
    deleted: Literal[True]


# Calls.


class AnyCall(BaseModel):
    """A call. One of another service (`hosted`) has less of it."""

    id: str
    object: Literal["realtime.call"]
    project_id: str
    state: str
    created_at: int
    ended_at: int | None
    hosted: bool = False
    session: dict[str, Any] | None = Field(
        default=None, description="What is in force; null until the accept."
    )
    refers: list[dict[str, Any]] = Field(default=[], description="Its transfers, in short.")


class TimelineEntry(BaseModel):
    number: int
    at: str
    ms: float = Field(description="Since the first entry.")
    kind: str
    title: str


class CallTimeline(BaseModel):
    object: Literal["realtime.call.timeline"]
    call_id: str
    started_at: str
    dropped: int = Field(description="Entries that there was no room for.")
    data: list[TimelineEntry]


class VerdictShown(BaseModel):
    code: str
    blame: str
    sentence: str
    remedy: str
    evidence: list[int] = Field(description="Numbers of the timeline's entries.")
    also: list[VerdictShown]


class CallVerdict(VerdictShown):
    object: Literal["realtime.call.verdict"]
    call_id: str


class ReferUpdateShown(BaseModel):
    at: str
    status: str
    sip_status: int | None
    reason: str


class CallRefer(BaseModel):
    object: Literal["realtime.call.refer"]
    refer: int = Field(description="Which of the call's transfers; from 1.")
    call_id: str
    target_uri: str
    status: str
    sip_status: int | None
    reason: str
    created_at: int
    updates: list[ReferUpdateShown]
    dropped: int


class RecordingShown(BaseModel):
    id: str
    object: Literal["realtime.call.recording"]
    call_id: str
    project_id: str
    state: str
    started_at: float
    ended_at: float | None
    duration_ms: int
    bytes: int
    channels: list[str]
    url: str


class RefusedSourceShown(BaseModel):
    object: Literal["realtime.refused_source"]
    address: str
    count: int
    first_at: float
    last_at: float
    reason: str
    reasons: dict[str, int]
    called: str | None
    remedy: str
    config: str = Field(description="The lines that would admit it; empty where none would.")


class ClientSecretShown(BaseModel):
    value: str = Field(pattern="^ek_")
    expires_at: int
    session: dict[str, Any] = Field(description="With all its defaults.")


# Webhooks.


class WebhookEndpointShown(BaseModel):
    id: str
    object: Literal["webhook_endpoint", "webhook.endpoint"] = Field(
        description="With a dot on Azure's paths."
    )
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    managed_by: Literal["api", "config"]


class MadeEndpoint(WebhookEndpointShown):
    signing_secret: str = Field(description="In this answer and in no other.")


class WebhookTest(BaseModel):
    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: bool


class EventTypes(BaseModel):
    object: Literal["list"]
    data: list[str]


class WebhookDelivery(BaseModel):
    id: str
    object: Literal["webhook_delivery"]
    event_id: str
    event_type: str
    call_id: str | None
    webhook_endpoint_id: str
    url: str
    state: Literal["waiting", "delivered", "expired", "exhausted"]
    attempt_count: int
    last_status: int | None
    last_error: str | None
    created_at: float
    next_attempt_at: float | None
    finished_at: float | None


class WebhookAttempt(BaseModel):
    number: int
    started_at: float
    duration_ms: float
    status: int | None
    error: str | None


class WebhookDeliveryAttempts(WebhookDelivery):
    attempts: list[WebhookAttempt]


# The node.


class Health(BaseModel):
    status: str
    reasons: list[str] = Field(default=[], description="Why it is not ready.")


class CapacityShown(BaseModel):
    object: Literal["capacity"]


class SpreadShown(BaseModel):
    median: float
    worst: float


class CapacityPeriod(BaseModel):
    begins_at: float
    calls: int
    answered: int
    unanswered: int
    failed: int
    peak: int
    setup_s: SpreadShown | None
    mos: SpreadShown | None
    loss_in_percent: float | None
    loss_out_percent: float | None


class CapacityHistory(BaseModel):
    object: Literal["capacity.history"]
    hours: int
    width_s: int
    data: list[CapacityPeriod]


class ProjectShown(BaseModel):
    object: Literal["project"]
    id: str
    name: str
    managed_by: Literal["api", "config"]
    created_at: int | None
    numbers: list[str]
    hosts: list[str]
    max_calls: int
    fallback: dict[str, Any] | None
    trunks: list[dict[str, Any]]
    passthrough: str | None
    srtp: str
    refer_targets: list[str]
    record: bool
    capture: str


class ApiKeyShown(BaseModel):
    object: Literal["api_key"]
    id: str
    project_id: str
    name: str
    hint: str
    managed_by: Literal["api", "config"]
    created_at: int | None
    revoked_at: int | None


class MadeApiKey(ApiKeyShown):
    key: str = Field(description="In this answer and in no other.")
