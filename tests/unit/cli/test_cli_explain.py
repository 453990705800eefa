"""`offhook explain` and `offhook calls`: whom they ask, and what they print."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
from typer.testing import CliRunner

from offhook.cli import calls, explain

app = typer.Typer()
calls.register(app)
explain.register(app)

CALL = "rtc_u0_" + "a" * 32
RECORD = {
    "id": CALL,
    "state": "ended",
    "created_at": 1_795_000_000,
    "from": '"\x1b[31mEve" <sip:eve@h>;tag=8f2',
    "transport": "tls",
    "termination": {"result": "success", "reason": "transferred", "cause": "the transfer was completed"},
}
TIMELINE = {
    "started_at": "2026-11-21T12:00:00.000Z",
    "dropped": 0,
    "data": [
        {"ms": 0.0, "kind": "sip", "title": "INVITE sip:a@b SIP/2.0", "direction": "in"},
        {"ms": 1200.0, "kind": "heard", "title": "Hello \x1b[2Jthere"},
    ],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A node that knows one call; what it was asked, with which key."""
    asked: list[tuple[str, str]] = []
    bodies: dict[str, Any] = {"": {"data": [RECORD]}, f"/{CALL}": RECORD, f"/{CALL}/timeline": TIMELINE}

    def get(url: str, *, headers: dict[str, str], timeout: float) -> httpx2.Response:
        asked.append((url, headers["Authorization"]))
        path = url.partition("/v1/realtime/calls")[2].partition("?")[0]
        if path in bodies:
            return httpx2.Response(200, json=bodies[path])
        return httpx2.Response(404, json={"error": {"message": "No session found for the provided call_id"}})

    monkeypatch.setattr(httpx2, "get", get)
    for name in ("OFFHOOK_URL", "OFFHOOK_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return asked


def test_last_is_the_newest_call_and_its_story_is_a_ladder(asked: list[tuple[str, str]]) -> None:
    result = CliRunner().invoke(app, ["explain", "last", "--key", "sk-1", "--url", "http://node:1/"])
    assert result.exit_code == 0
    assert asked[0] == ("http://node:1/v1/realtime/calls?limit=1", "Bearer sk-1")
    assert "─ INVITE ─" in result.stdout
    assert "Hello [2Jthere" in result.stdout
    assert "ended: transferred" in result.stdout
    assert "\x1b" not in result.stdout


def test_json_is_the_verdict_and_the_views_as_they_came(asked: list[tuple[str, str]]) -> None:
    result = CliRunner().invoke(app, ["explain", CALL, "--key", "sk-1", "--json"])
    printed = json.loads(result.stdout)
    assert printed["timeline"] == TIMELINE
    assert printed["call"] == RECORD
    assert printed["verdict"]["code"] == "transferred"


def test_calls_are_listed_without_what_could_steer_a_terminal(asked: list[tuple[str, str]]) -> None:
    result = CliRunner().invoke(app, ["calls", "--key", "sk-1"])
    assert CALL in result.stdout
    assert "transferred" in result.stdout
    assert "<sip:eve@h>" in result.stdout
    assert "tag=" not in result.stdout
    assert "\x1b" not in result.stdout
    assert json.loads(CliRunner().invoke(app, ["calls", "--key", "sk-1", "--json"]).stdout) == [RECORD]


def test_url_and_key_come_from_the_environment(
    asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFHOOK_URL", "http://elsewhere:2")
    monkeypatch.setenv("OFFHOOK_API_KEY", "sk-env")
    CliRunner().invoke(app, ["calls"])
    assert asked == [("http://elsewhere:2/v1/realtime/calls?limit=20", "Bearer sk-env")]


def test_a_node_without_configuration_keeps_its_key_in_its_data(
    asked: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "project.json").write_text(json.dumps({"id": "proj_test", "api_keys": ["sk-made"]}))
    CliRunner().invoke(app, ["calls", "--data-dir", str(tmp_path)])
    assert asked == [("http://127.0.0.1:8080/v1/realtime/calls?limit=20", "Bearer sk-made")]


def test_no_key_and_no_such_call_are_said(asked: list[tuple[str, str]], tmp_path: Path) -> None:
    no_key = CliRunner().invoke(app, ["calls", "--data-dir", str(tmp_path)])
    assert no_key.exit_code == 1
    assert "--key" in no_key.stderr
    assert "--data-dir" in no_key.stderr
    unknown = CliRunner().invoke(app, ["explain", "rtc_u0_none", "--key", "sk-1"])
    assert unknown.exit_code == 1
    assert "404" in unknown.stderr
    assert "No session found" in unknown.stderr
    assert "offhook calls" in unknown.stderr


def test_a_wrong_key_is_told_where_a_right_one_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: Any, **__: Any) -> httpx2.Response:
        return httpx2.Response(401, json={"error": {"message": "Incorrect API key provided."}})

    monkeypatch.setattr(httpx2, "get", get)
    result = CliRunner().invoke(app, ["calls", "--key", "sk-wrong"])
    assert result.exit_code == 1
    assert "Incorrect API key provided." in result.stderr
    assert "OFFHOOK_API_KEY" in result.stderr


def test_a_node_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: Any, **__: Any) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    monkeypatch.setattr(httpx2, "get", get)
    result = CliRunner().invoke(app, ["calls", "--key", "sk-1"])
    assert result.exit_code == 1
    assert "offhook serve" in result.stderr


