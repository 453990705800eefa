"""A session with all that is around it, by hand: clients, a player, an engine's ear, a clock. No task, no waiting."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

from offhook.realtime.engine import (
    EngineEvent,
    Respond,
    ResponseSpeech,
    ResponseText,
    Transcribe,
    VoiceActivity,
)
from offhook.realtime.outbox import HearAudio, Output, SessionNote
from offhook.realtime.session import Session
from offhook.realtime.session_config import parse_accept
from offhook.realtime.sideband_audio import bytes_per_ms

from .by_hand import TRANSCRIBED
from .session_laws import SessionLaws

__all__ = ["DRAIN_S", "SessionWorld"]

FRAME_S, FRAME_MS = 0.02, 20
DRAIN_S = 1.0


class SessionWorld:
    """
    Each output is judged by `SessionLaws`.

    The player of a call plays a frame every 20 ms; without a call client 1 appends the sound. What the engine says is
    the user's to make up.
    """

    def __init__(self, *, sip: bool) -> None:
        self.sip = sip
        counter = itertools.count(1)
        self.new_id: Callable[[str], str] = lambda prefix: f"{prefix}_{next(counter)}"
        self.session = Session(
            parse_accept({"type": "realtime", **TRANSCRIBED}),
            session_id="sess_1",
            audio_format="audio/pcmu" if self.sip else "audio/pcm",
            new_id=self.new_id,
            sip=self.sip,
            max_duration_s=600.0,
            drain_s=DRAIN_S,
        )
        self.laws = SessionLaws(self.session)
        self.now = 100.0
        self.came_ms = 0.0
        self.played = 0
        self.asked: list[Respond] = []
        self.transcribes: list[Transcribe] = []
        self.calls: list[tuple[Respond, str]] = []
        self.closing_at = 0.0
        self.session.start(self.now, 1_700_000_000.0)
        self.attach(1)

    def drain(self) -> list[Output]:
        outputs = self.session.outputs()
        for output in outputs:
            self.laws.take(output)
            if isinstance(output, Respond):
                self.asked.append(output)
            elif isinstance(output, Transcribe):
                self.transcribes.append(output)
            elif isinstance(output, HearAudio):
                self.came_ms += FRAME_MS
        self.laws.settle()
        self.laws.speaker, self.laws.brings_context = None, False
        return outputs

    def attach(self, sender: int) -> None:
        self.laws.clients.add(sender)
        self.session.attach(sender, audio=sender % 2 == 0)
        self.drain()
        assert self.laws.closed or sender in self.laws.greeted

    def send(self, frame: Any, sender: int, event_id: str | None) -> list[dict[str, Any]]:
        """Send a frame; return the errors that it got, which are for the sender alone."""
        self.session.receive_client_event(frame, sender=sender, now=self.now)
        told = [output for output in self.drain() if getattr(output, "to", None) is not None]
        assert all(output.to == sender for output in told)
        errors = [output.event["error"] for output in told]
        assert all(error["event_id"] == event_id for error in errors)
        assert all(error["message"] for error in errors)
        return errors

    def engine(self, event: EngineEvent, *, stale: bool = False) -> None:
        self.session.receive_engine_event(event, self.now)
        outputs = self.drain()
        assert not (stale and outputs), f"{event} came too late, and made {outputs}"

    def fire(self) -> None:
        """The driver's timer."""
        for _ in range(2000):
            deadline = self.session.next_timer()
            if deadline is None or deadline > self.now:
                return
            self.session.handle_timer(self.now)
            self.drain()
        raise AssertionError("a timer that is always due")

    def play(self) -> None:
        """The sender's next frame, padded if it is the last; then it says that it has no more."""
        queued = bool(self.laws.queue)
        if self.laws.play(160):
            self.played += 160
        self.session.playout_progress(self.played, self.now)
        if queued and not self.laws.queue:
            self.session.playout_drained(self.played, self.now)
        self.drain()

    def hear_frame(self) -> None:
        if self.sip:
            self.session.receive_audio(b"\xff" * 160, self.now)
            self.came_ms += FRAME_MS
            return
        source = self.session.config.audio.input.format.type
        audio = base64.b64encode(b"\xff" * FRAME_MS * bytes_per_ms(source)).decode()
        event = {"type": "input_audio_buffer.append", "audio": audio}
        self.session.receive_client_event(event, sender=1, now=self.now)
        outputs = self.session.outputs()
        assert all(isinstance(output, HearAudio | SessionNote) for output in outputs)
        self.came_ms += FRAME_MS * sum(isinstance(output, HearAudio) for output in outputs)

    def listen(self, probability: float) -> None:
        """The engine's ear catches up."""
        while self.laws.ear_ms < self.came_ms:
            self.laws.ear_ms += FRAME_MS
            self.engine(VoiceActivity(probability, self.laws.ear_ms), stale=self.laws.closing)

    def wait(self, ms: int, probability: float, *, ear: bool = True, plays: bool = True) -> None:
        for _ in range(ms // FRAME_MS):
            self.now += FRAME_S
            if plays and self.sip:
                self.play()
            if not self.laws.closed:
                self.hear_frame()
            if ear:
                self.listen(probability)
            self.fire()

    def let_pass(self, seconds: float) -> None:
        """Nothing comes: only timers."""
        until = self.now + seconds
        while (deadline := self.session.next_timer()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.fire()
        self.now = until

    def answer(self, command: Respond, text: str, ms: int) -> None:
        self.laws.speaker = command.response_id
        if command.audio:
            audio = b"\x10" * bytes_per_ms(self.session.audio_format) * ms
            self.engine(ResponseSpeech(command.response_id, command.generation, text, audio))
        else:
            self.engine(ResponseText(command.response_id, command.generation, text))

    def close(self) -> None:
        if not self.laws.closing:
            self.laws.closing, self.closing_at = True, self.now
        self.session.close("hangup", self.now)
        self.drain()
        if self.laws.closed:
            self.session.handle_timer(self.now)
            self.drain()
