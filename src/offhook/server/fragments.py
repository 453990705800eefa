"""Large WebSocket frames, cut into fragments as they come in: none is unmasked in one go (RFC 6455 section 5.4)."""

from __future__ import annotations

__all__ = ["PIECE", "Fragments"]

PIECE = 64 * 1024
"Bytes of payload; a multiple of four, so that the mask of a frame fits each of its fragments as it is."
_FIN, _RESERVED, _OPCODE, _CONTROL, _LENGTH, _MASKED = 0x80, 0x70, 0x0F, 0x08, 0x7F, 0x80


class Fragments:
    """
    Rewrites what a client sends: a data frame of more than `PIECE` becomes fragments that say the same.

    Frames of more than `most` stay as they are, for the parser to refuse by what they announce, and so does whatever
    breaks the rules.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._head = b""
        "A header that has not come whole."
        self._left = 0
        "Of the present frame's payload."
        self._piece_left = 0
        "Of the present fragment's, where the frame is cut; 0 where a header is due."
        self._cut = False
        self._first = 0
        "The first byte of the frame that is cut, for its next fragment."
        self._mask = b""

    @property
    def within(self) -> bool:
        """Whether more of a large frame is to come."""
        return self._cut and self._left > 0

    def rewrite(self, data: bytes) -> bytes:
        """Take what came in; return what to parse in its place."""
        if not self._left and not self._head and _is_one_small_frame(data):
            return data
        out: list[bytes | memoryview] = []
        view, at = memoryview(data), 0
        while at < len(data):
            if not self._left:
                at = self._take_head(view, at, out)
                continue
            if self._cut and not self._piece_left:
                self._begin_fragment(out)
            take = min(self._piece_left if self._cut else self._left, len(data) - at)
            out.append(view[at : at + take])
            at += take
            self._left -= take
            self._piece_left -= take if self._cut else 0
        return b"".join(out)

    def _take_head(self, view: memoryview, at: int, out: list[bytes | memoryview]) -> int:
        """Take what there is of a header; return where the rest begins."""
        wanted = _head_length(self._head) - len(self._head)
        self._head += view[at : at + wanted]
        at += wanted
        if len(self._head) < _head_length(self._head):
            return min(at, len(view))
        head, self._head = self._head, b""
        self._left = _payload_length(head)
        self._cut = PIECE < self._left <= self._most and not head[0] & _CONTROL and bool(head[1] & _MASKED)
        if self._cut:
            self._first, self._mask, self._piece_left = head[0], head[-4:], 0
        else:
            out.append(head)
        return at

    def _begin_fragment(self, out: list[bytes | memoryview]) -> None:
        length = min(PIECE, self._left)
        first = self._first if length == self._left else self._first & ~_FIN
        out.append(bytes((first, _MASKED | 127)) + length.to_bytes(8, "big") + self._mask)
        self._piece_left = length
        self._first &= ~(_OPCODE | _RESERVED)  # what follows is a continuation


def _is_one_small_frame(data: bytes) -> bool:
    if len(data) < 2:
        return False
    masked, code = 4 * (data[1] >> 7), data[1] & _LENGTH
    if code < 126:
        return len(data) == 2 + masked + code
    return code == 126 and len(data) == 4 + masked + int.from_bytes(data[2:4], "big")


def _head_length(head: bytes) -> int:
    """Return how long a header is, as far as can be told from what is there of it."""
    if len(head) < 2:
        return 2
    code = head[1] & _LENGTH
    return 2 + (2 if code == 126 else 8 if code == 127 else 0) + 4 * (head[1] >> 7)


def _payload_length(head: bytes) -> int:
    code = head[1] & _LENGTH
    if code < 126:
        return code
    return int.from_bytes(head[2:4] if code == 126 else head[2:10], "big")
