"""A command to a running job: the learning rate is set from outside, and the log remembers who asked and what came of it."""

import time

import morphogen
from morphogen.bus.commands import Command

rate = 0.1


def set_rate(command: Command) -> dict[str, float]:
    """Act on the command; what is returned becomes its result in the log."""
    global rate
    before, rate = rate, float(command.args["lr"])
    return {"before": before, "after": rate}


with morphogen.record("commanded") as run, morphogen.Bus.open() as bus, bus.serve("commanded", {"set_lr": set_rate}):
    bus.send(
        "commanded", "set_lr", {"lr": 0.01}, run="commanded", issuer="example"
    )  # or: morphogen send commanded set_lr -a lr=0.01
    for step in range(1, 51):
        run.log(lr=rate, step=step)
        time.sleep(0.01)

print(
    morphogen.query(
        "SELECT name, status, result FROM commands WHERE run = 'commanded' ORDER BY issued DESC LIMIT 1", wait=True
    )
)
print(
    morphogen.query(
        "SELECT value AS lr, min(step) AS since FROM run_metrics WHERE run = 'commanded' GROUP BY 1 ORDER BY 2"
    )
)
