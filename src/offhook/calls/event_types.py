"""The types of webhook events, and what a sample of each holds (API rows W01, W25, W26)."""

from __future__ import annotations

from typing import Any

from .news import RECORDING_SAVED

__all__ = ["EVENT_TYPES", "sample"]

_SAMPLES: dict[str, dict[str, Any]] = {
    "realtime.call.incoming": {
        "sip_headers": [
            {"name": "From", "value": "<sip:+15550100@sip.example.com>;tag=sample"},
            {"name": "To", "value": "<sip:+15550199@sip.example.com>"},
            {"name": "Call-ID", "value": "sample@sip.example.com"},
        ],
        "sip_media_security": "rtp",
    },
    "realtime.call.answered": {},
    RECORDING_SAVED: {"recording_id": "rec_sample", "duration_ms": 1000},
    "realtime.call.ended": {"result": "success", "reason": "remote_hangup", "cause": "a sample"},
    "realtime.call.refer.updated": {
        "refer": 1,
        "target_uri": "tel:+15550123",
        "status": "completed",
        "sip_status": 200,
        "reason": "OK",
    },
}
EVENT_TYPES = tuple(_SAMPLES)
"All that endpoints can subscribe to; the first is the hosted service's, the others are Offhook's own."


def sample(event_type: str) -> dict[str, Any]:
    """Return the `data` of a sample, besides `call_id`."""
    return dict(_SAMPLES[event_type])
