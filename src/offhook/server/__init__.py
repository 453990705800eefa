"""Inbound HTTP and WebSocket. Thin: it says who asks, finds the call, and puts what the call answers into HTTP."""

from .admin_key import AdminKey, find_admin_key
from .app import ServerServices, create_app
from .endpoint_desk import EndpointDesk
from .http import HttpServer
from .passthrough import Destination, Passthrough
from .passthrough_model import PassthroughModel
from .project_desk import ProjectDesk, SettingsError
from .services import WebhookServices

__all__ = [
    "AdminKey",
    "Destination",
    "EndpointDesk",
    "HttpServer",
    "Passthrough",
    "PassthroughModel",
    "ProjectDesk",
    "ServerServices",
    "SettingsError",
    "WebhookServices",
    "create_app",
    "find_admin_key",
]
