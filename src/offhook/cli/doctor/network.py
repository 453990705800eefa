"""Asks others: a running node, DNS, clocks, webhook endpoints."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
from collections.abc import Awaitable, Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx2

from offhook import ids
from offhook.calls.ports import WebhookEvent
from offhook.certificates import client_context
from offhook.config import Config
from offhook.outbound import OutboundClient, OutboundError, OutboundPolicy
from offhook.sip.resolver import Resolver, UnresolvableError
from offhook.sip.route import hop_for_uri
from offhook.sip.uri import SipUri
from offhook.tenants import WebhookEndpoint
from offhook.webhooks import payload, signature
from offhook.webhooks.sending import endpoint_policy

from .facts import ClockFacts, ModelFacts, NameFacts, NodeFacts, WebhookFacts
from .machine import is_synchronised

__all__ = ["TEST_EVENT", "ask_brain", "ask_node", "find_clock", "find_names", "try_webhooks"]

TEST_EVENT = "webhook.test"
_TIMEOUT_S = 5.0
_REGISTRAR_S = 20.0
"NAPTR, SRV of each transport and addresses are asked for one after the other."
_ENDPOINTS_AT_ONCE = 8


async def ask_node(config: Config) -> NodeFacts | None:
    """Ask whoever holds the configured HTTP address whether it is a node, and how it is."""
    for scheme, address in (("http", config.server.http), ("https", config.server.https)):
        host, _, port = address.rpartition(":")
        if not address or port == "0":
            continue
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - where to ask, not to listen
        url = f"{scheme}://{host}:{port}"
        try:
            async with httpx2.AsyncClient(timeout=_TIMEOUT_S, verify=False, trust_env=False) as client:
                answer = await client.get(f"{url}/readyz")
                body = answer.json()
        except (httpx2.HTTPError, ValueError):
            continue
        if isinstance(body, dict) and body.get("status") in ("ready", "not ready"):
            return _read_node(url, body)
    return None


def _read_node(url: str, body: dict[str, Any]) -> NodeFacts:
    return NodeFacts(
        url=url,
        ready=body["status"] == "ready",
        reasons=tuple(str(one) for one in body.get("reasons", ())),
        warnings=tuple(str(one) for one in body.get("warnings", ())),
        registrations=tuple(
            (str(one.get("trunk")), str(one.get("state")), str(one.get("text")))
            for one in body.get("registrations", ())
        ),
    )


async def ask_brain(config: Config) -> ModelFacts | None:
    """Ask a language model's endpoint for its models, which costs no tokens; `None`: none is configured."""
    brain = config.engine.brain
    kinds = {config.engine.kind, *(one for one in config.models.values() if isinstance(one, str))}
    if brain.kind != "chat_completions" or "local" not in kinds:
        return None
    headers = {"authorization": f"Bearer {brain.api_key}"} if brain.api_key else {}
    url = f"{brain.base_url.rstrip('/')}/models"
    try:
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S) as client:
            status = (await client.get(url, headers=headers)).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return ModelFacts("brain", brain_error=f"{url}: {error or type(error).__name__}")
    if status in (401, 403) or status >= 500:
        return ModelFacts("brain", brain_error=f"{url} answers {status}")
    # Not every server lists its models: that something answers is all that can be said without a word to it.
    return ModelFacts("brain", skipped=f"{brain.base_url} answers; {brain.model} is asked when a call comes")


async def find_names(config: Config, resolver: Resolver | None = None) -> list[NameFacts]:
    """Resolve every name of the configuration that SIP needs: registrars in the way that REGISTER goes there."""
    looks: dict[tuple[str, str], Awaitable[NameFacts]] = {}
    if config.sip.public_host and not _is_literal(config.sip.public_host):
        looks["", ""] = _resolve_public(config.sip.public_host)
    for project in config.projects:
        for trunk in project.trunks:
            if trunk.register_ is None or (trunk.name, trunk.register_.registrar) in looks:
                continue
            uri = SipUri.parse(trunk.register_.registrar)
            if not _is_literal(uri.host):
                look = _resolve_registrar(uri, trunk.name, resolver or Resolver())
                looks[trunk.name, trunk.register_.registrar] = look
    return list(await asyncio.gather(*looks.values()))


async def _resolve_public(name: str) -> NameFacts:
    what = "sip.public_host"
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except TimeoutError:
        return NameFacts(name, what, error="no answer in time")
    except (OSError, UnicodeError) as error:
        return NameFacts(name, what, error=getattr(error, "strerror", None) or str(error))
    return NameFacts(name, what, tuple(sorted({str(one[4][0]) for one in found})))


