"""No secret is in the log: at any level, in any of its spellings, in tracebacks, whoever wrote the line."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from offhook import logs
from offhook.calls.timeline import Timeline
from offhook.clock import SystemClock
from offhook.config import Config
from offhook.config_upstreams import UpstreamTable
from offhook.known_secrets import secrets_of, secrets_of_project
from offhook.secret_words import SecretWords
from offhook.trace import WireMessage

API_KEY = "key/7Qp+Zk3w==Xy"
WEBHOOK = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OLD_WEBHOOK = WEBHOOK.replace("M", "N")
URL_TOKEN = "t0ken-of-the-app-0123"
QUOTED = "pass\"word\\of'the trunk"
SRTP = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"


class Log:
    """The log as `serve` writes it, at DEBUG."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.listener = logs.start("DEBUG", self.stream)

    def text(self) -> str:
        self.listener.stop()
        for line in self.stream.getvalue().splitlines():
            json.loads(line)
        return self.stream.getvalue()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    secrets = SecretWords()
    secrets.learn([API_KEY, WEBHOOK, QUOTED])
    monkeypatch.setattr(logs, "SECRETS", secrets)
    started = Log()
    yield started
    root.handlers[:] = handlers
    root.setLevel(level)


def spellings(secret: str) -> list[str]:
    bare = secret.removeprefix("whsec_")
    return [
        secret,
        bare,
        quote(bare, safe=""),
        base64.b64encode(bare.encode()).decode(),
        base64.b64encode(b"Bearer " + bare.encode()).decode(),
    ]


@pytest.mark.parametrize(
    "level", [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL]
)
@pytest.mark.parametrize("secret", [API_KEY, WEBHOOK, QUOTED])
def test_a_secret_in_text_arguments_and_fields(log: Log, level: int, secret: str) -> None:
    for form in spellings(secret):
        logging.getLogger("offhook.any").log(
            level,
            "text %s %s",
            form,
            {"deep": [form]},
            extra={"event": "any", "field": form, "nested": {"a": [form, form]}, form: 1},
        )
    said = log.text()
    assert said.count("(redacted)") >= 6 * len(spellings(secret))
    for form in spellings(secret):
        assert form not in said
        assert json.dumps(form)[1:-1] not in said


def test_a_secret_in_a_traceback(log: Log) -> None:
    try:
        try:
            raise ValueError(f"Bearer {API_KEY} is no good")
        except ValueError as error:
            raise RuntimeError({"secret": WEBHOOK, "password": QUOTED}) from error
    except RuntimeError:
        logging.getLogger("offhook.any").exception("it failed")
    said = log.text()
    assert "Traceback" in said
    assert "is no good" in said
    for secret in (API_KEY, WEBHOOK, QUOTED, "word\\\\of"):
        assert secret not in said


def test_what_is_no_secret_stays_as_it_is(log: Log) -> None:
    lines = [
        "call rtc_u0_0123456789abcdef0123456789abcdef ended",
        "sip:proj_x@192.0.2.1:5060",
        "key",
        "sk-1",
        "ask-me",
    ]
    for line in lines:
        logging.getLogger("offhook.any").info(line)
    said = log.text()
    assert all(line in said for line in lines)
    assert "(redacted)" not in said


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Incorrect key sk-offhook-AbCdEfGhIjKlMnOpQrStUvWx given", "sk-(redacted) given"),
        ("the secret whsec_c29tZXRoaW5nIGVsc2UgZW50aXJlbHk=", "whsec_(redacted)"),
        ("Authorization: Bearer somebodyelses.token", "Bearer (redacted)"),
        (f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{SRTP}|2^20", "inline:(redacted)"),
        ("ak-offhook-AbCdEfGhIjKlMnOpQrStUvWx", "ak-(redacted)"),
    ],
)
def test_what_looks_like_a_key_goes_too(log: Log, text: str, kept: str) -> None:
    logging.getLogger("offhook.any").debug(text)
    assert kept in log.text()


