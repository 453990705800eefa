"""
Digest authentication (RFC 7616, RFC 8760, RFC 3261 section 22), both sides of it.

Pure: the secret, tokens and the time are handed in. SHA-256 and MD5 with `qop=auth`; `userhash`, `auth-int` and the
`-sess` variants are not offered.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .grammar import LWS, is_token, quote, split, unquote

__all__ = [
    "Account",
    "Challenge",
    "Challenger",
    "DigestError",
    "Verdict",
    "authorization",
    "digest_response",
    "find_challenge",
    "parse_digest",
]

ALGORITHMS: dict[str, Callable[[bytes], str]] = {
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
}
"By name, in the order that challenges are sent: the strongest first (RFC 8760 section 2.3)."

MAX_CREDENTIALS = 8
"Authorization headers of one request that are looked at."
MAX_FIELDS = 32
NONCE_LIFETIME = 300.0
USES_KEPT = 10_000
"Nonces whose counts are remembered."
COUNT_WINDOW = 64
"How far an `nc` may be behind the highest: requests overtake each other on UDP."


class DigestError(ValueError):
    """A challenge or credentials that cannot be read."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who may answer a challenge."""

    user: str
    password: str = field(repr=False)
    realm: str
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)
    "Which answers of it are taken."


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What a request's credentials are worth.

    `absent`: it has none for our realms. `stale`: the password is right, the nonce is old, foreign or used. `wrong`
    says nothing about which part was.
    """

    outcome: Literal["right", "stale", "wrong", "absent"]
    account: Account | None = None


def digest_response(
    algorithm: str,
    *,
    user: str,
    realm: str,
    password: str,
    method: str,
    uri: str,
    nonce: str,
    nc: str = "",
    cnonce: str = "",
    qop: str = "auth",
) -> str:
    """Return the `response` of RFC 7616 section 3.4.1; with an empty `qop`, that of RFC 2069."""
    hash_ = ALGORITHMS[algorithm]

    def hashed(*parts: str) -> str:
        return hash_(":".join(parts).encode("utf-8", "surrogateescape"))

    secret, what = hashed(user, realm, password), hashed(method, uri)
    if not qop:
        return hashed(secret, nonce, what)
    return hashed(secret, nonce, nc, cnonce, qop, what)


def parse_digest(value: str) -> dict[str, str]:
    """Return the fields of a challenge or credentials, names in lower case. Raises `DigestError`."""
    scheme, _, rest = value.strip(LWS).partition(" ")
    if scheme.lower() != "digest":
        raise DigestError(f"the scheme is {scheme[:20]!r}, not Digest")
    pieces = split(rest, ",")
    if len(pieces) > MAX_FIELDS:
        raise DigestError(f"more than {MAX_FIELDS} fields")
    fields: dict[str, str] = {}
    for piece in pieces:
        name, equals, text = piece.strip(LWS).partition("=")
        name, text = name.strip(LWS).lower(), text.strip(LWS)
        if not name and not equals:
            continue
        if not equals or not is_token(name) or name in fields:
            raise DigestError(f"field {name[:40]!r} is malformed or there twice")
        fields[name] = unquote(text)
    return fields


class Challenger:
    """
    The side that asks: makes challenges and judges answers to them.

    Nonces carry their own time and proof, so that a challenge costs no memory; only those that were answered
    rightly are remembered, with the counts they were used with.
    """

    def __init__(self, *, secret: bytes, new_token: Callable[[], str]) -> None:
        self._secret = secret
        self._new_token = new_token
        self._uses: OrderedDict[str, _Counts] = OrderedDict()
        self._oldest_valid = float("-inf")
        "Nonces that were made before this are stale: their counts may have been forgotten."

    def challenges(
        self, accounts: Collection[Account], *, now: float, stale: bool = False
    ) -> list[tuple[str, str]]:
        """Return `WWW-Authenticate` headers for all that these may answer: SHA-256 for each realm, then MD5."""
        made = f"{max(0, int(now * 1000)):012x}{self._new_token()}"
        nonce = made + self._proof(made)
        suffix = ", stale=true" if stale else ""
        asked = {(account.realm, algorithm): None for account in accounts for algorithm in account.algorithms}
        return [
            (
                "WWW-Authenticate",
                f'Digest realm={quote(realm)}, nonce="{nonce}", algorithm={algorithm}, qop="auth"{suffix}',
            )
            for wanted in ALGORITHMS
            for realm, algorithm in asked
            if algorithm == wanted
        ]

    def judge(
        self, credentials: Sequence[str], method: str, accounts: Collection[Account], *, now: float
    ) -> Verdict:
        """Judge the values of a request's `Authorization` headers. The first right answer counts."""
        best = Verdict("absent")
        realms = {account.realm for account in accounts}
        for value in credentials[:MAX_CREDENTIALS]:
            try:
                fields = parse_digest(value)
            except DigestError:
                best = Verdict("wrong")
                continue
            if fields.get("realm") not in realms:
                continue
            verdict = self._judge_one(fields, method, accounts, now)
            if verdict.outcome == "right":
                return verdict
            if best.outcome != "stale":
                best = verdict
        return best

    @staticmethod
    def user_of(credentials: Sequence[str]) -> str:
        """Return the name in the first credentials that can be read, for whoever looks for the fault."""
        for value in credentials[:MAX_CREDENTIALS]:
            try:
                return parse_digest(value).get("username", "")
            except DigestError:
                continue
        return ""

    def _judge_one(
        self, fields: dict[str, str], method: str, accounts: Collection[Account], now: float
    ) -> Verdict:
        algorithm = fields.get("algorithm", "MD5").upper()
        count = _hex(fields.get("nc", ""))
        known = algorithm in ALGORITHMS and fields.get("qop", "").lower() == "auth"
        if not known or count is None or not fields.get("cnonce") or not fields.get("uri"):
            return Verdict("wrong")
        named = (fields.get("realm", ""), fields.get("username", ""))
        account = next((one for one in accounts if (one.realm, one.user) == named), None)
        expected = digest_response(
            algorithm,
            user=named[1],
            realm=named[0],
            # An unknown user takes as long as a wrong password.
            password=account.password if account is not None else self._secret.hex(),
            method=method,
            uri=fields["uri"],
            nonce=fields.get("nonce", ""),
            nc=fields["nc"],
            cnonce=fields["cnonce"],
            qop=fields["qop"],
        )
        given = fields.get("response", "").lower().encode("utf-8", "surrogateescape")
        is_right = hmac.compare_digest(expected.encode(), given)
        if not is_right or account is None or algorithm not in account.algorithms:
            return Verdict("wrong")
        if not self._use(fields.get("nonce", ""), count, now):
            return Verdict("stale", account)
        return Verdict("right", account)

    def _proof(self, made: str) -> str:
        return hmac.new(self._secret, made.encode(), hashlib.sha256).hexdigest()[:32]

    def _use(self, nonce: str, count: int, now: float) -> bool:
        """Whether a nonce is one of ours, young enough, and was not used with this count before."""
        made, proof = nonce[:-32], nonce[-32:]
        if not hmac.compare_digest(self._proof(made).encode(), proof.encode("utf-8", "surrogateescape")):
            return False
        made_at = int(made[:12], 16) / 1000
        if now - made_at > NONCE_LIFETIME or made_at < self._oldest_valid:
            return False
        counts = self._uses.get(nonce)
        if counts is None:
            counts = self._uses[nonce] = _Counts(made_at)
            if len(self._uses) > USES_KEPT:
                _, forgotten = self._uses.popitem(last=False)
                self._oldest_valid = max(self._oldest_valid, forgotten.made_at + 0.001)
        return counts.use(count)


