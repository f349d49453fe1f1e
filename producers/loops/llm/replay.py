"""Replies from the log or the archive of an earlier run, by the hash of the prompt and how often it was asked before.

Answers that a person gave then are replayed like a model's. The same program over the same replies takes the same way.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from morphogen.schemas.llm import LlmQueried

from .backend import Query, Reply, Suspend
from .budget import Price
from .errors import BackendError, NoReply

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus


class ReplayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `replay`: the run whose replies are used, and what a prompt without one does: error or suspend."""

    run: str
    on_miss: str = "error"


class ReplayBackend:
    """Answers as an earlier run was answered."""

    name = "replay"

    def __init__(self, options: ReplayOptions, queried: Iterable[LlmQueried]) -> None:
        if options.on_miss not in {"error", "suspend"}:
            raise BackendError(f"backend replay: on_miss is error or suspend, got {options.on_miss!r}", called=False)
        self._options = options
        self._replies: dict[str, list[LlmQueried]] = {}
        for event in queried:
            if event.reply is not None:
                self._replies.setdefault(event.prompt_sha256, []).append(event)
        if not self._replies:
            raise BackendError(
                f"backend replay: the log holds no reply of run {options.run!r}: `morphogen loop list` shows the runs",
                called=False,
            )

    def price(self, query: Query) -> Price:
        """Return that what was paid once costs nothing now."""
        return Price(0, 0)

    def ask(self, query: Query) -> Reply | Suspend:
        """Return the recorded reply; tokens are those of then, the cost is nothing. Raises NoReply on a miss."""
        kept = self._replies.get(query.sha256, [])
        if query.occurrence < len(kept):
            event = kept[query.occurrence]
            return Reply(event.reply or "", event.tokens_in, event.tokens_out, 0, event.model, finish=event.finish)
        seen = f"answered it {len(kept)} times" if kept else "was never asked it"
        message = (
            f"run {self._options.run!r} {seen}: prompt {query.sha256[:16]} of step {query.step or '?'}, "
            f"asked {query.occurrence} times before"
        )
        if self._options.on_miss == "suspend":
            return Suspend(message)
        raise NoReply(f"backend replay: {message}; use the option on_miss=suspend to answer it by hand", query.sha256)


def replay_from_log(bus: "Bus", options: ReplayOptions) -> ReplayBackend:
    """Return the backend with the replies that archive and log hold for `options.run`."""
    seen = bus.past(run=options.run, family="llm")
    return ReplayBackend(options, (one.event for one in seen if isinstance(one.event, LlmQueried)))
