"""The registrations of this node's trunks: kept as the configuration says, told by the log and `/readyz`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from ipaddress import ip_address

from offhook.clock import Clock
from offhook.sip.endpoint import Endpoint
from offhook.sip.registration import RegistrationConfig, RegistrationState, Status
from offhook.sip.registrations import Registered
from offhook.sip.uri import SipUri
from offhook.tenants import ConfiguredProjects, Project, Register

__all__ = ["TrunkRegistrations"]

log = logging.getLogger("offhook.sip")

Name = tuple[str, str]
"Project and trunk."


class TrunkRegistrations:
    """
    One registration for each trunk that has a registrar. `follow` starts and ends them; `end` ends all.

    A registrar's addresses are sources of its project's calls: literal ones at once, others when its name is resolved,
    which is before anything is sent there.
    """

    def __init__(self, endpoint: Endpoint, projects: ConfiguredProjects, clock: Clock) -> None:
        self._endpoint = endpoint
        self._projects = projects
        self._clock = clock
        self._wanted: dict[Name, Register] = {}
        self._running: dict[Name, Registered] = {}
        self._addresses: dict[str, frozenset[str]] = {}
        "By the registrar's host."
        self._logged: dict[Name, RegistrationState] = {}

    def follow(self, projects: Iterable[Project]) -> None:
        """Register what these projects want, and end what they no longer do."""
        wanted = {
            (project.id, trunk.name): trunk.register
            for project in projects
            for trunk in project.trunks
            if trunk.register is not None
        }
        for name in [name for name, old in self._wanted.items() if wanted.get(name) != old]:
            self._endpoint.unregister(self._running.pop(name))
            self._logged.pop(name, None)
        begun = [name for name in wanted if name not in self._running]
        self._wanted = wanted
        for register in wanted.values():
            host = _host(register)
            if _is_literal(host):
                self._addresses[host] = frozenset((str(ip_address(host)),))
        self._admit()
        for name in begun:
            self._begin(name, wanted[name])

    def note_addresses(self, host: str, addresses: tuple[str, ...]) -> None:
        """Take what a registrar's name was resolved to."""
        if self._addresses.get(host) != frozenset(addresses):
            self._addresses[host] = frozenset(addresses)
            self._admit()

    def end(self) -> None:
        """Have every registrar forget us, so that no new calls come."""
        for registered in self._running.values():
            self._endpoint.unregister(registered)

    def describe(self) -> list[dict[str, object]]:
        """Say how each stands, without saying who it is to the registrar."""
        now = self._clock.monotonic()
        described: list[dict[str, object]] = []
        for (_, trunk), registered in self._running.items():
            status = registered.status
            left = None if status.expires_at is None else round(status.expires_at - now)
            described.append(
                {"trunk": trunk, "state": status.state.value, "text": status.text, "expires_in_s": left}
            )
        return described

    def _begin(self, name: Name, register: Register) -> None:
        self._running[name] = self._endpoint.register(
            RegistrationConfig(
                registrar=register.registrar,
                user=register.user,
                password=register.password,
                contact_user=register.contact_user or name[0],
                expires_s=register.expires_s,
                auth_user=register.auth_user,
            ),
            lambda status: self._changed(name, register, status),
        )

    def _changed(self, name: Name, register: Register, status: Status) -> None:
        before, self._logged[name] = self._logged.get(name), status.state
        trouble = status.state is RegistrationState.FAILED or "next try" in status.text
        if before is status.state and not trouble:
            return  # a refresh
        log.log(
            logging.WARNING if trouble else logging.INFO,
            "trunk %s of %s at %s: %s, %s",
            name[1],
            name[0],
            register.registrar,
            status.state.value,
            status.text,
            extra={
                "event": "sip.registration",
                "project": name[0],
                "trunk": name[1],
                "state": status.state.value,
            },
        )

    def _admit(self) -> None:
        self._projects.admit_registrars(
            {
                name: self._addresses.get(_host(register), frozenset())
                for name, register in self._wanted.items()
            }
        )


def _host(register: Register) -> str:
    return SipUri.parse(register.registrar).host


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
