"""
An event of many megabytes (API row S19), judged and handed on a piece at a time: other sessions wait meanwhile.

What makes it long is sound in base64. So the text is searched for stretches without quotes and escapes, and what is
left of it without them is small enough to be read as any event is. The sound is then decoded by itself.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from offhook.realtime.client_events import (
    MAX_AUDIO_BASE64,
    ClientEventError,
    InputAudioBufferAppend,
    half_a_sample,
    no_base64,
    parse_client_event,
    too_much_audio,
)
from offhook.realtime.engine import AudioFormat
from offhook.realtime.items import DecodedAudio
from offhook.realtime.long_text import LongText
from offhook.realtime.sideband_audio import AudioConverter, sample_bytes

__all__ = ["Ear", "in_pieces"]

MAX_APART = 1024 * 1024
"Characters of an event besides such stretches; as much as a request over HTTP may have."
_EDGE = 16
"Characters of a stretch that stay where they are: an escape may have begun before them."
_CHUNK = 64 * 1024
"Characters of base64 of whole samples, whatever their size: a multiple of 8."
_MARK = "\x7f\x7f"
_MARKED = re.compile(f"{_MARK}([0-9]{{1,6}}){_MARK}")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_TURN = 1_000
"Values that are looked at in one go."
_EVENT_ID = re.compile(r'"event_id"\s*:\s*"([^"\\]{1,512})"')

Piece = Mapping[str, Any] | ClientEventError | None


@dataclass(frozen=True, slots=True)
class Ear:
    """What a session does with the sound of clients."""

    appends: bool
    "Whether it takes any; on a phone call it is the caller's."
    hears: AudioFormat
    "What clients send."
    holds: AudioFormat
    "What items are kept in."


@dataclass(slots=True)
class _Sound:
    """Base64 that was taken out of an event, and its place there."""

    text: LongText
    holder: dict[str, Any]
    param: str


def in_pieces(frame: LongText, ear: Ear) -> Iterator[Piece]:
    """
    Yield events that do what this one would, or the error for what is wrong with it.

    An append becomes many, after all of it was judged; the sound of items is `DecodedAudio`. `None` means that nothing
    is ready yet.
    """
    try:
        yield from _read(frame, ear)
    except ClientEventError as error:
        yield error


def _read(frame: LongText, ear: Ear) -> Generator[Piece, None, None]:
    event, sounds = yield from _without_sound(frame)
    parsed = parse_client_event(event)
    if isinstance(parsed, InputAudioBufferAppend):
        if sounds and ear.appends:
            yield from _appends(event, sounds[0], sample_bytes(ear.hears), parsed.event_id)
        else:
            yield event
        return
    for sound in sounds:
        sound.holder["audio"] = yield from _decoded(sound, ear, parsed.event_id)
    yield event


def _appends(
    event: Mapping[str, Any], sound: _Sound, width: int, event_id: str | None
) -> Generator[Piece, None, None]:
    chunks = yield from _chunks(sound, event_id)
    size = 0
    for index, chunk in enumerate(chunks):
        size += len(_decode(chunk, sound, event_id, last=index == len(chunks) - 1))
        yield None
    if size % width:
        raise half_a_sample(sound.param, width, event_id)
    for chunk in chunks:
        yield {**event, "audio": chunk}


def _decoded(sound: _Sound, ear: Ear, event_id: str | None) -> Generator[Piece, None, DecodedAudio]:
    """Decode sound, and convert it to what items are kept in."""
    chunks = yield from _chunks(sound, event_id)
    converter = AudioConverter(ear.hears, ear.holds)
    audio, size, width = bytearray(), 0, sample_bytes(ear.hears)
    for index, chunk in enumerate(chunks):
        last = index == len(chunks) - 1
        raw = _decode(chunk, sound, event_id, last=last)
        size += len(raw)
        if size % width:
            raise half_a_sample(sound.param, width, event_id)
        audio += converter.process(raw, last)
        yield None
    return DecodedAudio(audio, ear.holds)


def _chunks(sound: _Sound, event_id: str | None) -> Generator[Piece, None, list[str]]:
    """Cut base64 where whole samples end."""
    if len(sound.text) > MAX_AUDIO_BASE64:
        raise too_much_audio(sound.param, event_id)
    chunks, rest = [], ""
    for piece in sound.text.pieces:
        rest += piece
        whole = len(rest) - len(rest) % 8
        chunks.append(rest[:whole])
        rest = rest[whole:]
        yield None
    chunks.append(rest)
    return [chunk for chunk in chunks if chunk]


def _decode(chunk: str, sound: _Sound, event_id: str | None, *, last: bool) -> bytes:
    try:
        audio = base64.b64decode(chunk, validate=True)
    except (binascii.Error, ValueError):
        raise no_base64(sound.param, event_id) from None
    if not last and len(audio) != len(chunk) // 4 * 3:
        raise no_base64(sound.param, event_id)  # it ends before its end
    return audio


# The text.


def _without_sound(frame: LongText) -> Generator[Piece, None, tuple[dict[str, Any], list[_Sound]]]:
    """Return the event, and what is long in it under `audio`; there the event has an empty text."""
    short, stretches = yield from _take_apart(frame)
    try:
        event = orjson.loads(short)
    except orjson.JSONDecodeError:
        raise ClientEventError("invalid_json", "The event is not valid JSON.") from None
    sounds: list[_Sound] = []
    if not isinstance(event, dict):
        parse_client_event(short)  # which says what it should be
    yield from _put_back(event, stretches, sounds)
    return event, sounds


def _take_apart(frame: LongText) -> Generator[Piece, None, tuple[str, list[list[str]]]]:
    """Return the text with marks for its plain stretches, and those."""
    short: list[str] = []
    stretches: list[list[str]] = []
    apart, within, tail = 0, False, ""
    for piece in frame.pieces:
        plain = _plain(piece)
        if plain is None:
            short.append(tail + piece)
            apart += len(piece)
            within, tail = False, ""
            if apart > MAX_APART:
                raise _too_large(frame)
        elif within:
            stretches[-1] += (tail, plain[:-_EDGE])
            tail = plain[-_EDGE:]
        else:
            short.append(f"{plain[:_EDGE]}{_MARK}{len(stretches)}{_MARK}")
            stretches.append([plain[_EDGE:-_EDGE]])
            within, tail = True, plain[-_EDGE:]
        yield None
    return "".join((*short, tail)), stretches


def _plain(piece: str) -> str | None:
    """Return a piece of nothing but base64, slashes escaped or not; `None` for all others."""
    if '"' in piece or len(piece) <= 2 * _EDGE or not piece.isascii():
        return None
    if "\\" in piece:
        # Some encoders escape every slash. A backslash that is escaped itself comes in twos.
        if piece.count("\\") != piece.count("\\/"):
            return None
        piece = piece.replace("\\/", "/")
    if len(piece) <= 2 * _EDGE or piece.encode().translate(None, _BASE64) or piece.isdigit():
        return None  # also what may stand outside a text: blanks, numbers
    return piece


@dataclass(frozen=True, slots=True)
class _Place:
    """A list or an object in an event. It knows the one around it: to write out each path would take its length."""

    holder: Any
    around: _Place | None = None
    key: str | int = ""

    def path(self, key: str) -> tuple[str | int, ...]:
        """Return where a value in it is; of one that is deep down only the last few keys."""
        keys: list[str | int] = [key]
        place: _Place | None = self
        while place is not None and place.around is not None and len(keys) < _DEEPEST:
            keys.append(place.key)
            place = place.around
        return tuple(reversed(keys))


_DEEPEST = 7
"Keys: more than lead to any sound."


def _is_sound(event: Mapping[str, Any], path: tuple[str | int, ...]) -> bool:
    """Whether the API has sound there. Elsewhere `audio` is a key of the app's own, as in a tool's parameters."""
    match event.get("type"), path:
        case "input_audio_buffer.append", ("audio",):
            return True
        case "conversation.item.create", ("item", "content", int(), "audio"):
            return True
        case "response.create", ("response", "input", int(), "content", int(), "audio"):
            return True
    return False


def _named(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _put_back(
    event: dict[str, Any], stretches: list[list[str]], sounds: list[_Sound]
) -> Generator[Piece, None, None]:
    """Put stretches back where their marks are, but for sound, which is noted instead."""
    left = [_Place(event)] if stretches else []
    seen = 0
    while left:
        place = left.pop()
        holder = place.holder
        for key, value in enumerate(holder) if isinstance(holder, list) else list(holder.items()):
            if isinstance(value, dict | list):
                left.append(_Place(value, place, key))
            elif isinstance(value, str) and _MARK in value:
                text = _long(value, stretches)
                if key == "audio" and _is_sound(event, path := place.path("audio")):
                    sounds.append(_Sound(text, holder, _named(path)))
                    holder[key] = ""
                else:
                    holder[key] = str(text)
            seen += 1
            if seen % _TURN == 0:
                yield None
    if any(stretches):
        raise _confused()


def _long(marked: str, stretches: list[list[str]]) -> LongText:
    pieces: list[str] = []
    for index, part in enumerate(_MARKED.split(marked)):
        if index % 2 == 0:
            pieces.append(part)
            continue
        if int(part) >= len(stretches) or not stretches[int(part)]:
            raise _confused()
        pieces += stretches[int(part)]
        stretches[int(part)] = []
    return LongText.of(pieces)


def _confused() -> ClientEventError:
    """A mark is where none was made, or one is missing."""
    message = "A long event may have no key of many thousand characters, and none of U+007F twice in a row."
    return ClientEventError("invalid_value", message)


def _too_large(frame: LongText) -> ClientEventError:
    message = (
        f"The event is too large: besides base64, one event may have {MAX_APART // 1024} KiB. "
        "Send long texts in several items."
    )
    found = _EVENT_ID.search(frame.pieces[0]) or _EVENT_ID.search(frame.pieces[-1])
    return ClientEventError("invalid_value", message, event_id=found[1] if found else None)
