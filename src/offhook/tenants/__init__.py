"""Who uses this node: projects, their keys, the trunks that may call them and the endpoints told about calls."""

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
    "ConfiguredProjects",
    "DigestAccount",
    "Fallback",
    "Project",
    "Projects",
    "Register",
    "SrtpMode",
    "Trunk",
    "WebhookEndpoint",
    "key_id",
    "plain_address",
]