@pytest.mark.parametrize(
    "line", ["a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:", "a=CRYPTO: 1 AES_CM_128_HMAC_SHA1_80 INLINE: "]
)
def test_an_srtp_key_of_a_call(log: Log, line: str) -> None:
    sdp = f"v=0\r\nm=audio 9 RTP/SAVP 0\r\n{line}{SRTP}\r\n"
    message = f'INVITE sip:x@h SIP/2.0\r\nAuthorization: Digest response="{SRTP}"\r\n\r\n{sdp}'
    timeline = Timeline("rtc_u0_1", SystemClock())
    timeline.trace(WireMessage(1.0, "in", "udp", "a:1", "b:2", message.encode()))
    timeline.record("sdp", f"refused: {line}{SRTP}", message=message)
    said = log.text()
    assert "INVITE sip:x@h" in said
    assert SRTP not in said
    assert SRTP not in json.dumps(timeline.to_api()["data"][0])


def test_every_secret_of_a_configuration_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UP_KEY", "upstream-key-1")
    monkeypatch.setenv("REG", "register-pass-1")
    config = Config.model_validate(
        {
            "server": {
                "admin_key": "admin-key-0123456789",
                "database": "postgresql://offhook:db%2Fpass-1@db.example/offhook",
            },
            "engine": {
                "brain": {"api_key": "brain-key-1", "base_url": "https://u:brain-pass-1@b.example/v1"}
            },
            "upstreams": {"up": UpstreamTable(url="https://u.example/v1", api_key_env="UP_KEY")},
            "projects": [
                {
                    "id": "proj_x",
                    "api_keys": ["app-key-1"],
                    "trunks": [
                        {
                            "name": "t",
                            "digest_user": "u",
                            "digest_password": "digest-pass-1",
                            "register": {"registrar": "sip:r.example", "user": "u", "password_env": "REG"},
                        }
                    ],
                    "webhooks": [
                        {
                            "url": f"https://a.example/?app=main&token={URL_TOKEN}",
                            "secret": WEBHOOK,
                            "old_secrets": [OLD_WEBHOOK],
                        }
                    ],
                }
            ],
        }
    )
    known = {*secrets_of(config), *secrets_of_project(config.projects[0].to_project())} - {""}
    assert known == {
        "admin-key-0123456789",
        "db/pass-1",
        "brain-key-1",
        "brain-pass-1",
        URL_TOKEN,
        "upstream-key-1",
        "app-key-1",
        "digest-pass-1",
        "register-pass-1",
        WEBHOOK,
        OLD_WEBHOOK,
    }


def test_thousands_of_secrets_cost_little() -> None:
    """Projects are learned one by one, on the loop; every line of the log is looked through."""
    import time

    words = SecretWords()
    began = time.process_time()
    for number in range(2_000):
        key = hashlib.sha256(str(number).encode()).hexdigest()
        words.learn([f"sk-live-{key}", "whsec_" + base64.b64encode(key.encode()).decode()])
    assert (time.process_time() - began) / 2_000 < 0.001
    line = json.dumps({"text": "call ended: the caller hung up " * 12, "call_id": "rtc_u0_0123456789abcdef"})
    began = time.process_time()
    for _ in range(100):
        assert words.redact(line) == line
    assert (time.process_time() - began) / 100 < 0.001
    key = hashlib.sha256(b"42").hexdigest()
    assert words.redact(f"the key sk-live-{key}!") == "the key (redacted)!"
    assert key not in words.redact(
        f"twice: sk-live-{key}sk-live-{key} {base64.b64encode(key.encode()).decode()}"
    )


def test_a_line_is_written_while_more_is_learned() -> None:
    words = SecretWords()
    key = "sk-live-0123456789abcdef"
    words.learn([key])
    wrong: list[str] = []

    def write() -> None:
        wrong.extend(line for _ in range(400) if key in (line := words.redact(f"the key {key} and more")))

    writing = threading.Thread(target=write)
    writing.start()
    number = 0
    while writing.is_alive():
        words.learn([f"sk-live-{(number := number + 1) % 5_000:016d}"])
    writing.join()
    assert wrong == []
