"""
One call's story in a file that can be sent to somebody: `offhook explain CALL --bundle FILE`, and back again.

A ZIP archive of JSON. Keys and secrets are never in it: credentials and media keys were taken out of the messages when
they were recorded, and everything else goes through `scrub`, the configuration through `redact_config`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from offhook.calls.redaction import redact

__all__ = ["BundleError", "read_bundle", "redact_config", "scrub", "write_bundle"]

MAX_PART: Final = 64 * 1024 * 1024
"Bytes of one file in a bundle; the largest timeline there is has some 10 MB."

_REDACTED: Final = "(redacted)"
_SECRET_NAME: Final = re.compile(
    r"(?:^|[_-])(?:token|secrets?|password|authorization|cookie)$|api[_-]?keys?$", re.I
)
_SECRETS: Final = (
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"), "whsec_" + _REDACTED),
    (re.compile(r"\b(sk|ek)([-_])[A-Za-z0-9_-]{3,}"), r"\1\2" + _REDACTED),
    (re.compile(r"\b(Bearer|Basic)[ \t]+[A-Za-z0-9+/=._~-]+"), r"\1 " + _REDACTED),
    (re.compile(r"([a-z][a-z0-9+.-]{0,20}://)[^/\s@\"'<>]{1,300}@", re.I), r"\1" + _REDACTED + "@"),
    (re.compile(r"\b(sips?:[^\s:@<>\"']{1,200}):[^\s@<>\"',;?]{1,200}@", re.I), r"\1:" + _REDACTED + "@"),
    (re.compile(r"((?:https?|wss?)://[^\s?\"'<>]{1,2000}\?)[^\s\"'<>]+", re.I), r"\1" + _REDACTED),
    (re.compile(r"^(X-Twilio-CallToken[ \t]*:)[^\r\n]*", re.I | re.M), r"\1 " + _REDACTED),
)
_SHOWN_WORDS: Final = frozenset(
    (
        *("api_key_env", "audio", "base_url", "bind", "contact_user", "data_dir", "database", "events"),
        *(
            "hold_sentence",
            "hosts",
            "http",
            "https",
            "id",
            "kind",
            "listen",
            "model",
            "name",
            "node",
            "numbers",
        ),
        *(
            "passthrough",
            "ports",
            "public_host",
            "public_ip",
            "refer_targets",
            "registrar",
            "sources",
            "srtp",
        ),
        *("tls_hostname", "transport", "type", "url"),
    )
)
"Names in the configuration whose words may be shown. All other words are taken for secrets."
_README: Final = """\
One call of Offhook, as `offhook explain --bundle` wrote it. Read it with `offhook explain --from FILE`.

call.json      GET /v1/realtime/calls/{id}
timeline.json  GET /v1/realtime/calls/{id}/timeline
verdict.json   why it went as it did
webhooks.json  the attempts to deliver its webhooks
call.pcap      its SIP messages, for Wireshark; no sound, no keys
versions.json  what ran
config.json    the node's configuration without secrets, if --config was given

API keys, webhook secrets, digest credentials and media keys are left out. Phone numbers, addresses, what was
said and the session's instructions are in it: look through it before you give it to others.
"""


class BundleError(Exception):
    """A file that is no bundle, or cannot be written; the message says why."""


def scrub(value: Any, name: str = "") -> Any:
    """Return JSON without what lets its reader in, wherever it stands."""
    if isinstance(value, Mapping):
        return {str(key): scrub(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(each, name) for each in value]
    if not isinstance(value, str):
        return value
    if value and _SECRET_NAME.search(name):
        return _REDACTED
    for pattern, instead in _SECRETS:
        value = pattern.sub(instead, value)
    return redact(value)


def redact_config(value: Any, name: str = "") -> Any:
    """Return a configuration with numbers, and with words only where they are known to be no secret."""
    if isinstance(value, Mapping):
        return {str(key): redact_config(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_config(each, name) for each in value]
    if isinstance(value, bool | int | float) or value == "":
        return value
    return scrub(value, name) if isinstance(value, str) and name in _SHOWN_WORDS else _REDACTED


def write_bundle(path: Path, parts: Mapping[str, Any], capture: bytes) -> None:
    """Write the parts, each to be `NAME.json`. Raises `BundleError`."""
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README.txt", _README)
            archive.writestr("call.pcap", capture)
            for name, part in parts.items():
                archive.writestr(f"{name}.json", json.dumps(part, indent=2, ensure_ascii=False))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from None


def read_bundle(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the call and its timeline. Raises `BundleError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            call, timeline = (_part(archive, name) for name in ("call.json", "timeline.json"))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from None
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, NotImplementedError) as error:
        raise BundleError(f"{path} is no bundle of `offhook explain --bundle`: {error}") from None
    return call, timeline


def _part(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > MAX_PART:
        raise ValueError(f"{name} is larger than {MAX_PART} bytes")
    with archive.open(name) as opened:
        part = json.loads(opened.read(MAX_PART + 1))
    if not isinstance(part, dict):
        raise ValueError(f"{name} is no object")
    return part
