"""A crystallizer in a process of its own, to be killed: `python dying.py WORST` makes the family's tool by a slow, paid model.

Each question is a line in the file `paid` of the data folder, on disk before the model thinks.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import kit

from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.consumers.crystallizer import GauntletConfig
from morphogen.consumers.crystallizer.drafting import Question, Reply
from morphogen.consumers.crystallizer.worker import Crystallizer, WorkerConfig
from morphogen.kernels.sandbox import Sandbox


class Slow(kit.Drafting):
    def ask(self, question: Question) -> Reply:
        with (settings.home / "paid").open("a") as file:
            file.write(f"{question.attempt} {question.number}\n")
            file.flush()
            os.fsync(file.fileno())
        time.sleep(0.4)
        return super().ask(question)


settings = Settings.from_environ()
with Bus.open(settings, name="dying") as bus, Sandbox(pool=1) as sandbox:
    worker = Crystallizer(
        bus,
        sandbox,
        settings.home,
        drafter=Slow(kit.GOOD, worst=int(sys.argv[1])),
        config=WorkerConfig(
            budget_microusd=10_000, gauntlet=GauntletConfig(again=1, crossed=1, edges=1, wrong=1, worlds=1)
        ),
    )
    worker.catch_up()
    print(worker.make(kit.SIGNATURE, maker="llm"))
