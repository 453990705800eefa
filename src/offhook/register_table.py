"""`register` of a trunk in the configuration: how to stay registered with its registrar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from offhook.sip.route import hop_for_uri
from offhook.sip.uri import SipUri
from offhook.tenants import Register

__all__ = ["RegisterTable"]


class RegisterTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    registrar: str
    "`sip:sip.example.net`, or with `;transport=tls`, or `sips:`."
    user: Annotated[str, Field(min_length=1)]
    password_env: str = ""
    "The environment variable that holds the password."
    password_file: str = ""
    "A file that holds it, instead."
    auth_user: str = ""
    "The name that challenges are answered with, when it is not `user`."
    contact_user: str = ""
    "Whom calls are for: one of the project's numbers. Empty: the project's id."
    expires_s: Annotated[int, Field(ge=60, le=86_400)] = 600

    @field_validator("registrar")
    @classmethod
    def _uri(cls, registrar: str) -> str:
        uri = SipUri.parse(registrar)
        hop_for_uri(uri, "registrar")
        if uri.user is not None:
            raise ValueError("the user does not stand in it but in user")
        return registrar

    @field_validator("user", "contact_user")
    @classmethod
    def _in_a_uri(cls, user: str) -> str:
        if user and SipUri.parse(f"sip:{user}@host").user != user:
            raise ValueError(f"{user!r} cannot be the user of a SIP URI")
        return user

    @model_validator(mode="after")
    def _one_password(self) -> RegisterTable:
        if bool(self.password_env) == bool(self.password_file):
            raise ValueError("give password_env or password_file")
        return self

    def to_register(self) -> Register:
        """Read the password. Raises `ValueError`."""
        return Register(
            self.registrar,
            self.user,
            _read_password(self.password_env, self.password_file),
            self.auth_user,
            self.contact_user,
            self.expires_s,
        )


def _read_password(variable: str, file: str) -> str:
    """Return what an environment variable or a file holds, without the white space around it."""
    if file:
        try:
            password = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"password_file cannot be read: {error}") from None
    else:
        password = os.environ.get(variable, "").strip()
    if not password:
        raise ValueError(f"{file or f'the environment variable {variable}'} holds no password")
    return password
