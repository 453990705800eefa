"""`offhook webhooks`: the endpoints of a project, and what became of each event."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from .api import DEFAULT_URL, ApiError, DataDir, Key, Url, connect, fail

__all__ = ["register"]

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, as the API gives it.")]
_DATA_DIR = Path("offhook-data")
_PAGE = 100


def register(app: typer.Typer) -> None:
    webhooks = typer.Typer(
        help="Show webhook endpoints and deliveries, deliver again, send a test.", no_args_is_help=True
    )
    webhooks.command("list")(list_endpoints)
    webhooks.command("deliveries")(list_deliveries)
    webhooks.command("redeliver")(redeliver)
    webhooks.command("test")(send_test)
    app.add_typer(webhooks, name="webhooks")


def list_endpoints(
    url: Url = DEFAULT_URL, key: Key = "", data_dir: DataDir = _DATA_DIR, as_json: AsJson = False
) -> None:
    """List the project's endpoints, newest first."""
    found = _ask(url, key, data_dir, "GET", f"/v1/webhook_endpoints?limit={_PAGE}")["data"]
    _show(
        found,
        as_json,
        ("endpoint", "name", "managed by", "url", "event types"),
        lambda one: [
            one["id"],
            one["name"],
            one["managed_by"],
            one["url"],
            ", ".join(one["event_types"]),
        ],
    )


def list_deliveries(
    call: Annotated[str, typer.Option(help="Of this call alone.")] = "",
    event_type: Annotated[str, typer.Option("--type", help="Of this type of event alone.")] = "",
    state: Annotated[
        str, typer.Option(help="waiting, delivered, expired or exhausted.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="How many, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data_dir: DataDir = _DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first: one for each event and endpoint."""
    wanted = {"limit": str(limit), "call_id": call, "event_type": event_type, "state": state}
    query = urlencode({name: value for name, value in wanted.items() if value})
    found = _ask(url, key, data_dir, "GET", f"/v1/webhook_deliveries?{query}")["data"]
    _show(
        found,
        as_json,
        ("delivery", "at", "event", "state", "attempts", "last", "url"),
        lambda one: [
            one["id"],
            time.strftime("%m-%d %H:%M:%S", time.localtime(one["created_at"])),
            one["event_type"],
            one["state"],
            str(one["attempt_count"]),
            one["last_error"] or str(one["last_status"] or ""),
            one["url"],
        ],
    )


def redeliver(
    delivery: Annotated[str, typer.Argument(help="The delivery's id, whd_...")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    data_dir: DataDir = _DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Send a delivery's event to its endpoint once more."""
    path = f"/v1/webhook_deliveries/{quote(delivery, safe='')}"
    again = _ask(url, key, data_dir, "POST", f"{path}/redeliver")
    if as_json:
        print(json.dumps(again, indent=2))
    else:
        print(f"delivering {again['event_type']} ({again['event_id']}) to {again['url']} as {again['id']}")


def send_test(
    endpoint: Annotated[str, typer.Argument(help="The endpoint's id, wh_...")],
    event_type: Annotated[
        str, typer.Option("--type", help="The type of the sample.")
    ] = "realtime.call.incoming",
    url: Url = DEFAULT_URL,
    key: Key = "",
    data_dir: DataDir = _DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Send a sample to an endpoint, and say how it answered. Other than by a 2xx, the command fails."""
    path = f"/v1/webhook_endpoints/{quote(endpoint, safe='')}/test"
    result = _ask(url, key, data_dir, "POST", path, {"event_type": event_type})
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{endpoint} answered {event_type} with HTTP {result['status_code']}")
    if not 200 <= result["status_code"] < 300:
        raise typer.Exit(1)


def _ask(url: str, key: str, data_dir: Path, method: str, path: str, body: Any = None) -> dict[str, Any]:
    try:
        return connect(url, key, data_dir).ask(method, path, body)
    except ApiError as error:
        fail(str(error))


def _show(found: list[dict[str, Any]], as_json: bool, titles: tuple[str, ...], cells: Any) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from offhook.calls.ladder import printable

    if not found:
        print("none")
        return
    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=number == 0)
    for one in found:
        table.add_row(*(Text(printable(cell)) for cell in cells(one)))
    Console(width=max(Console().width, 120)).print(table)
