"""The quickstart of the README: record a run, ask for its best loss."""

import math

import morphogen

with morphogen.record("first", config={"lr": 0.1}) as run:
    for step in range(1, 101):
        run.log(loss=math.exp(-step / 30), lr=0.1, step=step)

rows = morphogen.query("SELECT min(value) AS best FROM metrics WHERE run = 'first' AND name = 'loss'", wait=True)
print(rows)
