"""Which events of a frame are wanted, and the frame that holds just them.

The bytes of a record are never made anew: a thinner frame is a new head and slices of the old one, so that CRCs,
counters and ids stay what their producer wrote.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from morphogen.schemas import Frame, encode_record, frame_head
from morphogen.schemas.frames import HEAD, check_record


class Choice:
    """Event types to keep, as patterns such as `health.*`; none of them means every type."""

    def __init__(self, types: Iterable[str] = ()) -> None:
        self.patterns = tuple(dict.fromkeys(pattern.strip() for pattern in types if pattern.strip()))
        self.wants = lru_cache(maxsize=4096)(self._wants)

    def _wants(self, kind: str) -> bool:
        return not self.patterns or any(fnmatchcase(kind, pattern) for pattern in self.patterns)

    @property
    def families(self) -> tuple[str, ...] | None:
        """Families in which alone the patterns can match, so that the broker need not send others; None for any."""
        first = {pattern.split(".")[0] for pattern in self.patterns}
        return tuple(sorted(first)) if first and not any(set("*?[") & set(word) for word in first) else None

    def thin(self, frame: Frame, data: bytes, replay: str | None = None) -> tuple[Frame, bytes] | None:
        """Return the frame with only the wanted records, and its bytes; None where nothing is wanted of it.

        With `replay` it carries that name, which tells acting consumers to keep their hands off.
        """
        kept = [index for index, record in enumerate(frame.records) if self.wants(record.type)]
        if not kept:
            return None
        if len(kept) == len(frame.records) and replay is None:
            return frame, data
        pieces = _slices(frame, data)
        records = [frame.records[index] for index in kept]
        mark = frame.replay if replay is None else replay
        head = frame_head(
            run=frame.run, attempt=frame.attempt, rank=frame.rank, writer=frame.writer, family=frame.family,
            first=records[0].n, last=records[-1].n, count=len(kept), replay=mark,
        )  # fmt: skip
        thinned = head + b"".join(pieces[index] for index in kept)
        return (
            Frame(
                frame.seq, frame.stored, frame.run, frame.attempt, frame.rank, frame.writer, frame.family,
                records[0].n, records[-1].n, mark, records, len(thinned),
            ),
            thinned,
        )  # fmt: skip


def _slices(frame: Frame, data: bytes) -> list[bytes]:
    """Return the bytes of each record of a frame."""
    head = frame_head(
        run=frame.run, attempt=frame.attempt, rank=frame.rank, writer=frame.writer, family=frame.family,
        first=frame.first, last=frame.last, count=len(frame.records), replay=frame.replay,
    )  # fmt: skip
    pieces: list[bytes] = []
    view, position = memoryview(data), len(head)
    if data.startswith(head):
        while (payload := check_record(view, position)) is not None:
            stop = position + HEAD.size + len(payload)
            pieces.append(data[position:stop])
            position = stop
    if len(pieces) == len(frame.records) and position == len(data):
        return pieces
    return [encode_record(record) for record in frame.records]  # another writer's form of the same map
