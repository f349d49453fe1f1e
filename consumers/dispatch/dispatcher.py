"""The shell around the decision: weighs, decides, tells the log, goes the way, falls to the next where it fails, and learns from it."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from morphogen.consumers.crystallizer import Loader
from morphogen.kernels.sandbox import Capabilities
from morphogen.schemas import Event
from morphogen.schemas.dispatch import DispatchDecided
from morphogen.schemas.executions import MODES, GoalEmbedded
from morphogen.schemas.goals import signature as signature_of
from morphogen.schemas.goals import template as template_of
from morphogen.schemas.whole import whole_if_known

from .acts import Acts, watched
from .afterwards import compare, shadow
from .config import DispatchConfig
from .decide import Asked, Choice, Offer, against, choose, decide
from .embed import Embedder, WordLlama
from .errors import DispatchError
from .near import Likeness
from .plan import Plan
from .process import this_process
from .protocol import Done, Guided, Learner, Orchestrator, Request
from .record import as_event, environment_of, text
from .serve import Serving, Wired
from .state import DispatchState
from .weigh import Match, Ways, match_of, offers

_OF_A_MODEL = frozenset({"mixed", "learner", "orchestrator"})
_log = logging.getLogger("morphogen.dispatch")


class Dispatcher:
    """Serves goals, each by the cheapest mode that is likely enough to reach it.

    `write` records an event durably before it returns (a diary's or an outlet's `tell`). `crystals` are the tools; without a
    `learner`, `guided` or `orchestrator` these modes lose with that reason. `refresh` is called before a request that needs
    more than a tool, and brings `state` up to the log (`lambda: catch_up(bus, state)`). `environment` is what guards of tools
    look at. Safe to use from several threads.
    """

    def __init__(
        self,
        *,
        capabilities: Capabilities,
        state: DispatchState,
        write: Callable[[Event], object],
        crystals: Loader | None = None,
        learner: Learner | None = None,
        guided: Guided | None = None,
        orchestrator: Orchestrator | None = None,
        embedder: Embedder | None = None,
        environment: Mapping[str, str] | None = None,
        refresh: Callable[[], object] | None = None,
        config: DispatchConfig | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.state = state
        self.config = config or DispatchConfig()
        self.environment = environment_of({} if environment is None else environment)
        self.crystals = crystals
        self._capabilities = capabilities
        self._watched = watched(capabilities)
        self._write = write
        self._refresh = refresh
        self._new_id = new_id
        self._lock = threading.RLock()
        self._wired = Wired(crystals, learner, guided, orchestrator)
        self._ways = Ways(self._wired.caps())
        self._likeness = Likeness(embedder or WordLlama(), state, self._tell_embedded)

    def decide(
        self,
        goal: str,
        params: Mapping[str, Any] | None = None,
        *,
        budget_microusd: float | None = None,
        mode: str | None = None,
    ) -> DispatchDecided:
        """Return what would be decided on a request, and do nothing: no step, no event of the decision."""
        request, budget = self._request(goal, params, mode), _budget(budget_microusd)
        with self._lock:
            self._catch_up()
            weighing = _Weighing(self, request)
            return decide(self._asked(request, budget, mode), weighing.offers, self.config)[0]

    def do(
        self,
        goal: str,
        params: Mapping[str, Any] | None = None,
        *,
        budget_microusd: float | None = None,
        mode: str | None = None,
        request: str | None = None,
    ) -> Done:
        """Serve a request, and return what it came to. A goal that is not reached is no exception: `Done.ok` says so.

        `mode` is where to begin, whatever its confidence; guards and the budget, which is rounded down, hold for it too.
        Raises DispatchError for a request that cannot be understood.
        """
        began = time.monotonic_ns()
        asked, budget = self._request(goal, params, mode, request), _budget(budget_microusd)
        decided, choice, weighing = self._decide(asked, budget, mode, began)
        acts = Acts(self._watched)
        serving = Serving(
            self._wired, acts, asked, decided, self._tell, self.state, budget_microusd=budget, began=began,
            new_id=self._new_id,
        )  # fmt: skip

        def again(left: int | None, tried: frozenset[str]) -> Choice:
            with self._lock:
                forced = None if mode in tried else mode
                chosen = choose(weighing.offers, self.config, left_microusd=left, forced=forced, tried=tried)
                weighing.hold(chosen)
                return chosen

        done = serving.run(choice, again, weighing.bound)
        if done.ok:
            self._learn(asked, done, acts, weighing)
        return done

    def _decide(
        self, request: Request, budget: int | None, mode: str | None, began: int
    ) -> tuple[DispatchDecided, Choice, "_Weighing"]:
        asked = self._asked(request, budget, mode)
        with self._lock:
            weighing = _Weighing(self, request)
            decided, choice = decide(asked, weighing.offers, self.config, match_ns=time.monotonic_ns() - began)
            if choice.mode != "crystallized" and self._catch_up():
                weighing = _Weighing(self, request)
                decided, choice = decide(asked, weighing.offers, self.config, match_ns=time.monotonic_ns() - began)
            weighing.hold(choice)
            self._tell(decided)
        return decided, choice, weighing

    def _learn(self, request: Request, done: Done, acts: Acts, weighing: "_Weighing") -> None:
        """Compare what cheaper modes would have done, and run the tool that waits beside; none of it can fail the request."""
        try:
            if done.mode in _OF_A_MODEL:
                with self._lock:
                    events = compare(
                        request, done, acts.of_mode, weighing.matches, weighing.plans, self._watched, self.crystals
                    )
                for event in events:
                    self._tell(event)
            if self.crystals is not None and self.config.shadow:
                shadowed = shadow(request, done, acts.of_mode, self.crystals)
                if shadowed is not None:
                    self._tell(shadowed)
        except Exception:  # noqa: BLE001 - what was served is served, whatever comes after
            _log.exception("request %s was served; what could be learned from it was not", request.id)

    def _request(
        self,
        goal: str,
        params: Mapping[str, Any] | None,
        mode: str | None,
        name: str | None = None,
    ) -> Request:
        if not isinstance(goal, str) or not goal.strip():
            raise DispatchError(f"the goal is {goal!r:.60}: say in a sentence what is to be reached")
        if params is not None and not isinstance(params, Mapping):
            raise DispatchError(f"params are values by name, got a {type(params).__qualname__}: give a dict")
        if mode is not None and mode not in MODES:
            raise DispatchError(f"there is no mode {mode!r}: choose one of {', '.join(MODES)}")
        if name is not None and not isinstance(name, str):
            raise DispatchError(f"the request's id is {name!r:.60}: give a text")
        given, goal = as_event(params or {}), text(goal)
        return Request(
            id=text(name) if name else self._new_id(), goal=goal, params=given, template=template_of(goal, given),
            signature=signature_of(goal, given), capabilities=self._capabilities, environment=self.environment,
        )  # fmt: skip

    def _asked(self, request: Request, budget: int | None, mode: str | None) -> Asked:
        return Asked(
            request=request.id, goal=request.goal, signature=request.signature, params=request.params,
            budget_microusd=budget, forced=mode, by=this_process(),
        )  # fmt: skip

    def _catch_up(self) -> bool:
        if self._refresh is None:
            return False
        self._refresh()
        return True

    def _tell(self, event: Event) -> None:
        with self._lock:
            self._write(event)
            self.state.told(event, time.time_ns())

    def _tell_embedded(self, event: GoalEmbedded) -> None:
        self._tell(event)


def _budget(microusd: float | None) -> int | None:
    return whole_if_known("the budget in micro-dollars", microusd, DispatchError, down=True)


class _Weighing:
    """The offers of one request. Families that are merely like it are looked for when its own does not do."""

    def __init__(self, dispatcher: Dispatcher, request: Request) -> None:
        self._of = dispatcher
        self._request = request
        self._own = [self._match(request.signature, 1.0)]
        self._near: list[Match] | None = None
        self.plans: dict[str, Plan | str] = {}
        self.bound: dict[str, Mapping[str, Any]] = {request.signature: request.params}

    def hold(self, choice: Choice) -> None:
        """Hold on to the plans as they are before a model is asked: what it does must not prove itself."""
        if choice.mode in _OF_A_MODEL:
            for one in self.matches:
                self.plans.setdefault(one.signature, self._of.state.plan(one.signature))

    @property
    def matches(self) -> list[Match]:
        """The families that were looked at."""
        return self._own + (self._near or [])

    def offers(self, mode: str, full: bool) -> list[Offer]:
        """Return the offers of a mode, those of the request's own family first."""
        found = self._offers(mode, self._own, full)
        if mode in {"learner", "orchestrator"}:
            return found
        if not full or self._holds(found) or (mode == "crystallized" and self._holds(self._follow())):
            return found  # what the goal's own family does for nothing needs no like one
        if self._near is None:
            self._near = self._search()
        return found + self._offers(mode, self._near, full)

    def _follow(self) -> list[Offer]:
        return self._offers("follower", self._own, True)

    def _holds(self, found: Sequence[Offer]) -> bool:
        return any(against(one, self._of.config, None, is_forced=False) is None for one in found)

    def _offers(self, mode: str, matches: Sequence[Match], full: bool) -> list[Offer]:
        of = self._of
        return offers(
            mode, matches, signature=self._request.signature, state=of.state, tools=of.crystals,
            environment=of.environment, ways=of._ways, config=of.config, full=full,
        )  # fmt: skip

    def _search(self) -> list[Match]:
        found = self._of._likeness.search(self._request.signature, self._request.template, self._of.config)
        matches = [self._match(one.signature, one.similarity) for one in found]
        self.bound |= {one.signature: one.bound for one in matches if one.bound is not None}
        return matches

    def _match(self, signature: str, similarity: float) -> Match:
        request = self._request
        return match_of(self._of.state, request.signature, request.template, request.params, signature, similarity)
