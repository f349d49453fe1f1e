"""Begin an execution: what is wanted, with which tools, and where its events go."""

import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from morphogen.kernels.sandbox.values import value_sha256
from morphogen.schemas.executions import MODES, ExecutionStarted
from morphogen.schemas.goals import NORM_VERSION, signature, template

from .environment import environment_of
from .errors import ExecutionError
from .outlets import Outlet, outlet
from .prices import Prices, read_prices
from .recording import Execution, current
from .settling import settled

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.kernels.sandbox import Capabilities
    from morphogen.producers.run import Run


def execution(
    goal: str,
    params: Mapping[str, Any] | None = None,
    *,
    run: "Run | None" = None,
    capabilities: "Capabilities | None" = None,
    mode: str = "learner",
    environment: Mapping[str, object] | None = None,
    packages: Iterable[str] = (),
    parent: str | None = None,
    request: str | None = None,
    budget_microusd: int | None = None,
    prices: Prices | None = None,
    settings: "Settings | None" = None,
    to: Outlet | None = None,
) -> Execution:
    """Return an execution that begins with its `with` block (or with `begin`).

    `goal` says in a sentence what is wanted; those of its values that change go into `params` by name. `capabilities` are
    the tools that `call` may use. `environment` and `packages` are what its course depends on beside them. Events go
    into `run` where one is given (or to `to`), else into the log by themselves. `prices` default to the data folder's.
    `parent` is by default the execution around it. Raises ExecutionError for a mode that there is not, and PricesError.
    """
    if mode not in MODES:
        raise ExecutionError(f"the mode {mode!r} is none of {', '.join(MODES)}")
    if not isinstance(goal, str) or not goal.strip():
        raise ExecutionError(f"a goal is a sentence, got {goal!r:.80}; say what is wanted")
    out = to or outlet(run, settings)
    around = current()
    held = settled(dict(params or {}))
    names = environment_of(packages, environment)
    started = ExecutionStarted(
        execution=secrets.token_hex(8),
        goal=settled(goal),
        template=template(goal, held),
        signature=signature(goal, held),
        norm_version=NORM_VERSION,
        params=held,
        environment=names,
        environment_sha256=value_sha256(names),
        mode=mode,
        parent=parent if parent is not None or around is None else around.id,
        request=request,
        budget_microusd=budget_microusd,
    )
    return Execution(started, out, capabilities, prices or read_prices(out.settings.home))
