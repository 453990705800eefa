"""`offhook explain`: the verdict first, calls by all their names, and files to give to others."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from offhook.cli import explain
from offhook.cli.bundle import redact_config, scrub

app = typer.Typer()
app.command("other")(lambda: None)
explain.register(app)

CALL = "rtc_u0_" + "a" * 32
SIP_ID, CARRIER_ID = "a84b4c76e66710@pc33", "CA0123456789abcdef"
SECRETS = (
    "whsec_c2VjcmV0c2VjcmV0c2VjcmV0",
    "sk-live-1234567890",
    "hunter2hunter2",
    "topsecretquery",
    "t0ken.t0ken",
    "digest-response-beef",
    "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
)
INVITE = (
    "INVITE sip:proj_x@h SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.7:5060;branch=z9hG4bK1\r\n"
    f"From: <sip:+15550100@h>;tag=1\r\nTo: <sip:x@h>\r\nCall-ID: {SIP_ID}\r\nCSeq: 1 INVITE\r\n"
    f"X-Twilio-CallToken: {SECRETS[4]}\r\nAuthorization: Digest response={SECRETS[5]}\r\n"
    "Content-Type: application/sdp\r\nContent-Length: 10\r\n\r\n"
    f"v=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{SECRETS[6]}\r\n"
)
RECORD: dict[str, Any] = {
    "id": CALL,
    "state": "ended",
    "created_at": 1_795_000_000,
    "from": "<sip:+15550100@h>",
    "sip_call_id": SIP_ID,
    "carrier_call_id": CARRIER_ID,
    "session": {"tools": [{"type": "mcp", "authorization": SECRETS[2], "headers": {"x-token": SECRETS[2]}}]},
    "termination": {"result": "client_error", "reason": "cancelled", "cause": "the caller hung up"},
}
TIMELINE = {
    "call_id": CALL,
    "started_at": "2026-11-21T12:00:00.000Z",
    "dropped": 0,
    "data": [
        {
            "number": 0,
            "ms": 0.0,
            "at": "2026-11-21T12:00:00.000Z",
            "kind": "sip",
            "direction": "in",
            "title": "INVITE sip:proj_x@h SIP/2.0",
            "transport": "udp",
            "message": INVITE,
            "local": "198.51.100.4:5060",
            "remote": "203.0.113.7:5060",
        },
        {
            "number": 1,
            "ms": 0.0,
            "kind": "webhook",
            "type": "realtime.call.incoming",
            "attempt": 1,
            "title": "attempt 1",
            "status": 200,
            "duration_ms": 9800.0,
            "at": "2026-11-21T12:00:00.000Z",
            "endpoint": f"https://user:{SECRETS[2]}@app.example/hook?key={SECRETS[3]}",
            "error": f"said Bearer {SECRETS[1]} and {SECRETS[0]}",
        },
        {
            "number": 2,
            "ms": 9000.0,
            "at": "2026-11-21T12:00:09.000Z",
            "kind": "sip",
            "direction": "in",
            "title": "CANCEL sip:proj_x@h SIP/2.0",
            "message": "CANCEL sip:proj_x@h SIP/2.0\r\n\r\n",
        },
        {"number": 3, "ms": 9000.1, "kind": "call", "title": "ended: the caller hung up"},
    ],
}
SENTENCE = "your webhook answered after 9.8 s; the carrier cancelled at 9.0 s"


@pytest.fixture(autouse=True)
def queries(monkeypatch: pytest.MonkeyPatch) -> list[httpx2.QueryParams]:
    """A node that knows one call, and is too old to know a query for the carrier's id."""
    asked: list[httpx2.QueryParams] = []

    def get(url: str, **_: Any) -> httpx2.Response:
        path, query = httpx2.URL(url).path, httpx2.URL(url).params
        asked.append(query)
        if path == "/openapi.json":
            return httpx2.Response(200, json={"info": {"version": "9.9"}})
        if path == "/v1/realtime/calls":
            hit = query.get("sip_call_id", SIP_ID) == SIP_ID and query.get("number", "") in RECORD["from"]
            return httpx2.Response(200, json={"data": [RECORD] if hit else []})
        bodies = {f"/v1/realtime/calls/{CALL}": RECORD, f"/v1/realtime/calls/{CALL}/timeline": TIMELINE}
        if path in bodies:
            return httpx2.Response(200, json=bodies[path])
        return httpx2.Response(404, json={"error": {"message": "No session found"}})

    monkeypatch.setattr(httpx2, "get", get)
    return asked


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["explain", *arguments, "--key", "sk-1"])


def test_the_verdict_comes_first_and_the_ladder_below_it() -> None:
    lines = run(CALL).stdout.splitlines()
    assert lines[0] == f"verdict  {SENTENCE}"
    assert lines[1] == "  whose  the app's (webhook_slow)"
    assert lines[2].startswith(" remedy  Answer the webhook at once")
    assert [line for line in lines if line.startswith("  shown  ")] == [
        "  shown  0.000 attempt 1",
        "  shown  9.000 CANCEL sip:proj_x@h SIP/2.0",
    ]
    assert next(at for at, line in enumerate(lines) if "INVITE ─" in line) > 5


@pytest.mark.parametrize("name", ["last", SIP_ID, CARRIER_ID, "+15550100", "0100", "+1 (555) 01-00"])
def test_a_call_is_found_by_all_its_names(name: str) -> None:
    assert SENTENCE in run(name).stdout


def test_without_a_name_it_is_the_last() -> None:
    assert SENTENCE in run().stdout


