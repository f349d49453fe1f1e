"""Where a model stands in a conversation: what it has read of the tokens, in its memory and in files beside the journal.

What it lacks is restored from the longest saved KV state where that saves anything, and computed again otherwise, in the
shape in which it was computed the first time: then every logit is the same.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from morphogen.kernels.kv import KvError as StateError

from .conversation import Conversation, Kept, state_id
from .errors import SessionError
from .journal import Journal
from .speaker import Speaker

_KEEP = 2  # files of KV states beside a journal


@dataclass(frozen=True)
class Loaded:
    """What `load_continuity` came to: tokens in all, out of a KV state, and computed again; why, where it was not used."""

    tokens: int
    restored: int
    recomputed: int
    pending: bool
    refused: str | None = None


class Standing:
    """One speaker and the journal of what it reads and says; `refuse` hears of each saved state that is not taken."""

    def __init__(self, journal: Journal, speaker: Speaker, refuse: Callable[[Kept, Exception], object]) -> None:
        self.reused: int | None = None
        """Tokens of the present prompt that the model had read already; None before the first step of a reply."""
        self._journal, self._speaker, self._refuse = journal, speaker, refuse
        self._bad: set[str] = set()  # files that were refused
        self._found = len(journal.conversation.tokens)  # by an earlier process, until they are told to go on here
        self._held: int | None = None  # of them, by the model itself
        self._restored: int | None = None  # of them, without computing

    def restore(self) -> Loaded:
        """Bring the model to where the journal ends."""
        self.told()
        restored, refused = self._settle()
        while not self.advance():
            pass
        total = len(self._conversation.tokens)
        return Loaded(total, restored, total - restored, self._conversation.reply is not None, refused)

    def advance(self) -> bool:
        """Compute at most one batch of what is missing; tell whether the logits of the next token are there."""
        conversation, speaker = self._conversation, self._speaker
        tokens = conversation.tokens
        here = self._present()
        if here != speaker.count or here < len(tokens) - 1:
            best = self.saved()
            if here != conversation.boundary(here) or here != speaker.count or (best and best.tokens > here):
                here, _ = self._settle()
        if self.reused is None:
            self.reused = here
        if self._restored is None:
            self._restored = here
        if here == len(tokens):
            if speaker.logits() is not None or not tokens:
                return True
            here = self._shortened(conversation.boundary(here - 1))
        speaker.compute(tokens[here:] if here == len(tokens) - 1 else conversation.batches(here)[0])
        return speaker.count == len(tokens)

    def recall(self) -> None:
        """Have the model hold what the longest saved KV state holds, where it has less of its own; nothing is computed."""
        best = self.saved()
        if best is not None and best.tokens > self._present():
            self._settle()

    def arrived(self) -> Loaded | None:
        """Return, once, what it took to go on from an earlier process, when `advance` is through with that.

        None where that is told already, and where the model held it itself: from earlier in this process, or because
        somebody put it there. What was said here since is no part of it.
        """
        total = len(self._conversation.tokens)
        found, held, restored = min(self._found, total), self._held or 0, self._restored or 0
        self.told()
        if not found or held >= max(1, found - 1):  # the last token of a reply is said and not read
            return None
        return Loaded(total, restored, max(0, found - restored), self._conversation.reply is not None)

    def told(self) -> None:
        """Take note that it was told that the session goes on here."""
        self._found = 0

    def keep(self) -> Kept | None:
        """Save the KV state beside the journal, if it holds any token that no saved one does."""
        conversation, folder = self._conversation, self._journal.folder
        count = self._speaker.matching(conversation.tokens)
        best = self.saved()
        if count == 0 or (best is not None and best.tokens >= count):
            return best
        self._speaker.truncate(count)
        state = state_id(conversation.root, conversation.tokens[:count])
        ref = self._speaker.save(folder / f"{state}.kv")
        kept = Kept(state=state, file=f"{state}.kv", tokens=count, size=ref.size)
        self._journal.append(kept)
        self._tidy()
        return kept

    def saved(self) -> Kept | None:
        """Return the longest saved KV state whose file is there."""
        kept = [
            one
            for one in self._conversation.kept.values()
            if one.file not in self._bad and (self._journal.folder / one.file).is_file()
        ]
        return max(kept, key=lambda one: one.tokens, default=None)

    def unsaved(self) -> int:
        """Return how many tokens are in no saved KV state."""
        best = max(self._conversation.kept.values(), key=lambda one: one.tokens, default=None)
        return len(self._conversation.tokens) - (0 if best is None else best.tokens)

    @property
    def _conversation(self) -> Conversation:
        return self._journal.conversation

    def _present(self) -> int:
        """Return how many of the tokens the model holds."""
        here = self._speaker.matching(self._conversation.tokens)
        if self._held is None:
            self._held = here
        return here

    def _settle(self) -> tuple[int, str | None]:
        """Have the model hold the first so many of the tokens; return how many, and why saved states were refused."""
        conversation, speaker = self._conversation, self._speaker
        total = len(conversation.tokens)
        here = self._shortened(conversation.boundary(self._present()))
        refused: list[str] = []
        while (best := self.saved()) is not None and best.tokens > here:
            try:
                speaker.load(self._journal.folder / best.file, conversation.tokens[: best.tokens])
                here = best.tokens
            except (StateError, OSError) as error:
                refused.append(f"{best.file}: {error}")
                self._bad.add(best.file)
                self._refuse(best, error)
        if here == total and total and speaker.logits() is None:
            here = self._shortened(conversation.boundary(total - 1))
            if here == 0 and best is not None:
                self._bad.add(best.file)  # nothing can go on from it: restored again, it would be dropped again
        return here, "; ".join(refused) or None

    def _shortened(self, count: int) -> int:
        """Have the model keep `count` tokens; return how many it keeps: none where its memory cannot forget a part."""
        try:
            self._speaker.truncate(count)
        except (StateError, SessionError):
            self._speaker.truncate(0)
            return 0
        return count

    def _tidy(self) -> None:
        """Remove files of KV states that a longer one has made needless."""
        newest = sorted(self._conversation.kept.values(), key=lambda kept: kept.tokens)[-_KEEP:]
        wanted = {kept.file for kept in newest}
        for path in self._journal.folder.glob("*.kv"):
            if path.name not in wanted:
                with contextlib.suppress(OSError):
                    path.unlink()
