"""`offhook call`: a telephone on the command line."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import ssl

    from offhook.audio.frames import Law
    from offhook.tenants import SrtpMode

    from .phone.ears import Ears
    from .phone.events import Report
    from .phone.phone import CallPlan, Turn

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("call")(call)


def call(
    uri: Annotated[
        str,
        typer.Argument(
            help="Whom to call: sip:proj_test@127.0.0.1:5060, with ;transport=tcp or ;transport=tls if wanted."
        ),
    ],
    say: Annotated[
        list[str] | None,
        typer.Option(help="A sentence, spoken when the other side has finished. Repeat for more turns."),
    ] = None,
    wav: Annotated[
        list[Path] | None, typer.Option(help="A WAV file as a turn; before all sentences.")
    ] = None,
    digits: Annotated[str, typer.Option(help="Keys to press (0-9 * # A-D), as the last turn.")] = "",
    codec: Annotated[str, typer.Option(help="pcmu or pcma.")] = "pcmu",
    srtp: Annotated[
        str, typer.Option(help="Encrypt the sound: off, optional (if the other side does) or required.")
    ] = "off",
    ca: Annotated[
        Path | None, typer.Option(help="Trust this CA for TLS. Default: the development CA in offhook-data.")
    ] = None,
    caller: Annotated[str, typer.Option(help="The user part of our From.")] = "caller",
    record: Annotated[
        Path | None, typer.Option(help="A stereo WAV to write: left caller, right agent.")
    ] = None,
    hangup_after: Annotated[
        float | None,
        typer.Option(
            help="Hang up this many seconds after the answer to the last turn, or --patience without one. "
            "Default: wait for the other side."
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="End the call after this long, whatever happens.")
    ] = 120,
    gap: Annotated[
        float, typer.Option(min=0.2, max=10, help="Silence after which the other side has finished.")
    ] = 1.0,
    patience: Annotated[
        float,
        typer.Option(min=0.5, max=600, help="Seconds of silence after which we go on without an answer."),
    ] = 10.0,
    refer_outcome: Annotated[
        int, typer.Option(min=200, max=699, help="As a transferee: how the call to the target ends.")
    ] = 200,
    refuse_refer: Annotated[
        int | None, typer.Option(min=300, max=699, help="Answer REFER with this status.")
    ] = None,
    user: Annotated[str, typer.Option(help="The digest user, for a trunk with a password.")] = "",
    password: Annotated[
        str,
        typer.Option(envvar="OFFHOOK_CALL_PASSWORD", help="Its password; SHA-256 or MD5, as it is asked."),
    ] = "",
    transcribe: Annotated[
        bool, typer.Option(help="Put what is heard into words, with the local speech-to-text.")
    ] = False,
    model_dir: Annotated[Path | None, typer.Option(help="Where speech models are kept.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Print one JSON event a line.")] = False,
) -> None:
    """
    Place a call, speak, listen, and measure how long the other side takes to answer.

    The exit status is 0 only if the call was answered, everything was said and one side hung up.
    """
    from offhook.sip.uri import SipUri, UriError

    from .phone.phone import CallPlan, PhoneError

    try:
        report = _report(json_lines)
        turns = _turns(wav or [], say or [], digits)
        target = SipUri.parse(uri)
        plan = CallPlan(
            uri=target,
            turns=turns,
            codec=_law(codec),
            caller=_caller(caller),
            tls=_trust(ca),
            record=_writable(record),
            ears=_ears(transcribe, model_dir),
            hangup_after_s=hangup_after,
            max_s=max_seconds,
            gap_s=gap,
            patience_s=patience,
            refer_outcome=refer_outcome,
            refuse_refer=refuse_refer,
            srtp=_srtp(srtp),
            credentials=_credentials(user, password),
        )
        ok = _run(plan, report)
    except (_OptionError, UriError, PhoneError) as error:
        print(f"offhook call: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    raise typer.Exit(0 if ok else 1)


class _OptionError(Exception):
    """An option cannot be used; the message names it and the remedy."""


def _report(json_lines: bool) -> Report:
    from rich.console import Console

    from .phone.events import human_report, json_report

    if json_lines:
        return json_report(lambda line: print(line, flush=True))
    return human_report(Console(highlight=False))


def _turns(wavs: list[Path], sentences: list[str], digits: str) -> list[Turn]:
    from offhook.audio.wav import WavError

    from .phone.phone import Digits
    from .phone.voice import VoiceError, read_wav, synthesise

    turns: list[Turn] = []
    for path in wavs:
        try:
            turns.append(read_wav(path))
        except OSError as error:
            raise _OptionError(f"--wav: {path}: {error.strerror}") from None
        except WavError as error:
            raise _OptionError(f"--wav: {path}: {error}") from None
    try:
        turns += synthesise(sentences) if sentences else []
    except VoiceError as error:
        raise _OptionError(str(error)) from None
    if strange := set(digits.upper()) - set("0123456789*#ABCD"):
        raise _OptionError(f"--digits: {''.join(sorted(strange))!r} is on no telephone; use 0-9 * # A-D")
    return [*turns, Digits(digits.upper())] if digits else turns


def _law(codec: str) -> Law:
    from offhook.audio.g711 import law_of

    try:
        return law_of(codec)
    except ValueError as error:
        raise _OptionError(f"--codec: {error}") from None


def _srtp(mode: str) -> SrtpMode:
    if mode in ("off", "optional", "required"):
        return mode  # type: ignore[return-value]
    raise _OptionError(f"--srtp: {mode!r} is none of off, optional and required")


def _caller(user: str) -> str:
    from offhook.sip.uri import SipUri, UriError

    try:
        fits = SipUri.parse(f"sip:{user}@127.0.0.1").user == user
    except UriError:
        fits = False
    if not fits:
        raise _OptionError(
            f"--caller: {user!r} cannot be the user of a URI: such as +15550100, with no spaces"
        )
    return user


def _writable(record: Path | None) -> Path | None:
    """Find out before the call, not after it, that a recording could not be kept."""
    if record is not None:
        made = not record.exists()
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            with record.open("ab"):
                pass
            if made:
                record.unlink()
        except OSError as error:
            raise _OptionError(f"--record: {record}: {error.strerror}") from None
    return record


def _credentials(user: str, password: str) -> tuple[str, str] | None:
    if user and not password:
        raise _OptionError("--user: give its --password too, or OFFHOOK_CALL_PASSWORD")
    return (user, password) if user else None


def _trust(ca: Path | None) -> ssl.SSLContext:
    import ssl

    from offhook.certificates import client_context

    default = Path("offhook-data/tls/ca.pem")
    if ca is None and default.is_file():
        ca = default
    try:
        return client_context(ca)
    except (OSError, ssl.SSLError) as error:
        raise _OptionError(f"--ca: {ca} holds no certificate that can be read: {error}") from None


def _ears(transcribe: bool, model_dir: Path | None) -> Ears | None:
    from .phone.ears import Ears

    return Ears(model_dir) if transcribe else None


def _run(plan: CallPlan, report: Report) -> bool:
    import uvloop

    async def run() -> bool:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        from .phone.ears import EarsError
        from .phone.phone import Phone

        if plan.ears is not None:
            try:
                await plan.ears.start()
            except EarsError as error:
                raise _OptionError(str(error)) from None
        try:
            return (await Phone(plan, report).call()).orderly
        finally:
            if plan.ears is not None:
                plan.ears.close()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return False