class _Counts:
    """The counts that one nonce was used with."""

    __slots__ = ("_highest", "_seen", "made_at")

    def __init__(self, made_at: float) -> None:
        self.made_at = made_at
        self._highest = 0
        self._seen = 0
        "Bit n: `_highest - n` was used."

    def use(self, count: int) -> bool:
        behind = self._highest - count
        if count < 1 or behind >= COUNT_WINDOW or (behind >= 0 and self._seen >> behind & 1):
            return False
        if behind < 0:
            # A jump past the window leaves nothing of it; the shift itself must not be as long as the peer likes.
            self._seen = (self._seen << min(-behind, COUNT_WINDOW) & (1 << COUNT_WINDOW) - 1) | 1
            self._highest = count
        else:
            self._seen |= 1 << behind
        return True


# The side that is asked.


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge that we can answer."""

    header: str
    "The header for the answer: `Authorization` or `Proxy-Authorization`."
    algorithm: str
    realm: str
    nonce: str
    qop: str
    "`auth`, or empty when the peer offers none (RFC 2069)."
    opaque: str | None
    stale: bool


def find_challenge(status: int, get_all: Callable[[str], list[str]]) -> Challenge | None:
    """Return the topmost challenge of a 401 or 407 that we can answer (RFC 8760 section 2.4), or `None`."""
    asks, answers = {
        401: ("WWW-Authenticate", "Authorization"),
        407: ("Proxy-Authenticate", "Proxy-Authorization"),
    }.get(status, ("", ""))
    for value in get_all(asks) if asks else ():
        try:
            fields = parse_digest(value)
        except DigestError:
            continue
        algorithm = fields.get("algorithm", "MD5").upper()
        offered = [option.strip(LWS).lower() for option in fields.get("qop", "").split(",")]
        if algorithm not in ALGORITHMS or "nonce" not in fields or not {"auth", ""} & set(offered):
            continue
        return Challenge(
            header=answers,
            algorithm=algorithm,
            realm=fields.get("realm", ""),
            nonce=fields["nonce"],
            qop="auth" if "auth" in offered else "",
            opaque=fields.get("opaque"),
            stale=fields.get("stale", "").lower() == "true",
        )
    return None


def authorization(
    challenge: Challenge, *, user: str, password: str, method: str, uri: str, cnonce: str, count: int = 1
) -> str:
    """Return the value of the header that answers a challenge. `count` rises when a nonce is used again."""
    nc = f"{count:08x}"
    response = digest_response(
        challenge.algorithm,
        user=user,
        realm=challenge.realm,
        password=password,
        method=method,
        uri=uri,
        nonce=challenge.nonce,
        nc=nc,
        cnonce=cnonce,
        qop=challenge.qop,
    )
    fields = [
        f"username={quote(user)}",
        f"realm={quote(challenge.realm)}",
        f"nonce={quote(challenge.nonce)}",
        f"uri={quote(uri)}",
        f'response="{response}"',
        f"algorithm={challenge.algorithm}",
    ]
    if challenge.qop:
        fields += [f"cnonce={quote(cnonce)}", f"qop={challenge.qop}", f"nc={nc}"]
    if challenge.opaque is not None:
        fields.append(f"opaque={quote(challenge.opaque)}")
    return "Digest " + ", ".join(fields)


def _hex(text: str) -> int | None:
    try:
        return int(text, 16) if len(text) == 8 and text.isalnum() and text.isascii() else None
    except ValueError:
        return None