HOSTED = "rtc_u7_" + "b" * 22
HOSTED_RECORD = {"id": HOSTED, "hosted": True, "upstream": "openai", "state": "referred", "created_at": 1}
HOSTED_TIMELINE = {
    "started_at": "2026-11-21T12:00:00.000Z",
    "data": [
        {"ms": 0.0, "kind": "rest", "title": "POST accept: 200", "status": 200},
        {"ms": 1.0, "kind": "relay", "title": "POST accept: 200 in 35 ms", "upstream_status": 200},
        {"ms": 2.0, "kind": "relay", "title": "sideband: open in 9 ms"},
        {"ms": 3.0, "kind": "sideband", "title": "attached"},
        {"ms": 4.0, "kind": "heard", "title": "Hello?", "upstream": "openai"},
        {"ms": 5.0, "kind": "sideband", "title": "closed", "direction": "out"},
    ],
}


def test_a_hosted_call_is_a_ladder_between_its_upstream_and_the_app(
    asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: dict[str, Any] = {
        "": {"data": [HOSTED_RECORD, RECORD]},
        f"/{HOSTED}": HOSTED_RECORD,
        f"/{HOSTED}/timeline": HOSTED_TIMELINE,
    }
    monkeypatch.setattr(
        httpx2,
        "get",
        lambda url, **_: httpx2.Response(200, json=bodies[url.partition("/calls")[2].partition("?")[0]]),
    )
    lines = CliRunner().invoke(app, ["explain", HOSTED, "--key", "sk-1"]).stdout.splitlines()
    names = next(line for line in lines if "Offhook" in line)
    assert names.split() == ["upstream", "Offhook", "app"]
    rest, relay = (next(line for line in lines if title in line) for title in ("accept: 200 ─", "in 35 ms"))
    assert rest.index("accept") > names.index("Offhook") > relay.index("accept")
    assert any("openai" in line and "upstream" in line for line in lines)
    assert any("upstream hears: “Hello?”" in line for line in lines)
    assert next(line for line in lines if "sideband: closed" in line).rstrip("│ ").endswith("▶")
    assert lines[-1].startswith("referred, as far as its API shows")
    listed = CliRunner().invoke(app, ["calls", "--key", "sk-1"]).stdout
    assert "(hosted by openai)" in listed
    assert "<sip:eve@h>" in listed


def test_as_many_calls_are_listed_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API gives at most 100 at a time, and 20 when nobody says how many."""
    known = [{**RECORD, "id": f"rtc_u0_{number:032}"} for number in range(230)]

    def get(url: str, *, headers: dict[str, str], timeout: float) -> httpx2.Response:
        query = httpx2.URL(url).params
        assert int(query["limit"]) <= 100
        names = [call["id"] for call in known]
        start = names.index(query["after"]) + 1 if "after" in query else 0
        page = known[start : start + int(query["limit"])]
        more = start + len(page) < len(known)
        return httpx2.Response(200, json={"data": page, "last_id": page[-1]["id"], "has_more": more})

    monkeypatch.setattr(httpx2, "get", get)
    for asked_for, listed in ((25, 25), (210, 210), (1000, 230)):
        result = CliRunner().invoke(app, ["calls", "--key", "sk-1", "--limit", str(asked_for), "--json"])
        assert [call["id"] for call in json.loads(result.stdout)] == [call["id"] for call in known[:listed]]


def test_a_drawing_that_cannot_be_written_is_said(asked: list[tuple[str, str]], tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["explain", CALL, "--key", "sk-1", "--svg", str(tmp_path / "none" / "a.svg")]
    )
    assert result.exit_code == 1
    assert "--svg: " in result.stderr
    assert "No such file or directory" in result.stderr


def test_no_name_at_all_is_no_call(asked: list[tuple[str, str]]) -> None:
    """As of a script whose variable is empty: any call would be the wrong one."""
    result = CliRunner().invoke(app, ["explain", "", "--key", "sk-1"])
    assert (result.exit_code, asked) == (1, [])
    assert "names no call" in result.stderr


@pytest.mark.parametrize("columns", ["40", "60", "75", "200"])
def test_a_ladder_is_as_wide_as_the_terminal_and_a_pipes_lines_stay_whole(
    asked: list[tuple[str, str]], columns: str
) -> None:
    result = CliRunner().invoke(app, ["explain", CALL, "--key", "sk-1"], env={"COLUMNS": columns})
    lines = result.stdout.splitlines()
    assert max(len(line) for line in lines if "│" in line) == min(max(int(columns), 60), 120) - 1
    assert f"{CALL}  began 2026-11-21T12:00:00.000Z" in lines
    assert "ended: transferred (success): the transfer was completed" in lines


def test_in_a_terminal_a_long_verdict_goes_on_below_itself(
    asked: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECORD, "termination", {"reason": "remote_hangup"})
    monkeypatch.setitem(RECORD, "from", "<sip:" + "word " * 40 + ">")
    drawing = tmp_path / "a.svg"
    result = CliRunner().invoke(app, ["explain", CALL, "--key", "sk-1", "--svg", str(drawing)])
    lines = result.stdout.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("     from  "))
    assert all(line.startswith(" " * 11 + "word") for line in lines[begin + 1 : begin + 3])
    assert max(map(len, lines)) <= 80
    assert "verdict" in drawing.read_text()
