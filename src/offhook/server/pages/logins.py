"""Who is logged in: signed cookies, the tokens of their forms, and how soon a wrong key may be tried again."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from ..admin_key import AdminKey

__all__ = ["LASTS_S", "Login", "Logins", "Throttle"]

LASTS_S = 12 * 3600
"A working day."
FREE_TRIES = 5
LONGEST_WAIT_S = 30.0
"A key has too many bits to be guessed; this keeps the guessing quiet, and its owner is never locked out for long."
MAX_SOURCES = 2_000


@dataclass(frozen=True, slots=True)
class Login:
    """What a valid cookie says. `csrf` is the token that its forms must carry."""

    nonce: str
    until: int
    "Unix seconds."
    csrf: str

    def owns(self, token: str) -> bool:
        """Whether a form that carries this token is of this login."""
        return hmac.compare_digest(self.csrf.encode(), token.encode("utf-8", "replace"))


class Logins:
    """
    Makes and reads cookies. They are signed with what is derived from the admin key, so that they outlive a restart
    and end with the key. `new_nonce` gives random text. Those that were logged out are remembered until they would have
    ended anyway, or the process does.
    """

    def __init__(self, key: AdminKey, new_nonce: Callable[[], str]) -> None:
        self._signing, self._forms = key.derive("pages: cookie"), key.derive("pages: form")
        self._new_nonce = new_nonce
        self._ended: dict[str, int] = {}

    def begin(self, now: float) -> str:
        """Return a cookie's value."""
        said = f"{int(now) + LASTS_S}.{self._new_nonce()}"
        return f"{said}.{_sign(self._signing, said)}"

    def read(self, cookie: str, now: float) -> Login | None:
        """Return the login that a cookie stands for, if it is ours and not over."""
        said, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(_sign(self._signing, said).encode(), signature.encode("utf-8", "replace")):
            return None
        until, _, nonce = said.partition(".")
        if int(until) <= now or nonce in self._ended:
            return None
        return Login(nonce, int(until), _sign(self._forms, nonce))

    def end(self, login: Login, now: float) -> None:
        """Let this login be valid no longer."""
        self._ended = {nonce: until for nonce, until in self._ended.items() if until > now}
        self._ended[login.nonce] = login.until


class Throttle:
    """How long each source must wait after wrong keys: not at all, then longer with every one."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, source: str, now: float) -> float:
        """Return the seconds until this source may try again; 0: it may."""
        _, until = self._wrong.get(_network(source), (0, 0.0))
        return max(0.0, until - now)

    def wrong(self, source: str, now: float) -> None:
        network = _network(source)
        count = self._wrong.pop(network, (0, 0.0))[0] + 1
        wait = 0.0 if count < FREE_TRIES else min(LONGEST_WAIT_S, 2.0 ** (count - FREE_TRIES))
        self._wrong[network] = (count, now + wait)
        if len(self._wrong) > MAX_SOURCES:
            self._wrong.popitem(last=False)

    def right(self, source: str) -> None:
        self._wrong.pop(_network(source), None)


def _sign(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _network(source: str) -> str:
    """Return the address, or the /64 that an IPv6 host chooses its addresses from."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(address)
