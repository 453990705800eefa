"""The `[upstreams.NAME]` tables: Realtime APIs that may be a call's voice."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from offhook.config_trunks import ConfigError, Table
from offhook.realtime.engines.upstream.target import Upstream, guess_kind

__all__ = ["UpstreamTable"]


class UpstreamTable(Table):
    url: Annotated[str, Field(pattern=r"^(https?|wss?)://[^/]")]
    "`wss://host/v1/realtime`, or the base that its SDKs take: `https://host/v1`."
    api_key_env: str = ""
    "The environment variable that holds the key."
    api_key_file: str = ""
    "A file that holds the key, instead."
    ca_file: str = ""
    "PEM; trusted besides the system's CAs, for an upstream whose certificate no public CA signed."
    kind: Literal["openai", "azure", "offhook", "other"] | None = None
    "Absent: by the URL's host."
    model: str = ""
    "Goes up instead of the model that the app asks for."
    deployment: str = ""
    api_version: str = ""
    "Azure: ask in the older form, `?api-version=&deployment=`."
    dialect: Literal["ga", "beta"] | None = None
    "How its events are called. Absent: `beta` in Azure's older form, else `ga`."
    silence_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    "How long it may keep a call waiting before the next one is tried."
    audio: Literal["auto", "pcm"] = "auto"
    "`auto`: G.711 as the caller sends it, where the upstream takes it; `pcm`: always 24 kHz."

    @field_validator("url")
    @classmethod
    def _without_credentials(cls, url: str) -> str:
        if urlsplit(url).username is not None:
            raise ValueError("keys do not belong into a URL; use api_key_env or api_key_file")
        return url

    @model_validator(mode="after")
    def _one_key(self) -> UpstreamTable:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self

    def to_upstream(self, name: str) -> Upstream:
        """Read the key, check the CA. Raises `ConfigError`."""
        self._check_ca(name)
        return Upstream(
            name=name,
            url=self.url,
            key=self._read_key(name),
            kind=self.kind or guess_kind(self.url),
            model=self.model,
            deployment=self.deployment,
            api_version=self.api_version,
            dialect=self.dialect,
            silence_s=self.silence_s,
            audio=self.audio,
            ca_file=self.ca_file,
        )

    def _check_ca(self, name: str) -> None:
        if self.ca_file:
            try:
                ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:  # `ssl.SSLError` is one
                raise ConfigError(f"upstreams.{name}.ca_file cannot be used: {error}") from None

    def _read_key(self, name: str) -> str:
        if self.api_key_file:
            try:
                key = Path(self.api_key_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"upstreams.{name}.api_key_file cannot be read: {error}") from None
        elif self.api_key_env:
            key = os.environ.get(self.api_key_env, "").strip()
        else:
            return ""
        if not key or not key.isascii() or not key.isprintable():
            where = self.api_key_file or f"the environment variable {self.api_key_env}"
            raise ConfigError(f"upstreams.{name}: {where} holds no key")
        return key
