"""`offhook init`: the section of the configuration for a trunk, and the URI to paste there."""

from __future__ import annotations

import sys
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from .presets import Preset

__all__ = ["register"]


class Kind(StrEnum):
    TWILIO = "twilio"
    SIGNALWIRE = "signalwire"
    TELNYX = "telnyx"
    KAMAILIO = "kamailio"


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    trunk: Annotated[Kind, typer.Argument(help="What calls you.")],
    host: Annotated[
        str, typer.Option(help="The name or address that the trunk reaches this host by.")
    ] = "sip.example.net",
    project: Annotated[str, typer.Option(help="The project's id.")] = "proj_reception",
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="An address or network that it calls from, instead of the known ones. Repeat for more."
        ),
    ] = None,
    webhook: Annotated[str, typer.Option(help="Your app's URL.")] = "http://127.0.0.1:9099/",
    transport: Annotated[str, typer.Option(help="udp, tcp or tls; the trunk's usual one without.")] = "",
    write: Annotated[
        Path | None, typer.Option(help="Append the section to this file, instead of printing it.")
    ] = None,
) -> None:
    """Print the configuration section for a trunk, with new keys, and the origination URI to paste there."""
    from .presets import PRESETS

    preset = PRESETS[trunk.value]
    try:
        sources = tuple(str(ip_network(one)) for one in source or preset.sources)
    except ValueError as error:
        _fail(f"--source: {error}")
    transport = transport or preset.transport
    if transport not in ("udp", "tcp", "tls"):
        _fail(f"--transport: {transport!r} is none of udp, tcp and tls")
    if not sources and not preset.digest:
        _fail(
            f"no list of {preset.title}'s addresses comes with Offhook: take them from its documentation and give "
            "each with --source"
        )
    text = _section(trunk.value, preset, sources, taken=not source, project=project, webhook=webhook)
    if write is None:
        print(text, end="")
    else:
        _append(write, text, project)
    _explain(preset, host, project, transport, known=not source and bool(preset.sources))


def _section(
    name: str, preset: Preset, sources: tuple[str, ...], *, taken: bool, project: str, webhook: str
) -> str:
    import json
    import secrets

    from offhook import ids

    lines = [
        "[[projects]]",
        f"id = {json.dumps(project)}",
        f"api_keys = [{json.dumps(ids.api_key())}]",
        "[[projects.trunks]]",
        f"name = {json.dumps(name)}",
    ]
    if sources:
        if taken:
            lines.append(f"# Noted {preset.taken}. Check them: what is missing here is not answered.")
        lines += ["sources = [", *(f"  {json.dumps(one)}," for one in sources), "]"]
    else:
        lines += [
            "# By password, from any address. With sources = [...] as well, both must be right.",
            f"digest_user = {json.dumps(name)}",
            f"digest_password = {json.dumps(secrets.token_urlsafe(24))}",
        ]
    lines += [
        "[[projects.webhooks]]",
        f"url = {json.dumps(webhook)}",
        f"secret = {json.dumps(ids.webhook_secret())}",
    ]
    return "\n".join(lines) + "\n"


def _append(path: Path, text: str, project: str) -> None:
    """Add the section to a file, if the whole still loads."""
    from offhook import config

    old = path.read_text() if path.is_file() else ""
    joined = f"{old.rstrip()}\n\n{text}" if old.strip() else text
    trial = path.with_name(f".{path.name}.new")
    try:
        trial.touch(mode=0o600)  # it holds keys
        trial.write_text(joined)
        config.load(trial)
        if path.is_file():
            trial.chmod(path.stat().st_mode & 0o777)
        trial.replace(path)
    except (config.ConfigError, OSError) as error:
        trial.unlink(missing_ok=True)
        _fail(f"--write: {path} is left as it was: {error}".replace(str(trial), str(path)))
    print(f"{path} has the project {project}")


def _explain(preset: Preset, host: str, project: str, transport: str, *, known: bool) -> None:
    named = f"[{host}]" if ":" in host else host
    print(f"\nAt {preset.title}, set the origination URI to", file=sys.stderr)
    print(f"  sip:{project}@{named};transport={transport}", file=sys.stderr)
    for line in preset.settings:
        print(f"- {line}", file=sys.stderr)
    if known:
        print(
            f"- Its addresses were noted {preset.taken}: check them before you rely on them", file=sys.stderr
        )
    print(
        f'- Here: [sip] listen must have "{transport}:0.0.0.0:{5061 if transport == "tls" else 5060}" and public_host '
        f'"{host}"; [media] bind and public_ip likewise. What is turned away: offhook calls --refused',
        file=sys.stderr,
    )


def _fail(message: str) -> NoReturn:
    print(f"offhook init: {message}", file=sys.stderr)
    raise typer.Exit(2)
