"""What a mode is asked, what it answers, and what a request comes to: the plain data between dispatch and its runners.

A *runner* pursues a goal in one of the modes that ask a model. Dispatch knows it by `run` alone; what it does inside (an agent
loop, several) is its own. It acts through `request.capabilities` only: what goes past them is neither recorded nor kept
from happening twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import Capabilities
from morphogen.schemas import sound
from morphogen.schemas.dispatch import DispatchDecided, DispatchFellBack
from morphogen.schemas.whole import lasted, whole, whole_if_known

from .errors import DispatchError


@dataclass(frozen=True, kw_only=True)
class Act:
    """One use of a declared function in a request: what was asked of it, and what came of it.

    `again` marks an answer that was given from the request's own record instead of acting a second time.
    """

    name: str
    args: dict[str, Any]
    effect: str  # pure | read | write | external
    result: Any = None
    ok: bool = True
    error: str | None = None
    duration_ns: int = 0
    again: bool = False

    @property
    def changes(self) -> bool:
        """Whether it may have changed the world."""
        return self.effect in {"write", "external"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A goal to be reached now.

    `capabilities` are the declared functions, watched: a write or an external act that was done for this request by a
    mode that failed answers from the record when it is asked for with the same arguments again. `done` says what was done.
    """

    id: str
    goal: str
    params: dict[str, Any]
    template: str
    signature: str
    capabilities: Capabilities
    environment: Mapping[str, str] = field(default_factory=dict)
    done: tuple[Act, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a runner did. `steps` counts them; `execution` names the record that it wrote, if it wrote one.

    Cost is in micro-dollars, None where nobody knows it. `ok` is the verdict on the goal, not on the process. Numbers of any
    kind are rounded to whole ones. Raises DispatchError for a verdict that is none, a name that is no text, and a number that
    is negative (a duration is 0 then), NaN or infinite.
    """

    ok: bool
    output: Any = None
    error: str | None = None
    cost_microusd: int | None = None
    duration_ns: int = 0
    execution: str | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        if self.ok not in (True, False):
            raise DispatchError(f"the verdict of a result is {self.ok!r:.60}: give True or False")
        if self.execution is not None and not isinstance(self.execution, str):
            raise DispatchError(f"the execution of a result is {self.execution!r:.60}: give its id, as text")
        told = {
            "ok": bool(self.ok),
            "error": None if self.error is None else sound(self.error),
            "cost_microusd": whole_if_known("cost_microusd", self.cost_microusd, DispatchError),
            "duration_ns": lasted("duration_ns", self.duration_ns, DispatchError),
            "execution": None if self.execution is None else sound(self.execution),
            "steps": whole("steps", self.steps, DispatchError),
        }
        for name, value in told.items():
            object.__setattr__(self, name, value)


class Learner(Protocol):
    """LEARNER: a full loop. `cap_microusd` is the most that one run may cost; None where it knows no cap."""

    @property
    def cap_microusd(self) -> int | None:
        """The most that one run may cost, or None."""

    def run(self, request: Request, budget: int | None) -> Result:
        """Pursue the goal for at most `budget` micro-dollars (None: no bound), refusing before money is spent."""


class Guided(Protocol):
    """MIXED: the same loop with a recorded course beside it as an example. The goal stays the request's."""

    @property
    def cap_microusd(self) -> int | None:
        """The most that one run may cost, or None."""

    def run(self, request: Request, guide: Trace, budget: int | None) -> Result:
        """Pursue the goal, having seen how `guide` reached a like one."""


class Orchestrator(Protocol):
    """ORCHESTRATOR: several loops, each with a part of the goal."""

    @property
    def cap_microusd(self) -> int | None:
        """The most that one run may cost, or None."""

    def run(self, request: Request, budget: int | None) -> Result:
        """Pursue the goal in parts for at most `budget` micro-dollars together."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a request came to. `mode` is the one that served it, or the last that was tried.

    `cost_microusd` and `duration_ns` are of all that was tried for it, fallbacks included. `saved_microusd` is against the mean
    of the learner's recorded runs of the family, `saved_ns` against that of the requests which it served, first to last (its
    recorded runs where it served none); None where there are none.
    """

    request: str
    ok: bool
    mode: str
    output: Any = None
    error: str | None = None
    execution: str | None = None
    tool: str | None = None
    tool_version: int | None = None
    cost_microusd: int | None = None
    duration_ns: int = 0
    saved_microusd: int | None = None
    saved_ns: int | None = None
    decided: DispatchDecided
    fell_back: tuple[DispatchFellBack, ...] = ()
    acts: tuple[Act, ...] = ()
