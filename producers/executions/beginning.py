"""Begin an execution: what is wanted, with which tools, and where its events go."""

import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from morphogen.kernels.sandbox.values import value_sha256
from morphogen.schemas.executions import MODES, ExecutionStarted
from morphogen.schemas.goals import NORM_VERSION, signature, template
from morphogen.schemas.settling import settled
from morphogen.schemas.whole import whole_if_known

from .environment import environment_of
from .errors import ExecutionError
from .outlets import Outlet, outlet
from .prices import Prices, read_prices
from .recording import Execution, current
from .telling import by_its_name, id_of

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
    budget_microusd: float | None = None,
    prices: Prices | None = None,
    settings: "Settings | None" = None,
    to: Outlet | None = None,
) -> Execution:
    """Return an execution that begins with its `with` block (or with `begin`).

    `goal` says in a sentence what is wanted; those of its values that change go into `params` by name. `capabilities` are
    the tools that `call` may use. `environment` and `packages` are what its course depends on beside them. Events go
    into `run` where one is given (or to `to`), else into the log by themselves. `prices` default to the data folder's.
    `parent` is by default the execution around it. `budget_microusd` is rounded down. Raises ExecutionError for a mode that
    there is not and for what is no goal, no parameters by name, no id or no budget; and PricesError.
    """
    if mode not in MODES:
        raise ExecutionError(f"the mode {mode!r} is none of {', '.join(MODES)}")
    if not isinstance(goal, str) or not goal.strip():
        raise ExecutionError(f"a goal is a sentence, got {goal!r:.80}; say what is wanted")
    out = to or outlet(run, settings)
    around = current()
    if parent is None and around is not None:
        parent = around.id
    held = {str(name): value for name, value in settled(by_its_name("params", params)).items()}
    names = environment_of(packages, by_its_name("environment", environment))
    started = ExecutionStarted(
        execution=secrets.token_hex(8),
        goal=settled(goal),
        template=template(goal, held),
        signature=signature(goal, held),
        norm_version=NORM_VERSION,
        params=held,
        environment=names,
        environment_sha256=value_sha256(names),
        mode=settled(mode),
        parent=None if parent is None else id_of("parent", parent),
        request=None if request is None else id_of("request", request),
        budget_microusd=whole_if_known("budget_microusd", budget_microusd, ExecutionError, down=True),
    )
    return Execution(started, out, capabilities, prices or read_prices(out.settings.home))
