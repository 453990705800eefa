"""
SRTP keys in session descriptions (SDES, RFC 4568): `a=crypto` lines as text, and which of them we take.

The suites are RFC 4568's and RFC 7714's. A line that asks for what we do not do (a master key identifier, another key
derivation rate, no encryption) is passed over with its reason, and the next one is looked at. No reason names a key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["SUITES", "Crypto", "CryptoError", "SrtpKeys", "SrtpTerms", "Suite", "choose", "offered"]

MAX_LIFETIME: Final = 2**48
MIN_LIFETIME: Final = 2**20
"""Packets that a key must be good for: at 20 ms they last 5.8 hours. We do not rekey by ourselves."""
_NAME: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class CryptoError(ValueError):
    """An `a=crypto` line cannot be used; the message says why, and never has the key."""


@dataclass(frozen=True, slots=True)
class Suite:
    """What encrypts and authenticates."""

    name: str
    key_length: int
    salt_length: int

    @property
    def length(self) -> int:
        """Octets of master key and master salt, which `inline:` has in this order."""
        return self.key_length + self.salt_length


SUITES: Final = {
    suite.name: suite
    for suite in (
        Suite("AEAD_AES_256_GCM", 32, 12),
        Suite("AEAD_AES_128_GCM", 16, 12),
        Suite("AES_CM_128_HMAC_SHA1_80", 16, 14),
        Suite("AES_CM_128_HMAC_SHA1_32", 16, 14),
    )
}
"""What we take. Our own offers have them in another order, see `offered`."""

_OFFERED: Final = (
    "AES_CM_128_HMAC_SHA1_80",
    "AEAD_AES_256_GCM",
    "AEAD_AES_128_GCM",
    "AES_CM_128_HMAC_SHA1_32",
)


@dataclass(frozen=True, slots=True)
class Crypto:
    """One `a=crypto` line that can be used."""

    tag: int
    suite: Suite
    key: bytes = field(repr=False)
    "Master key and master salt."
    lifetime: int | None = None
    "Packets; `None` when the line has none."

    @classmethod
    def parse(cls, value: str) -> Crypto:
        """Parse what follows `a=crypto:`. Raises `CryptoError`."""
        words = value.split()
        if len(words) < 3:
            raise CryptoError("want `<tag> <suite> inline:<key>`")
        tag = _number(words[0], 10**9 - 1)
        if tag is None:
            raise CryptoError("the tag is no number of up to 9 digits")
        suite = SUITES.get(words[1].upper())
        if suite is None:
            raise CryptoError(f"suite {_name(words[1])} is not known here")
        method, _, info = words[2].partition(":")
        if method.lower() != "inline":
            raise CryptoError("the key method is not inline")
        if ";" in info:
            raise CryptoError("more than one key, which takes a master key identifier")
        for parameter in words[3:]:
            _check_session_parameter(parameter)
        text, *rest = info.split("|")
        return cls(tag, suite, _key(text, suite), _lifetime(rest))

    def __str__(self) -> str:
        lifetime = "" if self.lifetime is None else f"|{self.lifetime}"
        return f"{self.tag} {self.suite.name} inline:{base64.b64encode(self.key).decode()}{lifetime}"


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """What both directions of a stream are protected by. Compared, to tell whether a direction has a new key."""

    suite: Suite
    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SrtpTerms:
    """What we want of SRTP in a negotiation."""

    new_key: Callable[[int], bytes]
    "Returns so many random octets: keys are not made in here."
    required: bool = False
    "Agree to nothing without SRTP."
    standing: SrtpKeys | None = None
    "What the stream runs by now. A peer that repeats its key is answered ours, and the packet counters go on."


def choose(values: Iterable[str], terms: SrtpTerms) -> tuple[Crypto, SrtpKeys]:
    """
    Return the first line of an offer that we take, as our answer repeats its tag, and the keys of both sides.

    Raises `CryptoError` with what is wrong with each.
    """
    faults = []
    for value in values:
        try:
            theirs = Crypto.parse(value)
        except CryptoError as error:
            faults.append(str(error))
            continue
        standing = terms.standing
        if standing is not None and standing.suite == theirs.suite and standing.receive == theirs.key:
            key = standing.send
        else:
            # A new key of theirs may be another machine, which cannot know how often our counter has wrapped.
            key = terms.new_key(theirs.suite.length)
        return Crypto(theirs.tag, theirs.suite, key), SrtpKeys(theirs.suite, key, theirs.key)
    raise CryptoError("; ".join(faults) or "no a=crypto line")


def offered(terms: SrtpTerms) -> list[Crypto]:
    """
    Return what we offer: the key that stands, or one per suite, each with a key of its own.

    AES_CM_128_HMAC_SHA1_80 comes first, since every peer has it and some look at the first line only.
    """
    if terms.standing is not None:
        return [Crypto(1, terms.standing.suite, terms.standing.send)]
    suites = [SUITES[name] for name in _OFFERED]
    return [Crypto(tag, suite, terms.new_key(suite.length)) for tag, suite in enumerate(suites, 1)]


def _key(text: str, suite: Suite) -> bytes:
    # Some peers leave the padding out.
    padded = text.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        key = base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        raise CryptoError("the key is no base64") from None
    if len(key) != suite.length:
        raise CryptoError(f"the key has {len(key)} octets, {suite.name} wants {suite.length}")
    return key


def _lifetime(rest: list[str]) -> int | None:
    if not rest:
        return None
    if len(rest) > 1 or ":" in rest[0]:
        raise CryptoError("it has a master key identifier (MKI), which is not supported")
    base, power, exponent = rest[0].partition("^")
    if power:
        bits = _number(exponent, 48)
        lifetime = 1 << bits if base == "2" and bits is not None else None
    else:
        lifetime = _number(base, MAX_LIFETIME)
    if not lifetime:
        raise CryptoError("its lifetime cannot be read")
    if lifetime < MIN_LIFETIME:
        raise CryptoError(f"its key is good for {lifetime} packets only, a call may have more")
    return lifetime


def _check_session_parameter(parameter: str) -> None:
    """Raise `CryptoError` for a session parameter that changes what is sent (RFC 4568 section 6.3)."""
    # A window size is a hint; what begins with a minus may be passed over (section 6.3.7).
    if parameter.upper().startswith(("WSH=", "-")):
        return
    raise CryptoError(f"session parameter {_name(parameter)} is not supported")


def _name(word: str) -> str:
    """Return what may be shown of a word: a name in capitals, as all of them are; nothing of a misplaced key."""
    name = word.partition("=")[0].partition(":")[0]
    return repr(name) if len(name) <= 32 and _NAME.issuperset(name) else "(not shown)"


def _number(text: str, largest: int) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        return None
    value = int(text)
    return value if value <= largest else None
