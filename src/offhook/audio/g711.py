"""
G.711: 16-bit linear sound to one byte per sample and back, by table (ITU-T G.711).

The tables are computed once, at import, from the recommendation's segments. Law to law goes by `bytes.translate`
and never through linear sound.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from offhook.audio.frames import Law

__all__ = ["Samples", "decode", "encode", "law_of", "transcode"]

Samples = npt.NDArray[np.int16]
"""Linear sound: signed 16-bit samples, mono."""

_ULAW_BIAS: Final = 33
# The largest magnitude that still has 13 bits with the bias added.
_ULAW_CLIP: Final = 8158


def _decode_ulaw() -> Samples:
    codes = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((2 * (codes & 0x0F) + _ULAW_BIAS) << (codes >> 4 & 7)) - _ULAW_BIAS
    # The recommendation's values have 14 bits; two more make them 16.
    return (np.where(codes & 0x80, -magnitude, magnitude) << 2).astype(np.int16)


def _decode_alaw() -> Samples:
    # Even bits are inverted on the line (G.711 table 1a, note 3).
    codes = np.arange(256, dtype=np.int32) ^ 0x55
    segment = codes >> 4 & 7
    step = 2 * (codes & 0x0F) + 1
    magnitude = np.where(segment == 0, step, (step + 32) << np.maximum(segment - 1, 0))
    # The recommendation's values have 13 bits; three more make them 16.
    return (np.where(codes & 0x80, magnitude, -magnitude) << 3).astype(np.int16)


def _encode_ulaw() -> npt.NDArray[np.uint8]:
    linear = _every_sample() >> 2
    magnitude = np.minimum(np.abs(linear), _ULAW_CLIP) + _ULAW_BIAS
    segment = _bit_length(magnitude) - 6
    code = segment << 4 | (magnitude >> (segment + 1) & 0x0F)
    return _octets(code ^ np.where(linear < 0, 0x7F, 0xFF))


def _encode_alaw() -> npt.NDArray[np.uint8]:
    linear = _every_sample() >> 3
    magnitude = np.where(linear < 0, -linear - 1, linear)
    segment = np.maximum(_bit_length(magnitude) - 5, 0)
    code = segment << 4 | (magnitude >> np.maximum(segment, 1) & 0x0F)
    return _octets(code ^ np.where(linear < 0, 0x55, 0xD5))


def _every_sample() -> npt.NDArray[np.int32]:
    """Return all 16-bit values, ordered by their bits read as unsigned: the order of the encoding tables."""
    values: npt.NDArray[np.int32] = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    return values


def _octets(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    return codes.astype(np.uint8)


def _bit_length(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    exponent = np.frexp(values.astype(np.float64))[1]
    return exponent.astype(np.int32)


_DECODE: Final[dict[Law, Samples]] = {"PCMU": _decode_ulaw(), "PCMA": _decode_alaw()}
_ENCODE: Final[dict[Law, npt.NDArray[np.uint8]]] = {"PCMU": _encode_ulaw(), "PCMA": _encode_alaw()}


def decode(payload: bytes | bytearray | memoryview, law: Law) -> Samples:
    """Return the linear samples of G.711 bytes: one for each byte, in a new array."""
    return _DECODE[law][np.frombuffer(payload, dtype=np.uint8)]


def encode(samples: Samples, law: Law) -> bytes:
    """Return linear samples as G.711 bytes. The array must have dtype int16."""
    return _ENCODE[law][np.ascontiguousarray(samples).view(np.uint16)].tobytes()


_TRANSLATE: Final[dict[tuple[Law, Law], bytes]] = {
    ("PCMU", "PCMA"): encode(_DECODE["PCMU"], "PCMA"),
    ("PCMA", "PCMU"): encode(_DECODE["PCMA"], "PCMU"),
}


def transcode(payload: bytes, source: Law, target: Law) -> bytes:
    """Return G.711 bytes of one law in the other. Costs about a microsecond for a frame."""
    return payload if source == target else payload.translate(_TRANSLATE[source, target])


def law_of(name: str) -> Law:
    """Return the law that a name means: `PCMU`, `pcma`, `audio/pcmu`. Raises `ValueError` for others."""
    law = name.upper().removeprefix("AUDIO/")
    if law not in _DECODE:
        raise ValueError(f"{name!r} is no G.711 law: use PCMU or PCMA")
    return law
