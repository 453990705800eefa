"""Puts the commands together. Each is in a file of its own and is imported only when it runs or shows its help."""

from __future__ import annotations

import typer

from offhook import __version__

from . import call, calls, demo, doctor, explain, init, projects, serve, webhooks

__all__ = ["app", "main"]

app = typer.Typer(
    name="offhook",
    help="A self-hosted, drop-in Realtime API with SIP.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they could show keys
)


def _print_version(value: bool) -> None:
    if value:
        print(f"offhook {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


for command in (serve, demo, call, calls, doctor, explain, init, projects, webhooks):
    command.register(app)


def main() -> None:
    """Run the command line."""
    app()
