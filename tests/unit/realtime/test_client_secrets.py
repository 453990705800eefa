"""Client secrets: what may be asked for, and for how long they are good (API rows R26, C02)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from offhook.realtime import client_secrets
from offhook.realtime.client_secrets import ClientSecret, ClientSecrets, SecretRequest, TooManySecrets
from offhook.realtime.validation import RequestError


class Desk:
    def __init__(self) -> None:
        self.now = 1_000_000.0
        numbers = itertools.count()
        self.secrets = ClientSecrets(
            wall=lambda: self.now, new_id=lambda kind: f"{kind}_1", new_value=lambda: f"ek_{next(numbers)}"
        )

    def make(self, project: str = "proj_a", **body: Any) -> ClientSecret:
        return self.secrets.make(project, SecretRequest.parse(body, "gpt-realtime"))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_one_that_nothing_is_asked_of_is_good_for_ten_minutes(desk: Desk) -> None:
    made = desk.make().to_api()
    assert (made["value"], made["expires_at"]) == ("ek_0", 1_000_600)
    session = made["session"]
    assert (session["object"], session["id"], session["type"]) == ("realtime.session", "sess_1", "realtime")
    assert session["model"] == "gpt-realtime"
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"


@pytest.mark.parametrize("seconds", [10, 600, 7200])
def test_it_is_good_until_then_and_not_longer(desk: Desk, seconds: int) -> None:
    made = desk.make(expires_after={"anchor": "created_at", "seconds": seconds})
    desk.now += seconds - 0.001
    assert desk.secrets.find(made.value) is made
    desk.now += 0.001
    assert desk.secrets.find(made.value) is None


def test_what_is_given_is_echoed_with_the_rest_filled_in(desk: Desk) -> None:
    made = desk.make(
        session={"type": "realtime", "model": "gpt-realtime-2", "audio": {"output": {"voice": "cedar"}}}
    )
    session = made.to_api()["session"]
    assert (session["model"], session["audio"]["output"]["voice"]) == ("gpt-realtime-2", "cedar")
    assert session["output_modalities"] == ["audio"]
    assert made.names_model


@pytest.mark.parametrize("body", [{}, {"session": None}, {"session": {}}, {"session": {"type": "realtime"}}])
def test_the_model_may_be_left_to_the_url(desk: Desk, body: dict[str, Any]) -> None:
    assert not desk.make(**body).names_model


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"expires_after": {"seconds": 9}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": "600"}}, "invalid_type", "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "invalid_value", "expires_after.anchor"),
        (
            {"expires_after": {"anchor": "created_at", "minutes": 1}},
            "unknown_parameter",
            "expires_after.minutes",
        ),
        ({"expires": 1}, "unknown_parameter", "expires"),
        ({"session": []}, "invalid_type", "session"),
        ({"session": {"voice": "cedar"}}, "unknown_parameter", "session.voice"),
        ({"session": {"type": "translation"}}, "invalid_value", "session.type"),
        ({"session": {"type": "transcription", "tools": []}}, "unknown_parameter", "session.tools"),
        ({"session": {"max_output_tokens": 0}}, "invalid_value", "session.max_output_tokens"),
    ],
)
def test_a_wrong_body_names_its_field(desk: Desk, body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        desk.make(**body)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_project_that_makes_ever_more_leaves_room_for_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_secrets, "MOST", 30)
    for _ in range(3):
        desk.make(expires_after={"seconds": 10})
    with pytest.raises(TooManySecrets):
        desk.make()
    assert desk.make("proj_b").project_id == "proj_b"
    desk.now += 10
    assert desk.make().value == "ek_4"


def test_all_of_them_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_secrets, "MOST", 2)
    monkeypatch.setattr(client_secrets, "SHARE", 1)
    desk.make("proj_a")
    desk.make("proj_b")
    with pytest.raises(TooManySecrets):
        desk.make("proj_c")


def test_long_ones_are_bounded_by_their_length(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_secrets, "MOST_CHARACTERS", 20_000)
    long = {"instructions": "x" * 1_500}
    desk.make(session=long, expires_after={"seconds": 10})
    with pytest.raises(TooManySecrets):
        desk.make(session=long)
    desk.make(session={"instructions": "Be brief."})
    desk.make("proj_b", session=long)
    desk.now += 10
    desk.make(session=long)


def test_what_has_expired_leaves_nothing_behind(desk: Desk) -> None:
    for seconds in (30, 10, 20):
        desk.make(expires_after={"seconds": seconds})
    desk.now += 20
    late = desk.make("proj_b", expires_after={"seconds": 10})
    assert list(desk.secrets._good) == ["ek_0", late.value]
    assert desk.secrets._counts == {"proj_a": 1, "proj_b": 1}
    desk.now += 10
    last = desk.make("proj_c")
    assert list(desk.secrets._good) == [last.value]
    assert set(desk.secrets._counts) == set(desk.secrets._characters) == {"proj_c"}
