"""The `[[projects.trunks]]` table: who may call a project."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from offhook.register_table import RegisterTable
from offhook.sip.transport import parse_listen
from offhook.tenants import DigestAccount, Trunk

__all__ = [
    "ConfigError",
    "Table",
    "TrunkTable",
    "check_trunks",
    "is_loopback",
    "parse_network",
    "refuse_open",
    "warn_of_silence",
]


class ConfigError(Exception):
    """The configuration cannot be used. The message names each key, its fault and the remedy."""


class Table(BaseModel):
    """A table of the file: no other keys, and no change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_network(source: str) -> IPv4Network | IPv6Network:
    """Read one of `sources`. Raises `ValueError` that says how to write it."""
    try:
        return ip_network(source)
    except ValueError:
        pass
    try:
        inside = ip_interface(source)
    except ValueError:
        raise ValueError(
            f"{source!r} is no address or network: write 192.0.2.7 or 192.0.2.0/24; names are not looked up"
        ) from None
    raise ValueError(
        f"{source!r} is an address inside a network: write {inside.network} for all of it, or {inside.ip} for that "
        "address alone"
    )


class TrunkTable(Table):
    name: str = "trunk"
    sources: tuple[str, ...] = ()
    "Addresses or networks. With a digest user as well, both must be right; without one, they are enough."
    tls_hostname: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9.-]*$")] = ""
    "What its certificate must show where a Route names a bare address."
    register_: Annotated[RegisterTable | None, Field(alias="register")] = None
    "For numbers that go to whoever is registered; the registrar's addresses may call too."
    digest_user: str = ""
    digest_password: str = ""
    digest_password_env: str = ""
    "The environment variable that holds the password."
    digest_password_file: str = ""
    "A file that holds the password, instead."
    digest_realm: Annotated[str, Field(min_length=1, max_length=128)] = "offhook"
    digest_algorithms: Annotated[tuple[Literal["SHA-256", "MD5"], ...], Field(min_length=1)] = (
        "SHA-256",
        "MD5",
    )
    "`MD5` alone for a peer that gives up when the first challenge is not MD5."

    @field_validator("sources")
    @classmethod
    def _networks(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            parse_network(source)
        return sources

    @field_validator("digest_user", "digest_realm")
    @classmethod
    def _printable(cls, text: str) -> str:
        if not text.isprintable() or ":" in text:
            raise ValueError(f"{text!r}: no colons and no control characters")
        return text

    @model_validator(mode="after")
    def _names_somebody(self) -> TrunkTable:
        given = [self.digest_password, self.digest_password_env, self.digest_password_file]
        passwords = len([one for one in given if one])
        if not self.sources and not self.digest_user and self.register_ is None:
            raise ValueError("say who may call: sources, digest_user with its password, or both; or register")
        if passwords != (1 if self.digest_user else 0):
            raise ValueError(
                "digest_user needs exactly one of digest_password, digest_password_env and digest_password_file, "
                "and they need digest_user"
            )
        return self

    def to_trunk(self) -> Trunk:
        """Read the passwords. Raises `ConfigError`."""
        sources = tuple(ip_network(source) for source in self.sources)
        digest = None
        if self.digest_user:
            digest = DigestAccount(self.digest_user, self._read(), self.digest_realm, self.digest_algorithms)
        try:
            register = self.register_.to_register() if self.register_ is not None else None
        except ValueError as error:
            raise ConfigError(f"trunk {self.name}: register: {error}") from None
        return Trunk(self.name, sources, self.tls_hostname, digest, register)

    def _read(self) -> str:
        if self.digest_password_file:
            try:
                password = Path(self.digest_password_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"trunk {self.name}: digest_password_file cannot be read: {error}"
                ) from None
        else:
            password = self.digest_password or os.environ.get(self.digest_password_env, "")
        if not password:
            where = self.digest_password_file or f"the environment variable {self.digest_password_env}"
            raise ConfigError(f"trunk {self.name}: {where} holds no password")
        return password


def check_trunks(trunks: Mapping[str, Sequence[TrunkTable]]) -> None:
    """Raises `ValueError` when two trunks, by project, have one digest user."""
    seen: dict[tuple[str, str], str] = {}
    for project, tables in trunks.items():
        for trunk in tables:
            key = (trunk.digest_realm, trunk.digest_user)
            if trunk.digest_user and key in seen:
                raise ValueError(
                    f"projects.{project}: digest_user {trunk.digest_user!r} is also a trunk's of {seen[key]}; "
                    "a name leads to one trunk"
                )
            seen[key] = project


def refuse_open(listen: Iterable[str]) -> None:
    """Raises `ValueError` for an address beyond loopback: nobody is named who may call there."""
    public = next((item for item in listen if not is_loopback(parse_listen(item).host)), None)
    if public is not None:
        raise ValueError(
            f"sip.listen = {public!r} is open to the network, and no project names anybody who may call. Add a "
            '[[projects]] with [[projects.trunks]] sources = ["192.0.2.0/24"] (`offhook init` writes one), listen on '
            "127.0.0.1, or set sip.allow_no_trunks = true"
        )


def warn_of_silence(listen: Iterable[str], sdp_host: str) -> list[str]:
    """Say it when calls can come from other machines, and their sound is to go to loopback."""
    public = next((item for item in listen if not is_loopback(parse_listen(item).host)), None)
    if public is None or not is_loopback(sdp_host):
        return []
    return [
        f"sip.listen = {public!r} takes calls from other machines, but their sound would go to {sdp_host}: "
        "nobody would hear anything. Set media.bind and media.public_ip to an address of this host"
    ]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
