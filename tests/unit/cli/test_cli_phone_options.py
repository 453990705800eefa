"""What `offhook call` says about options that it cannot use, and what works without the speech models."""

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from offhook.audio import tones, wav
from offhook.cli import call as command
from offhook.cli.phone.events import json_report
from offhook.cli.phone.voice import VoiceError, read_wav, synthesise

app = typer.Typer()
command.register(app)

URI = "sip:proj_test@127.0.0.1:5060"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tel:+15550100"], "no sip: or sips: URI"),
        ([URI + ";transport=sctp"], "transport udp, tcp or tls"),
        (["not a uri"], "offhook call:"),
        ([URI, "--digits", "12x"], "--digits: 'X' is on no telephone"),
        ([URI, "--codec", "opus"], "--codec: 'opus' is no G.711 law: use PCMU or PCMA"),
        ([URI, "--wav", "there-is-none.wav"], "--wav: there-is-none.wav: No such file"),
        ([URI, "--ca", "there-is-none.pem"], "--ca: there-is-none.pem"),
        ([URI, "--caller", "two words"], "--caller: 'two words' cannot be the user of a URI"),
        ([URI, "--caller", "me@home"], "--caller: 'me@home' cannot be the user of a URI"),
        ([URI, "--record", "/dev/null/call.wav"], "--record: /dev/null/call.wav"),
        ([URI, "--user", "edge"], "--user: give its --password too"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_its_fault(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"OFFHOOK_CALL_PASSWORD": None})
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.output


def test_a_file_that_is_no_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.wav"
    path.write_text("this is no sound")
    result = CliRunner().invoke(app, [URI, "--wav", str(path)])
    assert result.exit_code == 2
    assert "16-bit PCM" in result.stderr


def test_without_the_speech_models_say_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(VoiceError, match=r"offhook\[local\]"):
        synthesise(["Hello"])
    result = CliRunner().invoke(app, [URI, "--say", "Hello"])
    assert result.exit_code == 2
    assert "offhook[local]" in result.stderr


def test_a_wav_file_at_telephone_rate_is_sent_as_it_is(tmp_path: Path) -> None:
    sound = tones.tone(440, 200)
    path = tmp_path / "call.wav"
    path.write_bytes(wav.write(sound, 8000))
    assert (read_wav(path).samples == sound).all()


def test_a_wav_file_of_another_rate_is_made_telephone_sound(tmp_path: Path) -> None:
    path = tmp_path / "studio.wav"
    path.write_bytes(wav.write(tones.tone(440, 500, rate=44_100), 44_100))
    assert abs(read_wav(path).seconds - 0.5) < 0.01


def test_events_are_one_json_object_a_line() -> None:
    lines: list[str] = []
    report = json_report(lines.append)
    report("heard", state="started", turn=0)
    report("sip", title="a\r\nb", message="Grüße")
    first, second = map(json.loads, lines)
    assert first["event"] == "heard"
    assert first["at"] > 1_600_000_000
    assert second["message"] == "Grüße"
    assert not any("\n" in line for line in lines)
