"""`offhook calls`: the calls of a project."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .api import DEFAULT_URL, ApiError, DataDir, Key, Url, connect, fail

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("calls")(calls)


def calls(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data_dir: DataDir = Path("offhook-data"),
    refused: Annotated[
        bool,
        typer.Option(
            "--refused",
            help="List the addresses that were turned away instead, and the line of configuration that admits each.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, as the API gives it.")] = False,
) -> None:
    """List calls, newest first. `offhook explain CALL` tells the story of one."""
    try:
        api = connect(url, key, data_dir)
        found = api.refused_sources(limit) if refused else api.calls(limit)
    except ApiError as error:
        fail(str(error))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if refused:
        _show_refused(found)
    else:
        _show(found)


def _show(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from offhook.calls.ladder import printable

    if not found:
        print("no calls yet")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("call", "began", "from", "state", "ended"):
        table.add_column(title, no_wrap=title in ("call", "began", "state"))
    for one in found:
        began = time.strftime("%H:%M:%S", time.localtime(one.get("created_at") or 0))
        reason = (one.get("termination") or {}).get("reason") or ""
        caller = str(one.get("from") or "").partition(";tag=")[0]
        if one.get("hosted"):
            caller = f"(hosted by {one.get('upstream')})"
        cells = (one.get("id"), began, caller, one.get("state"), reason)
        table.add_row(*(Text(printable(str(cell or ""))) for cell in cells))
    # An id that is cut cannot be copied: a narrow terminal wraps the line instead.
    Console(width=max(Console().width, 100)).print(table)


def _show_refused(found: list[dict[str, Any]]) -> None:
    from offhook.calls.ladder import printable

    if not found:
        print(
            "nobody was turned away that this key may know of; on a node with several projects, addresses that none of "
            "them lists are in the node's log, as sip.source.refused"
        )
    for one in found:
        first, last = (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.get(name) or 0))
            for name in ("first_at", "last_at")
        )
        reasons = ", ".join(f"{count} {reason}" for reason, count in (one.get("reasons") or {}).items())
        called = f", called {one['called']}" if one.get("called") else ""
        times = "once" if one.get("count") == 1 else f"{one.get('count')} times"
        when = first if first == last else f"{first} to {last}"
        print(printable(f"{one.get('address')}  {times}, {when}: {reasons}{called}"))
        # On a line of its own and whole: it is there to be copied.
        print(printable(f"  to admit it: {one.get('remedy')}"))
