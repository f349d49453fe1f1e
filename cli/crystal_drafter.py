"""A backend of the loops, as the crystallizer asks it for the text of a tool; and the price of asking."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from morphogen.consumers.crystallizer.drafting import Question, Reply
from morphogen.producers.loops.llm import BackendError, Query
from morphogen.producers.loops.llm.backend import Suspend
from morphogen.producers.loops.llm.budget import Price, Priced, prompt_tokens

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus
    from morphogen.bus.settings import Settings
    from morphogen.producers.executions import Prices
    from morphogen.producers.loops.llm import Backend

REPLY_TOKENS = 4096  # of one reply at most, unless the backend's own option says otherwise


class BackendDrafter:
    """Asks a backend. What it costs is the backend's own price, else the configured one of `model`, else nobody knows."""

    def __init__(
        self, backend: "Backend", prices: "Prices", *, model: str | None = None, max_tokens: int = REPLY_TOKENS
    ) -> None:
        self.name = backend.name
        self._backend, self._prices, self._model, self._most = backend, prices, model, max_tokens

    def worst(self, question: Question) -> int | None:
        """Return the most that asking may cost in micro-dollars: a token for each byte, and a reply of full length."""
        query = self._query(question)
        price = self._price(query)
        return None if price is None else price.of(prompt_tokens(query, self._backend, 1.0), self._most)

    def ask(self, question: Question) -> Reply:
        """Return the reply. Raises LlmError."""
        query = self._query(question)
        said = self._backend.ask(query)
        if isinstance(said, Suspend):
            raise BackendError(f"backend {self.name} waits for a person; a tool is drafted by a model", called=False)
        cost = said.cost_usd_micros
        price = self._price(query)
        if cost is None and price is not None and said.tokens_in is not None and said.tokens_out is not None:
            cost = price.of(said.tokens_in, said.tokens_out)
        return Reply(
            text=said.text,
            model=said.model or self._model or "",
            tokens_in=said.tokens_in,
            tokens_out=said.tokens_out,
            cost_microusd=cost,
            duration_ns=said.latency_ns,
        )

    def _price(self, query: Query) -> Price | None:
        told = self._backend.price(query) if isinstance(self._backend, Priced) else None
        return told if told is not None or self._model is None else self._prices.models.get(self._model)

    def _query(self, question: Question) -> Query:
        options: dict[str, Any] = {"max_tokens": self._most, "temperature": 0.0}
        return Query(
            prompt=question.prompt,
            system=question.system,
            options=options,
            step=f"crystal/{question.attempt}",
            attempt=question.number,
            call=question.number,
        )


def drafter(
    name: str | None, options: Mapping[str, Any], settings: "Settings", bus: "Bus | None" = None
) -> BackendDrafter | None:
    """Return who drafts by a model, None where no backend is named. Raises BackendError, PricesError."""
    if name is None:
        return None
    from morphogen.producers.executions import read_prices
    from morphogen.producers.loops.llm import backend

    model = options.get("model")
    return BackendDrafter(
        backend(name, options, bus=bus),
        read_prices(settings.home),
        model=model if isinstance(model, str) else None,
    )
