"""One POST to one endpoint: signed anew, and judged."""

from __future__ import annotations

import logging
from collections.abc import Callable

from offhook.clock import Clock
from offhook.outbound import (
    OPERATOR,
    STRANGER,
    OutboundClient,
    OutboundError,
    OutboundPolicy,
    OutboundResponse,
)
from offhook.tenants import WebhookEndpoint

from . import signature
from .outbox import Outcome

__all__ = ["Sender", "endpoint_policy"]

log = logging.getLogger("offhook.webhooks")

USER_AGENT = "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
"What receivers of the hosted service's webhooks have always seen (API row W06)."


def endpoint_policy(made_by_api: OutboundPolicy = STRANGER) -> Callable[[WebhookEndpoint], OutboundPolicy]:
    """Return what endpoints may point at: those in the configuration anywhere, for the operator knows the network."""
    return lambda endpoint: OPERATOR if endpoint.configured else made_by_api


class Sender:
    """Signs and posts. `policy` says what an endpoint's URL may point at."""

    def __init__(
        self,
        client: OutboundClient,
        *,
        clock: Clock,
        timeout_s: float,
        policy: Callable[[WebhookEndpoint], OutboundPolicy],
    ) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._policy = policy

    async def post(self, endpoint: WebhookEndpoint, webhook_id: str, body: bytes) -> Outcome:
        """Send a body with the endpoint's secrets of this moment. Raises nothing."""
        wall = self._clock.wall()
        timestamp = int(wall)
        try:
            signatures = signature.sign(
                endpoint.secrets_at(wall), webhook_id=webhook_id, timestamp=timestamp, body=body
            )
            response = await self._client.post(
                endpoint.url,
                content=body,
                headers=[
                    ("content-type", "application/json"),
                    ("user-agent", USER_AGENT),
                    ("webhook-id", webhook_id),
                    ("webhook-timestamp", str(timestamp)),
                    ("webhook-signature", signatures),
                ],
                policy=self._policy(endpoint),
                timeout=self._timeout_s,
            )
        except OutboundError as error:
            return Outcome(None, str(error), error.permanent, error.kind)
        except signature.SecretError as error:
            return Outcome(None, str(error), permanent=True, kind="secret")
        except Exception as error:
            log.exception("a delivery failed", extra={"event": "webhook.failed", "webhook_id": webhook_id})
            return Outcome(None, f"internal error: {error!r}", kind="internal")
        return Outcome(response.status, _fault(response))


def _fault(response: OutboundResponse) -> str | None:
    """Return why an answer is no delivery (API row W14), or `None`."""
    if 200 <= response.status < 300:
        return None
    if 300 <= response.status < 400:
        return f"redirects are not followed (to {response.headers.get('location', 'nowhere')[:200]!r})"
    text = response.body.decode("utf-8", "replace")[:200]
    said = "".join(char if char.isprintable() else " " for char in text).strip()
    return f"the endpoint said: {said}" if said else "not a 2xx"
