"""Makes and changes webhook endpoints, for the API and the pages (API rows W20 to W25)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from offhook import ids
from offhook.calls.errors import CallError
from offhook.calls.event_types import EVENT_TYPES, sample
from offhook.calls.ports import WebhookEvent
from offhook.clock import Clock
from offhook.outbound import OutboundError, OutboundPolicy, check_url
from offhook.tenants import Endpoints, WebhookEndpoint

from .body import refuse_unknown, type_name

__all__ = ["OLD_SECRET_S", "EndpointDesk", "describe_endpoint"]

MAX_ENDPOINTS = 100
MAX_URL = 2048
MAX_NAME = 256
OLD_SECRET_S = 24 * 3600.0
MAX_OLD_SECRETS = 4
"Each is a signature in every request: a loop that rotates must not fill receivers' limits for headers."

SendSample = Callable[[WebhookEndpoint, WebhookEvent], Awaitable[tuple[int | None, str | None]]]


class EndpointDesk:
    """
    Everything raises `CallError` for what cannot be done.

    `policy` is what the URLs of endpoints made here may point at; `send` sends a sample.
    """

    def __init__(
        self, endpoints: Endpoints, *, send: SendSample, policy: OutboundPolicy, clock: Clock, node: str
    ) -> None:
        self._endpoints = endpoints
        self._send = send
        self._policy = policy
        self._clock = clock
        self._node = node
        self._started_at = clock.wall()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def all_of(self, project_id: str) -> list[WebhookEndpoint]:
        """Return a project's endpoints, newest first."""
        return self._endpoints.of(project_id)[::-1]

    def find(self, project_id: str, endpoint_id: str) -> WebhookEndpoint:
        endpoint = self._endpoints.find(project_id, endpoint_id)
        if endpoint is None:
            raise CallError(
                404, "No webhook endpoint of this project has that id.", code="webhook_endpoint_not_found"
            )
        return endpoint

    async def create(self, project_id: str, body: dict[str, Any]) -> WebhookEndpoint:
        refuse_unknown(body, ("event_types", "name", "url"))
        event_types, name, url = _event_types(body), _name(body), self._url(body)
        now = self._clock.wall()
        endpoint = WebhookEndpoint(
            id=ids.opaque_id("wh"),
            url=url,
            secrets=(ids.webhook_secret(),),
            events=event_types,
            name=name,
            configured=False,
            created_at=now,
            updated_at=now,
        )
        async with self._one_by_one(project_id):
            if len(self._endpoints.of(project_id)) >= MAX_ENDPOINTS:
                raise CallError(
                    400,
                    f"A project may have {MAX_ENDPOINTS} webhook endpoints. Delete one.",
                    code="too_many_webhook_endpoints",
                )
            await self._save(project_id, endpoint)
        return endpoint

    async def update(self, project_id: str, endpoint_id: str, body: dict[str, Any]) -> WebhookEndpoint:
        refuse_unknown(body, ("event_types", "name", "url"))
        async with self._one_by_one(project_id):
            endpoint = self._changeable(project_id, endpoint_id)
            changed = replace(
                endpoint,
                events=_event_types(body) if "event_types" in body else endpoint.events,
                name=_name(body) if "name" in body else endpoint.name,
                url=self._url(body) if "url" in body else endpoint.url,
            )
            if changed != endpoint:
                changed = replace(changed, updated_at=self._clock.wall())
                await self._save(project_id, changed)
            return changed

    async def rotate_secret(self, project_id: str, endpoint_id: str, body: dict[str, Any]) -> WebhookEndpoint:
        """Give it a new secret. The old one signs for 24 hours more, if asked for (API row W24)."""
        refuse_unknown(body, ("keep_old_secret_active_for_24_hours",))
        keep = body.get("keep_old_secret_active_for_24_hours", False)
        if not isinstance(keep, bool):
            raise _wrong_type("keep_old_secret_active_for_24_hours", "a boolean", keep)
        async with self._one_by_one(project_id):
            endpoint = self._changeable(project_id, endpoint_id)
            now = self._clock.wall()
            old = _still_signing(endpoint, now) if keep else ()
            changed = replace(
                endpoint,
                secrets=(ids.webhook_secret(), *(secret for secret, _ in old)),
                old_secrets_until=tuple(until for _, until in old),
                updated_at=now,
            )
            await self._save(project_id, changed)
            return changed

    async def delete(self, project_id: str, endpoint_id: str) -> None:
        async with self._one_by_one(project_id):
            endpoint = self._changeable(project_id, endpoint_id)
            if not await self._endpoints.delete(project_id, endpoint):
                raise _not_kept()

    async def test(self, project_id: str, endpoint_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a sample now, once, and return what the API says of it: any HTTP status is a success of the test."""
        refuse_unknown(body, ("event_type",))
        event_type = _event_type(_required(body, "event_type"), "event_type")
        endpoint = self.find(project_id, endpoint_id)
        # Nobody has such a call: an app that acts on it is told that it is gone.
        data = {"call_id": ids.call_id(self._node), **sample(event_type)}
        event = WebhookEvent(ids.opaque_id("evt"), event_type, int(self._clock.wall()), data)
        status, error = await self._send(endpoint, event)
        if status is None:
            raise CallError(
                502,
                f"The endpoint did not answer: {error}.",
                code="webhook_endpoint_unreachable",
                type="server_error",
            )
        return {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": endpoint.id,
            "event_type": event_type,
            "status_code": status,
            "success": True,
        }

    def describe(
        self, endpoint: WebhookEndpoint, *, with_secret: bool = False, azure: bool = False
    ) -> dict[str, Any]:
        """Return an endpoint as the API shows it; Azure's `object` has a dot (API row W27)."""
        shown = describe_endpoint(endpoint, since=self._started_at)
        if azure:
            shown["object"] = "webhook.endpoint"
        if with_secret:
            shown["signing_secret"] = endpoint.secrets[0]
        return shown

    def _one_by_one(self, project_id: str) -> asyncio.Lock:
        """
        Return what a change of the project's endpoints holds from its look to its commit.

        Else of two at once the later would bring back what the earlier changed, or deleted.
        """
        lock = self._locks.get(project_id)
        if lock is None:
            lock = self._locks[project_id] = asyncio.Lock()
        return lock

    def _changeable(self, project_id: str, endpoint_id: str) -> WebhookEndpoint:
        endpoint = self.find(project_id, endpoint_id)
        if endpoint.configured:
            raise CallError(
                409,
                "This endpoint stands in the configuration file, which alone changes it "
                "([[projects.webhooks]], then SIGHUP).",
                code="managed_by_config",
            )
        return endpoint

    async def _save(self, project_id: str, endpoint: WebhookEndpoint) -> None:
        if not self._endpoints.can_be_made:
            raise CallError(
                501,
                'This node keeps nothing (server.database = "none"), so endpoints are made in its configuration.',
                code="not_supported",
                type="server_error",
            )
        if not await self._endpoints.save(project_id, endpoint):
            raise _not_kept()

    def _url(self, body: dict[str, Any]) -> str:
        url = _text(body, "url", MAX_URL)
        try:
            check_url(url, self._policy)
        except OutboundError as error:
            raise CallError(
                400,
                f"Invalid value for 'url': {error}. It must be https, at a public address; the operator may allow more "
                "(webhooks.allow_loopback, webhooks.allow_private).",
                code="invalid_value",
                param="url",
            ) from None
        return url


def describe_endpoint(endpoint: WebhookEndpoint, *, since: float) -> dict[str, Any]:
    """Return an endpoint without its secret; `since` stands for when one of the configuration was made."""
    secret = endpoint.secrets[0]
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": int(endpoint.created_at or since),
        "updated_at": int(endpoint.updated_at or since),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": sorted(endpoint.events, key=_order),
        "signing_secret_hint": f"whsec_...{secret[-4:]}" if secret.startswith("whsec_") else "...",
        "managed_by": "config" if endpoint.configured else "api",
    }