async def _resolve_registrar(uri: SipUri, trunk: str, resolver: Resolver) -> NameFacts:
    what = f"the registrar of trunk {trunk}"
    try:
        async with asyncio.timeout(_REGISTRAR_S):
            targets = await resolver.resolve(hop_for_uri(uri, "registrar"))
    except TimeoutError:
        return NameFacts(uri.host, what, error="no answer in time")
    except UnresolvableError:
        return NameFacts(uri.host, what, error="no A, AAAA or SRV record leads anywhere")
    addresses = tuple(dict.fromkeys(target.host for target in targets))
    ways = dict.fromkeys(f"{target.transport} port {target.port}" for target in targets)
    return NameFacts(uri.host, what, addresses, ways=tuple(ways))


async def find_clock(config: Config, heard: list[tuple[str, str]]) -> ClockFacts:
    """
    Compare with the Date of whoever says one: `heard` is host and date of answers that came already, then upstreams.

    An upstream is asked for `/` without a key.
    """
    synchronised = is_synchronised()
    for url in (upstream.url for upstream in config.upstreams.values()):
        parts = urlsplit(url)
        origin = f"{parts.scheme.replace('ws', 'http', 1)}://{parts.netloc}/"
        try:
            async with httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
                answer = await client.head(origin)
        except (httpx2.HTTPError, OSError):
            continue
        heard.append((parts.hostname or "", answer.headers.get("date", "")))
    for host, date in heard:
        try:
            there = email.utils.parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            continue
        if not _is_own(host):
            # A Date has whole seconds: half of one is as likely as none.
            return ClockFacts(time.time() - there - 0.5, host, synchronised)
    return ClockFacts(synchronised=synchronised)


async def try_webhooks(
    config: Config, made: Iterable[tuple[str, WebhookEndpoint]], *, send: bool
) -> tuple[list[WebhookFacts], list[tuple[str, str]]]:
    """
    Try each endpoint: a signed `webhook.test` with `send`, else only a connection, with TLS where the URL has it.

    `made` are those that were made by API, with their projects. Returns the facts, and host and Date of each answer.
    """
    ca = config.server.data_dir / "tls" / "ca.pem"
    tls = client_context(ca if not config.tls.cert and ca.is_file() else None)
    client, dates = OutboundClient(tls=tls), list[tuple[str, str]]()
    at_once, policy = asyncio.Semaphore(_ENDPOINTS_AT_ONCE), endpoint_policy(config.webhooks.to_policy())

    async def attempt(project: str, endpoint: WebhookEndpoint) -> WebhookFacts:
        async with at_once:
            if send:
                return await _send(client, project, endpoint, policy(endpoint), dates)
            return await _reach(client, project, endpoint, policy(endpoint))

    configured = ((project.id, project.webhooks) for project in (one.to_project() for one in config.projects))
    wanted = [(project, endpoint) for project, endpoints in configured for endpoint in endpoints]
    try:
        found = await asyncio.gather(*(attempt(*one) for one in (*wanted, *made)))
    finally:
        await client.close()
    return found, dates


async def _send(
    client: OutboundClient,
    project: str,
    endpoint: WebhookEndpoint,
    policy: OutboundPolicy,
    dates: list[tuple[str, str]],
) -> WebhookFacts:
    now = int(time.time())
    event = WebhookEvent(
        ids.opaque_id("evt_test"), TEST_EVENT, now, {"test": True, "sent_by": "offhook doctor"}
    )
    body = payload.encode(event)
    signatures = signature.sign(endpoint.secrets_at(now), webhook_id=event.id, timestamp=now, body=body)
    began = time.monotonic()
    try:
        answer = await client.post(
            endpoint.url,
            content=body,
            headers=[
                ("content-type", "application/json"),
                ("user-agent", "Offhook-doctor"),
                ("webhook-id", event.id),
                ("webhook-timestamp", str(now)),
                ("webhook-signature", signatures),
            ],
            policy=policy,
            timeout=10.0,
        )
    except OutboundError as error:
        return WebhookFacts(project, endpoint.url, True, str(error), error.kind)
    took = (time.monotonic() - began) * 1000
    dates.append((urlsplit(endpoint.url).hostname or "", answer.headers.get("date", "")))
    return WebhookFacts(project, endpoint.url, True, status=answer.status, duration_ms=took)


async def _reach(
    client: OutboundClient, project: str, endpoint: WebhookEndpoint, policy: OutboundPolicy
) -> WebhookFacts:
    try:
        await client.reach(endpoint.url, policy=policy, timeout=_TIMEOUT_S)
    except OutboundError as error:
        return WebhookFacts(project, endpoint.url, False, str(error), error.kind)
    return WebhookFacts(project, endpoint.url, False)


def _is_own(host: str) -> bool:
    return host == "localhost" or (_is_literal(host) and ip_address(host).is_loopback)


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
