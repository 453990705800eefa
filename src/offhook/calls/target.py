"""Where a call may be transferred to: a URI that is safe in a header, on a project's list if it has one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from offhook.sip.uri import SipUri, UriError

from .errors import CallError

__all__ = ["MAX_TARGET_URI", "TargetPattern", "check_target_uri"]

MAX_TARGET_URI = 512
"Characters."

_SCHEMES = ("tel", "sip", "sips")
_FORBIDDEN = re.compile(r'[^!-~]|[<>"\\^`{|}]')
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]")
_TEL = re.compile(r"\+?[0-9A-Fa-f*#().-]+")
_DIGIT = re.compile(r"[0-9*#]")
_SEPARATORS = str.maketrans("", "", "().-")
_HEADERS = ("replaces", "require", "user-to-user", "referred-by")
"What may stand behind `?`, besides X- headers: the peer puts it into its INVITE to the target."


def check_target_uri(target_uri: object, allowed: Iterable[str] = ()) -> str:
    """
    Return a `tel:`, `sip:` or `sips:` URI that is safe between angle brackets (API row R15).

    `allowed` are a project's `refer_targets`; none means that every target is allowed. Raises `CallError`: 400 for
    what is no such URI, 403 for one that is not allowed.
    """
    if not isinstance(target_uri, str) or not target_uri.strip():
        raise _invalid("'target_uri' must be a nonblank string.")
    if len(target_uri) > MAX_TARGET_URI:
        raise _invalid(f"Invalid value for 'target_uri': it is longer than {MAX_TARGET_URI} characters.")
    target = target_uri.strip(" \t")
    scheme, _, rest = target.partition(":")
    if scheme.lower() not in _SCHEMES or not rest:
        raise _invalid("'target_uri' must be a tel:, sip: or sips: URI, such as tel:+15551234567.")
    if _FORBIDDEN.search(target):
        raise _invalid("'target_uri' has a character that a URI cannot hold. Percent-encode it.")
    if _BAD_ESCAPE.search(target):
        raise _invalid(
            "'target_uri' has a percent escape that is malformed or stands for a control character."
        )
    try:
        uri = SipUri.parse(target)
    except UriError as error:
        raise _invalid(f"Invalid value for 'target_uri': {error}.") from None
    _check_parts(uri, target)
    patterns = [TargetPattern.parse(pattern) for pattern in allowed]
    if patterns and not any(pattern.matches(uri) for pattern in patterns):
        raise CallError(
            403,
            "This project may not transfer calls to that target. Its list is refer_targets in the configuration.",
            code="target_not_allowed",
            param="target_uri",
        )
    return target


def _check_parts(uri: SipUri, target: str) -> None:
    if uri.scheme == "tel":
        if not _is_number(uri.user or "") or "?" in target:
            raise _invalid(
                "Invalid value for 'target_uri': a tel: URI needs a number, such as tel:+15551234567."
            )
        return
    if (method := uri.param("method")) is not None and method.upper() != "INVITE":
        raise _invalid("Invalid value for 'target_uri': its 'method' parameter may only be INVITE.")
    for field in uri.headers.split("&") if uri.headers else ():
        name, equals, _ = field.partition("=")
        name = unquote(name).lower()
        if not equals or not (name in _HEADERS or re.fullmatch(r"x-[a-z0-9_.-]+", name)):
            raise _invalid(
                "Invalid value for 'target_uri': behind '?' it may have Replaces, Require, Referred-By, User-to-User "
                "and X- headers, as name=value joined by '&'."
            )


def _is_number(text: str) -> bool:
    return _TEL.fullmatch(text) is not None and _DIGIT.search(text) is not None


def _invalid(message: str) -> CallError:
    return CallError(400, message, code="invalid_value", param="target_uri")


@dataclass(frozen=True, slots=True)
class TargetPattern:
    """
    One entry of a project's `refer_targets`.

    `tel:+1` allows the `tel:` numbers that begin so. `sip:*@example.com` allows `sip:` and `sips:` URIs at that host;
    the user part and the host may have `*` for any characters. `sips:` patterns allow `sips:` URIs alone.
    """

    scheme: str
    user: str
    host: str = ""

    @classmethod
    def parse(cls, text: str) -> TargetPattern:
        """Raises `ValueError` that says what a pattern looks like."""
        scheme, _, rest = text.partition(":")
        scheme = scheme.lower()
        if scheme == "tel" and (rest == "*" or (_TEL.fullmatch(rest) or rest == "+")):
            return cls(scheme, "" if rest == "*" else rest.translate(_SEPARATORS))
        user, at, host = rest.rpartition("@")
        if scheme in ("sip", "sips") and host and (user or not at) and not re.search(r"[^!-~]|[;?<>]", rest):
            return cls(scheme, user if at else "*", host.lower())
        raise ValueError(f'{text!r} is no pattern for targets, such as "tel:+1" or "sip:*@example.com"')

    def matches(self, uri: SipUri) -> bool:
        if uri.scheme == "tel":
            return self.scheme == "tel" and _number(uri).startswith(self.user)
        # Where `maddr` says is where it would go.
        return (
            self.scheme in ("sip", uri.scheme)
            and not uri.has_param("maddr")
            and _like(self.user, unquote(uri.user or ""))
            and _like(self.host, uri.host.lower())
        )


def _number(uri: SipUri) -> str:
    """Return a tel: URI's number without separators; a local one behind its context."""
    number = (uri.user or "").translate(_SEPARATORS)
    context = uri.param("phone-context") or ""
    return (context + number if context.startswith("+") else number).translate(_SEPARATORS)


def _like(pattern: str, text: str) -> bool:
    """Match `*` as any characters, in linear time."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
