"""SIP's UDP sockets, read when the loop says so and whenever somebody has a moment between two long pieces of work."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from .flow import Address, format_address

__all__ = ["RECEIVE_BUFFER", "DatagramSocket"]

log = logging.getLogger("offhook.sip")

RECEIVE_BUFFER = 4 * 1024 * 1024
"Asked for each UDP socket. Some 2,000 INVITEs: a burst that comes while the process is held up, or a trunk's return."
LARGEST = 65_535
AT_ONCE = 32
"Datagrams in one go: then whatever else waits has its turn."


class DatagramSocket:
    """
    One bound UDP socket. `received` gets each datagram with the address it was sent to and the one it is from.

    asyncio's own transports are read once per turn of the loop, after all that was ready: at 200 calls/s that is some
    milliseconds, and `read` does not have to wait for it.
    """

    def __init__(self, host: str, port: int, received: Callable[[bytes, Address, Address], None]) -> None:
        """Bind, and be read by the running loop. Raises `OSError` that names the address."""
        self._socket = _bind(host, port)
        self._received = received
        self._loop = asyncio.get_running_loop()
        self.buffer = _enlarge(self._socket)
        "Bytes that the kernel keeps for us while we do not read."
        self.address: Address = self._socket.getsockname()[:2]
        self._is_reading = False
        self._space = bytearray(LARGEST)
        "One for all: a buffer of 64 kB for each datagram would cost more than the rest of its way in."
        self._loop.add_reader(self._socket, self.read)

    def read(self) -> None:
        """Take what waits. Does nothing inside of itself, or once closed."""
        if self._is_reading:
            return
        self._is_reading = True
        try:
            for _ in range(AT_ONCE):
                if self._socket.fileno() < 0:
                    return
                try:
                    size, source = self._socket.recvfrom_into(self._space)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError as exc:
                    log.debug("UDP: %s", exc, extra={"event": "sip.udp.error"})
                    return
                self._received(bytes(memoryview(self._space)[:size]), self.address, source[:2])
        finally:
            self._is_reading = False

    def send(self, data: bytes, remote: Address) -> None:
        """Send, or drop: a full buffer is a lost datagram like any other, and SIP's timers send it again."""
        try:
            self._socket.sendto(data, remote)
        except (OSError, ValueError, OverflowError) as exc:  # the latter: a port that is none
            log.debug("UDP: %s", exc, extra={"event": "sip.udp.error"})

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        if family == socket.AF_INET6:
            # As for streams: else [::] takes IPv4's port too, and IPv4 peers are told an address that they cannot use.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError as exc:
        bound.close()
        address = format_address((host, port))
        raise OSError(exc.errno, f"{exc.strerror or exc} (while binding udp:{address})") from None
    return bound


def _enlarge(bound: socket.socket) -> int:
    """Ask for the receive buffer that bursts need, and return what the kernel gives."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    # Linux doubles what it was asked for, for its own needs (socket(7)).
    return bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
