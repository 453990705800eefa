"""Puts a node's webhooks together: endpoints, what is kept of events, and who sends them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from offhook.clock import Clock
from offhook.config import Config
from offhook.metrics import Metrics
from offhook.outbound import OutboundClient
from offhook.server import EndpointDesk, WebhookServices
from offhook.store import Database
from offhook.store.endpoints import StoredEndpoints
from offhook.store.outbox import StoreOutbox
from offhook.tenants import Endpoints, Projects
from offhook.webhooks import DeliverySettings, WebhookAnnouncer
from offhook.webhooks.sending import endpoint_policy

__all__ = ["NodeWebhooks", "open_webhooks"]


@dataclass(frozen=True, slots=True)
class NodeWebhooks:
    announcer: WebhookAnnouncer
    endpoints: Endpoints
    services: WebhookServices


async def open_webhooks(
    config: Config,
    projects: Projects,
    database: Database | None,
    client: OutboundClient,
    clock: Clock,
    metrics: Metrics,
) -> NodeWebhooks:
    """Read the endpoints that were made by API. `announcer.resume` then goes on where the last process ended."""
    outbox = StoreOutbox(database, config.server.node) if database is not None else None
    endpoints = Endpoints(projects, StoredEndpoints(database) if database is not None else None)
    await endpoints.load()
    made_by_api = config.webhooks.to_policy()
    announcer = WebhookAnnouncer(
        client,
        endpoints=endpoints,
        clock=clock,
        draw=random.SystemRandom().random,
        outbox=outbox,
        settings=DeliverySettings(timeout_s=config.calls.webhook_timeout_s),
        policy=endpoint_policy(made_by_api),
        metrics=metrics,
    )
    desk = EndpointDesk(
        endpoints, send=announcer.test, policy=made_by_api, clock=clock, node=config.server.node
    )
    return NodeWebhooks(announcer, endpoints, WebhookServices(desk, outbox, announcer.redeliver))
