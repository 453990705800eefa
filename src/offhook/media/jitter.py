"""
The jitter buffer: packets as they come, frames of 20 ms as they are due.

Sound is kept by its place on the sender's clock, so the sizes of packets do not matter: what comes as 10, 30 or 60
ms is cut and joined. A cursor moves one frame each tick. How long before its turn a packet comes is its slack;
the buffer grows when packets come too late and shrinks when all of them have had slack to spare for a while,
at once in a pause, else in a quiet frame. A sender whose clock drifts is followed by the same two moves.
"""

from __future__ import annotations

from typing import Final

from offhook.audio.frames import FRAME_MS, FRAME_SAMPLES, SILENCE, Law

__all__ = ["JitterBuffer"]

FRAME_S: Final = FRAME_MS / 1000
START_FRAMES: Final = 1
"""A stream's first frame waits for this many ticks more than it must: 20 to 40 ms of delay."""
MAX_FRAMES: Final = 10
"""200 ms: what lies further ahead of the cursor pushes it on."""
MAX_GAP_FRAMES: Final = 25
"""A step of the sender's clock beyond what is buffered and this is a new start."""
MAX_PAYLOAD: Final = MAX_FRAMES * FRAME_SAMPLES

REBASE_FRAMES: Final = 1 << 16
_NOWHERE: Final = -(1 << 40)

WINDOW: Final = 150
"""Packets over which the least slack is taken: 3 s."""
SPARE_S: Final = 0.045
"""All of a window's packets had this much slack: a frame of it can go. A stream begins with less than that."""
CALM_S: Final = 8.0
"""How long after a late packet the buffer does not shrink."""

# G.711 codes of less than about -50 dBFS, as 1, all others as 0.
_QUIET_CODES: Final[dict[Law, frozenset[int]]] = {
    "PCMU": frozenset(code ^ sign for code in range(0x6F, 0x80) for sign in (0x00, 0x80)),
    "PCMA": frozenset((code ^ 0x55) | sign for code in range(6) for sign in (0x00, 0x80)),
}
_QUIET: Final[dict[Law, bytes]] = {
    law: bytes(int(code in codes) for code in range(256)) for law, codes in _QUIET_CODES.items()
}


