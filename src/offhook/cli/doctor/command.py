"""The command: looks, judges, prints."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offhook.config import Config

    from .facts import Facts
    from .verdict import Finding

__all__ = ["register"]

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
    from .verdict import fault

    settings, unreadable = _load(config)
    if settings is None:
        findings = unreadable
    else:
        logging.disable(logging.CRITICAL)  # what is wrong is said in findings
        try:
            facts = asyncio.run(_look(settings, config, send=send, models=models, call=call))
            findings = [*unreadable, *judge(facts)]
        except Exception as error:
            bug = fault(
                "doctor",
                f"the doctor itself failed: {error!r}",
                "Please report it; the checks above are missing.",
            )
            findings = [*unreadable, bug]
        finally:
            logging.disable(logging.NOTSET)
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


async def _look(config: Config, path: Path | None, *, send: bool, models: bool, call: bool) -> Facts:
    from . import machine, network
    from .facts import Facts, ModelFacts

    _say("looking at this machine")
    node = await network.ask_node(config)
    ports = machine.find_ports(config)
    _say("asking DNS and the webhook endpoints")
    names = await network.find_names(config)
    webhooks, dates = await network.try_webhooks(config, send=send)
    clock = await network.find_clock(config, dates)
    addresses = machine.find_addresses(config)
    told = [one.addresses for one in names if one.name == config.sip.public_host]
    facts = Facts(
        ports=tuple(ports),
        node=node,
        addresses=replace(addresses, public_host_addresses=frozenset(told[0] if told else ())),
        firewall=machine.find_firewall(config),
        certificate=machine.find_certificate(config),
        names=tuple(names),
        clock=clock,
        database=machine.find_database(config),
        limits=machine.find_limits(config, path),
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
        facts = replace(facts, models=tuple(await try_models(config)))
    if models and (brain := await network.ask_brain(config)) is not None:
        facts = replace(facts, models=(*facts.models, brain))
    if call:
        from .rehearsal import rehearse

        _say("placing a call")
        facts = replace(facts, rehearsals=tuple(await rehearse(config)))
    return facts


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
