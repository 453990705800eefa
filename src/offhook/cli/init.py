"""`offhook init`: the section of the configuration for a trunk, and the URI to paste there."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from offhook.config import Config

    from .presets import Preset

__all__ = ["register"]


class Kind(StrEnum):
    TWILIO = "twilio"
    SIGNALWIRE = "signalwire"
    TELNYX = "telnyx"
    KAMAILIO = "kamailio"


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    trunk: Annotated[Kind, typer.Argument(help="What calls you.")],
    host: Annotated[
        str, typer.Option(help="The name or address that the trunk reaches this host by.")
    ] = "sip.example.net",
    public_ip: Annotated[
        str,
        typer.Option(help="The address that sound is sent to, for --write. Default: --host, if it is one."),
    ] = "",
    project: Annotated[str, typer.Option(help="The project's id.")] = "proj_reception",
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="An address or network that it calls from, instead of the known ones. Repeat for more."
        ),
    ] = None,
    webhook: Annotated[str, typer.Option(help="Your app's URL.")] = "http://127.0.0.1:9099/",
    transport: Annotated[
        Transport | None, typer.Option(help="Default: the trunk's usual one.", case_sensitive=False)
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Append the section to this file instead, with the tables sip and media if it has none."
        ),
    ] = None,
) -> None:
    """Print the configuration section for a trunk, with new keys, and the origination URI to paste there."""
    from .presets import PRESETS

    preset = PRESETS[trunk.value]
    here = _Reach.parse(host, public_ip, transport.value if transport else preset.transport)
    section = _Section(project, trunk.value, preset, _networks(source), webhook)
    if not section.sources and not preset.digest:
        _fail(
            f"no list of {preset.title}'s addresses comes with Offhook: give each with --source. Its documentation "
            "has them; `offhook calls --refused` has those whose calls were turned away"
        )
    section.check()
    if write is None:
        print(section, end="")
        missing = here.tables()
    else:
        missing = here.lacking(_append(write, section, here))
    _explain(section, here, missing, write)


@dataclass(frozen=True, slots=True)
class _Reach:
    """How the trunk reaches this host."""

    host: str
    public_ip: str
    transport: str

    @classmethod
    def parse(cls, host: str, public_ip: str, transport: str) -> _Reach:
        address = _is_address(host)
        if not address and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host):
            _fail(f"--host: {host!r} is no host name or address; give it without a scheme, user or port")
        if public_ip and not _is_address(public_ip):
            _fail(f"--public-ip: {public_ip!r} is no IP address: the sound's address is never looked up")
        return cls(host, public_ip or (host if address else ""), transport)

    def uri(self, project: str) -> str:
        named = f"[{self.host}]" if ":" in self.host else self.host
        return f"sip:{project}@{named};transport={self.transport}"

    def tables(self) -> dict[str, str]:
        """Return `[sip]` and `[media]`, by which this host can be called."""
        everywhere = "::" if ":" in self.public_ip else "0.0.0.0"  # noqa: S104 (it is written, not bound)
        if _is_address(self.public_ip) and ip_address(self.public_ip).is_loopback:
            everywhere = self.public_ip
        bound = f"[{everywhere}]" if ":" in everywhere else everywhere
        listen = f"{self.transport}:{bound}:{5061 if self.transport == 'tls' else 5060}"
        public_ip = self.public_ip or "198.51.100.20"
        return {
            "sip": f"[sip]\nlisten = [{json.dumps(listen)}]\npublic_host = {json.dumps(self.host)}\n",
            "media": f"[media]\nbind = {json.dumps(everywhere)}\npublic_ip = {json.dumps(public_ip)}\n",
        }

    def lacking(self, config: Config) -> dict[str, str]:
        """Return of `tables` what that configuration does not have yet."""
        from offhook.config_trunks import is_loopback
        from offhook.sip.transport import parse_listen

        listen = [parse_listen(item) for item in config.sip.listen]
        reached = any(one.transport == self.transport and not is_loopback(one.host) for one in listen)
        done = {"sip": reached, "media": not is_loopback(config.media.sdp_host)}
        if self.public_ip and is_loopback(self.public_ip):
            done = {"sip": any(one.transport == self.transport for one in listen), "media": True}
        return {name: table for name, table in self.tables().items() if not done[name]}


@dataclass(frozen=True, slots=True)
class _Section:
    """What the configuration says of the trunk, with new keys each time that it is written."""

    project: str
    name: str
    preset: Preset
    given: tuple[str, ...]
    "The sources that were given; none: the preset's."
    webhook: str

    @property
    def sources(self) -> tuple[str, ...]:
        return self.given or self.preset.sources

    def trunk(self) -> str:
        import secrets

        lines = ["[[projects.trunks]]", f"name = {json.dumps(self.name)}"]
        if self.sources:
            if not self.given:
                lines.append(
                    f"# Noted {self.preset.taken}. Check them: what is missing here is not answered."
                )
            lines += ["sources = [", *(f"  {json.dumps(one)}," for one in self.sources), "]"]
        else:
            lines += [
                "# By password, from any address. With sources = [...] as well, both must be right.",
                f"digest_user = {json.dumps(self.name)}",
                f"digest_password = {json.dumps(secrets.token_urlsafe(24))}",
            ]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        from offhook import ids

        return (
            f"[[projects]]\nid = {json.dumps(self.project)}\napi_keys = [{json.dumps(ids.api_key())}]\n"
            f"{self.trunk()}"
            f"[[projects.webhooks]]\nurl = {json.dumps(self.webhook)}\nsecret = {json.dumps(ids.webhook_secret())}\n"
        )

    def check(self) -> None:
        """End the command if no configuration could have it."""
        import tomllib

        from pydantic import ValidationError

        from offhook.config import ProjectTable

        try:
            ProjectTable.model_validate(tomllib.loads(str(self))["projects"][0])
        except ValidationError as error:
            fault = error.errors()[0]
            option = "--project" if fault["loc"] == ("id",) else "--webhook"
            _fail(f"{option}: {fault['msg'].removeprefix('Value error, ')}")


def _networks(sources: list[str] | None) -> tuple[str, ...]:
    from offhook.config_trunks import parse_network

    try:
        return tuple(str(parse_network(one)) for one in sources or ())
    except ValueError as error:
        _fail(f"--source: {error}")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _append(path: Path, section: _Section, here: _Reach) -> Config:
    """Add the section to a file, if the whole still loads, and return that."""
    import tomllib

    from offhook import config

    if path.exists() and not path.is_file():
        _fail(f"--write: {path} is no file")
    if not path.parent.is_dir():
        _fail(f"--write: there is no directory {path.parent}")
    path = path.resolve()  # a link stays one
    trial = path.with_name(f".{path.name}.new")
    try:
        old = path.read_text() if path.exists() else ""
        present = tomllib.loads(old)
        if section.project in _ids(present):
            _fail(
                f"--write: {path} has the project {section.project} already, and is left as it was. Choose another "
                "with --project, or let this trunk call it too by these lines, above the next [[projects]]:"
                f"\n\n{section.trunk()}"
            )
        tables = here.tables() if here.public_ip else {}
        added = [table for name, table in tables.items() if name not in present]
        trial.touch(mode=0o600)  # it holds keys
        trial.write_text(
            "\n".join(part.rstrip() + "\n" for part in (old, *added, str(section)) if part.strip())
        )
        loaded = config.load(trial)
        if path.exists():
            trial.chmod(path.stat().st_mode & 0o777)
        trial.replace(path)
    except (config.ConfigError, OSError, ValueError) as error:
        trial.unlink(missing_ok=True)
        fault = error.strerror if isinstance(error, OSError) else str(error).replace(str(trial), str(path))
        _fail(f"--write: {path} is left as it was: {fault}")
    print(f"{path} has the project {section.project}")
    return loaded


def _ids(present: dict[str, Any]) -> list[object]:
    projects = present.get("projects")
    return [one.get("id") for one in projects if isinstance(one, dict)] if isinstance(projects, list) else []


def _explain(section: _Section, here: _Reach, missing: dict[str, str], written: Path | None) -> None:
    preset = section.preset
    lines = ["", f"At {preset.title}, {preset.calls}", f"  {here.uri(section.project)}"]
    lines += [f"- {line}" for line in preset.settings]
    if not section.sources:
        lines += [f"- {line}" for line in preset.with_password]
    if not section.given and section.sources:
        lines.append(f"- Its addresses were noted {preset.taken}: check them before you rely on them")
    lines += ["", "Here"]
    if missing:
        lines.append("- The same file needs, once:")
        lines += [f"    {line}" for table in missing.values() for line in table.splitlines()]
        if "media" in missing and not here.public_ip:
            lines.append("  with this host's own address as public_ip: sound is sent there")
    if here.transport == "tls":
        lines.append(
            f"- [tls] cert and key: a certificate for {here.host} that the trunk trusts. Without them Offhook makes "
            "one of its own, which carriers refuse"
        )
    lines.append(f"- Then: offhook serve --config {written or 'FILE'}")
    lines.append("- A call does not come in? offhook calls --refused --key KEY, with the key of api_keys")
    print("\n".join(lines), file=sys.stderr)


def _fail(message: str) -> NoReturn:
    print(f"offhook init: {message}", file=sys.stderr)
    raise typer.Exit(2)
