"""`offhook explain CALL`: the story of one call, as a ladder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from .api import DEFAULT_URL, Api, ApiError, DataDir, Key, Url, connect, fail

__all__ = ["register"]

_WIDTH = (80, 120)


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    call: Annotated[str, typer.Argument(help="A call's id, or `last`.")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    data_dir: DataDir = Path("offhook-data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the timeline as the API gives it.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Also draw what is printed into this SVG file.")] = None,
) -> None:
    """Print what happened to a call: SIP, webhook, API calls and turns on one clock."""
    api = connect(url, key, data_dir)
    try:
        call_id = _newest(api) if call == "last" else call
        timeline = api.timeline(call_id)
        facts = {} if as_json else api.call(call_id)
    except ApiError as error:
        fail(str(error))
    if as_json:
        print(json.dumps(timeline, indent=2))
        return
    _show(timeline, facts, svg)


def _newest(api: Api) -> str:
    if not (found := api.calls(1)):
        raise ApiError("no calls yet")
    return str(found[0]["id"])


def _show(timeline: dict[str, Any], facts: dict[str, Any], svg: Path | None) -> None:
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    from offhook.calls.ladder import HOSTED_NAMES, NAMES, from_timeline, printable

    from .ladder import draw, header

    console = Console(highlight=False, record=svg is not None)
    width = min(max(console.width, _WIDTH[0]), _WIDTH[1])
    console.print(
        Text(printable(f"{facts.get('id', '')}  began {timeline.get('started_at') or '?'}"), style="bold")
    )
    for name in ("from", "to", "transport", "remote", "codec", "upstream"):
        if facts.get(name):
            console.print(
                Text(f"{name:>9}  ", style="dim").append(printable(str(facts[name])), style="default")
            )
    console.print(header(width, HOSTED_NAMES if facts.get("hosted") else NAMES), soft_wrap=True)
    for line in draw(from_timeline(timeline), width):
        console.print(line, soft_wrap=True)
    if timeline.get("dropped"):
        console.print(f"{timeline['dropped']} later entries were not kept")
    if end := facts.get("termination"):
        console.print(
            Text(
                printable(f"ended: {end.get('reason')} ({end.get('result')}): {end.get('cause')}"),
                style="bold",
            )
        )
    if facts.get("hosted"):
        seen = f"{facts.get('state')}, as far as its API shows: the phone leg is {facts.get('upstream')}'s"
        console.print(Text(printable(seen), style="bold"))
    if svg is not None:
        drawn = console.export_svg(title=f"offhook explain {facts.get('id', '')}", theme=MONOKAI)
        try:
            # Any monospaced font will do; the file should not ask the network for one.
            svg.write_text(re.sub(r"@font-face \{[^}]*\}\s*", "", drawn))
        except OSError as error:
            fail(f"--svg: {svg}: {error.strerror}")
