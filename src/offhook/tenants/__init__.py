"""Who uses this node: projects, their keys, the trunks that may call them and the endpoints told about calls."""

from .joined import ApiKey, JoinedProjects, StoredProject, TenantStore
from .project import (
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
    "ConfiguredProjects",
    "DigestAccount",
    "Fallback",
    "JoinedProjects",
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
