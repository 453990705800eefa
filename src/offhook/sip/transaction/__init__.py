"""
The four transactions of RFC 3261 section 17, with the Accepted states of RFC 6026.

Each is a pure object: feed it messages and `now`, then drain `outputs()` and call `handle_timer`
when `next_timer()` comes. Timers are a dict from the RFC's letter to a deadline.
"""

from .base import (
    AckReceived,
    LocalProtocolError,
    Output,
    ResponseReceived,
    Send,
    State,
    Terminated,
    TimerValues,
    Transaction,
    create_ack,
    create_cancel,
)
from .client import ClientTransaction
from .invite_client import InviteClientTransaction
from .invite_server import InviteServerTransaction
from .server import ServerTransaction

__all__ = [
    "AckReceived",
    "ClientTransaction",
    "InviteClientTransaction",
    "InviteServerTransaction",
    "LocalProtocolError",
    "Output",
    "ResponseReceived",
    "Send",
    "ServerTransaction",
    "State",
    "Terminated",
    "TimerValues",
    "Transaction",
    "create_ack",
    "create_cancel",
]
