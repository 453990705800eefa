"""The certificate that HTTPS and SIP over TLS show: exchanged while calls go on, and watched for its end."""

from __future__ import annotations

import datetime
import logging
import ssl
from collections.abc import Callable

from cryptography import x509

from offhook.certificates import CertificateFiles, server_context

__all__ = ["ServingCertificate"]

log = logging.getLogger("offhook.tls")

WARN_DAYS = (21, 7, 1)
"Days before a certificate's end at which the log says so."

Clock = Callable[[], datetime.datetime]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class ServingCertificate:
    """
    A pair of PEM files, and one TLS context for listening that always shows the latest pair that could be used.

    Sockets keep the `context` that they were given; each handshake is handed over to the newest one by OpenSSL's
    server name callback, which is called whether or not the peer names a server. Open connections are not touched.
    """

    def __init__(
        self, files: CertificateFiles, *, renew: Callable[[], object] | None = None, clock: Clock = _now
    ) -> None:
        """
        Load. Raises `OSError`, `ssl.SSLError` or `ValueError` when the files cannot be used.

        `renew`, if given, makes new files and is called when these are about to end.
        """
        self._files = files
        self._renew = renew
        self._clock = clock
        self._seen = self._signature()
        self.context = self._current = server_context(files)
        self._ends = _read_end(files)
        self.context.sni_callback = self._hand_over
        self._warned: int | None = None

    @property
    def ends(self) -> datetime.datetime:
        return self._ends

    def warnings(self) -> list[str]:
        """Say how long the certificate is still good, when that is not long."""
        left = self._ends - self._clock()
        if left > datetime.timedelta(days=WARN_DAYS[0]):
            return []
        return [self._describe(left)]

    def look(self) -> None:
        """Take new files up if they have changed, and warn of the end of the present ones. Call it every minute."""
        if self._renew is not None and self.warnings():
            self._renew()
        if self._signature() != self._seen:
            self.reload()
        self._warn()

    def reload(self) -> str | None:
        """Take up what the files hold now. What is wrong with them, if anything, is logged and returned."""
        seen = self._signature()
        try:
            context, ends = server_context(self._files), _read_end(self._files)
            if ends <= self._clock():
                raise ValueError(f"the certificate ended on {ends:%Y-%m-%d %H:%M} UTC")
            if seen != self._signature():
                raise ValueError("the files changed while they were read")
        except (OSError, ssl.SSLError, ValueError) as error:
            # Half of an exchange is seen as a key that does not fit: what follows has another signature.
            self._seen = seen
            fault = f"{self._files.cert}, {self._files.key}: {error}"
            log.warning(
                "the new certificate cannot be used, so the old one stays: %s",
                fault,
                extra={"event": "tls.certificate.refused"},
            )
            return fault
        self._seen, self._current, self._ends, self._warned = seen, context, ends, None
        log.info(
            "new certificate, good until %s",
            ends.date(),
            extra={"event": "tls.certificate.loaded", "cert": str(self._files.cert)},
        )
        return None

    def _hand_over(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        if self._current is not context:
            connection.context = self._current

    def _warn(self) -> None:
        left = self._ends - self._clock()
        reached = [days for days in WARN_DAYS if left <= datetime.timedelta(days=days)]
        step = min(reached, default=None)
        if step is not None and left <= datetime.timedelta(0):
            step = min(0, left.days)  # once a day
        if step is not None and step != self._warned:
            log.warning(
                "%s",
                self._describe(left),
                extra={"event": "tls.certificate.ending", "cert": str(self._files.cert), "days": left.days},
            )
        self._warned = step

    def _describe(self, left: datetime.timedelta) -> str:
        if left <= datetime.timedelta(0):
            return f"the TLS certificate ended on {self._ends:%Y-%m-%d %H:%M} UTC"
        return f"the TLS certificate ends on {self._ends:%Y-%m-%d %H:%M} UTC, in {left.days} days"

    def _signature(self) -> tuple[tuple[int, int, int], ...]:
        """Say which files these are, without reading them."""
        found = []
        for path in (self._files.cert, self._files.key):
            try:
                stat = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)


def _read_end(files: CertificateFiles) -> datetime.datetime:
    return x509.load_pem_x509_certificates(files.cert.read_bytes())[0].not_valid_after_utc
