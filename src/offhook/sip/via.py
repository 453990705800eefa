"""The Via header: the way that responses take back (RFC 3261 section 20.42, RFC 3581)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from .grammar import LWS, Params, find_param, format_params, has_param, is_token
from .headers import MAX_PARAMS, HeaderError, parse_params
from .uri import format_host_port, parse_host_port

__all__ = ["Via"]


@dataclass(frozen=True, slots=True)
class Via:
    """One Via value (RFC 3261 section 20.42)."""

    transport: str
    "In upper case, known or not."
    host: str
    "IPv6 without brackets."
    port: int | None
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> Via:
        """Parse one value. Raises `HeaderError`."""
        head, semicolon, params = text.partition(";")
        try:
            transport, host, port = _parse_again(head) if len(head) <= _REMEMBERED else _parse_head(head)
        except ValueError as error:
            raise HeaderError("Via", str(error), text) from None
        return cls(transport, host, port, parse_params("Via", params, text) if semicolon else ())

    @classmethod
    def salvage(cls, text: str) -> Via | None:
        """Read of a malformed value what a response needs: address, branch and rport. `None` without an address."""
        head, *pieces = text.split(";")
        try:
            via = cls.parse(head)
        except HeaderError:
            return None
        params: list[tuple[str, str | None]] = []
        for piece in pieces[:MAX_PARAMS]:
            if piece.partition("=")[0].strip(LWS).lower() in ("branch", "rport"):
                try:
                    params += parse_params("Via", piece, text)
                except HeaderError:
                    continue
        return replace(via, params=tuple(params))

    def __str__(self) -> str:
        return (
            f"SIP/2.0/{self.transport} {format_host_port(self.host, self.port)}{format_params(self.params)}"
        )

    def param(self, name: str) -> str | None:
        """Return a parameter's value; `None` if it is absent or has no value."""
        return find_param(self.params, name)

    def has_param(self, name: str) -> bool:
        return has_param(self.params, name)

    def with_param(self, name: str, value: str | None) -> Via:
        """Return a Via with that parameter set: in its place if it is there, else at the end."""
        if not self.has_param(name):
            return replace(self, params=(*self.params, (name, value)))
        key = name.lower()
        return replace(self, params=tuple([(n, value if n.lower() == key else v) for n, v in self.params]))

    @property
    def branch(self) -> str | None:
        return find_param(self.params, "branch")

    @property
    def received(self) -> str | None:
        """The address in `received`, without the brackets that some put around IPv6."""
        value = find_param(self.params, "received")
        return value.strip("[]") if value else None

    @property
    def rport(self) -> int | None:
        """The port in `rport` (RFC 3581); `None` if absent, empty or no port. `has_param` tells an empty one."""
        value = find_param(self.params, "rport")
        if value and value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535:
            return int(value)
        return None


def _parse_head(text: str) -> tuple[str, str, int | None]:
    """Return transport, host and port of what precedes the parameters. Raises `ValueError` that names the fault."""
    protocol, _, rest = text.partition("/")
    version, slash, rest = rest.partition("/")
    parts = rest.split(None, 1)
    if protocol.strip(LWS).upper() != "SIP" or not slash or not version.strip(LWS) or len(parts) != 2:
        raise ValueError("not SIP/2.0/transport and an address")
    if not is_token(parts[0]):
        raise ValueError("malformed transport")
    return parts[0].upper(), *_parse_sent_by(parts[1].strip(LWS))


def _parse_sent_by(text: str) -> tuple[str, int | None]:
    # COLON in the grammar allows white space around it.
    if " " in text or "\t" in text:
        text = ":".join([part.strip(LWS) for part in text.split(":")])
    # IPv6 without brackets: not legal, but sent.
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    return parse_host_port(text)


_parse_again = lru_cache(maxsize=1024)(_parse_head)
"A peer's messages all come by its own few hops."
_REMEMBERED: Final = 128
"Characters; what is longer is seldom said twice, and would take room."
