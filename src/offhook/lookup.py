"""
Addresses of names, as the system knows them: its hosts file, search domains and DNS.

The event loop's own `getaddrinfo` has four threads for everybody. Some names whose servers do not answer then hold up
all others for half a minute, and the loop cannot be closed until the last of them is given up. Here each name has a
thread of its own while it is looked up, whoever asks for it, and nobody has to wait for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading

from . import precedence

__all__ = ["MOST", "Lookups"]

MOST = 100
"Names that are looked up at once. Only names that get no answer ever come to so many."

_Found = tuple[list[str], Exception | None]


class Lookups:
    """Looks names up for one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[_Found]] = {}

    async def find(self, host: str) -> list[str]:
        """
        Return the host's addresses, without repeats, in the order to try them in.

        Raises `OSError`, and `UnicodeError` when it cannot be a host's name.
        """
        future = self._under_way.get(host)
        if future is None:
            future = self._start(host)
        addresses, error = await asyncio.shield(future)
        if error is not None:
            raise error
        return addresses

    def _start(self, host: str) -> asyncio.Future[_Found]:
        if len(self._under_way) >= MOST:
            raise OSError(errno.EAGAIN, f"{MOST} other names are being looked up and get no answer")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Found] = loop.create_future()

        def ask() -> None:
            precedence.go_behind()
            found = _ask(host)
            with contextlib.suppress(RuntimeError):  # the loop has gone, and who wanted to know
                loop.call_soon_threadsafe(self._done, host, found)

        try:
            threading.Thread(target=ask, name="offhook-lookup", daemon=True).start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no thread to look it up: {error}") from error
        self._under_way[host] = future
        return future

    def _done(self, host: str, found: _Found) -> None:
        future = self._under_way.pop(host)
        if not future.done():
            future.set_result(found)


def _ask(host: str) -> _Found:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found)), None
