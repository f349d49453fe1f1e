"""The five streams: what each keeps, and how a command or a dead letter gets from the log into its own.

- `morphogen.log.<run>.<family>.<label>`: the event log
- `morphogen.command.<label>.<run>`: work queue; a message is gone for good once it is acknowledged
- `morphogen.dead.<run>.<label>`: dead letters; one is gone for good once it is deleted
- `morphogen.blob.>`: chunks of content-addressed blobs
- `morphogen.replay.>`: what a replay publishes again, for a day

Events of the families `command` and `dead` are published twice, to the log and then to their own stream, by
`publish_copied`. Letting the broker do it was measured and rejected: a stream with `sources` writes its place to
disk only every two minutes, so handled commands came back when the broker was killed (30 of 60 in a test); a durable
consumer on the log itself loses the acknowledgements of the last 100 ms (41 of 60 came back).
"""

import base64
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .connection import Connection, PubAck
from .errors import BusError, JetStreamApiError, StreamMissing
from .message import Message, unix_ns

LOG = "MORPHOGEN_LOG"
COMMANDS = "MORPHOGEN_COMMANDS"
DEAD = "MORPHOGEN_DEAD"
BLOBS = "MORPHOGEN_BLOBS"
REPLAY = "MORPHOGEN_REPLAY"

DUPLICATE_WINDOW_S = 120
COPY_WINDOW_S = 3600  # few ids, so a sender may take its time to make sure
REPLAY_MAX_AGE_S = 24 * 3600

LOG_SEQ_HEADER = "Morphogen-Log-Seq"

_NS = 1_000_000_000
_STREAM_NOT_FOUND = 10059
_NO_MESSAGE = (10037, 10043, 10057)
_NAME_IN_USE = 10058
_TRIES = 5

# How a stream is made: on disk, compressed, and refusing a message it has no room for rather than losing an older one.
# From then on these are its operator's.
_AT_FIRST: dict[str, Any] = {
    "storage": "file",
    "compression": "s2",
    "discard": "new",
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "deny_purge": False,  # purging up to a sequence is how the log is trimmed behind the archive
}

# What a stream must be for what is written to it to be right, whoever made it.
STREAMS: dict[str, dict[str, Any]] = {
    LOG: {
        "subjects": ["morphogen.log.>"],
        "retention": "limits",
        "deny_delete": True,
        "duplicate_window": DUPLICATE_WINDOW_S * _NS,
    },
    COMMANDS: {
        "subjects": ["morphogen.command.>"],
        "retention": "workqueue",
        "duplicate_window": COPY_WINDOW_S * _NS,
    },
    DEAD: {
        "subjects": ["morphogen.dead.>"],
        "retention": "limits",
        "duplicate_window": COPY_WINDOW_S * _NS,
    },
    BLOBS: {"subjects": ["morphogen.blob.>"], "retention": "limits"},
    REPLAY: {
        "subjects": ["morphogen.replay.>"],
        "retention": "limits",
        "duplicate_window": DUPLICATE_WINDOW_S * _NS,
    },
}

_log = logging.getLogger("morphogen.bus")
_told: set[tuple[str, str]] = set()  # epoch and warning


@dataclass(frozen=True)
class StreamInfo:
    """What a stream holds; `epoch` names this very stream, so that a recreated one is not taken for it.

    An empty stream has `first_seq` one above `last_seq`; `created` is unix ns. `now` is the broker's clock as it answered
    (unix ns), the one by which messages are stored.
    """

    name: str
    epoch: str
    first_seq: int
    last_seq: int
    messages: int
    bytes: int
    created: int
    now: int = field(compare=False)


async def ensure_streams(conn: Connection) -> None:
    """Make the five streams, or bring them to this version's settings; safe to call from many processes at once.

    An existing stream keeps its epoch, its messages, and all that an operator set and that is not in `STREAMS`: storage,
    limits, age, compression. Where that may lose messages, a warning says so once.
    """
    for name, wanted in STREAMS.items():
        at_first = {**_AT_FIRST, "max_age": REPLAY_MAX_AGE_S * _NS} if name == REPLAY else _AT_FIRST
        await _ensure(conn, name, {"allow_direct": True, **wanted}, at_first)


async def stream_info(conn: Connection, stream: str) -> StreamInfo:
    """Return what a stream holds. Raises StreamMissing where there is no such stream."""
    answer = await _info(conn, stream)
    if answer is None:
        raise StreamMissing(f"the broker has no stream {stream}; it appears with the first recording or `morphogen up`")
    state, config = answer["state"], answer["config"]
    created = unix_ns(answer["created"])
    return StreamInfo(
        name=stream,
        epoch=str((config.get("metadata") or {}).get("epoch", f"created-{created}")),
        first_seq=int(state["first_seq"]) if state["messages"] else int(state["last_seq"]) + 1,
        last_seq=int(state["last_seq"]),
        messages=int(state["messages"]),
        bytes=int(state["bytes"]),
        created=created,
        now=unix_ns(answer["ts"]),
    )


async def stored_message(conn: Connection, stream: str, **which: int | str) -> Message | None:
    """Return a message by `seq`, or the newest by `last_by_subj`; None where there is none.

    It is the stream's leader that answers, which has all that was acknowledged; `Connection.last_message` asks any copy.
    """
    try:
        answer = await conn.js(f"STREAM.MSG.GET.{stream}", which)
    except JetStreamApiError as error:
        if error.err_code in _NO_MESSAGE:
            return None
        raise
    message = answer["message"]
    data = base64.b64decode(message.get("data", ""))
    return Message(message["seq"], unix_ns(message["time"]), message["subject"], data)


