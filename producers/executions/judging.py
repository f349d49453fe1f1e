"""A judgement that comes after the end: of a person, of a test that ran later, of whoever found out."""

from typing import TYPE_CHECKING

from morphogen.schemas.executions import JUDGES, ExecutionFeedback
from morphogen.schemas.settling import settled

from .errors import ExecutionError
from .outlets import Outlet, outlet
from .telling import id_of

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.producers.run import Run


def feedback(
    execution: str,
    outcome: str,
    *,
    judged_by: str = "user",
    note: str = "",
    run: "Run | None" = None,
    settings: "Settings | None" = None,
    to: Outlet | None = None,
) -> None:
    """Judge an execution, by its id, after its end: success or failure. The newest judgement counts.

    Raises ExecutionError for another outcome, a judge that there is not, and what is no id.
    """
    if outcome not in ("success", "failure") or judged_by not in JUDGES:
        raise ExecutionError(f"feedback is success or failure, judged by one of {', '.join(JUDGES)}; "
                             f"got {outcome!r} and {judged_by!r}")  # fmt: skip
    event = ExecutionFeedback(
        execution=id_of("execution", execution), outcome=settled(outcome), judged_by=settled(judged_by),
        note=settled(str(note)),
    )  # fmt: skip
    (to or outlet(run, settings)).tell(event)
