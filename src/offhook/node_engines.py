"""Which voices a node has, by its configuration, and which upstreams its requests may go to."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from offhook.config import ENGINES, Config, ConfigError, EngineTable
from offhook.realtime.directory import EngineDirectory
from offhook.realtime.engine import EngineFactory
from offhook.realtime.engines.upstream.connection import trust
from offhook.realtime.engines.upstream.engine import UpstreamFactory
from offhook.realtime.engines.upstream.hold import (
    HoldSentenceError,
    load_hold_sentence,
)
from offhook.realtime.relay_hold import HoldSentence
from offhook.server import (
    Destination,
)
from offhook.server.passthrough_model import ModelUpstreams

__all__ = [
    "StartError",
    "create_engine",
    "create_engines",
    "load_sentence",
    "model_destinations",
    "passthrough_destinations",
]

log = logging.getLogger("offhook.node")


class StartError(Exception):
    """The node cannot start. The message says what is missing or taken, and the remedy."""


def create_engines(config: Config, tls: ssl.SSLContext) -> EngineDirectory:
    """Make each engine that the `[models]` table can lead to, and no other. Raises `StartError`."""
    factories: dict[str, EngineFactory] = {}
    models: dict[str, str] = {}
    hold = load_sentence("hold_sentence", config.engine.hold_sentence, load_hold_sentence)
    default = () if "*" in config.models else (("", config.engine.kind),)
    for model, served in (*config.models.items(), *default):
        names = (served,) if isinstance(served, str) else served
        key = ", ".join(names)
        if key not in factories and key in ENGINES:
            factories[key] = create_engine(key, config.engine, config.server.data_dir)
        elif key not in factories:
            try:
                upstreams = [config.upstreams[name].to_upstream(name) for name in names]
            except ConfigError as error:
                raise StartError(str(error)) from error
            factories[key] = UpstreamFactory(upstreams, tls=tls, hold=hold)
        if model:
            models[model] = key
    return EngineDirectory(factories, default=config.engine.kind, models=models)


def load_sentence(key: str, path: str, load: Callable[[str], HoldSentence | None]) -> HoldSentence | None:
    """Return what callers hear by `engine.KEY`. Raises `StartError`."""
    try:
        return load(path)
    except HoldSentenceError as error:
        raise StartError(f"engine.{key} = {path!r}: {error}") from error


def passthrough_destinations(config: Config, tls: ssl.SSLContext) -> dict[str, Destination]:
    """Return where requests about calls that are not ours go, by upstream. Raises `StartError`."""
    names = {config.server.passthrough, *(project.passthrough or "" for project in config.projects)} - {""}
    if names and re.fullmatch(r"u[0-9]+", config.server.node):
        log.warning(
            "server.node = %r makes call ids that look like the hosted service's own (rtc_u0_...), and such a call of "
            "theirs is taken for ours: give the node a name of your own, such as %r",
            config.server.node,
            "phone1",
            extra={"event": "node.passthrough"},
        )
    try:
        upstreams = [config.upstreams[name].to_upstream(name) for name in sorted(names)]
    except ConfigError as error:
        raise StartError(str(error)) from error
    return {one.name: Destination(one, tls=trust(one, tls)) for one in upstreams}


def model_destinations(config: Config, tls: ssl.SSLContext) -> ModelUpstreams:
    """Return which upstreams serve a model by the `[models]` table. Raises `StartError`."""
    served: dict[str, tuple[Destination, ...]] = {}
    for model, named in config.models.items():
        names = (named,) if isinstance(named, str) else named
        try:
            upstreams = [config.upstreams[name].to_upstream(name) for name in names if name not in ENGINES]
        except ConfigError as error:
            raise StartError(str(error)) from error
        served[model] = tuple(Destination(one, tls=trust(one, tls)) for one in upstreams)
    return lambda model: served.get(model, served.get("*", ()))


def create_engine(kind: str, table: EngineTable, data_dir: Path) -> EngineFactory:
    """Return an engine that is not started. Raises `StartError`."""
    if kind == "scripted":
        from offhook.realtime.conversation import ConversationRules
        from offhook.realtime.engines.scripted import Script, ScriptedFactory

        try:
            script = (
                TypeAdapter(Script).validate_json(Path(table.script).read_bytes()) if table.script else None
            )
        except (OSError, ValidationError) as error:
            raise StartError(f"engine.script = {table.script!r}: {error}") from error
        rules = ConversationRules(table.strict_truncation)
        return ScriptedFactory(script, slots=table.max_sessions, rules=rules)
    try:
        from offhook.realtime.engines.local.config import BrainConfig, LocalConfig
        from offhook.realtime.engines.local.engine import LocalFactory
    except ImportError as error:
        raise StartError(
            f"the embedded engine needs {error.name}: pip install 'offhook[local]', or set engine.kind = \"scripted\""
        ) from error
    brain = table.brain
    return LocalFactory(
        LocalConfig(
            brain=BrainConfig(
                kind=brain.kind,
                rules=Path(brain.rules) if brain.rules else None,
                base_url=brain.base_url,
                model=brain.model,
                api_key=brain.api_key,
                first_token_timeout_s=brain.timeout_s,
                context_tokens=brain.context_tokens or None,
            ),
            workers=table.workers or None,
            max_sessions=table.max_sessions or None,
            strict_truncation=table.strict_truncation,
            cache_dir=Path(table.model_dir) if table.model_dir else data_dir / "models",
        )
    )