@pytest.mark.parametrize("name", ["nobody@nowhere", "CA999", "+49"])
def test_a_name_that_no_call_has_is_said(name: str) -> None:
    result = run(name)
    assert result.exit_code == 1
    assert "offhook calls" in result.stderr


def test_an_older_nodes_answer_to_an_unknown_query_is_not_believed(queries: list[httpx2.QueryParams]) -> None:
    """It lists all calls, whatever carrier_call_id says."""
    assert run("CA-of-another").exit_code == 1


def test_json_has_the_verdict() -> None:
    printed = json.loads(run(CALL, "--json").stdout)
    assert printed["verdict"]["sentence"] == SENTENCE
    assert printed["verdict"]["evidence"] == [1, 2]
    assert (printed["call"], printed["timeline"]) == (RECORD, TIMELINE)


CONFIG = f"""
[server]
http = "127.0.0.1:8080"
admin_key = "{SECRETS[2]}"
database = "postgresql://offhook:{SECRETS[2]}@db/offhook"
[calls]
ring_timeout_s = 30
[models]
"*" = ["openai", "{SECRETS[2]}"]
[something_new]
with_a_name = "{SECRETS[2]}"
[[projects]]
id = "proj_x"
api_keys = ["{SECRETS[1]}"]
[[projects.trunks]]
name = "carrier"
sources = ["203.0.113.0/24"]
digest_password = "{SECRETS[2]}"
[[projects.webhooks]]
url = "https://app.example/hook?key={SECRETS[3]}"
secret = "{SECRETS[0]}"
"""


def test_a_bundle_has_everything_but_secrets_and_is_read_again(tmp_path: Path) -> None:
    config, bundle = tmp_path / "offhook.toml", tmp_path / "call.zip"
    config.write_text(CONFIG)
    result = run(CALL, "--bundle", str(bundle), "--config", str(config))
    assert result.exit_code == 0
    assert SENTENCE in result.stdout
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert set(files) == {
        "README.txt",
        "call.json",
        "call.pcap",
        "config.json",
        "timeline.json",
        "verdict.json",
        "versions.json",
        "webhooks.json",
    }
    for name, content in files.items():
        for secret in SECRETS:
            assert secret.encode() not in content, f"{secret} is in {name}"
    shown = json.loads(files["config.json"])
    assert shown["server"]["http"] == "127.0.0.1:8080"
    assert shown["calls"]["ring_timeout_s"] == 30
    assert shown["projects"][0]["trunks"][0]["sources"] == ["203.0.113.0/24"]
    assert shown["projects"][0]["webhooks"][0]["url"] == "https://app.example/hook?(redacted)"
    assert json.loads(files["versions.json"])["node"] == "9.9"
    assert json.loads(files["webhooks.json"])[0]["duration_ms"] == 9800.0
    assert json.loads(files["verdict.json"])["sentence"] == SENTENCE
    again = CliRunner().invoke(app, ["explain", "--from", str(bundle)])
    assert again.exit_code == 0
    assert again.stdout.splitlines()[:3] == result.stdout.splitlines()[:3]


def zipped(**files: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.json", text)
    return made.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"no zip",
        zipped(call="{}"),
        zipped(call="[1]", timeline="{}"),
        zipped(call="{", timeline="{}"),
    ],
)
def test_what_is_no_bundle_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["explain", "--from", str(path)])
    assert result.exit_code == 1
    assert "is no bundle" in result.stderr


def test_a_bundle_with_nonsense_in_it_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped(call='{"from": 3}', timeline='{"data": [{"kind": "sip"}], "started_at": []}'))
    result = CliRunner().invoke(app, ["explain", "--from", str(path)])
    assert result.exit_code == 0
    assert "verdict" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (CALL, "--bundle", "none/x.zip"),
        (CALL, "--pcap", "none/x.pcap"),
        (CALL, "--bundle", "x.zip", "--config", "none.toml"),
        (CALL, "--config", "x.toml"),
        ("--rtp", CALL),
        ("--keys", CALL),
        ("--from", "none.zip"),
    ],
)
def test_files_that_cannot_be_had_are_said(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert arguments[-2] in result.stderr or "--from" in arguments
    assert not list(tmp_path.iterdir())


def test_a_configuration_that_is_no_toml_gives_nothing_away(tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text(f'secret = "{SECRETS[0]}')
    result = run(CALL, "--bundle", str(tmp_path / "x.zip"), "--config", str(config))
    assert result.exit_code == 1
    assert SECRETS[0] not in result.output


def test_a_capture_says_what_is_not_in_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    result = run(CALL, "--pcap", str(path))
    assert "RTP" in result.stderr
    assert path.read_bytes()[:4] == b"\xd4\xc3\xb2\xa1"


WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=20)


@given(
    WORDS, st.sampled_from(["api_key", "secret", "admin_key", "digest_password", "token", "anything_else"])
)
def test_no_word_of_an_unknown_name_in_a_configuration_gets_through(secret: str, name: str) -> None:
    assert secret not in json.dumps(redact_config({"a": {name: [secret], "b": {name: secret}}}))


SHAPES = ["sk-{}", "whsec_{}=", "Bearer {}", "https://u:{}@h/", "wss://h/p?x={}", "<sip:bob:{}@h>"]


@given(WORDS, st.sampled_from(SHAPES))
def test_no_secret_of_a_known_shape_gets_through(secret: str, shape: str) -> None:
    assert secret not in json.dumps(scrub({"title": f"it said {shape.format(secret)} to us"}))