def _still_signing(endpoint: WebhookEndpoint, now: float) -> list[tuple[str, float]]:
    """Return the secrets that a new one finds, the latest first, each with its end: older ones keep theirs."""
    old = zip(endpoint.secrets[1:], endpoint.old_secrets_until, strict=True)
    found = [(endpoint.secrets[0], now + OLD_SECRET_S), *(one for one in old if now < one[1])]
    return found[:MAX_OLD_SECRETS]


def _order(event_type: str) -> tuple[int, str]:
    known = EVENT_TYPES.index(event_type) if event_type in EVENT_TYPES else len(EVENT_TYPES)
    return known, event_type


def _required(body: dict[str, Any], name: str) -> Any:
    if name not in body:
        raise CallError(
            400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name
        )
    return body[name]


def _text(body: dict[str, Any], name: str, longest: int) -> str:
    value = _required(body, name)
    if not isinstance(value, str):
        raise _wrong_type(name, "a string", value)
    if not 1 <= len(value) <= longest or not value.isprintable():
        raise CallError(
            400,
            f"Invalid value for '{name}': it must have 1 to {longest} printable characters.",
            code="invalid_value",
            param=name,
        )
    return value


def _name(body: dict[str, Any]) -> str:
    return _text(body, "name", MAX_NAME)


def _event_types(body: dict[str, Any]) -> frozenset[str]:
    given = _required(body, "event_types")
    if not isinstance(given, list):
        raise _wrong_type("event_types", "an array", given)
    if not given:
        raise CallError(
            400,
            "Invalid value for 'event_types': name one at least.",
            code="invalid_value",
            param="event_types",
        )
    return frozenset(_event_type(value, f"event_types[{index}]") for index, value in enumerate(given))


def _event_type(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(param, "a string", value)
    if value not in EVENT_TYPES:
        raise CallError(
            400,
            f"Invalid value for '{param}': {value[:80]!r} never happens here. There are: {', '.join(EVENT_TYPES)}.",
            code="invalid_value",
            param=param,
        )
    return value


def _wrong_type(param: str, expected: str, value: Any) -> CallError:
    return CallError(
        400,
        f"Invalid type for '{param}': expected {expected}, but got {type_name(value)} instead.",
        code="invalid_type",
        param=param,
    )


def _not_kept() -> CallError:
    return CallError(
        503,
        "The database cannot be written at present, so nothing was changed. Try again.",
        code="database_unavailable",
        type="server_error",
        retry=True,
    )
