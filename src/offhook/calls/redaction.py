"""Taking out of SIP messages what lets their reader in: digest credentials and media keys."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["redact", "redact_credentials"]

_REDACTED: Final = "(redacted)"
_CREDENTIALS_NAME: Final = "authorization"
_CREDENTIALS: Final = re.compile(r"^((?:proxy-)?authorization[ \t]*:)[^\n]*(?:\n[ \t][^\n]*)*", re.I | re.M)
_INLINE: Final = re.compile(r"inline[ \t]*:", re.I | re.A)
_SDP_KEY: Final = re.compile(r"[ \t]*(?:k[ \t]*=|a[ \t]*=[ \t]*key-mgmt[ \t]*:)", re.I | re.A)
_CRYPTO: Final = re.compile(
    r"(?i:[ \t]*a[ \t]*=[ \t]*crypto[ \t]*:)[ \t]*(?:[0-9]{1,9}(?:[ \t]+[A-Z0-9_]{1,32})?(?![^ \t]))?", re.A
)
_ANY_SDP_KEY: Final = re.compile(r"[\r\n][ \t]*(?:k|a[ \t]*=[ \t]*(?:key-mgmt|crypto))[ \t]*[=:]")
_LIFETIME_AND_MKI: Final = re.compile(r"(?:\|[0-9^:]+)+\Z")
_SESSION_PARAMETERS: Final = ("KDR=", "UNENCRYPTED_", "UNAUTHENTICATED_", "FEC_ORDER=", "WSH=")
_LINE_ENDS: Final = re.compile(r"([\r\n]+)")


def redact(message: str) -> str:
    """
    Return a SIP message, or a line of text, without what is secret in it.

    What follows `inline:` (RFC 4568) is kept only where it is known to be no key, so that no odd spelling of one gets
    through: lifetime, master key identifier, session parameters. An `a=crypto` line without it keeps its tag and
    suite; `k=` lines (RFC 4566 section 5.12) and `a=key-mgmt` (RFC 4567) lose all.
    """
    # Most messages have nothing secret; to look for words without regard to case is slow.
    lower = message.lower()
    if _CREDENTIALS_NAME in lower:
        message = _CREDENTIALS.sub(r"\1 (redacted)\r", message)
    if "inline" not in lower and not _has_sdp_key(lower):
        return message
    return "".join(map(_redact_line, _LINE_ENDS.split(message)))


def _has_sdp_key(lower: str) -> bool:
    # What fits the pattern has one of these words, and words are found in a quarter of the time.
    may = "crypto" in lower or "key-mgmt" in lower
    may = may or "k=" in lower or "k:" in lower or "k " in lower or "k\t" in lower
    return may and _ANY_SDP_KEY.search(lower) is not None


def redact_credentials(message: str) -> str:
    """Return a SIP message without digest credentials; its media keys are still in it."""
    return _CREDENTIALS.sub(r"\1 (redacted)\r", message) if _CREDENTIALS_NAME in message.lower() else message


def _redact_line(line: str) -> str:
    if key := _SDP_KEY.match(line):
        return line[: key.end()] + _REDACTED
    found = _INLINE.search(line)
    if crypto := _CRYPTO.match(line):
        misplaced = line[crypto.end() : found.start() if found else len(line)].strip(' \t"')
        if misplaced:
            return line[: crypto.end()] + (" " if line[crypto.end()] in " \t" else "") + _REDACTED
    if found is None:
        return line
    words = line[found.end() :].split()
    kept = [lifetime[0] for word in words[:2] if (lifetime := _LIFETIME_AND_MKI.search(word[-40:]))][:1]
    kept += [f" {word}" for word in words if word.upper().startswith(_SESSION_PARAMETERS)]
    return line[: found.end()] + _REDACTED + "".join(kept)
