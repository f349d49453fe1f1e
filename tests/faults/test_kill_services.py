"""The broker and the projector, each killed with SIGKILL at fifty random moments while a trainer records.

What `log()` had returned is in SQL at the end, once, whatever was killed.
"""

import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphogen.bus import broker as brokers
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.query import query

ROUNDS = 50

TRAINER = """
import mmap, signal, struct, sys, time
import morphogen
told = open(sys.argv[1], "r+b")
room = mmap.mmap(told.fileno(), 8)
going = [True]
signal.signal(signal.SIGUSR1, lambda *_: going.clear())
run = morphogen.record("killed")
step = 0
while going:
    run.log(loss=step, step=step)
    step += 1
    room[:8] = struct.pack("<q", step)
    time.sleep(0.0005)
assert run.flush(60)
run.finish()
"""

# Imports once and forks a projector for each line it reads: a new interpreter each time would take most of the test.
NURSERY = """
import asyncio, os, sys
import morphogen.consumers.projections.follow.projector as projector
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.service import serve_until_cancelled
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        asyncio.run(projector.run_projector(Settings.from_environ(), stop=asyncio.Event(), serve=serve_until_cancelled))
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


@contextmanager
def trainer(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    told = tmp_path / "told"
    told.write_bytes(bytes(8))
    process = subprocess.Popen([sys.executable, "-c", TRAINER, str(told)], stderr=subprocess.PIPE, text=True)
    try:
        while not returned(tmp_path):
            assert process.poll() is None
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def returned(tmp_path: Path) -> int:
    """Return how many `log()` calls the trainer saw return."""
    (count,) = struct.unpack("<q", (tmp_path / "told").read_bytes())
    return int(count)


def finish(process: "subprocess.Popen[str]") -> str:
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 0, said
    return said


def check(tmp_path: Path) -> None:
    """Compare what `log()` returned with what SQL holds."""
    steps = returned(tmp_path)
    (found,) = query(
        "SELECT count(*), count(DISTINCT step), min(step), max(step) FROM metrics", wait=True, timeout=60
    ).rows()
    assert found == (steps, steps, 0, steps - 1)
    (books,) = query("SELECT sum(lost), sum(doubled), sum(dropped) FROM producers").rows()
    assert books == (0, 0, 0)


def test_fifty_kills_of_the_broker_lose_and_double_nothing(settings: Settings, tmp_path: Path) -> None:
    dice = random.Random(50)
    brokers.ensure(settings)
    with trainer(tmp_path) as process:
        for _ in range(ROUNDS):
            pid = brokers.ensure(settings).pid
            assert pid is not None
            time.sleep(dice.random() * 0.15)
            os.kill(pid, signal.SIGKILL)
            assert process.poll() is None
        brokers.ensure(settings)
        said = finish(process)

    assert "Traceback" not in said
    check(tmp_path)


def test_fifty_kills_of_the_projector_lose_and_double_nothing(settings: Settings, tmp_path: Path) -> None:
    dice = random.Random(51)
    brokers.ensure(settings)
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    with trainer(tmp_path) as process:
        for _ in range(ROUNDS):
            nursery.stdin.write("one\n")
            nursery.stdin.flush()
            pid = int(nursery.stdout.readline())
            time.sleep(0.05 + dice.random() * 0.6)
            os.kill(pid, signal.SIGKILL)
            assert nursery.stdout.readline() == "gone\n"
        finish(process)
    nursery.stdin.close()
    nursery.wait(10)
    assert nursery.stderr is not None
    said = nursery.stderr.read()
    nursery.stdout.close()
    nursery.stderr.close()

    assert "Traceback" not in said
    check(tmp_path)


def test_everything_dies_at_once_and_a_restarted_trainer_goes_on(settings: Settings, tmp_path: Path) -> None:
    brokers.ensure(settings)
    with trainer(tmp_path) as process:
        time.sleep(0.3)
        pid = brokers.status(settings).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
    first = returned(tmp_path)
    with trainer(tmp_path) as process:
        time.sleep(0.3)
        finish(process)
    second = returned(tmp_path)

    found = dict(
        query("SELECT attempt, count(DISTINCT step) FROM metrics GROUP BY attempt", wait=True, timeout=60).rows()
    )
    assert found[1] >= first  # a last record may lie between its commit and our note of it
    assert found[1] <= first + 1
    assert found[2] == second
    assert query("SELECT count(*) - count(DISTINCT (attempt, step)) FROM metrics").rows() == [(0,)]
