"""
SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966).

The parser takes what trunks send, not only what the grammar allows: hosts that start with `+`, an empty URI
parameter, UTF-8 in the user part. What could send a message to the wrong place, such as a second `@`, is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from .grammar import Params, find_param, format_params, has_param

__all__ = ["SipUri", "UriError", "format_host_port", "parse_host_port"]

# Each pattern is one character class, so that matching takes linear time on any input.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f<>\"]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"[A-Za-z0-9._+-]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+")
_NUMBER = re.compile(r"[0-9A-Za-z+*#().-]+")


class UriError(ValueError):
    """The text is not a URI that can be used. The message quotes it, shortened."""

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(f"{fault}: {text[:80]!r}")


@dataclass(frozen=True, slots=True)
class SipUri:
    """
    A URI as SIP uses it.

    Of a `tel:` URI, `user` is the number and `host` is empty. Of a scheme that is not known here, `user` is
    everything after the colon and `host` is empty: check `scheme` before sending anything there.
    """

    scheme: str
    "In lower case: `sip`, `sips`, `tel` or another."
    user: str | None
    "As received, with its percent escapes."
    host: str
    "As received; an IPv6 address stands without its brackets."
    port: int | None = None
    params: Params = ()
    headers: str = ""
    "What follows `?`, as received."
    password: str | None = None

    @classmethod
    def parse(cls, text: str) -> SipUri:
        """Parse a URI, without angle brackets around it. Raises `UriError`."""
        return _parse_again(text) if len(text) <= _REMEMBERED else cls._parse(text)

    @classmethod
    def _parse(cls, text: str) -> SipUri:
        if _FORBIDDEN.search(text):
            raise UriError("URI with a space, a control character, a quote or an angle bracket", text)
        scheme, colon, rest = text.partition(":")
        scheme = scheme.lower()
        if not colon or not _SCHEME.fullmatch(scheme):
            raise UriError("URI without a scheme such as `sip:`", text)
        if scheme in ("sip", "sips"):
            return cls._parse_sip(scheme, rest, text)
        if scheme == "tel":
            number, _, params = rest.partition(";")
            if not _NUMBER.fullmatch(number):
                raise UriError("tel URI without a telephone number", text)
            return cls(scheme, number, "", params=_parse_params(params))
        if not rest:
            raise UriError("URI with nothing after the scheme", text)
        return cls(scheme, rest, "")

    @classmethod
    def _parse_sip(cls, scheme: str, rest: str, text: str) -> SipUri:
        user: str | None = None
        password: str | None = None
        # The user part may itself hold `;` and `?`, so the `@` comes first.
        before, at, after = rest.partition("@")
        if at:
            if "@" in after:
                raise UriError("URI with more than one `@` (escape it as %40)", text)
            user, colon, secret = before.partition(":")
            if not user:
                raise UriError("URI with nothing before the `@`", text)
            password = secret if colon else None
            rest = after
        rest, _, headers = rest.partition("?")
        hostport, _, params = rest.partition(";")
        try:
            host, port = parse_host_port(hostport)
        except ValueError as error:
            raise UriError(str(error), text) from None
        return cls(scheme, user, host, port, _parse_params(params), headers, password)

    def __str__(self) -> str:
        if not self.host:
            return f"{self.scheme}:{self.user or ''}{format_params(self.params)}"
        user = ""
        if self.user is not None:
            user = f"{self.user}@" if self.password is None else f"{self.user}:{self.password}@"
        headers = f"?{self.headers}" if self.headers else ""
        host_port = format_host_port(self.host, self.port)
        return f"{self.scheme}:{user}{host_port}{format_params(self.params)}{headers}"

    def param(self, name: str) -> str | None:
        """Return the value of a URI parameter; `None` if it is absent or has no value (see `has_param`)."""
        return find_param(self.params, name)

    def has_param(self, name: str) -> bool:
        """Tell whether a URI parameter is there, with or without a value."""
        return has_param(self.params, name)

    @property
    def transport(self) -> str | None:
        """The `transport` parameter in lower case, or `None`."""
        value = find_param(self.params, "transport")
        return value.lower() if value else None


_parse_again = lru_cache(maxsize=1024)(SipUri._parse)
"Every call is for a few addresses, and its ACK and BYE are for our Contact."
_REMEMBERED: Final = 256
"Characters; what is longer is seldom said twice, and would take room."


def parse_host_port(text: str) -> tuple[str, int | None]:
    """
    Parse `host`, `host:port`, `[IPv6]` or `[IPv6]:port`; the host comes back without brackets.

    Raises `ValueError` that names the fault.
    """
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not _IPV6.fullmatch(host) or (port and not port.startswith(":")):
            raise ValueError("malformed IPv6 address")
        port = port[1:] if port else ""
        has_port = len(text) > len(host) + 2
    else:
        host, colon, port = text.partition(":")
        has_port = bool(colon)
        if not _HOST.fullmatch(host):
            raise ValueError("malformed or missing host")
    if not has_port:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("port is not a number from 0 to 65535")
    return host, int(port)


def format_host_port(host: str, port: int | None) -> str:
    """Return `host:port` with brackets around an IPv6 host."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _parse_params(text: str) -> Params:
    if not text:
        return ()
    params: list[tuple[str, str | None]] = []
    for piece in text.split(";"):
        name, equals, value = piece.partition("=")
        if name:
            params.append((name, value if equals else None))
    return tuple(params)
