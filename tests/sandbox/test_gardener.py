"""The thread that makes the next worker when a call is over: once for many calls, not during one, and gone with its sandbox."""

import gc
import multiprocessing
import threading
import time
import weakref
from typing import Any

from morphogen.kernels.sandbox import Sandbox
from morphogen.kernels.sandbox.gardener import Gardener

from .conftest import QUICK

ADD = "def run(a):\n    return a + 1\n"


def gardeners() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "sandbox-gardener"}


def soon(holds: Any) -> bool:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(holds())


def test_what_is_asked_for_many_times_is_done_once_and_later() -> None:
    before = gardeners()
    tended: list[float] = []
    gardener = Gardener(lambda: tended.append(time.monotonic()), 0.2)
    asked = time.monotonic()
    for _ in range(50):
        gardener.ask()

    assert soon(lambda: tended)
    assert tended[0] - asked >= 0.2
    time.sleep(0.3)
    assert len(tended) <= 2, "what was asked in the very moment in which it began may count once more"
    gardener.ask()
    assert soon(lambda: len(tended) >= 2)
    gardener.end()
    assert soon(lambda: gardeners() <= before)


def test_after_its_end_nothing_is_tended_until_it_is_asked_again() -> None:
    tended: list[int] = []
    gardener = Gardener(lambda: tended.append(1), 0.05)
    gardener.ask()
    gardener.end()
    time.sleep(0.2)
    assert tended == []

    gardener.ask()
    assert soon(lambda: tended == [1])
    gardener.end()


def test_a_pool_is_full_again_after_calls_and_its_thread_goes_with_it() -> None:
    before = gardeners()
    with Sandbox(QUICK, pool=4) as sandbox:
        for number in range(12):
            assert sandbox.run(ADD, {"a": number}).value == number + 1
        assert soon(lambda: len(sandbox._kept.idle) == 4)
        assert len(gardeners() - before) == 1
    assert soon(lambda: gardeners() <= before)


def test_a_sandbox_that_is_forgotten_is_not_kept_by_its_thread() -> None:
    before = gardeners()
    sandbox = Sandbox(QUICK, pool=4)
    sandbox.run(ADD, {"a": 1})
    gone = weakref.ref(sandbox)
    del sandbox
    gc.collect()

    assert soon(lambda: gone() is None)
    assert soon(lambda: gardeners() <= before)


def test_a_forked_copy_of_the_host_calls_and_refills_by_itself_whoever_held_the_lock() -> None:
    with Sandbox(QUICK, pool=4) as sandbox:
        sandbox.run(ADD, {"a": 1})

        def use(answer: Any) -> None:
            answer.put([sandbox.run(ADD, {"a": number}).value for number in range(6)])
            sandbox.close()

        context = multiprocessing.get_context("fork")
        answer = context.Queue()
        child = context.Process(target=use, args=(answer,))
        with sandbox._lock:  # as the thread of the host may hold it at that moment
            child.start()
        assert answer.get(timeout=30) == [1, 2, 3, 4, 5, 6]
        child.join(20)
        assert sandbox.run(ADD, {"a": 1}).value == 2
