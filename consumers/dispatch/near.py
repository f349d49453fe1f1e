"""The families that are like a goal: embedded once each, and looked for only where the goal's own family does not do."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from morphogen.schemas import line_of
from morphogen.schemas.executions import GoalEmbedded

from .config import DispatchConfig
from .embed import Embedder
from .errors import MissingExtra
from .nearest import Near
from .state import DispatchState

if TYPE_CHECKING:
    import numpy.typing as npt

_log = logging.getLogger("morphogen.dispatch")


class Likeness:
    """Embeds families and searches them. Without the embedder's package, says so once and finds nothing.

    An embedder of the user's that fails, or gives what is no vector, finds nothing for that request.
    """

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
            vector = self._vector(template)
        except MissingExtra as missing:
            _log.warning("goals are matched by their own family only: %s", missing)
            self._embedder = None
            return []
        except Exception as error:  # noqa: BLE001  an embedder is foreign code: a request does not fail by it
            _log.warning("a goal is matched by its own family only: %s: %s", type(error).__name__, line_of(error))
            return []
        found = self._state.nearest.search(model, vector, limit=4 * config.matches + 1, least=config.similarity)
        return [one for one in found if one.signature != signature and one.signature in self._state.known()][
            : config.matches
        ]

    def _vector(self, text: str) -> "npt.NDArray[np.float32]":
        assert self._embedder is not None
        return np.asarray(self._embedder.embed(text), np.float32).reshape(-1)

    def _embed(self, signature: str, template: str, model: str) -> None:
        vector = self._vector(template)
        if vector.any() and np.isfinite(vector).all():
            self._tell(GoalEmbedded(signature=signature, template=template, model=model, vector=vector))
        else:
            self._state.nearest.skip(signature, model)
