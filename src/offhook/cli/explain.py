"""`offhook explain CALL`: why a call went as it did, and its story as a ladder."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .api import DEFAULT_URL, Api, ApiError, DataDir, Key, Url, connect, fail

if TYPE_CHECKING:
    from rich.console import Console

    from offhook.calls.verdict import Story, Verdict

__all__ = ["register"]

_WIDTH = (60, 120)
"Columns of a ladder: less cannot be read, more is no clearer."
_MATCHES = 20
"How many calls of a number are looked at."
_COLOURS = {"nobody": "green", "unknown": "yellow"}


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    call: Annotated[
        str,
        typer.Argument(
            help="A call's id, its SIP Call-ID, the carrier's id of it, part of a number (the newest call of it), "
            "or `last`."
        ),
    ] = "last",
    url: Url = DEFAULT_URL,
    key: Key = "",
    data_dir: DataDir = Path("offhook-data"),
    from_bundle: Annotated[
        Path | None, typer.Option("--from", help="Read this bundle instead of asking a node.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print verdict, call and timeline as JSON, as the API gives them.")
    ] = False,
    pcap: Annotated[
        Path | None,
        typer.Option(
            help="Write the SIP messages into this file, for Wireshark. Sound and keys are in it only by choice."
        ),
    ] = None,
    rtp: Annotated[
        bool,
        typer.Option("--rtp", help="With --pcap: RTP and RTCP too, where the project's capture keeps them."),
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="With --pcap: the a=crypto keys too, where capture keeps them.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Write all that is known of the call into this ZIP file, without keys and secrets."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The node's configuration, to go into --bundle without its secrets.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Also draw what is printed into this SVG file.")] = None,
) -> None:
    """Say why a call went as it did, and show it: SIP, webhook, API calls and turns on one clock."""
    from offhook.calls.verdict import Story, judge

    if config is not None and bundle is None:
        fail("--config goes into a bundle: give --bundle FILE too")
    if (rtp or keys) and (pcap is None or from_bundle is not None):
        name = "--rtp" if rtp else "--keys"
        fail(f"{name} goes into a capture that a node makes: give --pcap FILE, and no --from")
    facts, timeline, version = _load(call, url, key, data_dir, from_bundle, ask_version=bundle is not None)
    story = Story.of(facts, timeline)
    verdict = judge(story)
    if pcap is not None and (rtp or keys):
        _fetch_capture(pcap, connect(url, key, data_dir), str(facts.get("id")), rtp=rtp, keys=keys)
    elif pcap is not None:
        _write_capture(pcap, timeline)
    if bundle is not None:
        _write_bundle(bundle, facts, timeline, verdict, version, config)
    if as_json:
        print(json.dumps({"verdict": verdict.to_api(), "call": facts, "timeline": timeline}, indent=2))
        return
    _show(story, verdict, timeline, facts, svg)


def _load(
    call: str, url: str, key: str, data_dir: Path, from_bundle: Path | None, *, ask_version: bool
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the call, its timeline, and the version of the node that told of them."""
    from .bundle import BundleError, read_bundle

    try:
        if from_bundle is not None:
            return *read_bundle(from_bundle), ""
        api = connect(url, key, data_dir)
        call_id = _find(api, call)
        return api.call(call_id), api.timeline(call_id), api.version() if ask_version else ""
    except (ApiError, BundleError) as error:
        fail(str(error))


def _find(api: Api, wanted: str) -> str:
    """Return the id of the call that is meant."""
    if not wanted.strip():
        raise ApiError("that names no call: give an id, a number, or `last`")
    if wanted == "last":
        if not (found := api.calls(1)):
            raise ApiError("no calls yet")
        return str(found[0]["id"])
    if wanted.startswith("rtc_"):
        return wanted
    for name in ("sip_call_id", "carrier_call_id"):
        if found := [one for one in api.search(name, wanted, _MATCHES) if one.get(name) == wanted]:
            return _newest(found, wanted)
    number = re.sub(r"[\s().-]", "", wanted) if re.fullmatch(r"[+\d][\d\s().-]*", wanted) else wanted
    if found := api.search("number", number, _MATCHES):
        return _newest(found, wanted)
    # Ids are opaque, and another service's may look otherwise; if it is none, the node says so.
    return wanted


def _newest(found: list[dict[str, Any]], wanted: str) -> str:
    """Return the id of the first, and say that there are more: callers choose their Call-IDs and headers."""
    if len(found) > 1:
        many = f"{len(found)}" if len(found) < _MATCHES else "many"
        print(f"{many} calls of {wanted}; this is the newest (`offhook calls` lists all)", file=sys.stderr)
    return str(found[0]["id"])


def _write_capture(path: Path, timeline: dict[str, Any]) -> None:
    from offhook.calls.capture import NOT_INCLUDED, capture

    if not any(entry.get("kind") == "sip" for entry in timeline.get("data", ())):
        fail("--pcap: this call has no SIP messages here")
    try:
        path.write_bytes(capture(timeline))
    except OSError as error:
        fail(f"--pcap: {path}: {error.strerror}")
    print(f"{path}: {NOT_INCLUDED}", file=sys.stderr)


