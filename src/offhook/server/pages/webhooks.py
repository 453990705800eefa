"""`/webhooks`: who is told of events. Signing secrets are shown once, when they were made."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.calls.event_types import EVENT_TYPES
from offhook.calls.past import PastUnavailable
from offhook.tenants import DeliveryQuery

from ..endpoint_desk import EndpointDesk
from ..services import ServerServices
from ..slowly import slowly
from ..webhook_deliveries import describe_delivery
from .forms import Form
from .logins import Login
from .shell import NavItem, Shell

__all__ = ["Webhooks"]

EVENT = "event:"
"What the names of the boxes begin with, one for each type of event."
LATEST = 10


class Webhooks:
    def __init__(self, shell: Shell, services: ServerServices) -> None:
        if services.webhooks is None:
            return
        self._shell = shell
        self._services = services
        self._desk: EndpointDesk = services.webhooks.endpoints
        self._deliveries = services.webhooks.deliveries
        shell.nav.append(NavItem("/webhooks", "Webhooks"))
        shell.page("/webhooks", self.show_all)
        shell.form("/webhooks", self.create)
        endpoint = "/webhooks/{project_id}/{endpoint_id}"
        shell.page(endpoint, self.show)
        shell.form(endpoint, self.update)
        shell.form(f"{endpoint}/rotate_secret", self.rotate_secret)
        shell.form(f"{endpoint}/test", self.test)
        shell.form(f"{endpoint}/delete", self.delete)

    async def show_all(
        self, request: Request, login: Login, form: Form | None = None, error: CallError | None = None
    ) -> Response:
        names = self._project_names()
        groups = [
            (project_id, name, [self._desk.describe(one) for one in self._desk.all_of(project_id)])
            async for project_id, name in slowly(names.items())
        ]
        return await self._shell.render(
            request,
            login,
            "webhooks.html",
            status=error.status if error else 200,
            groups=groups,
            names=names,
            event_types=EVENT_TYPES,
            form=form
            or {"project": request.query_params.get("project", ""), f"{EVENT}{EVENT_TYPES[0]}": "on"},
            fault=error.message if error else "",
        )

    async def create(self, request: Request, login: Login, form: Form) -> Response:
        project_id = form.get("project", "")
        try:
            if project_id not in self._project_names():
                raise CallError(404, "There is no such project.", code="project_not_found")
            made = await self._desk.create(project_id, _settings(form))
        except CallError as error:
            return await self.show_all(request, login, form, error)
        return self._shell.see(_path(project_id, made.id), login, new_secret=made.secrets[0])

    async def show(self, request: Request, login: Login) -> Response:
        return await self._page(request, login, *_place(request), **self._shell.told(request, login))

    async def update(self, request: Request, login: Login, form: Form) -> Response:
        project_id, endpoint_id = _place(request)
        try:
            await self._desk.update(project_id, endpoint_id, _settings(form))
        except CallError as error:
            return await self._page(request, login, project_id, endpoint_id, form=form, error=error)
        return self._shell.see(_path(project_id, endpoint_id), login)

    async def rotate_secret(self, request: Request, login: Login, form: Form) -> Response:
        project_id, endpoint_id = _place(request)
        asked = {"keep_old_secret_active_for_24_hours": "keep" in form}
        made = await self._desk.rotate_secret(project_id, endpoint_id, asked)
        return self._shell.see(_path(project_id, endpoint_id), login, new_secret=made.secrets[0])

    async def test(self, request: Request, login: Login, form: Form) -> Response:
        project_id, endpoint_id = _place(request)
        asked = {"event_type": form.get("event_type", "")}
        try:
            result = await self._desk.test(project_id, endpoint_id, asked)
        except CallError as error:
            if error.status != 502:
                raise
            result = {"error": error.message, "event_type": asked["event_type"]}
        return self._shell.see(_path(project_id, endpoint_id), login, result=result)

    async def delete(self, request: Request, login: Login, form: Form) -> Response:
        await self._desk.delete(*_place(request))
        return self._shell.see("/webhooks", login)

    async def _page(
        self,
        request: Request,
        login: Login,
        project_id: str,
        endpoint_id: str,
        *,
        form: Form | None = None,
        error: CallError | None = None,
        **told: Any,
    ) -> Response:
        endpoint = self._desk.find(project_id, endpoint_id)
        described = self._desk.describe(endpoint)
        deliveries, unread = None, ""
        if self._deliveries is not None:
            query = DeliveryQuery(project_id=project_id, endpoint_id=endpoint_id, limit=LATEST)
            try:
                found = await self._deliveries.search(query) or []
            except PastUnavailable as why:
                found, unread = [], str(why)
            deliveries = [describe_delivery(event, delivery) for event, delivery in found]
        until = max(endpoint.old_secrets_until, default=0.0)
        return await self._shell.render(
            request,
            login,
            "webhook.html",
            status=error.status if error else 200,
            at=_path(project_id, endpoint_id),
            project_id=project_id,
            endpoint=described,
            old_until=until if until > self._services.clock.wall() else None,
            event_types=EVENT_TYPES,
            form=form or _fields(described),
            deliveries=deliveries,
            unread=unread,
            fault=error.message if error else "",
            **told,
        )

    def _project_names(self) -> dict[str, str]:
        """Return the projects by their ids, each with what people call it."""
        desk = self._services.project_desk
        return desk.names() if desk is not None else {}


def _place(request: Request) -> tuple[str, str]:
    return request.path_params["project_id"], request.path_params["endpoint_id"]


def _path(project_id: str, endpoint_id: str) -> str:
    return f"/webhooks/{quote(project_id, safe='')}/{quote(endpoint_id, safe='')}"


def _fields(endpoint: dict[str, Any]) -> Form:
    """Return what the form of an endpoint begins with."""
    events = {f"{EVENT}{event_type}": "on" for event_type in endpoint["event_types"]}
    return {"name": endpoint["name"], "url": endpoint["url"], **events}


def _settings(form: Form) -> dict[str, Any]:
    """Return what a form says of an endpoint, as the API takes it."""
    url = form.get("url", "").strip()
    return {
        "name": form.get("name", "").strip() or url,
        "url": url,
        "event_types": [name.removeprefix(EVENT) for name in form if name.startswith(EVENT)],
    }
