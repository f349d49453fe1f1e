"""A session: a conversation with a model that outlives its process.

    session = morphogen.session("s1", llm)
    session.say("Once upon a time")
    for piece in session.generate(max_tokens=64, temperature=0.8, seed=7):
        print(piece, end="")

Every message and every token is in the journal before anybody sees it, the KV state in files beside it. After a kill the
next process opens the session of the same name and goes on: `load_continuity` restores the KV state, computes what came
after it in the same shape as before, and `resume` yields what the broken-off reply would have said.
"""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from morphogen.kernels.kv.transport import Meta, Transport
from morphogen.schemas import Event
from morphogen.schemas.kv import SessionLoaded, SessionSaved, SessionTurn

from . import prompts
from .conversation import Began, Conversation, Ended, Got, Kept, Message, Opened, Said, ids
from .errors import SessionBusy, SessionError
from .journal import Journal
from .sampling import Sampling, pick, sampling_of, whole
from .speaker import Speaker
from .standing import Loaded, Standing
from .telling import rejection, saving
from .wording import Wording, before

Tell = Callable[[Event], object]

_TOKENS = 256  # of a reply at most, where nobody says otherwise
_LONGEST_TEXT = 16 * 1024  # characters of a turn that an event carries

_log = logging.getLogger("morphogen.kv")


