"""
What all pages share: who may see them, how they are rendered, what their responses forbid the browser.

A page is a handler, `async (request, login) -> Response`, that `Shell.page` or `Shell.form` puts at a path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

import offhook
from offhook import ids
from offhook.calls.errors import CallError
from offhook.calls.past import PastUnavailable
from offhook.clock import Clock

from ..admin_key import AdminKey
from ..errors import unreadable
from .forms import Form, read_form, refuse_other_sites
from .handovers import Handovers
from .logins import LASTS_S, Login, Logins, Throttle
from .static import StaticFiles
from .text import FILTERS

__all__ = ["FormHandler", "Handler", "LongResponse", "NavItem", "Shell", "list_link"]

COOKIE = "offhook_login"
ONCE = "once"
"The query's field that has the token of what a form left."
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
"Nothing inline, nothing from elsewhere: what a caller smuggles into a page is text, twice over."
HEADERS = {
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

PIECE = 64 * 1024

Handler = Callable[[Request, Login], Awaitable[Response]]
FormHandler = Callable[[Request, Login, Form], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class NavItem:
    """One entry of the bar at the top."""

    path: str
    title: str


class Shell:
    """Puts pages into the app. `nav` is filled by those who make them, in the order in which it shows them."""

    def __init__(self, app: FastAPI, key: AdminKey, clock: Clock) -> None:
        self.nav: list[NavItem] = []
        self.static = StaticFiles()
        self._app = app
        self._key = key
        self._clock = clock
        self._logins = Logins(key, ids.sip_token)
        self._throttle = Throttle()
        self._handovers = Handovers(ids.sip_token)
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
            autoescape=True,
            # Calls of earlier versions, and other services', have not all that those of today have.
            undefined=ChainableUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals.update(static=self.static.url, version=offhook.__version__, nav=self.nav)
        app.add_route("/static/{name:path}", self.static.answer, methods=["GET"], include_in_schema=False)
        app.add_route("/login", self._show_login, methods=["GET"], include_in_schema=False)
        app.add_route("/login", self._log_in, methods=["POST"], include_in_schema=False)
        self.form("/logout", self._log_out)

    def page(self, path: str, handler: Handler) -> None:
        """Serve GET here to who is logged in; others are sent to the login and come back."""

        async def answer(request: Request) -> Response:
            login = self._login_of(request)
            if login is None:
                return await self._send_to_login(request)
            try:
                return await handler(request, login)
            except CallError as error:
                return await self._error(request, login, error)
            except PastUnavailable as error:
                return await self._error(request, login, unreadable(error))

        self._app.add_route(path, answer, methods=["GET"], include_in_schema=False)

    def form(self, path: str, handler: FormHandler) -> None:
        """Serve POST here to who is logged in and sends the form's own token, in a field named `csrf`."""

        async def answer(request: Request) -> Response:
            login = self._login_of(request)
            if login is None:
                return await self._send_to_login(request)
            try:
                refuse_other_sites(request)
                form = await read_form(request)
                if not login.owns(form.get("csrf", "")):
                    raise CallError(403, "This form is not of your present login. Load the page again.")
                return await handler(request, login, form)
            except CallError as error:
                return await self._error(request, login, error)
            except PastUnavailable as error:
                return await self._error(request, login, unreadable(error))

        self._app.add_route(path, answer, methods=["POST"], include_in_schema=False)

    def see(self, path: str, login: Login, **once: Any) -> Response:
        """Return an answer that leads the browser to a page, which is told `once` what is given."""
        if once:
            path += f"?{ONCE}={self._handovers.leave(login, once, self._clock.monotonic())}"
        return RedirectResponse(path, status_code=303, headers=HEADERS)

    def told(self, request: Request, login: Login) -> Mapping[str, Any]:
        """Return what a form left for this page; the second time, that it was told (`told_before`)."""
        token = request.query_params.get(ONCE)
        if token is None or request.method != "GET":
            return {}
        found = self._handovers.take(login, token, self._clock.monotonic())
        return {"told_before": True} if found is None else found

    async def render(
        self,
        request: Request,
        login: Login | None,
        template: str,
        /,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        style_nonce: str = "",
        **context: Any,
    ) -> Response:
        """
        Return a page. It is written in a thread: a long one takes longer than packets can wait.

        `style_nonce` lets those styles in that carry it: a library that brings its own, in a tree of its own.
        """
        content = await asyncio.to_thread(
            self._write,
            template,
            {
                "here": request.url.path,
                "login": login,
                "csrf": login.csrf if login else "",
                "style_nonce": style_nonce,
                **context,
            },
        )
        policy = f"{POLICY}; style-src 'self' 'nonce-{style_nonce}'" if style_nonce else POLICY
        sent = {"Content-Security-Policy": policy, **HEADERS, **(headers or {})}
        return LongResponse(content, status, sent, "text/html")

    def _write(self, template: str, context: Mapping[str, Any]) -> bytes:
        # With its first use a template is compiled, which takes longest of all.
        return self._templates.get_template(template).render(context).encode("utf-8", "replace")

    def _login_of(self, request: Request) -> Login | None:
        return self._logins.read(request.cookies.get(COOKIE, ""), self._clock.wall())

    async def _send_to_login(self, request: Request) -> Response:
        if request.headers.get("hx-request"):  # a part of a page that is open: have all of it loaded anew
            return Response(status_code=204, headers={"HX-Redirect": "/login", **HEADERS})
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        back = f"?next={quote(wanted)}" if request.method == "GET" and wanted != "/" else ""
        return RedirectResponse(f"/login{back}", status_code=303, headers=HEADERS)

    async def _show_login(self, request: Request) -> Response:
        if self._login_of(request) is not None:
            return RedirectResponse(_local(request.query_params.get("next", "")), 303, headers=HEADERS)
        return await self._login_page(request, "", request.query_params.get("next", ""))

    async def _log_in(self, request: Request) -> Response:
        source, now = request.client.host if request.client else "", self._clock.monotonic()
        try:
            refuse_other_sites(request)
            form = await read_form(request)
        except CallError as error:
            return await self._login_page(request, error.message, "", status=error.status)
        wanted = form.get("next", "")
        if wait := self._throttle.wait_s(source, now):
            said = (
                f"Too many wrong keys. Try again in {wait:.0f} s." if wait >= 1 else "Try again in a second."
            )
            return await self._login_page(
                request, said, wanted, status=429, headers={"Retry-After": str(int(wait) + 1)}
            )
        if not self._key.matches(form.get("key", "").strip()):
            self._throttle.wrong(source, now)
            return await self._login_page(request, "This is not the admin key.", wanted, status=403)
        self._throttle.right(source)
        response = RedirectResponse(_local(wanted), status_code=303, headers=HEADERS)
        response.set_cookie(
            COOKIE,
            self._logins.begin(self._clock.wall()),
            max_age=LASTS_S,
            httponly=True,
            samesite="strict",
            secure=_is_secure(request),
        )
        return response

    async def _log_out(self, request: Request, login: Login, form: Form) -> Response:
        self._logins.end(login, self._clock.wall())
        response = RedirectResponse("/login", status_code=303, headers=HEADERS)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_secure(request))
        return response

    async def _login_page(
        self, request: Request, fault: str, wanted: str, *, status: int = 200, headers: Form | None = None
    ) -> Response:
        host = request.url.hostname or ""
        in_the_clear = not _is_secure(request) and host not in ("localhost", "127.0.0.1", "::1")
        return await self.render(
            request,
            None,
            "login.html",
            status=status,
            headers=headers,
            fault=fault,
            next=_local(wanted),
            in_the_clear=in_the_clear,
        )

    async def _error(self, request: Request, login: Login, error: CallError) -> Response:
        return await self.render(request, login, "error.html", status=error.status, error=error)


class LongResponse(Response):
    """Hands a long body to the socket piece by piece, so that packets are sent in between."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), PIECE):
            piece = bytes(self.body[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def list_link(path: str, fields: Mapping[str, str]) -> str:
    """Return the address of a list, narrowed down by those fields that say something."""
    asked = urlencode({name: value for name, value in fields.items() if value}, quote_via=quote)
    return f"{path}?{asked}" if asked else path


def _is_secure(request: Request) -> bool:
    """Whether the browser speaks TLS, with this node or with a proxy in front of it that says so."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


def _local(path: str) -> str:
    """Return a path of these pages to go to: never another site's."""
    is_path = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_path else "/"
