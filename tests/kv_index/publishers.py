"""Publishers of other engines, as they are on the wire: real sockets, and the bytes of several versions."""

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import zmq

Hash = int | bytes


class ArrayBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A batch as vLLM has written it from the first version with KV events on."""

    ts: float
    events: list[Any]
    data_parallel_rank: int | None = None


class MapBatch(msgspec.Struct, omit_defaults=True, gc=False):
    """A batch as some versions of 2026 wrote it."""

    ts: float
    events: list[Any]
    data_parallel_rank: int | None = None


def declared(fields: list[tuple[Any, ...]], name: str, *, array: bool) -> type[Any]:
    """Return a tagged struct of one version's fields."""
    return msgspec.defstruct(name, fields, array_like=array, omit_defaults=True, gc=False, tag=True)


FIRST = [
    ("block_hashes", list[Hash]), ("parent_block_hash", Hash | None), ("token_ids", list[int]), ("block_size", int),
    ("lora_id", int | None),
]  # fmt: skip
WITH_MEDIUM = [*FIRST, ("medium", str | None)]
WITH_NAME = [*WITH_MEDIUM, ("lora_name", str | None)]
WITH_GROUPS = [
    *WITH_NAME, ("extra_keys", list[Any] | None, None), ("group_idx", int | None, None),
    ("kv_cache_spec_kind", str | None, None), ("kv_cache_spec_sliding_window", int | None, None),
]  # fmt: skip
NEWEST = [
    *WITH_GROUPS,
    ("locality", str | None, None),
    ("ownership", str | None, None),
    ("session_id", str | None, None),
]
STORED = {"first": FIRST, "medium": WITH_MEDIUM, "name": WITH_NAME, "groups": WITH_GROUPS, "newest": NEWEST}
REMOVED: dict[str, list[tuple[Any, ...]]] = {
    "first": [("block_hashes", list[Hash])],
    "medium": [("block_hashes", list[Hash]), ("medium", str | None)],
    "groups": [("block_hashes", list[Hash]), ("medium", str | None), ("group_idx", int | None, None)],
}


class Dialect:
    """The structs of one version, events and batch each as an array or as a map."""

    def __init__(
        self, stored: str = "newest", removed: str = "groups", *, array: bool = False, batch_array: bool = True
    ):
        self._stored = declared(STORED[stored], "BlockStored", array=array)
        self._removed = declared(REMOVED[removed], "BlockRemoved", array=array)
        self._cleared = declared([], "AllBlocksCleared", array=array)
        self._batch = ArrayBatch if batch_array else MapBatch

    def stored(
        self, hashes: list[Hash], tokens: list[int], size: int, parent: Hash | None = None, **more: Any
    ) -> msgspec.Struct:
        known = {name for name, *_ in self._fields(self._stored)}
        given = {"lora_id": None, "medium": "GPU", "lora_name": None, **more}
        return self._stored(  # type: ignore[no-any-return]
            block_hashes=hashes, parent_block_hash=parent, token_ids=tokens, block_size=size,
            **{name: value for name, value in given.items() if name in known},
        )  # fmt: skip

    def removed(self, hashes: list[Hash], **more: Any) -> msgspec.Struct:
        known = {name for name, *_ in self._fields(self._removed)}
        given = {"medium": "GPU", **more}
        return self._removed(block_hashes=hashes, **{n: v for n, v in given.items() if n in known})  # type: ignore[no-any-return]

    def cleared(self) -> msgspec.Struct:
        return self._cleared()  # type: ignore[no-any-return]

    def payload(self, *events: msgspec.Struct, rank: int | None = 0, ts: float = 1.5) -> bytes:
        return msgspec.msgpack.encode(self._batch(ts=ts, events=list(events), data_parallel_rank=rank))

    def _fields(self, cls: Any) -> Iterator[tuple[str]]:
        return ((name,) for name in cls.__struct_fields__)


