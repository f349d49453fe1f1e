"""A task that is done again and again becomes a tool: recorded twelve times, made, proven, called in milliseconds, taken back.

The agent here is a function; what it would say is known, so nothing is paid. Yours asks a model: wrap it in the same way.
Needs: pip install 'morphogen[broker,match]', and Linux for the sandbox.
"""

import csv
import io
import random
import sys
import tempfile
from pathlib import Path

from morphogen.bus import Bus, broker
from morphogen.bus.settings import Settings
from morphogen.consumers.crystallizer import Loader
from morphogen.consumers.crystallizer.worker import Crystallizer
from morphogen.consumers.dispatch import Dispatcher, Done, Request, Result, open_diary, read_state
from morphogen.kernels.sandbox import Capabilities, Sandbox, Workspace
from morphogen.producers.executions import Execution, environment_of, execution, flush
from morphogen.schemas.goals import signature

GOAL = "Which epoch of run {run} has the lowest validation loss?"
COLUMN = "val_loss"  # what the column is called, until the world changes


def train(folder: Path, run: str) -> None:
    """Leave the metrics of a run, as a training job would."""
    dice, loss = random.Random(f"{COLUMN} {run}"), 2.0
    lines = [f"epoch,{COLUMN}"]
    for epoch in range(1, dice.randint(5, 12)):
        loss *= dice.uniform(0.6, 1.6)
        lines.append(f"{epoch},{loss:.4f}")
    (folder / f"{run}.csv").write_text("\n".join(lines) + "\n")


def reason(steps: Execution, run: str) -> dict[str, float]:
    """Reach the goal the long way: look, think, answer."""
    text = steps.call("files.read_text", path=f"{run}.csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    name = next(column for column in rows[0] if column.startswith("val"))
    best = min(rows, key=lambda row: float(row[name]))
    answer = {"epoch": int(best["epoch"]), "loss": float(best[name])}
    steps.asked(prompt=f"Which epoch is best?\n{text}", reply=str(answer), model="a function", backend="script")
    return answer


class Learner:
    """LEARNER for dispatch: the long way, recorded."""

    cap_microusd: int | None = 0

    def run(self, request: Request, budget: int | None) -> Result:
        """Serve a request for which there is no tool, or whose tool steps back."""
        with execution(
            request.goal, request.params, capabilities=request.capabilities, environment={}, request=request.id
        ) as steps:
            answer = reason(steps, **request.params)
            steps.finish(answer, judged_by="assertion")
        return Result(ok=True, output=answer, cost_microusd=0, execution=steps.id, steps=steps.steps)


def tell(done: Done) -> None:
    """Say how a request was served."""
    print(f"  {done.mode}: {done.output} in {done.duration_ns / 1e6:.1f} ms")
    for fell in done.fell_back:
        print(f"  ({fell.mode} gave way: {fell.reason})")


def main(folder: Path) -> None:
    """Tell the whole story once; the second time, the tool is there from the first."""
    global COLUMN  # noqa: PLW0603
    capabilities = Capabilities(files=Workspace(folder))
    settings = Settings.from_environ()
    broker.ensure(settings)
    with Bus.open(settings) as bus, Sandbox(pool=2) as sandbox, open_diary(settings) as diary:
        crystallizer = Crystallizer(bus, sandbox, settings.home, capabilities=capabilities)
        crystallizer.catch_up()
        family = signature(GOAL.format(run="a"), {"run": "a"})
        loader = Loader(crystallizer.past.registry, capabilities, sandbox)
        dispatcher = Dispatcher(
            capabilities=capabilities,
            state=read_state(bus),
            write=diary.tell,
            crystals=loader,
            learner=Learner(),
            environment=environment_of(),
        )

        def do(run: str, mode: str | None = None) -> Done:
            train(folder, run)
            return dispatcher.do(GOAL.format(run=run), {"run": run}, mode=mode)

        recorded = 0
        if loader.active(family) is None:
            made = None
            while made is None or not made.ok:
                print("twelve times the long way")
                for _ in range(12):
                    recorded += 1
                    run = f"run{recorded}"
                    train(folder, run)
                    with execution(GOAL.format(run=run), {"run": run}, capabilities=capabilities) as steps:
                        steps.finish(reason(steps, run), judged_by="assertion")
                flush()
                made = crystallizer.make(family)
                if not made.ok:
                    print(f"no tool yet: {made.stage}: {made.reason}")
                    if recorded >= 60:
                        sys.exit(1)
            tool = crystallizer.past.registry.of(family)
            assert tool is not None
            print(f"{made.tool}, version {made.number}, proven on executions that its maker has not seen:\n")
            print(tool.newest.made.source)
            loader.refresh()
            beside = 0
            while loader.active(family) is None and beside < 12:
                beside += 1
                do(f"beside{beside}", "learner")  # the new version runs beside, on a tape of what the learner did
                flush()
                diary.flush()
                crystallizer.round()
                crystallizer.catch_up()
                loader.refresh()
            print(f"promoted after {beside} runs beside the learner")
        else:
            print("the tool of an earlier time is here")

        print("again, by the tool")
        for number in (1001, 1002, 1003):
            tell(do(f"run{number}"))
        print("the world changes: the column has another name")
        COLUMN = "validation_loss"
        tell(do("run1004"))
        print("and back")
        COLUMN = "val_loss"
        tell(do("run1005"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
