"""A relayed turn's times, by the upstream's events."""

from offhook.realtime.outbox import Outbox, SessionNote
from offhook.realtime.relay_turns import RelayTurns

STOPPED, STARTED = "input_audio_buffer.speech_stopped", "input_audio_buffer.speech_started"
COMMITTED, TEXT = "input_audio_buffer.committed", "response.output_audio_transcript.delta"
AUDIO, HEARD = "response.output_audio.delta", "conversation.item.input_audio_transcription.completed"


def notes(*events):
    outbox = Outbox(lambda prefix: prefix)
    turns = RelayTurns(outbox)
    for at, kind in events:
        turns.receive(kind, at)
    return [output for output in outbox.take() if isinstance(output, SessionNote)]


def test_a_turn_is_noted_once_with_its_first_sound():
    (note,) = notes(
        (1.0, STOPPED),
        (1.01, COMMITTED),
        (1.4, TEXT),
        (1.45, TEXT),
        (1.5, AUDIO),
        (1.52, AUDIO),
        (1.6, HEARD),
    )
    assert note.kind == "turn"
    assert note.details == {"committed_ms": 10.0, "first_text_ms": 400.0, "first_audio_ms": 500.0}


def test_a_greeting_is_no_turn_and_a_caller_who_goes_on_begins_anew():
    assert notes((1.0, TEXT), (1.1, AUDIO)) == []
    (note,) = notes((1.0, STOPPED), (1.2, STARTED), (1.3, AUDIO), (4.0, STOPPED), (4.25, AUDIO))
    assert note.details == {"first_audio_ms": 250.0}