class Publisher:
    """vLLM's side: PUB with (topic, number, payload), and a ROUTER that sends its last messages again.

    `lose(n)` counts n messages as sent which never are, as a full queue does; `restart()` is another life on the same ports.
    """

    END = (-1).to_bytes(8, "big", signed=True)

    def __init__(
        self,
        *,
        topic: str = "kv-events",
        buffer: int = 10_000,
        replay: bool = True,
        room: int | None = None,
        tail: int = 1,
        port: int | None = None,
    ) -> None:
        self._context = zmq.Context()
        self._topic = topic.encode()
        self._buffer = buffer
        self._room, self._tail = room, tail  # messages of an answer that come: its first ones and its last ones
        self._lock = threading.Lock()
        self._pub = self._socket(zmq.XPUB)
        self.address = self._bind(self._pub, port)
        self._router = self._socket(zmq.ROUTER)
        self.replay_address = self._bind(self._router)
        self._answers = replay
        self.asked: list[int] = []
        self._begin()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_for_subscriber(self, seconds: float = 10.0) -> None:
        with self._lock:
            told = b""
            while not told.startswith(b"\1"):  # it is told of who leaves as well
                assert self._pub.poll(int(seconds * 1000)), "nobody subscribed"
                told = self._pub.recv()

    def send(self, payload: bytes) -> int:
        number = self.lose(payload)
        with self._lock:
            self._pub.send_multipart([self._topic, number.to_bytes(8, "big"), payload])
        return number

    def send_raw(self, *parts: bytes) -> None:
        with self._lock:
            self._pub.send_multipart([self._topic, *parts])

    def lose(self, payload: bytes, *, kept: bool = True) -> int:
        """Count a message that no subscriber gets; the buffer has it where it is `kept`."""
        number = self._next
        self._next += 1
        if kept:
            self._kept.append((number, payload))
        return number

    def restart(self) -> None:
        with self._lock:
            self._pub.close(linger=1000)
            self._pub = self._socket(zmq.XPUB)
            until(self._bound_again)  # a socket closes in the background
        self._begin()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._pub.close()
        self._router.close()
        self._context.term()

    def _bound_again(self) -> bool:
        try:
            self._pub.bind(self.address)
        except zmq.ZMQError:
            return False
        return True

    def _begin(self) -> None:
        self._next = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=self._buffer)

    def _socket(self, kind: int) -> Any:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        return socket

    def _bind(self, socket: Any, port: int | None = None) -> str:
        if port is not None:
            socket.bind(f"tcp://127.0.0.1:{port}")
        return f"tcp://127.0.0.1:{port or socket.bind_to_random_port('tcp://127.0.0.1')}"

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not self._router.poll(50):
                continue
            client, _, start = self._router.recv_multipart()
            self.asked.append(int.from_bytes(start, "big"))
            if not self._answers:
                continue
            found = [one for one in list(self._kept) if one[0] >= self.asked[-1]]
            cut = self._room is not None and len(found) > self._room
            if cut:
                found = found[: self._room] + found[len(found) - self._tail :]
            for number, payload in found:
                self._router.send_multipart([client, b"", number.to_bytes(8, "big"), payload])
            if not cut or self._tail:
                self._router.send_multipart([client, b"", self.END, b""])


def router_event(worker: int, number: int, data: Any, *, rank: int = 0, tier: str = "device") -> dict[str, Any]:
    """Return a Dynamo RouterEvent as its newest version names it."""
    return {
        "worker_id": worker, "storage_tier": tier, "residency_domain": "worker",
        "event": {"event_id": number, "data": data, "dp_rank": rank},
    }  # fmt: skip


def by_place(document: dict[str, Any]) -> list[Any]:
    """Return the same written by position, as compact msgpack of the first versions."""
    event = document["event"]
    data = event["data"]
    if isinstance(data, dict) and "stored" in data:
        stored = data["stored"]
        blocks = [[one["block_hash"], one["tokens_hash"]] for one in stored["blocks"]]
        data = {"stored": [stored["parent_hash"], blocks]}
    elif isinstance(data, dict):
        data = {"removed": [data["removed"]["block_hashes"]]}
    return [document["worker_id"], [event["event_id"], data, event["dp_rank"]]]


def enveloped(document: Any, number: int = 0, *, publisher: int = 7) -> bytes:
    """Return an event as Dynamo's event plane carries it."""
    return msgspec.msgpack.encode({
        "topic": "kv-events", "publisher_id": publisher, "sequence": number, "published_at": 1_700_000_000_000,
        "payload": msgspec.msgpack.encode(document),
    })  # fmt: skip


def framed(envelope: bytes) -> bytes:
    """Return an envelope as it goes over ZMQ: version, length, bytes."""
    return struct.pack(">BI", 1, len(envelope)) + envelope


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)
