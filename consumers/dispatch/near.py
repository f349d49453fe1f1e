"""The families that are like a goal: embedded once each, and looked for only where the goal's own family does not do."""

import logging
from collections.abc import Callable

from morphogen.schemas.executions import GoalEmbedded

from .config import DispatchConfig
from .embed import Embedder
from .errors import MissingExtra
from .nearest import Near
from .state import DispatchState

_log = logging.getLogger("morphogen.dispatch")


class Likeness:
    """Embeds families and searches them. Without the embedder's package, says so once and finds nothing."""

    def __init__(self, embedder: Embedder, state: DispatchState, tell: Callable[[GoalEmbedded], None]) -> None:
        self._embedder: Embedder | None = embedder
        self._state = state
        self._tell = tell

    def search(self, signature: str, template: str, config: DispatchConfig) -> list[Near]:
        """Return the families most like a template, other than its own, best first."""
        if self._embedder is None or config.matches == 0:
            return []
        try:
            model = self._embedder.model
            for family in self._state.known():
                if (family, model) not in self._state.nearest:
                    self._embed(family, self._state.template(family), model)
            vector = self._embedder.embed(template)
        except MissingExtra as missing:
            _log.warning("goals are matched by their own family only: %s", missing)
            self._embedder = None
            return []
        found = self._state.nearest.search(model, vector, limit=4 * config.matches + 1, least=config.similarity)
        return [one for one in found if one.signature != signature and one.signature in self._state.known()][
            : config.matches
        ]

    def _embed(self, signature: str, template: str, model: str) -> None:
        assert self._embedder is not None
        vector = self._embedder.embed(template)
        if vector.any():
            self._tell(GoalEmbedded(signature=signature, template=template, model=model, vector=vector))
        else:
            self._state.nearest.skip(signature, model)
