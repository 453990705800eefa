"""Inbound HTTP and WebSocket. Thin: it says who asks, finds the call, and puts what the call answers into HTTP."""

from .app import ServerServices, create_app
from .http import HttpServer

__all__ = ["HttpServer", "ServerServices", "create_app"]