class JitterBuffer:
    """One source's buffer. `insert` what comes, `take` a frame every 20 ms."""

    # Slots, and few of them written per packet: with hundreds of calls each visit finds its objects out of the cache.
    __slots__ = (
        "_calm_at",
        "_cursor",
        "_floor",
        "_frames",
        "_late_in_window",
        "_least_slack",
        "_origin",
        "_pieces",
        "_quiet",
        "_silence",
        "_spare",
        "_started",
        "_ticked_at",
        "_window",
        "late",
        "resyncs",
        "skipped",
        "stretched",
    )

    spare_s: float = SPARE_S

    def __init__(self, law: Law) -> None:
        self.late = 0
        "Packets that came after their turn and were of no use."
        self.stretched = 0
        "Frames of delay added."
        self.skipped = 0
        "Frames left out to get the delay down."
        self.resyncs = 0
        "New starts after a jump of the sender's clock."
        # Frames by their place, counted from the timestamp `_origin`; and frames of which only parts have come.
        self._frames: dict[int, bytes] = {}
        self._pieces: dict[int, tuple[bytearray, int]] = {}
        self._ticked_at = 0.0
        self._calm_at = 0.0
        self.change_law(law)

    def change_law(self, law: Law) -> None:
        """Start anew with frames of another law."""
        self._silence = SILENCE[law]
        self._quiet = _QUIET[law]
        self.restart()

    def restart(self) -> None:
        """Forget the stream so far; the counts go on."""
        self._frames.clear()
        self._pieces.clear()
        self._started = False
        self._origin = 0
        # The place whose turn is next. Out of reach, until the first packet sets it.
        self._cursor = _NOWHERE
        # Places below this had their turn. The cursor may stand before it, to add delay; sound may not.
        self._floor = _NOWHERE
        self._least_slack = 1.0
        self._window = WINDOW
        self._spare = 0
        self._late_in_window = 0

    @property
    def started(self) -> bool:
        """Whether anything was inserted yet."""
        return self._started

    @property
    def depth(self) -> int:
        """How many frames lie between the cursor and the newest sound, that one included."""
        return self._newest() - self._cursor + 1

    def insert(self, timestamp: int, payload: bytes, now: float, newest: bool = True) -> None:
        """
        Take a packet's sound.

        `newest` says that no packet with a higher sequence number has come before. Duplicates must have been dropped.
        """
        index, offset = divmod(timestamp - self._origin & 0xFFFFFFFF, FRAME_SAMPLES)
        ahead = index - self._cursor
        if offset or len(payload) != FRAME_SAMPLES or not 0 <= ahead <= MAX_FRAMES or index < self._floor:
            self._insert_oddly(timestamp, payload, now, newest)
            return
        self._frames[index] = payload
        # When its turn is, less now.
        slack = (ahead + 1) * FRAME_S - (now - self._ticked_at)
        if slack < self._least_slack:
            self._least_slack = slack
        self._window -= 1
        if not self._window:
            self._judge(now)

    def take(self, now: float) -> bytes | None:
        """Return the frame whose turn it is, or `None` when it is not there. Moves on by one frame."""
        self._ticked_at = now
        cursor = self._cursor
        self._cursor = cursor + 1
        frame = self._frames.pop(cursor, None)
        if self._pieces:
            frame = self._take_piece(cursor, frame)
        if self._spare and (frame is None or frame.translate(self._quiet).count(1) == FRAME_SAMPLES):
            return self._skip(frame)
        return frame

    # Packets that are not just the next frame.

    def _insert_oddly(self, timestamp: int, payload: bytes, now: float, newest: bool) -> None:
        """Take a packet that is the first, out of reach, off the grid, or not of a frame's size."""
        if not 0 < len(payload) <= MAX_PAYLOAD:
            return
        if not self._started:
            self._start(timestamp, now)
        position = timestamp - self._origin & 0xFFFFFFFF
        if position >= 0x80000000:
            position -= 0x100000000
        index, offset = divmod(position, FRAME_SAMPLES)
        if not 0 <= index - self._cursor <= MAX_FRAMES or index < self._floor:
            if index - self._cursor < 0 or index < self._floor:
                usable = self._place_late(index, newest, now)
            else:
                usable = self._place_early(index, newest)
            if not usable:
                return
            if self._cursor == _NOWHERE:
                self._start(timestamp, now)
                index = offset = 0
        whole = not len(payload) % FRAME_SAMPLES
        if offset and whole and newest and not self._frames and not self._pieces:
            # Nothing to join on to: let frames begin where this packet does. Packets of 30 ms lie off the grid by
            # turns, and one that was overtaken would lose its place.
            self._origin = self._origin + offset & 0xFFFFFFFF
            offset = 0
        slack = (index - self._cursor + 1) * FRAME_S - (now - self._ticked_at)
        self._least_slack = min(slack, self._least_slack)
        self._window -= 1
        self._join(index, offset, payload)
        if self._window <= 0:
            self._judge(now)

    def _start(self, timestamp: int, now: float) -> None:
        self._started = True
        self._origin = timestamp
        self._cursor = self._floor = -START_FRAMES
        # Between two ticks; the next one is a frame away at most.
        self._ticked_at = max(self._ticked_at, now - FRAME_S)

    def _newest(self) -> int:
        before = self._cursor - 1
        return max(max(self._frames, default=before), max(self._pieces, default=before))

    def _place_early(self, index: int, newest: bool) -> bool:
        """Make room for a packet that lies beyond reach; return whether it can be used."""
        if not newest:
            self.late += 1
            return False
        if index - self._newest() > MAX_GAP_FRAMES:
            self._resync()
        else:
            self._advance(index - MAX_FRAMES)
        return True

    def _place_late(self, index: int, newest: bool, now: float) -> bool:
        """Make room for a packet whose turn is over; return whether it can be used."""
        behind = self._cursor - index
        if newest:
            self._calm_at = now + CALM_S
            self._spare = 0
            # All that is there has been played: go on from here, with that much more delay.
            if behind > MAX_GAP_FRAMES:
                self._resync()
            else:
                self._go_on_from(index)
                self.stretched += max(0, behind)
            return True
        self._missed_one(now)
        usable = behind == 1 and index >= self._floor
        if (usable or self._late_in_window > 1) and 0 < behind <= MAX_FRAMES and self.depth < MAX_FRAMES:
            self._floor = max(self._floor, self._cursor)
            self._cursor -= 1
            self.stretched += 1
            if usable:
                return True
        self.late += 1
        return False

    def _missed_one(self, now: float) -> None:
        """A packet was overtaken, and then its turn was over."""
        self._calm_at = now + CALM_S
        self._spare = 0
        self._late_in_window += 1

    def _go_on_from(self, index: int) -> None:
        self._cursor = self._floor = index

    def _resync(self) -> None:
        self.resyncs += 1
        self.restart()

    def _advance(self, cursor: int) -> None:
        for index in range(self._cursor, cursor):
            if self._frames.pop(index, None) is not None or self._pieces.pop(index, None) is not None:
                self.skipped += 1
        self._cursor = cursor

    def _judge(self, now: float) -> None:
        """At the end of a window, see whether the delay can be less."""
        if self._least_slack > self.spare_s and now >= self._calm_at:
            spare = int((self._least_slack - self.spare_s) / FRAME_S) + 1
            if self._spare:
                # No quiet frame came along for a whole window: take what comes.
                self._advance(self._cursor + 1)
                spare -= 1
            self._spare = spare
        else:
            self._spare = 0
        self._window = WINDOW
        self._least_slack = 1.0
        self._late_in_window = 0
        if self._cursor > REBASE_FRAMES:
            self._rebase()

    def _rebase(self) -> None:
        """Count from the cursor, so that the 32 bits of timestamps are never far from the origin."""
        by = self._cursor
        self._origin = self._origin + by * FRAME_SAMPLES & 0xFFFFFFFF
        self._cursor = 0
        self._floor -= by
        self._frames = {index - by: frame for index, frame in self._frames.items()}
        self._pieces = {index - by: piece for index, piece in self._pieces.items()}

    def _skip(self, frame: bytes | None) -> bytes | None:
        """Leave out a frame that nobody will miss, and return the next."""
        self._spare -= 1
        if frame is not None:
            self.skipped += 1
        cursor = self._cursor
        self._cursor = cursor + 1
        return self._take_piece(cursor, self._frames.pop(cursor, None))

    def _join(self, index: int, offset: int, payload: bytes) -> None:
        """Cut a packet that is not exactly one frame into the frames that it touches."""
        at = 0
        while at < len(payload):
            part = payload[at : at + FRAME_SAMPLES - offset]
            if len(part) == FRAME_SAMPLES:
                self._frames[index] = part
            elif index >= self._cursor:
                self._add_piece(index, offset, part)
            at += len(part)
            index += 1
            offset = 0

    def _add_piece(self, index: int, offset: int, part: bytes) -> None:
        piece, filled = self._pieces.get(index) or (bytearray(self._silence), 0)
        piece[offset : offset + len(part)] = part
        filled += len(part)
        if filled >= FRAME_SAMPLES:
            self._pieces.pop(index, None)
            self._frames[index] = bytes(piece)
        else:
            self._pieces[index] = (piece, filled)

    def _take_piece(self, index: int, frame: bytes | None) -> bytes | None:
        piece = self._pieces.pop(index, None)
        return bytes(piece[0]) if frame is None and piece is not None else frame
