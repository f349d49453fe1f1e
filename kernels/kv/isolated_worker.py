"""The process behind `IsolatedImporter`: one context, one socket, until the socket closes."""

import mmap
import os
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from morphogen.schemas.errors import MorphogenError

from .errors import KvMismatch, KvRefused
from .importing import import_kv
from .isolated import Answer, Call, receive, send
from .raw import RawContext


class Model(msgspec.Struct, frozen=True):
    """The first message: which model to load, and how."""

    path: str
    options: dict[str, Any]


def serve(link: socket.socket) -> None:
    """Load what the first message names, then answer calls until the other end is gone."""
    try:
        wanted, _ = receive(link, Model)
        context = RawContext.open(Path(wanted.path), **wanted.options)
    except MorphogenError as error:
        send(link, _failed(error))
        return
    send(link, Answer())
    with context:
        while True:
            try:
                call, descriptor = receive(link, Call)
            except (EOFError, OSError):
                return
            try:
                answer = _answer(context, call, descriptor)
            except MorphogenError as error:
                answer = _failed(error)
            finally:
                if descriptor is not None:
                    os.close(descriptor)
            send(link, answer)


def _answer(context: RawContext, call: Call, descriptor: int | None) -> Answer:
    if call.what == "import":
        if descriptor is None or call.size < 1:
            raise KvRefused("an empty file is no KV state")
        mapped = mmap.mmap(descriptor, call.size, prot=mmap.PROT_READ)
        done = import_kv(context, memoryview(mapped), call.seq, logits=True)
        return Answer([done.tokens], done.size, done.logits, done.fingerprint)
    if call.what == "decode":
        context.decode(call.seq, call.tokens)
        return Answer()
    if call.what == "greedy":
        return Answer(context.greedy(call.seq, call.count))
    context.drop(call.seq)
    return Answer()


def _failed(error: MorphogenError) -> Answer:
    if isinstance(error, KvMismatch):
        return Answer(error=str(error), kind="mismatch", differences=error.differences)
    return Answer(error=str(error), kind="refused" if isinstance(error, KvRefused) else "error")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
