"""The command: looks, judges, prints."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from offhook.config import Config

    from .facts import Facts
    from .verdict import Finding

__all__ = ["register"]

T = TypeVar("T")

_MARKS = {"ok": "ok     ", "warning": "warning", "fault": "FAULT  "}
_COLOURS = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(help="The TOML file that `offhook serve` gets. Without one: its defaults."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    send: Annotated[
        bool, typer.Option("--send", help="Send each webhook endpoint a signed event of type webhook.test.")
    ] = False,
    models: Annotated[bool, typer.Option(help="Load the speech models and let them hear themselves.")] = True,
    call: Annotated[bool, typer.Option(help="Place a call through a throw-away node on loopback.")] = True,
) -> None:
    """
    Look at this machine and a configuration, and say what is wrong and what would help.

    Nothing is changed, and apps are sent nothing without --send. Exit status 1: there is a fault.
    """
    from .judge import judge, summarise

    settings, findings = _load(config)
    if settings is not None:
        logging.disable(logging.CRITICAL)  # what is wrong is said in findings
        try:
            facts, unseen = asyncio.run(_look(settings, config, send=send, models=models, call=call))
        finally:
            logging.disable(logging.NOTSET)
        findings += [*judge(facts), *unseen]
    summary = summarise(findings)
    if json_output:
        body = {
            "faults": summary.faults,
            "warnings": summary.warnings,
            "findings": [one.to_dict() for one in findings],
        }
        print(json.dumps(body, indent=2))
    else:
        _show(findings)
    raise typer.Exit(1 if summary.faults else 0)


def _load(path: Path | None) -> tuple[Config | None, list[Finding]]:
    from offhook import config as configuration

    from .verdict import fault, ok

    named = str(path) if path is not None else "the defaults and the environment"
    try:
        config = configuration.load(path)
        if not config.projects and (config.server.data_dir / "project.json").is_file():
            # What `serve` would do, but for making a project: the doctor changes nothing.
            project, _, _ = configuration.generated_project(config.server.data_dir)
            config = config.model_copy(update={"projects": (project,)})
        for table in config.projects:
            table.to_project()
        for name, upstream in config.upstreams.items():
            upstream.to_upstream(name)
    except configuration.ConfigError as error:
        remedy = "Correct it; docs/reference/configuration.md has every key."
        return None, [fault("configuration", line, remedy) for line in str(error).splitlines()]
    many = len(config.projects)
    which = f"{many} project{'s' * (many != 1)}" if many else "a project will be made at the first start"
    text = f"{named} can be used: {which}"
    return config, [ok("configuration", text)]


async def _look(
    config: Config, path: Path | None, *, send: bool, models: bool, call: bool
) -> tuple[Facts, list[Finding]]:
    """Return what was found out, and what could not be looked at."""
    from . import database, machine, network
    from .facts import AddressFacts, Facts, ModelFacts

    looks = _Looks()
    _say("looking at this machine")
    node = await looks.ask("node", network.ask_node(config), None)
    kept = looks.at("database", lambda: database.find_database(config), None)
    made = database.Stored()
    if kept is not None:
        made = looks.at("projects", lambda: database.find_stored(config, kept), made)
        config = config.model_copy(update={"projects": (*config.projects, *made.projects)})
    _say("asking DNS and the webhook endpoints")
    names = await looks.ask("dns", network.find_names(config), [])
    tried = network.try_webhooks(config, made.endpoints, send=send)
    webhooks, dates = await looks.ask("webhooks", tried, ([], []))
    addresses = looks.at("addresses", lambda: machine.find_addresses(config), None)
    if isinstance(addresses, AddressFacts):
        told = [one.addresses for one in names if one.name == config.sip.public_host]
        addresses = replace(addresses, public_host_addresses=frozenset(told[0] if told else ()))
    facts = Facts(
        ports=tuple(looks.at("ports", lambda: machine.find_ports(config), [])),
        node=node,
        addresses=addresses,
        firewall=looks.at("firewall", lambda: machine.find_firewall(config), None),
        certificate=looks.at("certificate", lambda: machine.find_certificate(config), None),
        names=tuple(names),
        clock=await looks.ask("clock", network.find_clock(config, dates), None),
        database=kept,
        stored=made.facts,
        limits=looks.at("limits", lambda: machine.find_limits(config, path), None),
        webhooks=tuple(webhooks),
    )
    if models and node is not None:
        skipped = ModelFacts(
            "running node", skipped="its models are loaded there, so they are not loaded again"
        )
        facts = replace(facts, models=(skipped,))
    elif models:
        from .rehearsal import try_models

        _say("trying the models")
        facts = replace(facts, models=tuple(await looks.ask("models", try_models(config), [])))
    if models and (brain := await looks.ask("models", network.ask_brain(config), None)) is not None:
        facts = replace(facts, models=(*facts.models, brain))
    if call:
        from .rehearsal import rehearse

        _say("placing a call")
        facts = replace(facts, rehearsals=tuple(await looks.ask("call", rehearse(config), [])))
    return facts, looks.failed


class _Looks:
    """Takes looks one by one: what one of them runs into costs none of the others."""

    def __init__(self) -> None:
        self.failed: list[Finding] = []

    def at(self, check: str, look: Callable[[], T], nothing: T) -> T:
        try:
            return look()
        except Exception as error:
            self._failed(check, error)
            return nothing

    async def ask(self, check: str, look: Awaitable[T], nothing: T) -> T:
        try:
            return await look
        except Exception as error:
            self._failed(check, error)
            return nothing

    def _failed(self, check: str, error: Exception) -> None:
        from .verdict import fault

        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
            remedy = "Run the doctor as the user that `offhook serve` runs as, who must be able to read it."
        else:
            text, remedy = repr(error), "Please report it: the doctor itself failed here."
        self.failed.append(fault(check, f"it could not be looked at: {text}", remedy))


def _say(what: str) -> None:
    """Say on a terminal what takes so long."""
    if sys.stderr.isatty():
        print(f"... {what}", file=sys.stderr)


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    from .judge import summarise

    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        line = Text(_MARKS[finding.level], style=_COLOURS[finding.level])
        line.append(f" {finding.check}: {_printable(finding.text)}", style="default not bold")
        console.print(line)
        if finding.remedy:
            console.print(Text(f"          {_printable(finding.remedy)}", style="dim"))
    summary = summarise(findings)
    console.print(Text(_sum_up(summary.faults, summary.warnings)))


def _sum_up(faults: int, warnings: int) -> str:
    if not faults and not warnings:
        return "Nothing is wrong."
    parts = [
        f"{count} {word}{'s' * (count != 1)}"
        for count, word in ((faults, "fault"), (warnings, "warning"))
        if count
    ]
    return f"{' and '.join(parts)}." + ("" if faults else " It would run.")


def _printable(text: str) -> str:
    """What another program said goes to a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
