"""Messages of the log into frames: what is one, and what of it is new."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from morphogen.schemas import Frame, FrameError, decode_frame

from .envelopes import Envelopes
from .sealed import LEAST, SealedFrame, sealed

Lane = tuple[str, str, str]
"""(run, family, writer): within a lane the counter `n` only rises."""

UNREADABLE = "$unreadable"
"""The type under which `events` shows a message that is no frame."""


class Message(Protocol):
    """A message of the log, as `morphogen.bus` reads it; `size` is how many bytes it has there."""

    @property
    def seq(self) -> int: ...  # noqa: D102
    @property
    def stored(self) -> int: ...  # noqa: D102
    @property
    def subject(self) -> str: ...  # noqa: D102
    @property
    def data(self) -> bytes: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102


class Part(NamedTuple):
    """A frame, and how many of its first records were folded before (0 in a healthy log)."""

    frame: Frame | SealedFrame
    start: int = 0

    @property
    def length(self) -> int:
        """How many records the frame has."""
        return self.frame.count if isinstance(self.frame, SealedFrame) else len(self.frame.records)


class Unreadable(NamedTuple):
    """A message that is no frame of ours; `raw` is its first kilobyte."""

    seq: int
    stored: int
    subject: str
    reason: str
    size: int
    raw: bytes


Opened = tuple[list[Part], list[Unreadable], Envelopes | None]
"""Frames, messages that are none, and the envelopes of all new records where those could be read in step."""


def opened(messages: Sequence[Message], lanes: dict[Lane, int] | None) -> Opened:
    """Open messages; see `Batch.read`."""
    if sum(len(message.data) for message in messages) >= LEAST:
        found = sealed(messages)
        if found is not None:
            return _in_step(*found, lanes)
    parts: list[Part] = []
    unreadable: list[Unreadable] = []
    for message in messages:
        try:
            frame = decode_frame(message.data, message.seq, message.stored)
        except FrameError as error:
            raw = bytes(message.data[:1024])
            unreadable.append(
                Unreadable(message.seq, message.stored, message.subject, str(error), len(message.data), raw)
            )
            continue
        frame.size = message.size
        numbers = [record.n for record in frame.records]
        parts.append(Part(frame, 0 if lanes is None else _already(frame, numbers, lanes)))
    return parts, unreadable, None


def _in_step(frames: Sequence[SealedFrame], envelopes: Envelopes, lanes: dict[Lane, int] | None) -> Opened:
    if lanes is None:
        return [Part(frame) for frame in frames], [], envelopes
    parts, kept, at = [], [], 0
    for frame in frames:
        start = _already(frame, envelopes.n[at : at + frame.count].tolist(), lanes)
        parts.append(Part(frame, start))
        kept.append(np.arange(at + start, at + frame.count))
        at += frame.count
    if any(part.start for part in parts):
        envelopes = envelopes.take(np.concatenate(kept))
    return parts, [], envelopes


def _already(frame: Frame | SealedFrame, numbers: Sequence[int], lanes: dict[Lane, int]) -> int:
    """Return how many leading records of a frame, with these counters, were folded before; note the frame in `lanes`."""
    lane = (frame.run, frame.family, frame.writer)
    last = lanes.get(lane, 0)
    if numbers and numbers[0] > last:
        lanes[lane] = numbers[-1]
        return 0
    lanes[lane] = max(last, *numbers) if numbers else last
    return sum(1 for number in numbers if number <= last)
