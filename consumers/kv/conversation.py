"""A conversation as a fold of its records: messages, turns, tokens, sampler, and which KV states were saved on the way.

Every record is one fact of the journal; the state is what they add up to. The tokens keep the shape in which they were
computed (a prompt in batches, a reply token by token): computed again in the same shape they give the same bits.
Pure: no file, no model, no clock.
"""

import hashlib
import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import msgspec

from .sampling import Sampling

MAX_TEXT = 16 << 20  # bytes of one message that a journal will hold


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened", tag_field="is"):
    """The journal of a session begins; `root` is the digest of the model's fingerprint."""

    session: str
    root: str
    vocab: str = ""  # sha256 of the vocabulary, which the tokens are of
    model: str = ""
    batch: int = 512  # tokens of one batch of a prompt, which the bits depend on


class Said(msgspec.Struct, frozen=True, kw_only=True, tag="said", tag_field="is"):
    """A message was appended: its text, and the tokens that it adds."""

    role: str
    text: str
    tokens: bytes  # little-endian int32
    shown: str  # the text that these tokens stand for, the template's included
    cut: int | None = None  # the tokens before it that stay, where the template changed what was there


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="began", tag_field="is"):
    """A reply began: `tokens` lead over to it (the template's), then it is sampled like this."""

    sampling: Sampling
    limit: int  # tokens
    stop: tuple[str, ...] = ()
    tokens: bytes = b""
    shown: str = ""
    cut: int | None = None


class Got(msgspec.Struct, frozen=True, kw_only=True, tag="got", tag_field="is"):
    """One token of a reply."""

    t: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended", tag_field="is"):
    """A reply ended; `text` is what is kept of it."""

    finish: str  # stop | length | eos | cancelled
    text: str
    shown: str = ""  # all that its tokens stand for, a stop and the end mark included


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept", tag_field="is"):
    """The KV state of the first `tokens` tokens was written to a file beside the journal."""

    state: str
    file: str  # its name
    tokens: int
    size: int


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag="moved", tag_field="is"):
    """The session was offered to another worker, as `name`; whether it is there, that one knows: it has this record, too."""

    to: str
    name: str
    handoff: str  # this try of it: each offer is another one


class Stayed(msgspec.Struct, frozen=True, kw_only=True, tag="stayed", tag_field="is"):
    """The other worker did not take the session, and never will by this handoff."""

    handoff: str


class Copied(msgspec.Struct, frozen=True, kw_only=True, tag="copied", tag_field="is"):
    """All before it is of another session, which this one is a copy of: no handoff brought this one anywhere."""


Entry = Opened | Said | Began | Got | Ended | Kept | Moved | Stayed | Copied

_decoder: "msgspec.msgpack.Decoder[Entry]" = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """Return a record's bytes. Raises ValueError for one that could not be read again: its session would be lost."""
    try:
        data = msgspec.msgpack.encode(entry)
        if not isinstance(entry, Got):  # the one that is written for every token, by ourselves
            _decoder.decode(data)
    except (TypeError, OverflowError, ValueError, msgspec.MsgspecError) as error:  # half a character is a ValueError
        raise ValueError(f"a record that no journal can hold: {error}") from error
    return data


def decode_entry(data: bytes | memoryview) -> Entry:
    """Read a record. Raises msgspec.MsgspecError, of which UnicodeDecodeError is none."""
    return _decoder.decode(data)


def ids(tokens: Sequence[int]) -> bytes:
    """Return token ids as a record carries them."""
    return struct.pack(f"<{len(tokens)}i", *tokens)


def from_ids(data: bytes) -> tuple[int, ...]:
    """Read the ids of a record. Raises ValueError where the bytes are no whole number of them."""
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are no whole number of token ids")
    return struct.unpack(f"<{len(data) // 4}i", data)


@dataclass(frozen=True)
class Message:
    """What somebody said."""

    role: str
    text: str


@dataclass(frozen=True)
class Span:
    """Tokens that were computed in one way: in batches, or one by one."""

    start: int
    count: int
    single: bool


@dataclass(frozen=True)
class Reply:
    """A reply that has not ended: how it is sampled, where it began."""

    sampling: Sampling
    limit: int
    stop: tuple[str, ...]
    start: int  # tokens before its first one

    def left(self, tokens: int) -> int:
        """Return how many tokens it may still get."""
        return self.limit - (tokens - self.start)


