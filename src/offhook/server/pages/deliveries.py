"""`/deliveries`: what became of each event, and once more by a button. The objects are those of the REST routes."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.calls.event_types import EVENT_TYPES
from offhook.tenants import Deliveries as KeptDeliveries
from offhook.tenants import DeliveryQuery

from ..services import ServerServices, WebhookServices
from ..webhook_deliveries import STATES, describe_attempt, describe_delivery
from .forms import Form
from .logins import Login
from .shell import NavItem, Shell, list_link

__all__ = ["Deliveries"]

PAGE = 50
_FIELDS = ("state", "type", "call", "project", "endpoint")


class Deliveries:
    def __init__(self, shell: Shell, services: ServerServices) -> None:
        if services.webhooks is None:
            return
        self._shell = shell
        self._services = services
        self._webhooks: WebhookServices = services.webhooks
        shell.nav.append(NavItem("/deliveries", "Deliveries"))
        shell.page("/deliveries", self.show_all)
        shell.page("/deliveries/{delivery_id}", self.show)
        shell.form("/deliveries/{delivery_id}/redeliver", self.redeliver)

    async def show_all(self, request: Request, login: Login) -> Response:
        wanted = {name: request.query_params.get(name, "").strip()[:300] for name in _FIELDS}
        after = request.query_params.get("after")
        kept, found = self._webhooks.deliveries, None
        if kept is not None and wanted["state"] in ("", *STATES):
            found = await kept.search(
                DeliveryQuery(
                    project_id=wanted["project"] or None,
                    call_id=wanted["call"] or None,
                    event_type=wanted["type"] or None,
                    endpoint_id=wanted["endpoint"] or None,
                    state=wanted["state"] or None,
                    after=after,
                    limit=PAGE + 1,
                )
            )
        rows = [describe_delivery(event, delivery) for event, delivery in (found or [])[:PAGE]]
        desk = self._services.project_desk
        older = {**wanted, "after": rows[-1]["id"]} if len(found or []) > PAGE else None
        return await self._shell.render(
            request,
            login,
            "deliveries.html",
            is_kept=kept is not None,
            deliveries=rows,
            wanted=wanted,
            is_filtered=any(wanted.values()),
            after=after,
            states=STATES,
            event_types=EVENT_TYPES,
            projects=list(desk.names()) if desk is not None else [],
            newest=list_link("/deliveries", wanted),
            older=list_link("/deliveries", older) if older else "",
        )

    async def show(self, request: Request, login: Login) -> Response:
        event, delivery, attempts = (
            await self._kept().find(None, request.path_params["delivery_id"]) or _none()
        )
        described = describe_delivery(event, delivery)
        return await self._shell.render(
            request,
            login,
            "delivery.html",
            delivery=described,
            project_id=delivery.project_id,
            attempts=[describe_attempt(attempt) for attempt in attempts],
            body=event.body.decode("utf-8", "replace"),
        )

    async def redeliver(self, request: Request, login: Login, form: Form) -> Response:
        event, delivery, _ = await self._kept().find(None, request.path_params["delivery_id"]) or _none()
        again = self._webhooks.redeliver(event, delivery)
        return self._shell.see(f"/deliveries/{quote(again.id, safe='')}", login)

    def _kept(self) -> KeptDeliveries:
        return self._webhooks.deliveries or _none()


def _none() -> NoReturn:
    raise CallError(404, "There is no such delivery.", code="webhook_delivery_not_found")
