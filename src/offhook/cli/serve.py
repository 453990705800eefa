"""`offhook serve`: the product."""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from offhook import precedence

from . import garbage

if TYPE_CHECKING:
    from offhook.app import Node

__all__ = ["register"]

log = logging.getLogger("offhook.serve")

SWITCH_S = 0.0005
"""
How long a thread that computes, for the database or for a page, may keep the interpreter from the event loop. Python's
own 5 ms would be heard.
"""


class LogLevel(enum.StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file. Without one: loopback, with a generated project and key."),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="The least that is logged.", case_sensitive=False)
    ] = LogLevel.INFO,
    log_file: Annotated[
        Path | None, typer.Option(help="Where the JSON log goes; standard error without it.")
    ] = None,
) -> None:
    """
    Answer calls until SIGTERM or Ctrl-C.

    Calls may then go on for a while; a second signal ends them. SIGHUP reads projects and certificates again.
    """
    from offhook import config as configuration
    from offhook import logs
    from offhook.app import Node, StartError

    try:
        settings = configuration.load(config)
    except configuration.ConfigError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    try:
        stream = log_file.open("a") if log_file is not None else None
    except OSError as error:
        print(f"offhook serve: --log-file: {log_file}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(2) from None
    writing = logs.start(log_level.value, stream)
    sys.setswitchinterval(SWITCH_S)
    try:
        uvloop.run(_run(Node(settings, config)))
    except StartError as error:
        print(f"offhook serve: {error}{_remedy(error)}", file=sys.stderr)
        raise typer.Exit(1) from None
    finally:
        writing.stop()
        if stream is not None:
            stream.close()


def _remedy(error: BaseException) -> str:
    """Return what can be done about a socket that could not be bound; nothing for other faults."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    if cause is None or cause.filename is not None:  # a file's fault; sockets have no name
        return ""
    match cause.errno:
        case errno.EADDRINUSE:
            return (
                "\n  Another program has this port, perhaps another `offhook serve`: end it, or choose other ports "
                "(server.http, server.https, sip.listen in docs/reference/configuration.md)."
            )
        case errno.EADDRNOTAVAIL:
            return "\n  This machine does not have that address: name one of its own."
        case errno.EACCES:
            return "\n  This user may not take that port: choose one from 1024 up."
    return ""


def _take_precedence() -> None:
    """To be called in the loop's thread, once those of the database are there."""
    if not precedence.go_first():
        log.info(
            "calls have no precedence over this machine's other work: CAP_SYS_NICE or LimitNICE=-10 would give it",
            extra={"event": "serve.no_precedence"},
        )


async def _run(node: Node) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(None, "offhook-worker", precedence.go_behind))
    reloading: set[asyncio.Task[None]] = set()

    def end() -> None:
        if stop.is_set():
            node.hurry()
        stop.set()

    def reload() -> None:
        task = loop.create_task(node.reload())
        reloading.add(task)
        task.add_done_callback(reloading.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await node.start()
    # What lives now lives until the end: never look at it again when collecting.
    collector = garbage.Collector()
    _take_precedence()
    print(node.ready_line, flush=True)
    collecting = asyncio.create_task(collector.tend(lambda: node.calls_paced))
    await stop.wait()
    collecting.cancel()
    await node.stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # All is done: who asks again in the last milliseconds must not make it look like a crash.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
