"""`offhook projects` and `offhook keys`: who uses a node, and what opens it to them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from .admin import AdminApi, AdminKey, connect_as_admin
from .api import DEFAULT_URL, ApiError, Url, fail

__all__ = ["register"]

DataDir = Annotated[Path, typer.Option(help="The node's data dir, which may hold the admin key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, as the API gives it.")]
Project = Annotated[str, typer.Argument(help="The project's id.")]

_DATA_DIR = Path("offhook-data")


def register(app: typer.Typer) -> None:
    projects = typer.Typer(help="List, make and delete projects of a running node.", no_args_is_help=True)
    projects.command("list")(list_projects)
    projects.command("create")(create_project)
    projects.command("delete")(delete_project)
    app.add_typer(projects, name="projects")
    keys = typer.Typer(help="List, make and revoke API keys of a project.", no_args_is_help=True)
    keys.command("list")(list_keys)
    keys.command("create")(create_key)
    keys.command("revoke")(revoke_key)
    app.add_typer(keys, name="keys")


def list_projects(
    url: Url = DEFAULT_URL, admin_key: AdminKey = "", data_dir: DataDir = _DATA_DIR, as_json: AsJson = False
) -> None:
    """List all projects, the configuration's first."""
    found = _ask(connect_as_admin(url, admin_key, data_dir), "GET", "/projects")
    _show(
        found["data"],
        as_json,
        ("project", "name", "managed by", "numbers", "trunks"),
        lambda one: (
            one["id"],
            one["name"],
            one["managed_by"],
            ", ".join(one["numbers"]),
            ", ".join(trunk["name"] for trunk in one["trunks"]),
        ),
    )


def create_project(
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    project_id: Annotated[
        str, typer.Option("--id", help="The user of the SIP URI that trunks call. Default: one is made.")
    ] = "",
    number: Annotated[
        list[str] | None, typer.Option(help="A called number that leads here. May be repeated.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="An address or network that may call. May be repeated.")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(help="A JSON file with more of what [[projects]] of the configuration may hold."),
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    data_dir: DataDir = _DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a project and a first key for it. The key is printed once."""
    body = _read(settings) if settings is not None else {}
    if name:
        body["name"] = name
    if project_id:
        body["id"] = project_id
    if number:
        body["numbers"] = [*body.get("numbers", []), *number]
    if source:
        body["trunks"] = [*body.get("trunks", []), {"sources": source}]
    api = connect_as_admin(url, admin_key, data_dir)
    project = _ask(api, "POST", "/projects", body)
    key = _ask(api, "POST", f"/projects/{project['id']}/keys", {"name": "first"})
    if as_json:
        print(json.dumps({**project, "key": key["key"]}, indent=2))
        return
    print(f"made project {project['id']}; its trunks call sip:{project['id']}@THIS_HOST")
    print(f"  OPENAI_API_KEY={key['key']}")
    if not project["trunks"]:
        print("  nobody may call it yet: it has no trunks (--source, or --settings)")


def delete_project(
    project: Project,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Delete a project with its keys and webhook endpoints. Its calls go on, and stay on record."""
    api = connect_as_admin(url, admin_key, data_dir)
    if not yes:
        typer.confirm(f"Delete {project} with its keys and webhook endpoints?", abort=True)
    _ask(api, "DELETE", f"/projects/{quote(project, safe='')}")
    print(f"deleted {project}")


def list_keys(
    project: Project,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    data_dir: DataDir = _DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List a project's keys, revoked ones too, without the keys themselves."""
    api = connect_as_admin(url, admin_key, data_dir)
    found = _ask(api, "GET", f"/projects/{quote(project, safe='')}/keys")
    _show(
        found["data"],
        as_json,
        ("key", "begins", "name", "managed by", "made", "revoked"),
        lambda one: (
            one["id"],
            one["hint"],
            one["name"],
            one["managed_by"],
            _date(one["created_at"]),
            _date(one["revoked_at"]),
        ),
    )


def create_key(
    project: Project,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    data_dir: DataDir = _DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is printed once: only its hash is kept."""
    api = connect_as_admin(url, admin_key, data_dir)
    body = {"name": name} if name else {}
    key = _ask(api, "POST", f"/projects/{quote(project, safe='')}/keys", body)
    print(json.dumps(key, indent=2) if as_json else f"made {key['id']}\n  OPENAI_API_KEY={key['key']}")


def revoke_key(
    project: Project,
    key: Annotated[str, typer.Argument(help="The key's id, key_...; `offhook keys list` has it.")],
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Have a key open nothing from now on."""
    api = connect_as_admin(url, admin_key, data_dir)
    _ask(api, "DELETE", f"/projects/{quote(project, safe='')}/keys/{quote(key, safe='')}")
    print(f"revoked {key}")


def _ask(api: AdminApi, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        return api.ask(method, path, body)
    except ApiError as error:
        fail(str(error))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        fail(f"--settings: {path}: {error.strerror}")
    except ValueError as error:
        fail(f"--settings: {path}: no JSON: {error}")
    if not isinstance(found, dict):
        fail(f"--settings: {path}: not a JSON object")
    return found


def _show(
    found: list[dict[str, Any]],
    as_json: bool,
    titles: tuple[str, ...],
    cells: Callable[[dict[str, Any]], tuple[str, ...]],
) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from offhook.calls.ladder import printable

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=title in ("project", "key"))
    for one in found:
        table.add_row(*(Text(printable(cell)) for cell in cells(one)))
    Console(width=max(Console().width, 100)).print(table)


def _date(at: int | None) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at)) if at else ""