def _fetch_capture(path: Path, api: Api, call_id: str, *, rtp: bool, keys: bool) -> None:
    try:
        said = api.write_capture(call_id, path, rtp=rtp, keys=keys)
    except (ApiError, OSError) as error:
        fail(f"--pcap: {f'{path}: {error.strerror}' if isinstance(error, OSError) else error}")
    print(f"{path}: {said}", file=sys.stderr)


def _write_bundle(
    path: Path,
    facts: dict[str, Any],
    timeline: dict[str, Any],
    verdict: Verdict,
    version: str,
    config: Path | None,
) -> None:
    import platform

    import offhook
    from offhook.calls.capture import capture

    from .bundle import BundleError, redact_config, scrub, write_bundle

    shown = scrub(timeline)
    parts: dict[str, Any] = {
        "call": scrub(facts),
        "timeline": shown,
        "verdict": scrub(verdict.to_api()),
        "webhooks": [entry for entry in shown.get("data", ()) if entry.get("kind") == "webhook"],
        "versions": {
            "offhook": offhook.__version__,
            "node": version or None,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }
    try:
        if config is not None:
            parts["config"] = redact_config(_read_config(config))
        write_bundle(path, parts, capture(shown))
    except BundleError as error:
        fail(f"--bundle: {error}")
    print(f"{path}: without keys and secrets; README.txt in it says what it holds", file=sys.stderr)


def _read_config(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        fail(f"--config: {path}: {error.strerror}")
    except ValueError:
        # What stands there is not said: it may be a secret.
        fail(f"--config: {path} is no TOML; `offhook serve --config` says where")


def _show(
    story: Story, verdict: Verdict, timeline: dict[str, Any], facts: dict[str, Any], svg: Path | None
) -> None:
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    from offhook.calls.ladder import HOSTED_NAMES, NAMES, from_timeline, printable

    from .ladder import draw, header

    console = Console(highlight=False, record=svg is not None)
    width = min(max(console.width, _WIDTH[0]), _WIDTH[1])
    _show_verdict(console, story, verdict)
    console.print(
        Text(printable(f"{facts.get('id', '')}  began {timeline.get('started_at') or '?'}"), style="bold"),
        soft_wrap=True,
    )
    for name in ("from", "to", "transport", "remote", "codec", "upstream"):
        if facts.get(name):
            _say(console, f"{name:>9}  ", str(facts[name]))
    console.print(header(width, HOSTED_NAMES if facts.get("hosted") else NAMES), soft_wrap=True)
    for line in draw(from_timeline(timeline), width):
        console.print(line, soft_wrap=True)
    if timeline.get("dropped"):
        console.print(f"{printable(str(timeline['dropped']))} entries were not kept", markup=False)
    if end := story.end:
        said = f"ended: {end.get('reason')} ({end.get('result')}): {end.get('cause')}"
        console.print(Text(printable(said), style="bold"), soft_wrap=True)
    if facts.get("hosted"):
        seen = f"{facts.get('state')}, as far as its API shows: the phone leg is {facts.get('upstream')}'s"
        console.print(Text(printable(seen), style="bold"), soft_wrap=True)
    if svg is not None:
        drawn = console.export_svg(title=f"offhook explain {facts.get('id', '')}", theme=MONOKAI)
        try:
            # Any monospaced font will do; the file should not ask the network for one.
            svg.write_text(re.sub(r"@font-face \{[^}]*\}\s*", "", drawn))
        except OSError as error:
            fail(f"--svg: {svg}: {error.strerror}")


def _show_verdict(console: Console, story: Story, verdict: Verdict) -> None:
    colour = f"bold {_COLOURS.get(verdict.blame, 'red')}"
    _say(console, "verdict  ", verdict.sentence, name_style="bold", style=colour)
    _show_details(console, story, verdict)
    for other in verdict.also:
        _say(console, "   also  ", other.sentence, name_style="bold")
        _show_details(console, story, other)
    console.print()


def _show_details(console: Console, story: Story, verdict: Verdict) -> None:
    whose = {"nobody": "nobody's fault", "unknown": "nobody knows whose"}.get(
        verdict.blame, f"the {verdict.blame}'s"
    )
    _say(console, "  whose  ", f"{whose} ({verdict.code})")
    if verdict.remedy:
        _say(console, " remedy  ", verdict.remedy)
    entries = {entry.number: entry for entry in story.entries}
    for entry in (entries[number] for number in verdict.evidence if number in entries):
        _say(console, "  shown  ", f"{entry.at:.3f} {entry.title[:160]}")


def _say(console: Console, name: str, said: str, *, name_style: str = "dim", style: str = "default") -> None:
    """Print one thing: wrapped for people, in one line for what reads a pipe."""
    from rich.text import Text

    from offhook.calls.ladder import printable

    text = printable(said)
    room = max(20, console.width - len(name))
    lines = textwrap.wrap(text, room) if console.is_terminal or console.record else [text]
    for number, line in enumerate(lines or [""]):
        head = name if number == 0 else " " * len(name)
        console.print(Text(head, style=name_style).append(line, style=style), soft_wrap=True)
