"""Messages as frames, for those who can do nothing about one that is none."""

import logging
from collections.abc import Iterable, Iterator

from morphogen.schemas import Frame, FrameError, decode_frame

from .pull import Message

_log = logging.getLogger("morphogen.bus")


def frames(messages: Iterable[Message]) -> Iterator[Frame]:
    """Yield the frames of messages; a message that is none is told to the program's log and passed over."""
    for message in messages:
        try:
            frame = decode_frame(message.data, message.seq, message.stored)
        except FrameError as error:
            _log.warning("%s", error)
            continue
        yield frame
