"""Who uses this node: projects, their keys, the trunks that may call them and the endpoints told about calls."""

from .deliveries import AttemptRecord, Deliveries, DeliveryQuery, DeliveryRecord, EventRecord, Outbox
from .endpoints import Endpoints, EndpointStore
from .joined import ApiKey, JoinedProjects, StoredProject, TenantStore
from .project import (
    CaptureMode,
    DigestAccount,
    Fallback,
    Project,
    Register,
    SrtpMode,
    Trunk,
    WebhookEndpoint,
    key_id,
    plain_address,
)
from .repository import ConfiguredProjects, Projects

__all__ = [
    "ApiKey",
    "AttemptRecord",
    "CaptureMode",
    "ConfiguredProjects",
    "Deliveries",
    "DeliveryQuery",
    "DeliveryRecord",
    "DigestAccount",
    "EndpointStore",
    "Endpoints",
    "EventRecord",
    "Fallback",
    "JoinedProjects",
    "Outbox",
    "Project",
    "Projects",
    "Register",
    "SrtpMode",
    "StoredProject",
    "TenantStore",
    "Trunk",
    "WebhookEndpoint",
    "key_id",
    "plain_address",
]
