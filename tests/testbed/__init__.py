"""
The whole product and everybody around it, for tests: a node in a process of its own, phones, developers' apps.

Phones and apps live in the test's event loop, on loopback and on ports that the system chose. Every wait is bounded.
"""

from .developer import DeveloperApp, Webhook
from .node import Node, Seat
from .phone import Phone, PhoneCall
from .protocol import ProtocolFault, Strictness
from .sideband import Sideband, Socket

__all__ = [
    "DeveloperApp",
    "Node",
    "Phone",
    "PhoneCall",
    "ProtocolFault",
    "Seat",
    "Sideband",
    "Socket",
    "Strictness",
    "Webhook",
]
