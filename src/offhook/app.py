"""The one place that wires: reads a `Config`, makes every room's driver and hands each what it needs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from ipaddress import ip_address
from pathlib import Path

from offhook import __version__
from offhook.calls.hosted import HostedCalls
from offhook.calls.manager import CallManager
from offhook.calls.measured import MeasuredJournal
from offhook.calls.orphans import Orphans
from offhook.calls.services import CallServices, CallSettings
from offhook.certificates import CertificateFiles, client_context, development_certificate
from offhook.clock import SystemClock
from offhook.config import Config, ConfigError, load
from offhook.config_trunks import warn_of_silence
from offhook.crash_recovery import CrashRecovery
from offhook.ids import client_secret, opaque_id
from offhook.known_secrets import secrets_of
from offhook.logs import SECRETS
from offhook.media.pacer import Pacer
from offhook.media.port import PortPool
from offhook.metrics import Metrics
from offhook.node_engines import (
    StartError,
    create_engines,
    load_sentence,
    model_destinations,
    passthrough_destinations,
)
from offhook.node_metrics import NodeMetrics
from offhook.node_projects import NodeProjects
from offhook.node_store import NodeStore
from offhook.node_webhooks import open_webhooks
from offhook.outbound import OutboundClient
from offhook.realtime.client_secrets import ClientSecrets
from offhook.realtime.engine import EngineUnavailable
from offhook.realtime.engines.upstream.hold import (
    load_failure_sentence,
)
from offhook.realtime.plain_sessions import PlainSessions
from offhook.recorder import open_captures, open_recordings
from offhook.registrations import TrunkRegistrations
from offhook.server import (
    AdminKey,
    HttpServer,
    Passthrough,
    PassthroughModel,
    ServerServices,
    create_app,
    find_admin_key,
)
from offhook.server.sideband_limits import SidebandLimits
from offhook.serving_certificate import ServingCertificate
from offhook.sip.endpoint import TOO_MANY_CONNECTIONS, Endpoint, EndpointConfig
from offhook.sip.flow import Flow, format_address
from offhook.sip.session_timer import SessionTimerConfig
from offhook.store import StoreError
from offhook.tenants import Projects

__all__ = ["Node", "StartError"]

log = logging.getLogger("offhook.node")

LOOK_AT_CERTIFICATE_S = 60.0
_LAST_BYE_S = 4.0
"For the last requests to be sent and answered; a way to a peer whose connection is gone takes a while to find."


class Node:
    """
    All of one process. `start` binds and warms; `stop` lets calls finish, then ends them.

    `path` is the file that `config` was read from, for `reload`.
    """

    def __init__(self, config: Config, path: Path | None = None) -> None:
        self._config = config
        self._path = path
        self._notices: list[str] = []
        self._ready = False
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._http_servers: list[HttpServer] = []
        self._addresses: list[str] = []
        self._looking: asyncio.Task[None] | None = None
        self._stopping = False
        self._reloading = asyncio.Lock()
        self._hurried = asyncio.Event()
        self._recovery = CrashRecovery(config.server.data_dir, config.server.node)

    def not_ready(self) -> list[str]:
        """Return why a call would not be taken now; nothing when it would (`/readyz`)."""
        reasons = {
            "SIP sockets are not bound yet": not (self._endpoint.addresses or self._stopping),
            "the engine is not warm": not self._engines.ready,
            "the node is draining": self._stopping,
        }
        return [reason for reason, holds in reasons.items() if holds]

    def details(self) -> dict[str, object]:
        """Return what `/readyz` says besides."""
        said = {
            "warnings": [*self._certificate.warnings(), *self._silence(), *self._store.warnings()],
            "registrations": self._registrations.describe(),
        }
        return {name: items for name, items in said.items() if items}

    def capacity(self) -> dict[str, object]:
        """Return what `GET /admin/api/capacity` says."""
        store, engines = self._store.describe(), self._engines.describe()
        return {**self._manager.capacity(), "engines": engines, "store": store}

    @property
    def metrics(self) -> Metrics:
        """What it has counted."""
        return self._metrics

    @property
    def calls_paced(self) -> int:
        """How many calls send and hear sound now."""
        return len(self._pacer)

    @property
    def ready_line(self) -> str:
        """What `serve` prints when it is ready: where it listens, and once only the secrets that it made."""
        warnings = [f"warning: {text}" for text in self._silence()]
        return "\n".join([*self._notices, *warnings, f"offhook ready {' '.join(self._addresses)}"])

    def _silence(self) -> list[str]:
        return warn_of_silence(self._config.sip.listen, self._config.media.sdp_host)

    async def start(self) -> None:
        """Bind sockets, warm the engine, take calls. Raises `StartError`."""
        self._claim()
        try:
            await self._start()
        except BaseException:
            self._recovery.release()
            raise

    async def _start(self) -> None:
        config = self._config
        try:
            certificates = self._find_certificates()
            self._projects = NodeProjects(config)
            self._notices += self._projects.notices
            projects = self._projects.known
            self._admin_key = self._find_admin_key()
            SECRETS.learn(secrets_of(config))
        except ConfigError as error:
            raise StartError(str(error)) from error
        except (OSError, ValueError) as error:
            raise StartError(f"server.data_dir = {str(config.server.data_dir)!r}: {error}") from error
        ports = PortPool(config.media.bind, *config.media.port_range)
        try:
            ports.check()
        except OSError as error:
            raise StartError(f"media.bind = {config.media.bind!r}: {error.strerror or error}") from error
        self._certificate = self._load(certificates)
        try:
            self._store = await NodeStore.open(config, self._clock)
        except StoreError as error:
            raise StartError(str(error)) from error
        self._database = self._store.database
        server_tls = self._certificate.context
        self._desk = desk = await self._projects.open_desk(self._database, self._clock)
        outbound = OutboundClient(tls=client_context(certificates.ca))
        self._webhooks = await open_webhooks(
            config, projects, self._database, outbound, self._clock, self._metrics
        )
        self._announcer = self._webhooks.announcer
        desk.on_deleted = self._webhooks.endpoints.forget
        self._outbound = outbound
        self._recordings = open_recordings(
            config, self._database, self._announcer, projects, self._clock, self._metrics
        )
        self._captures = open_captures(config, self._clock)
        self._engines = create_engines(config, client_context(certificates.ca))
        destinations = passthrough_destinations(config, client_context(certificates.ca))
        served = model_destinations(config, client_context(certificates.ca))
        self._sessions = PlainSessions(
            self._engines,
            clock=self._clock,
            max_sessions=config.calls.max_concurrent,
            session_limit_s=config.calls.session_limit_s,
        )
        self._pacer = Pacer()
        self._manager = CallManager(
            node=config.server.node,
            projects=projects,
            max_calls=config.calls.max_concurrent,
            services=CallServices(
                clock=self._clock,
                announcer=self._announcer,
                ports=ports,
                pacer=self._pacer,
                engines=self._engines,
                recordings=self._recordings,
                captures=self._captures,
                settings=CallSettings(
                    media_host=config.media.sdp_host,
                    media_ports=config.media.port_range,
                    ring_timeout_s=config.calls.ring_timeout_s,
                    session_limit_s=config.calls.session_limit_s,
                    media_timeout_s=config.media.timeout_s,
                    max_unanswered=config.calls.max_unanswered,
                    max_unanswered_per_source=config.calls.max_unanswered_per_source,
                ),
                apology=load_sentence(
                    "failure_sentence", config.engine.failure_sentence, load_failure_sentence
                ),
                journal=MeasuredJournal(self._store.journal, self._metrics),
                metrics=self._metrics,
            ),
        )
        self._endpoint = Endpoint(
            EndpointConfig(
                listen=config.sip.listen,
                public_host=config.sip.public_host,
                user_agent=f"Offhook/{__version__}",
                session=SessionTimerConfig(
                    interval=config.sip.session_expires_s,
                    min_se=config.sip.min_se_s,
                    always=config.sip.refresh_always,
                ),
                refer_notify_timeout=config.calls.refer_outcome_s,
                tls=server_tls,
                tls_client=client_context(certificates.ca),
            ),
            clock=self._clock,
            on_invite=self._manager.on_invite,
            admit=self._manager.gate.admits,
            gate=self._manager.gate,
            is_stranger=self._manager.gate.is_stranger,
            on_refused=self._note_refused,
            on_registrar=lambda host, addresses: self._registrations.note_addresses(host, addresses),
        )
        self._registrations = TrunkRegistrations(self._endpoint, projects, self._clock)
        exposition = NodeMetrics(
            self._metrics,
            calls=self._manager,
            endpoint=self._endpoint,
            pacer=self._pacer,
            ports=ports,
            engines=self._engines,
            webhooks=self._announcer,
            database=self._database,
            certificate=self._certificate,
            registrations=self._registrations,
            is_ready=lambda: not self.not_ready(),
            max_calls=config.calls.max_concurrent,
        )
        self._passthrough = Passthrough(
            destinations=destinations,
            default=config.server.passthrough,
            owns=self._manager.owns,
            hosted=HostedCalls(self._clock),
            clock=self._clock,
        )
        self._models = PassthroughModel(
            served, self._clock, SidebandLimits(), max_sessions=config.calls.max_concurrent
        )
        try:
            await self._start_http(projects, server_tls, exposition)
            await self._announcer.resume()  # before anything new is announced
            if self._recordings is not None:
                url = config.server.public_url or next(iter(self._addresses), "")
                await self._recordings.start(url, config.server.node)
            self._captures.start()
            self._pacer.start()
            await self._recovery.find(self._database)
            await self._endpoint.start()
            # Until the engines are warm INVITEs get 503. Who sits in dead air since a crash need not wait for that.
            self._endpoint.take_calls(False)
            await self._end_orphans(projects)
            await self._engines.start()
        except (OSError, EngineUnavailable, StartError) as error:
            await self.stop()
            raise StartError(str(error)) from error
        self._ready = True
        self._endpoint.take_calls(True)
        self._store.start()
        self._registrations.follow(projects.all())
        desk.on_change = self._registrations.follow
        self._looking = asyncio.create_task(self._look_at_certificate())
        self._addresses += [
            f"{item.transport}:{format_address((item.host, item.port))}" for item in self._endpoint.addresses
        ]
        log.info(
            "ready",
            extra={
                "event": "node.ready",
                "version": __version__,
                "addresses": self._addresses,
                "engines": self._engines.describe(),
            },
        )

    async def stop(self) -> None:
        """Take no new calls; give the others `server.shutdown_grace_s`, then end them with BYE; close everything."""
        self._ready, self._stopping = False, True
        if self._looking is not None:
            self._looking.cancel()
        grace_s = self._config.server.shutdown_grace_s
        self._endpoint.take_calls(False)
        log.info(
            "draining: no new calls; the %d present ones have %g s", self._manager.live, grace_s,
            extra={"event": "node.draining", "calls": self._manager.live},
        )  # fmt: skip
        self._registrations.end()
        hurrying = asyncio.create_task(self._hurry_up())
        await self._close_calls(grace_s)
        hurrying.cancel()
        if self._recordings is not None:
            await self._recordings.close()
        await self._captures.close()
        await asyncio.gather(
            self._announcer.close(grace_s=1.0),
            self._endpoint.settle(timeout=_LAST_BYE_S if not self._hurried.is_set() else 0.2),
        )
        await asyncio.gather(*(server.close() for server in self._http_servers))
        await self._endpoint.close()
        self._pacer.close()
        await self._engines.close()
        await self._outbound.close()
        await self._passthrough.close()
        await self._store.close()
        self._recovery.release()
        log.info("stopped", extra={"event": "node.stopped"})

    def hurry(self) -> None:
        """While `stop` waits for calls: end them now."""
        self._hurried.set()

    async def reload(self) -> None:
        """
        Take up the certificate's files and the configuration's projects as they are now; calls go on as they began.

        What is wrong with them is logged in one line, and what was in force stays so.
        """
        async with self._reloading:  # one after the other: what was read last is what counts
            await self._reload()

    async def _reload(self) -> None:
        if not self._ready:
            return
        self._certificate.reload()
        try:
            config = await asyncio.to_thread(load, self._path)
            if not self._ready:
                return  # the node was told to stop meanwhile, and registers no more
            self._projects.reload(config)
        except (ConfigError, OSError, ValueError) as error:
            fault = "; ".join(str(error).splitlines())
            log.warning(
                "the new configuration cannot be used, so the old one stays: %s",
                fault,
                extra={"event": "node.reload.refused"},
            )
            return
        projects = self._projects.known.all()
        self._registrations.follow(projects)
        fixed = [
            name
            for name in Config.model_fields
            if name != "projects" and getattr(config, name) != getattr(self._config, name)
        ]
        log.info(
            "projects, keys, trunks and webhooks were read again: %d projects%s",
            len(projects),
            f"; what else changed takes a restart: {', '.join(fixed)}" if fixed else "",
            extra={"event": "node.reloaded", "projects": [project.id for project in projects]},
        )

    async def _end_orphans(self, projects: Projects) -> None:
        orphans = Orphans(
            endpoint=self._endpoint,
            projects=projects,
            announcer=self._announcer,
            journal=self._store.journal,
            clock=self._clock,
        )
        for _ in self._recovery.end(orphans):
            await asyncio.sleep(0)

    def _claim(self) -> None:
        server = self._config.server
        try:
            is_ours = server.database == "none" or self._recovery.claim()
        except OSError as error:
            raise StartError(f"server.data_dir = {str(server.data_dir)!r}: {error}") from error
        if not is_ours:
            raise StartError(
                f"server.node = {server.node!r}: another process is this node, with the same server.data_dir "
                f"{str(server.data_dir)!r}. Stop that one, or give this one a server.node or server.data_dir of "
                "its own."
            )

    async def _look_at_certificate(self) -> None:
        while True:
            self._certificate.look()
            await asyncio.sleep(LOOK_AT_CERTIFICATE_S)

    async def _close_calls(self, grace_s: float) -> None:
        await asyncio.gather(
            self._manager.close(grace_s=grace_s),
            self._sessions.close(grace_s=grace_s),
            self._models.close(grace_s=grace_s),
        )

    async def _hurry_up(self) -> None:
        await self._hurried.wait()
        await self._close_calls(0.0)

    def _find_admin_key(self) -> AdminKey:
        key, path, made = find_admin_key(self._config.server.admin_key, self._config.server.data_dir)
        if made:
            said = f"made the admin key, which opens the pages at /; kept in {path}:"
            self._notices += [said, f"  OFFHOOK_SERVER__ADMIN_KEY={key}"]
        elif path is not None:
            self._notices.append(f"the admin key, which opens the pages at /, is in {path}")
        SECRETS.learn((key,))
        return AdminKey(key)

    def _note_refused(self, flow: Flow, reason: str) -> None:
        if reason == TOO_MANY_CONNECTIONS:  # the gate itself has noted all others
            self._manager.gate.refuse(flow.remote[0], "too_many_connections")

    def _find_certificates(self) -> CertificateFiles:
        config = self._config
        if config.tls.cert:
            return CertificateFiles(Path(config.tls.cert), Path(config.tls.key), None)
        files = self._make_certificate()
        self._notices.append(f"development CA: {files.ca}")
        return files

    def _make_certificate(self) -> CertificateFiles:
        config = self._config
        hosts = ["localhost", "127.0.0.1", "::1"]
        hosts += [
            host
            for host in (config.sip.public_host, config.media.public_ip)
            if host and host not in hosts and not _is_unspecified(host)
        ]
        return development_certificate(config.server.data_dir / "tls", tuple(hosts))

    def _load(self, certificates: CertificateFiles) -> ServingCertificate:
        try:
            return ServingCertificate(
                certificates, renew=None if self._config.tls.cert else self._make_certificate
            )
        except (OSError, ValueError) as error:  # `ssl.SSLError` is an `OSError`
            missing = [str(file) for file in (certificates.cert, certificates.key) if not file.is_file()]
            fault = f"there is no file {' and no '.join(missing)}" if missing else str(error)
            raise StartError(
                f"tls.cert {certificates.cert} and tls.key {certificates.key} cannot be used: {fault}"
            ) from error

    async def _start_http(self, projects: Projects, tls: ssl.SSLContext, exposition: NodeMetrics) -> None:
        app = create_app(
            ServerServices(
                projects=projects,
                calls=self._manager,
                clock=self._clock,
                not_ready=self.not_ready,
                details=self.details,
                sessions=self._sessions,
                client_secrets=ClientSecrets(
                    wall=self._clock.wall, new_id=opaque_id, new_value=client_secret
                ),
                passthrough=self._passthrough if self._passthrough.destinations else None,
                models=self._models,
                webhooks=self._webhooks.services,
                admin_key=self._admin_key,
                project_desk=self._desk,
                capacity=self.capacity,
                past=self._store.past,
                statistics=self._store.statistics,
                recordings=self._recordings,
                captures=self._captures,
                metrics=self._metrics,
                exposition=exposition.render,
                metrics_for=self._config.server.metrics,
            )
        )
        for scheme, address in (("http", self._config.server.http), ("https", self._config.server.https)):
            if not address:
                continue
            host, _, port = address.rpartition(":")
            server = HttpServer(
                app, host=host.strip("[]"), port=int(port), tls=tls if scheme == "https" else None
            )
            try:
                await server.start()
            except OSError as error:
                raise StartError(f"server.{scheme} = {address!r}: {error.strerror or error}") from error
            self._http_servers.append(server)
            self._addresses.append(f"{scheme}://{format_address(server.address)}")


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