def copy_subject(subject: str) -> str:
    """Return the subject under which an event of the log, of family `command` or `dead`, is copied.

    `morphogen.log.RUN.command.LABEL` -> `morphogen.command.LABEL.RUN`, and
    `morphogen.log.RUN.dead.LABEL` -> `morphogen.dead.RUN.LABEL`.
    """
    match subject.split("."):
        case ["morphogen", "log", run, "command", label]:
            return f"morphogen.command.{label}.{run}"
        case ["morphogen", "log", run, "dead", label]:
            return f"morphogen.dead.{run}.{label}"
    raise ValueError(f"{subject} is no command and no dead letter of the log")


async def publish_copied(
    conn: Connection,
    subject: str,
    data: bytes,
    *,
    message_id: str,
    headers: Mapping[str, str] | None = None,
    timeout: float = 5.0,
) -> PubAck:
    """Publish a command or a dead letter to the log and then to its own stream; return the log's acknowledgement.

    Both refuse a message id that they have seen, so after any failure the same call is simply made again. `headers`
    go with the log's message only. A sender that dies between the two leaves a command on record that nobody is
    given: it was never told that it was sent.
    """
    ack = await conn.publish_ack(subject, data, {**(headers or {}), "Nats-Msg-Id": message_id}, timeout)
    await put_copy(conn, subject, data, message_id=message_id, log_seq=ack.seq, timeout=timeout)
    return ack


async def put_copy(
    conn: Connection, subject: str, data: bytes, *, message_id: str, log_seq: int, timeout: float = 5.0
) -> PubAck:
    """Put what the log holds at `log_seq` into its own stream too; the second half of `publish_copied`."""
    headers = {"Nats-Msg-Id": message_id, LOG_SEQ_HEADER: str(log_seq)}
    return await conn.publish_ack(copy_subject(subject), data, headers, timeout)


async def trim(conn: Connection, before_seq: int) -> int:
    """Forget the log below a sequence, which must be archived, in one atomic step; return how many messages went.

    Commands and dead letters not yet handled live in streams of their own and stay.
    """
    if before_seq < 1:
        raise ValueError(f"the log begins at sequence 1; cannot trim before {before_seq}")
    # Purging up to a sequence not yet given would skip to it.
    seq = min(before_seq, (await stream_info(conn, LOG)).last_seq + 1)
    if seq < 2:
        return 0
    answer = await conn.js(f"STREAM.PURGE.{LOG}", {"seq": seq}, timeout=60.0)
    return int(answer["purged"])


async def _ensure(conn: Connection, name: str, wanted: Mapping[str, Any], at_first: Mapping[str, Any]) -> None:
    for _ in range(_TRIES):
        answer = await _info(conn, name)
        if answer is None:
            config = {"name": name, **at_first, **wanted, "metadata": {"epoch": uuid.uuid4().hex}}
            try:
                await conn.js(f"STREAM.CREATE.{name}", config)
            except JetStreamApiError as error:
                if error.err_code != _NAME_IN_USE:
                    raise
                continue  # another process was faster; its epoch counts
            return
        config = answer["config"]
        if 0 < (age := config.get("max_age", 0)) < wanted.get("duplicate_window", 0):
            wanted = {**wanted, "duplicate_window": age}  # a broker takes no longer one
        if _covers(config, wanted) and (config.get("metadata") or {}).get("epoch"):
            if name != REPLAY:
                _warn(name, config)
            return
        metadata = dict(config.get("metadata") or {})
        metadata.setdefault("epoch", uuid.uuid4().hex)
        await conn.js(f"STREAM.UPDATE.{name}", {**config, **wanted, "metadata": metadata})
    raise BusError(f"stream {name} keeps vanishing while it is being made; is somebody deleting it?")


async def _info(conn: Connection, name: str) -> dict[str, Any] | None:
    try:
        return await conn.js(f"STREAM.INFO.{name}")
    except JetStreamApiError as error:
        if error.err_code == _STREAM_NOT_FOUND:
            return None
        raise


def _warn(name: str, config: Mapping[str, Any]) -> None:
    for risk in risks(config):
        line = f"stream {name} {risk}"
        if (config["metadata"]["epoch"], line) not in _told:
            _told.add((config["metadata"]["epoch"], line))
            _log.warning("%s", line)


def risks(config: Mapping[str, Any]) -> list[str]:
    """Say by which of its settings a stream may lose messages that nobody deleted."""
    found = []
    if config.get("storage") == "memory":
        found.append("is kept in the broker's memory: what it holds ends with the broker; make it anew on file storage")
    if config.get("max_age", 0) > 0:
        found.append(f"forgets messages after {config['max_age'] / 1e9:g} s (max_age), sent and archived or not")
    per_subject = config.get("max_msgs_per_subject", -1) > 0
    limited = [key for key in ("max_bytes", "max_msgs") if config.get(key, -1) > 0]
    if config.get("discard", "old") == "old":
        limited += ["max_msgs_per_subject"] if per_subject else []
        if limited:
            found.append(f"drops its oldest messages at its limit ({', '.join(limited)}): set discard to new")
    elif per_subject and not config.get("discard_new_per_subject"):
        found.append("drops the oldest messages of a subject at max_msgs_per_subject: set discard_new_per_subject")
    return found


def _covers(held: Any, wanted: Any) -> bool:
    """Tell whether a configuration holds all that is wanted; the server adds defaults and leaves out false ones."""
    if isinstance(wanted, Mapping):
        return isinstance(held, Mapping) and all(_covers(held.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(held, list) and len(held) == len(wanted) and all(map(_covers, held, wanted))
    return bool(held == wanted) or (not held and not wanted)