class Session:
    """One conversation on one speaker of a model. Made by `session`, or by a worker; not for several threads at once.

    A KV state is saved each time `every` more tokens are not in one (None: only by `save_continuity`).
    """

    def __init__(
        self,
        name: str,
        speaker: Speaker,
        folder: Path,
        *,
        tell: Tell | None = None,
        every: int | None = 512,
        template: bool = True,
        worker: str | None = None,
        model: str = "",
        journal: Journal | None = None,
        render: prompts.Render | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self._speaker, self._tell, self._every, self._worker = speaker, tell, every, worker
        self._journal = journal or Journal.open(folder)
        try:
            self._begin(model)
        except BaseException:
            self._journal.close()
            raise
        self._render = render or prompts.render_of(speaker.template() if template else None)
        self._words = Wording()  # of the reply so far
        self._heard = 0  # how many of the tokens it has, and those before the reply
        self._standing = Standing(self._journal, speaker, self._refused)
        self._clock = 0
        self._came: int | None = None  # when the model first had to do with it here
        self.finish: str | None = None
        """How the last reply of this process ended: stop, length, eos or cancelled."""
        if self.pending:
            self._recall()

    # ------------------------------------------------------------------ what there is

    @property
    def conversation(self) -> Conversation:
        """All that the journal says; not to be changed."""
        return self._journal.conversation

    @property
    def messages(self) -> list[Message]:
        """What was said, without a reply that has not ended."""
        return list(self.conversation.messages)

    @property
    def tokens(self) -> list[int]:
        """The token ids of all that, and of the reply so far."""
        return list(self.conversation.tokens)

    @property
    def pending(self) -> bool:
        """Whether a reply began and has not ended."""
        return self.conversation.reply is not None

    @property
    def partial(self) -> str:
        """The text of a reply that has not ended, but for what may be the beginning of a stop."""
        reply = self.conversation.reply
        return "" if reply is None else self._words.text[: self._words.sure(reply.stop)]

    @property
    def speaker(self) -> Speaker:
        """The sequence of the model that it speaks through."""
        return self._speaker

    # ------------------------------------------------------------------ a conversation

    def say(self, text: str, role: str = "user") -> None:
        """Append a message. Raises SessionError in the middle of a reply, or where the context has no room for it."""
        self._idle("say something")
        if not isinstance(text, str):
            raise SessionError(f"session {self.name}: a message is text, not {text!r}")
        after = [*self.messages, Message(role, text)]
        growth = prompts.grow(
            self._render(after, False), self.conversation.shown, self.conversation.tokens, self._speaker.tokenize
        )
        self._room(growth)
        self._journal.append(Said(role=role, text=text, tokens=ids(growth.tokens), shown=growth.shown, cut=growth.cut))
        self._note(role, len(growth.tokens), text)

    def begin(
        self, max_tokens: int | None = None, sampling: Sampling | None = None, stop: tuple[str, ...] = ()
    ) -> None:
        """Begin a reply, of which `step` makes one token after the other; without a number, of 256 tokens at most."""
        self._idle("begin a reply")
        try:
            limit = _TOKENS if max_tokens is None else whole("max_tokens", max_tokens)
        except ValueError as error:
            raise SessionError(f"session {self.name}: {error}") from error
        if limit < 1:
            raise SessionError(f"session {self.name}: a reply of at most {limit} tokens is none: ask for at least 1")
        growth = prompts.grow(
            self._render(self.messages, True), self.conversation.shown, self.conversation.tokens, self._speaker.tokenize
        )
        self._room(growth)
        if not self.conversation.tokens and not growth.tokens:
            raise SessionError(f"session {self.name} has nothing to reply to: say something first")
        self._journal.append(
            Began(
                sampling=sampling or Sampling(),
                limit=limit,
                stop=tuple(one for one in stop if one),
                tokens=ids(growth.tokens),
                shown=growth.shown,
                cut=growth.cut,
            )
        )
        self._clock, self._standing.reused = time.monotonic_ns(), None
        self._recall()

    def step(self) -> str | None:
        """Make one token, or read one batch of what comes before it; return the text that can be given out.

        None where no reply is under way.
        """
        reply = self.conversation.reply
        if reply is None:
            return None
        finish = self._finished()
        if finish is None:
            if not self._advance():
                return ""  # a long prompt takes several steps, so that others get between them
            logits, tokens = self._speaker.logits(), self.conversation.tokens
            assert logits is not None
            token = pick(logits, reply.sampling, len(tokens), tokens[-reply.sampling.repeat_last or len(tokens) :])
            self._journal.append(Got(t=token))
            self._catch_up()
            finish = self._finished()
        if finish is not None:
            return self._end(finish)
        if self._every is not None and self._standing.unsaved() >= self._every:
            self.keep()
        return self._words.give(self._words.sure(reply.stop))

    def generate(
        self,
        max_tokens: int | None = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repeat_penalty: float | None = None,
        seed: int | None = None,
        stop: tuple[str, ...] | list[str] | str | None = None,
    ) -> Iterator[str]:
        """Yield a reply piece by piece; what was broken off by a kill is carried on by `resume`.

        None is the default: at most 256 tokens, the likeliest each time, no stop, the seed 0 (the same says the same).
        Raises SessionError where a reply is pending: resume or cancel it first.
        """
        try:
            sampling = sampling_of(
                temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty, seed=seed
            )
            stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
        except TypeError as error:
            raise SessionError(f"session {self.name}: stop is a text, or several, not {stop!r}") from error
        except ValueError as error:
            raise SessionError(f"session {self.name}: {error}") from error
        self.begin(max_tokens, sampling, stops)
        return self._pieces()

    def reply(self, max_tokens: int | None = None, **options: object) -> str:
        """Return a whole reply; options as of `generate`."""
        for _ in self.generate(max_tokens, **options):  # type: ignore[arg-type]
            pass
        return self.conversation.messages[-1].text

    def resume(self) -> Iterator[str]:
        """Yield the rest of a pending reply: what follows `partial`. Nothing where none is pending."""
        self.carry_on()
        return self._pieces()

    def carry_on(self) -> None:
        """Let `step` give out what follows `partial`, and nothing of it again."""
        self._catch_up()
        self._words.given = len(self.partial)

    def read(self) -> None:
        """Have the model read all that was said, so that a reply can begin at once."""
        while not self._advance():
            pass

    def cancel(self) -> None:
        """End a pending reply where it stands; what was made of it stays."""
        if self.pending:
            self._catch_up()
            self._end("cancelled")

    # ------------------------------------------------------------------ continuity

    def keep(self) -> Kept | None:
        """Save the KV state beside the journal, if it holds any token that no saved one does."""
        return self._standing.keep()

    def save_continuity(self, to: Transport | None = None) -> SessionSaved:
        """Put all that is needed to go on elsewhere on the disk, and return where it is; the event is told too.

        With a transport, such as `BlobTransport`, it is put there as well: `session(..., saved=...)` begins from what
        is returned, on another machine if the transport reaches it.
        """
        kept = self.keep()
        self._journal.sync()
        saved = saving(self.name, self._worker, self._journal, kept)
        if to is not None:
            with to.reserve(self._journal.size) as room:
                room.buffer[:] = self._journal.whole()
                saved = msgspec.structs.replace(saved, journal=room.commit(Meta(size=self._journal.size)))
            if kept is not None:
                with to.reserve(kept.size) as room:
                    room.buffer[:] = (self.folder / kept.file).read_bytes()
                    saved = msgspec.structs.replace(saved, ref=room.commit(Meta(size=kept.size)))
        self._say(saved)
        return saved

    def load_continuity(self) -> Loaded:
        """Bring the model to where the journal ends: restore the KV state, compute the rest as it was computed before.

        What cannot be restored is computed; `refused` says why. Calling it is only a matter of when: the first use of a
        session that an earlier process left does the same, and tells of it, where the model does not hold it already.
        """
        began = time.monotonic_ns()
        loaded = self._standing.restore()
        self._say(self.loaded(loaded.restored, loaded.recomputed, time.monotonic_ns() - began))
        return loaded

    def loaded(self, restored: int, recomputed: int, duration_ns: int | None = None) -> SessionLoaded:
        """Return the event that it goes on here, for whoever brought it to tell: its use does not tell it again."""
        self._standing.told()
        return SessionLoaded(
            session=self.name,
            revision=self.conversation.revision,
            turns=self.conversation.turns,
            tokens=len(self.conversation.tokens),
            restored=restored,
            recomputed=recomputed,
            worker=self._worker,
            pending=self.pending,
            duration_ns=duration_ns,
        )

    def recall(self) -> None:
        """Have the model hold what the longest saved KV state holds, where it has less; nothing is computed."""
        self._standing.recall()

    def close(self) -> None:
        """Let another process have it. Nothing is lost by not calling this."""
        self._journal.close()

    def settle_in(self, folder: Path) -> None:
        """Give its folder another name, in one step; whoever brought it here tells of it.

        Raises OSError where something of that name is there.
        """
        self.folder.rename(folder)
        self.folder = self._journal.folder = folder
        self._standing.told()

    @property
    def journal(self) -> Journal:
        """Its journal."""
        return self._journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._journal.closed else "pending" if self.pending else "open"
        return f"<Session {self.name!r} {state}, {len(self.conversation.tokens)} tokens>"

    # ------------------------------------------------------------------ inside

    def _begin(self, model: str) -> None:
        conversation, vocab = self._journal.conversation, self._speaker.fingerprint.vocab
        if conversation.revision == 0:
            opened = Opened(
                session=self.name,
                root=self._speaker.fingerprint.digest,
                vocab=vocab,
                model=model,
                batch=self._speaker.batch,
            )
            self._journal.append(opened)
        elif conversation.vocab != vocab:
            raise SessionError(
                f"session {self.name} was held with a model of another vocabulary ({conversation.model or 'unnamed'}): "
                "give that model, or begin a session of another name"
            )

    def _idle(self, what: str) -> None:
        if self.pending:
            raise SessionBusy(f"session {self.name} cannot {what} in the middle of a reply: resume or cancel it first")

    def _room(self, growth: prompts.Growth) -> None:
        stay = len(self.conversation.tokens) if growth.cut is None else growth.cut
        if stay + len(growth.tokens) >= self._speaker.limit:
            raise SessionError(
                f"session {self.name} would have {stay + len(growth.tokens)} tokens, and the context has room for "
                f"{self._speaker.limit}: give the model a larger context, or begin another session"
            )

    def _pieces(self) -> Iterator[str]:
        while True:
            piece = self.step()
            if piece is None:
                return
            if piece:
                yield piece
            if not self.pending:
                return

    def _advance(self) -> bool:
        """Compute at most one batch of what is missing; return whether a token can be made, and tell of an arrival."""
        if self._came is None:
            self._came = time.monotonic_ns()
        there = self._standing.advance()
        if there and (arrived := self._standing.arrived()) is not None:
            self._say(self.loaded(arrived.restored, arrived.recomputed, time.monotonic_ns() - self._came))
        return there

    def _refused(self, kept: Kept, error: Exception) -> None:
        """Tell that a saved KV state is not taken."""
        _log.warning("session %s: the saved KV state %s is refused: %s", self.name, kept.file, error)
        self._say(rejection(kept.state, self._worker or f"session-{self.name}", error, session=self.name))

    def _recall(self) -> None:
        """Read the text of a pending reply out of its tokens."""
        reply = self.conversation.reply
        assert reply is not None
        self._words.clear()
        self._heard = reply.start
        self._catch_up()

    def _catch_up(self) -> None:
        """Hear what was written of a pending reply: the last token, or more where somebody interrupted it."""
        while self.pending and self._heard < len(self.conversation.tokens):
            self._hear(self.conversation.tokens[self._heard])
            self._heard += 1

    def _hear(self, token: int) -> None:
        if not self._speaker.ends(token):
            self._words.hear(self._speaker.piece(token))

    def _finished(self) -> str | None:
        """Return why the reply is over, as its tokens say; None where it goes on."""
        reply, tokens = self.conversation.reply, self.conversation.tokens
        assert reply is not None
        if len(tokens) == reply.start:
            return None
        if self._speaker.ends(tokens[-1]):
            return "eos"
        if any(stop in self._words.text for stop in reply.stop):
            return "stop"
        if reply.left(len(tokens)) <= 0 or len(tokens) >= self._speaker.limit:
            return "length"
        return None

    def _end(self, finish: str) -> str:
        reply, tokens = self.conversation.reply, self.conversation.tokens
        assert reply is not None
        self._words.hear(b"", last=True)
        shown = text = self._words.text
        if finish == "eos":
            shown += self._speaker.mark(tokens[-1])
        if finish == "stop":
            text = before(text, reply.stop)
        self._journal.append(Ended(finish=finish, text=text, shown=shown))
        self.finish = finish
        piece = self._words.give(len(text))
        self._note("assistant", len(tokens) - reply.start, text, finish=finish, seed=reply.sampling.seed)
        return piece

    def _note(self, role: str, tokens: int, text: str, *, finish: str | None = None, seed: int | None = None) -> None:
        self._say(
            SessionTurn(
                session=self.name,
                turn=self.conversation.turns,
                role=role,
                tokens=tokens,
                total=len(self.conversation.tokens),
                revision=self.conversation.revision,
                text=text if len(text) <= _LONGEST_TEXT else None,
                finish=finish,
                reused=self._standing.reused if finish else None,
                seed=seed,
                worker=self._worker,
                duration_ns=time.monotonic_ns() - self._clock if finish and self._clock else None,
            )
        )

    def _say(self, event: Event) -> None:
        if self._tell is not None:
            self._tell(event)
