"""Compare what the log still has with what its archive says it had, message by message."""

from collections.abc import Iterator

from morphogen.bus.archive.archive import Archive
from morphogen.bus.connection import Connection
from morphogen.bus.reader import Message, read

from .finishing import finish
from .span import Progress


async def first_differing(conn: Connection, box: Archive, first: int, upto: int, progress: Progress) -> int | None:
    """Return the first message of the log from `first` to `upto` that is another one in the archive, or not in it.

    What the log has lost is no difference. Raises ArchiveDamaged where the archive cannot be read.
    """
    archived = _each(box.read(after=first - 1, upto=upto))
    batches = read(conn, after=first - 1, upto=upto)
    try:
        async for batch in batches:
            differing = await finish(_first, batch, archived)  # nobody else may close what the thread reads
            if differing is not None:
                return differing
            progress(batch[-1].seq - first + 1, upto - first + 1, "messages compared")
    finally:
        await batches.aclose()
    return None


def _each(batches: Iterator[list[Message]]) -> Iterator[Message]:
    for batch in batches:
        yield from batch


def _first(batch: list[Message], archived: Iterator[Message]) -> int | None:
    for message in batch:
        held = next((one for one in archived if one.seq >= message.seq), None)
        if held is None or tuple(held) != tuple(message):
            return message.seq
    return None
