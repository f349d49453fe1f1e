"""`serve policy`: decide, as a process of its own, for runs whose policy is `remote`."""

from typing import TYPE_CHECKING, Annotated

import typer

from .app import app, settings_of
from .saying import echo
from .serving import serve_until_ended

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.consumers.policy.protocol import Policy
    from morphogen.consumers.policy.serve import Served

serve = typer.Typer(help="Processes that act on what the log says.", no_args_is_help=True)
app.add_typer(serve, name="serve")


@serve.command("policy")
def serve_policy(
    context: typer.Context,
    policy: Annotated[str, typer.Option(help="A built-in policy, a checkpoint's path, or module:Class.")] = "heuristic",
    quiet: Annotated[
        float, typer.Option(min=0.0, max=3600.0, help="Seconds without news after which an epoch has come whole.")
    ] = 0.1,
) -> None:
    """Decide for every run that grows with policy="remote", until interrupted: follow the log, send commands."""
    from morphogen.consumers.policy import load_policy
    from morphogen.consumers.policy.serve import PolicyServer

    load_policy(policy)  # what cannot be made is told before anything waits for it

    def make(seed: int) -> "Policy":
        return load_policy(policy, seed=seed)

    def told(served: "Served") -> None:
        action = served.decided.action
        place = " ".join(str(part) for part in (action.op, action.slot, action.blueprint) if part is not None)
        echo(f"{served.run} epoch {served.decided.observation.epoch}: {place} ({_why(served)})")

    async def work(conn: "Connection") -> None:
        echo(f"policy {policy} decides for runs with policy='remote'")
        await PolicyServer(conn, make, quiet=quiet, told=told).run()

    serve_until_ended(settings_of(context), work, "policy")


def _why(served: "Served") -> str:
    verdict = served.decided.verdict
    if verdict.approved:
        return served.decided.proposed.reason
    reasons = [guard.reason for guard in verdict.guards if not guard.passed]
    return f"not approved: {verdict.blocked_by}: {reasons[0] if reasons else served.decided.proposed.reason}"
