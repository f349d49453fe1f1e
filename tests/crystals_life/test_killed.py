"""kill -9 of a crystallizer: it is taken up where the log stands, and nothing is paid for twice."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.consumers.crystallizer.past import Past
from morphogen.kernels.sandbox import Sandbox

from .kit import TOOL, record

PROGRAM = Path(__file__).with_name("dying.py")


@pytest.mark.parametrize("worst", [5000, 0], ids=["paid", "free"])
def test_kills_at_any_time_leave_one_outcome_that_is_paid_once(
    bus: Bus, settings: Settings, sandbox: Sandbox, worst: int
) -> None:
    record(settings, range(16))
    dice = random.Random(worst)
    for turn in range(12):
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(worst)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if turn == 0:
            _until((settings.home / "paid").exists)  # the model is thinking
        try:
            patience = 0.0 if turn == 0 else 0.4 + dice.random() if turn < 4 else 60.0
            _, wrong = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            continue
        assert process.returncode == 0, wrong.decode()
        break
    else:
        pytest.fail("it never came to an end")
    past = Past()
    past.catch_up(bus)
    (attempt,) = past.registry.attempts.values()
    assert attempt.done
    paid = (settings.home / "paid").read_text().splitlines()
    if worst:
        assert len(paid) == 1
        assert attempt.failed is not None
        assert "not asked again" in attempt.failed.reason
        assert past.spending.since(0) == worst  # it may have cost that
    else:
        assert attempt.version == (TOOL, 1)
    assert past.registry.refusals == 0


def _until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)
