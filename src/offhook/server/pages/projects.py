"""`/projects`: who uses the node, and the keys that open it to them. A key is shown once, when it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError

from ..project_desk import ProjectDesk
from ..services import ServerServices
from .forms import Form
from .logins import Login
from .shell import NavItem, Shell

__all__ = ["Projects"]

NEW_TRUNK = "trunk"


class Projects:
    def __init__(self, shell: Shell, services: ServerServices) -> None:
        if services.project_desk is None:
            return
        self._shell = shell
        self._services = services
        self._desk: ProjectDesk = services.project_desk
        shell.nav.append(NavItem("/projects", "Projects"))
        shell.page("/projects", self.show_all)
        shell.form("/projects", self.create)
        shell.page("/projects/{project_id}", self.show)
        shell.form("/projects/{project_id}", self.update)
        shell.form("/projects/{project_id}/delete", self.delete)
        shell.form("/projects/{project_id}/keys", self.create_key)
        shell.form("/projects/{project_id}/keys/{key_id}/revoke", self.revoke_key)

    async def show_all(
        self, request: Request, login: Login, form: Form | None = None, error: CallError | None = None
    ) -> Response:
        live = self._live()
        return await self._shell.render(
            request,
            login,
            "projects.html",
            status=error.status if error else 200,
            projects=await self._desk.all(),
            keys=self._desk.open_keys(),
            live=live,
            form=form or {},
            fault=error.message if error else "",
        )

    async def create(self, request: Request, login: Login, form: Form) -> Response:
        """Make a project and a first key for it, which is shown on the project's page."""
        try:
            made = await self._desk.create(_settings(form, {}) | _id(form))
        except CallError as error:
            return await self.show_all(request, login, form, error)
        try:
            key = await self._desk.create_key(made["id"], {"name": "first key"})
        except CallError as error:
            return self._shell.see(_path(made["id"]), login, no_key=error.message)
        return self._shell.see(_path(made["id"]), login, new_key=key)

    async def show(self, request: Request, login: Login) -> Response:
        told = self._shell.told(request, login)
        return await self._page(request, login, request.path_params["project_id"], **told)

    async def update(self, request: Request, login: Login, form: Form) -> Response:
        project_id = request.path_params["project_id"]
        try:
            await self._desk.update(project_id, _settings(form, self._desk.find(project_id)))
        except CallError as error:
            return await self._page(request, login, project_id, form=form, error=error)
        return self._shell.see(_path(project_id), login)

    async def delete(self, request: Request, login: Login, form: Form) -> Response:
        await self._desk.delete(request.path_params["project_id"])
        return self._shell.see("/projects", login)

    async def create_key(self, request: Request, login: Login, form: Form) -> Response:
        project_id = request.path_params["project_id"]
        key = await self._desk.create_key(project_id, {"name": form.get("name", "").strip()})
        return self._shell.see(_path(project_id), login, new_key=key)

    async def revoke_key(self, request: Request, login: Login, form: Form) -> Response:
        project_id = request.path_params["project_id"]
        await self._desk.revoke_key(project_id, request.path_params["key_id"])
        return self._shell.see(_path(project_id), login)

    async def _page(
        self,
        request: Request,
        login: Login,
        project_id: str,
        *,
        form: Form | None = None,
        error: CallError | None = None,
        **told: Any,
    ) -> Response:
        project = self._desk.find(project_id)
        webhooks = self._services.webhooks
        return await self._shell.render(
            request,
            login,
            "project.html",
            status=error.status if error else 200,
            project=project,
            keys=self._desk.keys(project_id),
            live=self._live().get(project_id, 0),
            endpoints=[webhooks.endpoints.describe(one) for one in webhooks.endpoints.all_of(project_id)]
            if webhooks
            else None,
            fields={**_fields(project), **(form or {})},
            simple_trunk=_simple_trunk(project["trunks"]),
            fault=error.message if error else "",
            **told,
        )

    def _live(self) -> Mapping[str, int]:
        calls = self._services.capacity().get("calls")
        live = calls.get("projects", {}) if isinstance(calls, Mapping) else {}
        return {str(name): count for name, count in live.items()}


def _id(form: Form) -> dict[str, str]:
    project_id = form.get("id", "").strip()
    return {"id": project_id} if project_id else {}


def _fields(project: Mapping[str, Any]) -> dict[str, str]:
    """Return what the form of a project begins with."""
    trunks = project["trunks"]
    return {
        "name": project["name"],
        "numbers": "\n".join(project["numbers"]),
        "hosts": "\n".join(project["hosts"]),
        "max_calls": str(project["max_calls"] or ""),
        "sources": "\n".join(trunks[0]["sources"]) if _simple_trunk(trunks) and trunks else "",
    }


def _simple_trunk(trunks: list[Mapping[str, Any]]) -> bool:
    """Whether a field for addresses says all of a project's trunks."""
    return not trunks or (
        len(trunks) == 1
        and not (trunks[0]["digest_user"] or trunks[0]["register"] or trunks[0]["tls_hostname"])
    )


def _settings(form: Form, project: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a form says of a project. What it does not hold stays."""
    found: dict[str, Any] = {"name": form.get("name", "").strip()}
    for name in ("numbers", "hosts"):
        if name in form:
            found[name] = _words(form[name])
    if "max_calls" in form:
        found["max_calls"] = _count(form["max_calls"].strip())
    if "sources" in form and _simple_trunk(trunks := project.get("trunks", [])):
        name = trunks[0]["name"] if trunks else NEW_TRUNK
        sources = _words(form["sources"])
        found["trunks"] = [{"name": name, "sources": sources}] if sources else []
    return found


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", text) if word]


def _count(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise CallError(
            400, "Calls at once: give a number, or nothing for the node's limit.", param="max_calls"
        )
    return int(text)


def _path(project_id: str) -> str:
    return f"/projects/{quote(project_id, safe='')}"
