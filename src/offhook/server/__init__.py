"""Inbound HTTP and WebSocket. Thin: it says who asks, finds the call, and puts what the call answers into HTTP."""

from .app import ServerServices, create_app
from .http import HttpServer
from .passthrough import Destination, Passthrough
from .passthrough_model import PassthroughModel

__all__ = ["Destination", "HttpServer", "Passthrough", "PassthroughModel", "ServerServices", "create_app"]
