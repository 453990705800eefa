"""The command: what the user may choose, and where the demo is played."""

from __future__ import annotations

import asyncio
import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


class Transport(enum.StrEnum):
    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class Voice(enum.StrEnum):
    EMBEDDED = "embedded"
    UPSTREAM = "upstream"


class Story(enum.StrEnum):
    TRANSFER = "transfer"
    MESSAGE = "message"


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    transport: Annotated[
        Transport, typer.Option(envvar="DEMO_TRANSPORT", help="How the phone calls.", case_sensitive=False)
    ] = Transport.TLS,
    voice: Annotated[
        Voice,
        typer.Option(
            envvar="DEMO_VOICE",
            help="Who speaks: the embedded voice, or another `offhook serve` as the upstream Realtime API, which is "
            "killed in the middle of the call while a third one takes over.",
            case_sensitive=False,
        ),
    ] = Voice.EMBEDDED,
    story: Annotated[
        Story,
        typer.Option(
            envvar="DEMO_STORY",
            help="What the caller is there for: to be put through, or to chat, and then to leave a message, which is "
            "recorded.",
            case_sensitive=False,
        ),
    ] = Story.TRANSFER,
    listen: Annotated[
        bool, typer.Option("--listen", help="Wait for a call from your own softphone instead.")
    ] = False,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="End after this long. Default: 180; with --listen, never.")
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Where configuration, logs, models and the recording go.")
    ] = Path("demo-data"),
    app_file: Annotated[
        Path | None, typer.Option("--app", help="The app to run. Default: examples/screening/app.py.")
    ] = None,
) -> None:
    """
    Answer a phone call: server, example app and caller, live on one screen.

    The exit status is 0 only if every step of the story really happened.
    """
    from .play import Play
    from .scene import MESSAGE, TRANSFER
    from .stage import UPSTREAMS, StageError, find_app, set_up

    try:
        stage = set_up(
            folder.absolute(),
            transport.value,
            find_app(app_file),
            UPSTREAMS if voice is Voice.UPSTREAM else (),
        )
    except (StageError, OSError) as error:
        print(f"offhook demo: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    limit = max_seconds if max_seconds is not None else (None if listen else 180.0)
    play = Play(stage, MESSAGE if story is Story.MESSAGE else TRANSFER, limit)
    ok = listen  # whoever ends the waiting has seen enough; a story that is cut off is none
    try:
        ok = asyncio.run(play.listen() if listen else play.perform())
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("ended" if listen else f"interrupted. Logs: {stage.logs}")
    raise typer.Exit(0 if ok else 1)
