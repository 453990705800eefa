"""Who uses this node: projects, their keys, the trunks that may call them and the endpoints told about calls."""

from .project import DigestAccount, Fallback, Project, SrtpMode, Trunk, WebhookEndpoint, key_id
from .repository import ConfiguredProjects, Projects

__all__ = [
    "ConfiguredProjects",
    "DigestAccount",
    "Fallback",
    "Project",
    "Projects",
    "SrtpMode",
    "Trunk",
    "WebhookEndpoint",
    "key_id",
]