@dataclass
class Conversation:
    """What the records of a journal add up to; `take` folds one more in, in place."""

    session: str = ""
    root: str = ""
    vocab: str = ""
    model: str = ""
    batch: int = 512
    shown: str = ""  # what the tokens stand for, but for those of a reply that has not ended
    messages: list[Message] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    reply: Reply | None = None
    turns: int = 0
    revision: int = 0
    kept: dict[str, Kept] = field(default_factory=dict)
    moved: Moved | None = None
    handoffs: set[str] = field(default_factory=set)  # all that it was offered by, to whomever

    def take(self, entry: Entry) -> None:
        """Fold a record in. Raises ValueError for one that cannot follow what is there."""
        if (self.revision == 0) != isinstance(entry, Opened):
            raise ValueError("a journal begins with its opening, and has one")
        match entry:
            case Opened():
                if entry.batch < 1:
                    raise ValueError(f"a batch of {entry.batch} tokens")
                self.session, self.root, self.vocab = entry.session, entry.root, entry.vocab
                self.model, self.batch = entry.model, entry.batch
            case Said():
                if self.reply is not None:
                    raise ValueError("somebody spoke into a reply that had not ended")
                self._prompt(entry)
                self.messages.append(Message(entry.role, entry.text))
                self.turns += 1
            case Began():
                if self.reply is not None:
                    raise ValueError("a reply began within another one")
                if entry.limit < 1:
                    raise ValueError(f"a reply of at most {entry.limit} tokens")
                self._prompt(entry)
                self.reply = Reply(entry.sampling, entry.limit, entry.stop, len(self.tokens))
            case Got():
                if self.reply is None:
                    raise ValueError("a token belongs to no reply")
                self._append((entry.t,), single=True)
            case Ended():
                if self.reply is None:
                    raise ValueError("no reply is there to end")
                self.reply = None
                self.shown += entry.shown or entry.text
                self.messages.append(Message("assistant", entry.text))
                self.turns += 1
            case Kept():
                if PurePath(entry.file).name != entry.file or not entry.file.endswith(".kv"):
                    raise ValueError(f"a KV state in a file of the name {entry.file!r}")
                if not 0 < entry.tokens <= len(self.tokens):
                    raise ValueError(f"a KV state of {entry.tokens} tokens, and there are {len(self.tokens)}")
                self.kept[entry.state] = entry
            case Moved():
                self.moved = entry
                self.handoffs.add(entry.handoff)
            case Stayed():
                self.handoffs.discard(entry.handoff)
            case Copied():
                self.handoffs.clear()
        if not isinstance(entry, Moved | Kept):
            self.moved = None
        self.revision += 1

    def batches(self, start: int) -> list[list[int]]:
        """Return the tokens from `start`, a boundary, on, in the shape in which they were computed first."""
        edges = [edge for edge in self._edges() if edge >= start]
        return [self.tokens[at:end] for at, end in itertools.pairwise(edges)]

    def boundary(self, upto: int) -> int:
        """Return the largest place of at most `upto` tokens at which one computation ended and the next began."""
        last = self.spans[-1] if self.spans else None
        if last is not None and last.single and last.start <= upto <= last.start + last.count:
            return upto
        return max((edge for edge in self._edges() if edge <= upto), default=0)

    def _edges(self) -> list[int]:
        edges = [0]
        for span in self.spans:
            step = 1 if span.single else self.batch
            edges += range(span.start + step, span.start + span.count, step)
            edges.append(span.start + span.count)
        return edges

    def copy(self) -> "Conversation":
        """Return one that can go its own way."""
        return replace(
            self,
            messages=list(self.messages),
            tokens=list(self.tokens),
            spans=list(self.spans),
            kept=dict(self.kept),
            handoffs=set(self.handoffs),
        )

    def _prompt(self, entry: Said | Began) -> None:
        if entry.cut is not None:
            self._cut(entry.cut)
            self.shown = ""  # the entry shows all of it
        self._append(from_ids(entry.tokens), single=False)
        self.shown += entry.shown

    def _append(self, tokens: Sequence[int], *, single: bool) -> None:
        if not tokens:
            return
        start = len(self.tokens)
        self.tokens.extend(tokens)
        last = self.spans[-1] if self.spans else None
        if single and last is not None and last.single:
            self.spans[-1] = replace(last, count=last.count + len(tokens))
        else:
            self.spans.append(Span(start, len(tokens), single))

    def _cut(self, count: int) -> None:
        if not 0 <= count <= len(self.tokens):
            raise ValueError(f"{count} tokens are to stay, and there are {len(self.tokens)}")
        del self.tokens[count:]
        self.spans = [
            replace(span, count=min(span.count, count - span.start)) for span in self.spans if span.start < count
        ]
        self.kept = {state: kept for state, kept in self.kept.items() if kept.tokens <= count}


def fold(entries: Iterable[Entry]) -> Conversation:
    """Return what records add up to."""
    conversation = Conversation()
    for entry in entries:
        conversation.take(entry)
    return conversation


def state_id(root: str, tokens: Sequence[int]) -> str:
    """Return the name of the KV state of these tokens under this fingerprint: equal ones have equal names."""
    return hashlib.sha256(root.encode() + ids(tokens)).hexdigest()[:24]
