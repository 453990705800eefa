"""What a carrier calls a call, which is what its support and its console ask for."""

from __future__ import annotations

from offhook.sip.headers import Headers

__all__ = ["carrier_call_id"]

_NAMES = (
    "X-Twilio-CallSid",
    "X-Relay-Call-ID",
    "X-Telnyx-Call-Control-ID",
    "X-call_session_id",
    "X-call_leg_id",
    "X-Plivo-CallUUID",
    "X-Carrier-Call-ID",
)
"TRUNKS.md: Twilio, SignalWire, Telnyx (three of its products), Plivo; the last is for a proxy of one's own."


def carrier_call_id(headers: Headers) -> str | None:
    """Return the id that an INVITE bears besides its Call-ID; `None` for one without."""
    return next((value for name in _NAMES if (value := headers.get(name))), None)
