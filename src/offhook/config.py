"""
The configuration: a TOML file, overridden by environment variables, checked whole before anything starts.

Every key is also a variable: `OFFHOOK_SIP__PUBLIC_HOST=sip.example.net`, lists as JSON:
`OFFHOOK_SIP__LISTEN='["udp:0.0.0.0:5060"]'`. Without a file, a project with a key and a signing secret is
made once and kept in `data_dir`. `docs/reference/configuration.md` lists every key.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from offhook import ids
from offhook.calls.target import TargetPattern
from offhook.config_faults import explain, explain_environment, refuse_unknown_variables
from offhook.config_recording import RecordingTable
from offhook.config_trunks import ConfigError, Table, TrunkTable, check_trunks, refuse_open
from offhook.config_upstreams import UpstreamTable
from offhook.config_webhooks import WebhooksTable, WebhookTable, to_endpoints
from offhook.realtime.relayed_config import parse_relayed
from offhook.realtime.session_config import DEFAULT_MODEL, parse_accept
from offhook.realtime.session_config import ConfigError as SessionConfigError
from offhook.sip.transport import parse_listen
from offhook.sip.uri import parse_host_port
from offhook.tenants import CaptureMode, Fallback, Project

__all__ = ["ENGINES", "Config", "ConfigError", "ProjectTable", "generated_project", "load"]


ENGINES = ("local", "scripted")
SHORTEST_SESSION_S = 90
"RFC 4028, section 4: an interval below it would have every proxy on the way answer 422."


class ServerTable(Table):
    http: str = "127.0.0.1:8080"
    "REST and WebSocket. Empty: off."
    https: str = "127.0.0.1:8443"
    "The same over TLS. Empty: off."
    data_dir: Path = Path("offhook-data")
    "Keys, certificates, models' cache."
    database: str = "sqlite"
    "Where calls, webhooks and projects are kept: `sqlite` (a file in `data_dir`), a URL of one, or `none`."
    public_url: Annotated[str, Field(pattern=r"^(https?://[^\s/]+(/\S*)?)?$")] = ""
    "Where apps reach this node, such as `https://phone.example.net`, for links in webhooks. Empty: as `http` says."
    keep_days: Annotated[float, Field(ge=0)] = 90
    "How long ended calls and finished webhook events are kept. 0: for ever."
    node: Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")] = "u0"
    "This node's name, part of every call id."
    admin_key: Annotated[str, Field(pattern=r"^([!-~]{16,})?$", repr=False)] = ""
    "Opens the pages at `/` and `/admin/api`. Empty: made once and kept in `data_dir/admin_key`."
    metrics: Literal["local", "key", "open", "off"] = "local"
    "Who may read `/metrics`: this machine and the admin key, the admin key alone, anybody, nobody."
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 10.0
    "How long SIGTERM lets calls go on."
    passthrough: str = ""
    "The upstream that gets requests about calls that are not ours, of projects that do not say. Empty: off."

    @field_validator("http", "https")
    @classmethod
    def _address(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        if address and not (host and port.isdecimal() and int(port) <= 65535):
            raise ValueError(f"{address!r} is not host:port, IPv6 hosts in brackets")
        return address


class TlsTable(Table):
    cert: str = ""
    key: str = ""

    @model_validator(mode="after")
    def _both_or_none(self) -> TlsTable:
        if bool(self.cert) != bool(self.key):
            raise ValueError("give both cert and key, or neither for a development CA")
        return self


class SipTable(Table):
    listen: tuple[str, ...] = ("udp:127.0.0.1:5060", "tcp:127.0.0.1:5060", "tls:127.0.0.1:5061")
    "`transport:host:port`, IPv6 hosts in brackets."
    public_host: str = ""
    "What Contact says, when it is not the bound address."
    session_expires_s: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1800
    "The session timer's interval where the caller does not ask for one, from 90 up (RFC 4028). 0: no session timers."
    min_se_s: Annotated[int, Field(ge=1, le=2**31 - 1)] = 90
    "Callers that ask for less are answered 422. Below 90 breaks the RFC, and is for tests."
    refresh_always: bool = False
    "Send refreshes to callers that know no session timers, too."
    allow_no_trunks: bool = False
    "Listen beyond loopback though no project names anybody who may call."

    @field_validator("listen")
    @classmethod
    def _addresses(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        for item in listen:
            parse_listen(item)
        return listen

    @field_validator("session_expires_s")
    @classmethod
    def _not_too_short(cls, interval: int) -> int:
        if 0 < interval < SHORTEST_SESSION_S:
            raise ValueError(
                f"{interval} s is less than RFC 4028 allows: set {SHORTEST_SESSION_S} or more, or 0 for no timers"
            )
        return interval

    @field_validator("public_host")
    @classmethod
    def _bare_host(cls, host: str) -> str:
        bare = host.strip("[]")
        try:
            name, port = parse_host_port(f"[{bare}]" if bare.count(":") > 1 else bare or "none")
        except ValueError:
            raise ValueError(f"{host!r} is not a host name or an address") from None
        if port is not None:
            raise ValueError(f"{host!r} has a port; leave it out, Contact takes that of the listen address")
        return name if bare else ""


class MediaTable(Table):
    bind: str = "127.0.0.1"
    "The address that RTP ports are bound to."
    public_ip: str = ""
    "A literal address for SDP; required when bound to 0.0.0.0."
    ports: str = "20000-20998"
    "Two for each call."
    timeout_s: Annotated[float, Field(ge=0, le=86_400)] = 30
    "How long a call may go on with no RTP from its peer, unless it is on hold. 0: for ever."

    @property
    def port_range(self) -> tuple[int, int]:
        first, _, last = self.ports.partition("-")
        return int(first), int(last)

    @property
    def sdp_host(self) -> str:
        return self.public_ip or self.bind

    @model_validator(mode="after")
    def _check(self) -> MediaTable:
        first, dash, last = self.ports.partition("-")
        if not (dash and first.isdecimal() and last.isdecimal() and _has_pair(int(first), int(last))):
            raise ValueError(
                f"ports = {self.ports!r} is not first-last within 1024-65535, with an even port first"
            )
        bind = ip_address(self.bind)
        if self.public_ip:
            ip_address(self.public_ip)
        elif bind.is_unspecified:
            raise ValueError(
                f"public_ip is required when bind is {self.bind}: callers cannot send sound to an unspecified address"
            )
        return self


def _has_pair(first: int, last: int) -> bool:
    """Whether the range holds an even port for RTP and the odd one above it for RTCP."""
    return first >= 1024 and first + first % 2 < last <= 65535


class CallsTable(Table):
    ring_timeout_s: Annotated[float, Field(gt=0, le=180)] = 30.0
    max_concurrent: Annotated[int, Field(gt=0)] = 400
    max_unanswered: Annotated[int, Field(ge=0)] = 0
    "Calls that ring at one time; 0: `max_concurrent`."
    max_unanswered_per_source: Annotated[int, Field(ge=0)] = 0
    "The same of one peer address; 0: no limit of its own."
    session_limit_s: Annotated[float, Field(gt=0)] = 3600.0
    webhook_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    refer_outcome_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    "How long the outcome of a REFER that the peer took may be awaited in silence."


class BrainTable(Table):
    kind: Literal["rules", "chat_completions"] = "rules"
    rules: str = ""
    "A TOML file of rules. Empty: the built-in receptionist."
    base_url: str = ""
    model: str = ""
    api_key: str = ""
    timeout_s: Annotated[float, Field(gt=0)] = 15.0
    "How long to wait for the first word of an answer."
    context_tokens: Annotated[int, Field(ge=0)] = 32_768
    "What the language model takes in at a time, its answer included; 0: no bound."

    @model_validator(mode="after")
    def _complete(self) -> BrainTable:
        if self.kind == "chat_completions" and not (self.base_url and self.model):
            raise ValueError('kind = "chat_completions" needs base_url and model')
        return self


class EngineTable(Table):
    kind: Literal["local", "scripted"] = "local"
    workers: int = 0
    "Speech worker processes; 0: one for each core."
    max_sessions: Annotated[int, Field(ge=0)] = 0
    "Calls that the engine serves at a time; 0: 25 for each worker. Past that, INVITEs are answered 503."
    script: str = ""
    'For kind = "scripted": a JSON file with the script; empty: a short built-in one.'
    hold_sentence: str = ""
    """
    A WAV file that callers of an upstream hear while it is opened again; empty: the built-in "One moment, please.";
    `none`: silence.
    """
    failure_sentence: str = ""
    "The same for callers whose engine has failed in mid-call, before they get BYE; built in: an apology."
    strict_truncation: bool = False
    "Answer `conversation.item.truncate` past the end of an item's sound with an error, rather than cut there."
    model_dir: str = ""
    "Where prepared models are kept; empty: under data_dir."
    brain: BrainTable = BrainTable()


class FallbackTable(Table):
    status: Annotated[int, Field(ge=300, le=699)] = 480
    accept: dict[str, Any] | None = None

    @field_validator("accept")
    @classmethod
    def _acceptable(cls, accept: dict[str, Any] | None) -> dict[str, Any] | None:
        if accept is not None:
            try:
                parse_relayed(accept)
            except SessionConfigError as error:
                raise ValueError(f"{error} (param {error.param})") from None
        return accept


class ProjectTable(Table):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    api_keys: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    hosts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    max_calls: Annotated[int, Field(ge=0)] = 0
    fallback: FallbackTable | None = None
    trunks: tuple[TrunkTable, ...] = ()
    webhooks: tuple[WebhookTable, ...] = ()
    passthrough: str | None = None
    "The same for this project alone. Absent: `server.passthrough`. Empty: off."
    srtp: Literal["off", "optional", "required"] = "optional"
    record: bool = False
    "Record its calls, from the answer on."
    capture: CaptureMode = "off"
    "Keep the packets of its calls as they were on the wire, and the keys of SRTP."
    refer_targets: tuple[str, ...] = ()
    "Where calls may be transferred to; empty: anywhere."

    @field_validator("numbers")
    @classmethod
    def _dialled(cls, numbers: tuple[str, ...]) -> tuple[str, ...]:
        for number in numbers:
            if not re.fullmatch(r"\+\d{1,32}|[^\s+()<>@:;,]{1,64}", number, re.ASCII):
                digits = re.sub(r"[^+\d]", "", number)
                raise ValueError(
                    f"{number!r} is in no Request-URI: write it as the trunk sends it"
                    + (f", such as {digits!r}" if re.fullmatch(r"\+?\d+", digits) else "")
                )
        return numbers

    @field_validator("refer_targets")
    @classmethod
    def _patterns(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for target in targets:
            TargetPattern.parse(target)
        return targets

    @model_validator(mode="after")
    def _registrations(self) -> ProjectTable:
        registering = [trunk for trunk in self.trunks if trunk.register_ is not None]
        known = {self.id, *(number.removeprefix("+") for number in self.numbers)}
        for trunk in registering:
            user = trunk.register_.contact_user if trunk.register_ else ""
            if user and user.removeprefix("+") not in known:
                raise ValueError(
                    f"trunk {trunk.name}: calls for contact_user {user!r} would find no project; add it to numbers"
                )
        return self

    def to_project(self) -> Project:
        """Raises `ConfigError` for a secret that cannot be read."""
        return Project(
            id=self.id,
            api_keys=self.api_keys,
            numbers=self.numbers,
            hosts=self.hosts,
            max_calls=self.max_calls,
            fallback=Fallback(self.fallback.status, self.fallback.accept) if self.fallback else None,
            trunks=tuple(trunk.to_trunk() for trunk in self.trunks),
            webhooks=to_endpoints(self.id, self.webhooks),
            passthrough=self.passthrough,
            srtp=self.srtp,
            record=self.record,
            capture=self.capture,
            refer_targets=self.refer_targets,
        )


class Config(BaseSettings):
    """All of it, immutable. Read once at the edge and passed down."""

    model_config = SettingsConfigDict(
        env_prefix="OFFHOOK_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    server: ServerTable = ServerTable()
    tls: TlsTable = TlsTable()
    sip: SipTable = SipTable()
    media: MediaTable = MediaTable()
    calls: CallsTable = CallsTable()
    recording: RecordingTable = RecordingTable()
    webhooks: WebhooksTable = WebhooksTable()
    engine: EngineTable = EngineTable()
    upstreams: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], UpstreamTable] = {}
    "Realtime APIs that may be a call's voice, by name."
    models: dict[str, str | tuple[str, ...]] = {}
    """
    Who serves each model name of an accept body: an engine, an upstream, or upstreams in the order to try; `*` for
    the rest. What it does not say, `engine.kind` serves.
    """
    projects: tuple[ProjectTable, ...] = ()

    @field_validator("projects", mode="before")
    @classmethod
    def _begun(cls, given: object) -> object:
        if isinstance(given, dict):
            inner = next((name for name in given if isinstance(given[name], list)), "trunks")
            raise ValueError(f"write [[projects]] with its id above the first [[projects.{inner}]]")
        return given

    @model_validator(mode="after")
    def _unique(self) -> Config:
        seen: dict[tuple[str, str], str] = {}
        for project in self.projects:
            if ("an id or number", project.id) in seen and seen["an id or number", project.id] == project.id:
                raise ValueError(f"two [[projects]] have the id {project.id}")
            # A Request-URI's user may be an id or a number: they must not be mistaken for each other.
            users = {project.id, *(number.removeprefix("+") for number in project.numbers)}
            names = [("an id or number", name) for name in users]
            names += [("a key", key) for key in project.api_keys]
            names += [("a host", host) for host in {host.lower() for host in project.hosts}]
            for name in names:
                if name in seen:
                    raise ValueError(f"{project.id} repeats {name[0]} that {seen[name]} has")
                seen[name] = project.id
        return self

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> Config:
        check_trunks({project.id: project.trunks for project in self.projects})
        if not self.sip.allow_no_trunks and not any(project.trunks for project in self.projects):
            refuse_open(self.sip.listen)
        return self

    @model_validator(mode="after")
    def _can_record(self) -> Config:
        recorded = next((project.id for project in self.projects if project.record), None)
        if recorded is not None and self.server.database == "none":
            raise ValueError(
                f"projects.{recorded}.record: recordings need a database, and server.database is none"
            )
        return self

    @model_validator(mode="after")
    def _served(self) -> Config:
        for name in self.upstreams:
            if name in ENGINES:
                raise ValueError(f"upstreams.{name}: an engine has that name; choose another")
        for model, served in self.models.items():
            if isinstance(served, str) and served in ENGINES:
                continue
            names = (served,) if isinstance(served, str) else served
            if not names:
                raise ValueError(f"models.{model}: the list is empty")
            for name in names:
                if name not in self.upstreams:
                    known = ", ".join(
                        (*ENGINES, *self.upstreams) if isinstance(served, str) else self.upstreams
                    )
                    raise ValueError(
                        f"models.{model}: {name!r} is none of {known or '[upstreams], which is empty'}"
                    )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        self._check_passthrough()
        self._check_fallbacks()
        return self

    def _check_passthrough(self) -> None:
        named = {"server.passthrough": self.server.passthrough}
        named |= {
            f"projects.{project.id}.passthrough": project.passthrough or "" for project in self.projects
        }
        for key, name in named.items():
            if name and name not in self.upstreams:
                known = ", ".join(self.upstreams) or "[upstreams], which is empty"
                raise ValueError(
                    f'{key}: {name!r} is none of {known}; add [upstreams.{name}], or say "" for off'
                )

    def _check_fallbacks(self) -> None:
        """What an upstream may know better, an engine of ours does not."""
        for project in self.projects:
            accept = project.fallback.accept if project.fallback is not None else None
            if accept is None:
                continue
            served = self.models.get(
                accept.get("model", DEFAULT_MODEL), self.models.get("*", self.engine.kind)
            )
            if served not in ENGINES:
                continue
            try:
                parse_accept(accept)
            except SessionConfigError as error:
                where = f"projects.{project.id}.fallback.accept"
                raise ValueError(f"{where}: {error} (param {error.param})") from None

    def judge(self, project: ProjectTable) -> None:
        """Judge a project that is not the file's as one of the file's is. Raises `ValueError`."""
        alone = self.model_copy(update={"projects": (project,)})
        check_trunks({project.id: project.trunks})
        alone._check_passthrough()
        alone._check_fallbacks()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The environment goes over the file, which comes in as keyword arguments.
        return env_settings, init_settings


def load(path: Path | None) -> Config:
    """Read the file, if any, and the environment. Raises `ConfigError`."""
    values: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"{path}: {'no file' if path.exists() else 'no such file'}")
        try:
            values = TomlConfigSettingsSource(Config, toml_file=path)()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: no UTF-8 text at byte {error.start}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
    try:
        refuse_unknown_variables(Config.model_fields)
        return Config(**values)
    except SettingsError as error:
        raise ConfigError(explain_environment(error)) from None
    except ValidationError as error:
        raise ConfigError(explain(error, path)) from None


def generated_project(data_dir: Path) -> tuple[ProjectTable, Path, bool]:
    """
    Return the project of a node that was given none, the file that keeps it, and whether it was made just now.

    It may be called from loopback only; its webhook goes to `http://127.0.0.1:9099/`. Raises `ConfigError` when the
    file cannot be used, and `OSError`.
    """
    path = data_dir / "project.json"
    if path.is_file():
        try:
            return ProjectTable.model_validate_json(path.read_bytes()), path, False
        except ValidationError as error:
            raise ConfigError(f"{explain(error, path)}\nRemove {path} to have a new project made.") from None
    project = ProjectTable(
        id="proj_test",
        api_keys=(ids.api_key(),),
        trunks=(TrunkTable(name="loopback", sources=("127.0.0.0/8", "::1/128")),),
        webhooks=(
            WebhookTable(
                url="http://127.0.0.1:9099/",
                secret=ids.webhook_secret(),
                events=("realtime.call.incoming", "realtime.call.recording.saved"),
            ),
        ),
    )
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(project.model_dump_json(indent=2, by_alias=True) + "\n")
    return project, path, True
