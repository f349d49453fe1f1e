"""Threads for what may wait: used again, let go when they overrun, none left behind; and signatures that are looked up once."""

import functools
import inspect
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from morphogen.kernels.sandbox import signature_of
from morphogen.kernels.sandbox.signatures import takes_anything
from morphogen.kernels.sandbox.waiting import Unfinished, WaitingThreads


def mine() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sandbox-capability"]


def none_left() -> bool:
    deadline = time.monotonic() + 10
    while mine() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not mine()


def test_uses_in_turn_share_one_thread_and_answers_and_errors_are_their_own() -> None:
    threads = WaitingThreads()

    def fail() -> object:
        raise KeyError("no")

    assert none_left()
    assert [threads.run(lambda at=at: at * 2, 5.0) for at in range(20)] == [at * 2 for at in range(20)]  # type: ignore[misc]
    with pytest.raises(KeyError, match="no"):
        threads.run(fail, 5.0)
    with pytest.raises(RuntimeError, match="SystemExit"):
        threads.run(lambda: (_ for _ in ()).throw(SystemExit(3)), 5.0)
    assert threads.run(lambda: "still", 5.0) == "still"
    assert len(mine()) == 1
    threads.end()
    assert none_left()


def test_one_that_overruns_is_let_go_and_its_answer_goes_nowhere() -> None:
    threads = WaitingThreads()
    gate = threading.Event()
    with pytest.raises(Unfinished):
        threads.run(lambda: gate.wait(20), 0.05)

    assert threads.run(lambda: "next", 5.0) == "next"
    assert len(mine()) == 2
    gate.set()
    threads.end()
    assert none_left()


def test_uses_at_once_do_not_wait_for_each_other() -> None:
    threads = WaitingThreads()
    together = threading.Barrier(6, timeout=20)
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(lambda _: threads.run(together.wait, 30.0), range(6))) == list(range(6))  # type: ignore[type-var]
    threads.end()
    assert none_left()


def test_a_forked_copy_has_threads_of_its_own() -> None:
    threads = WaitingThreads()
    threads.run(lambda: 1, 5.0)

    def use(answer: Any) -> None:
        answer.put(threads.run(lambda: 2, 5.0))

    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=use, args=(answer,))
    child.start()
    assert answer.get(timeout=20) == 2
    child.join(20)
    assert threads.run(lambda: 3, 5.0) == 3
    threads.end()


class Reader:
    __slots__ = ()

    def read(self, path: str, *, limit: int = 1) -> str:
        return path * limit

    def __call__(self, x: int) -> int:
        return x


def test_a_signature_is_that_of_the_standard_library_each_time() -> None:
    def plain(a: int, /, *rest: int, key: str = "x") -> None: ...

    for function in (plain, Reader().read, Reader.read, Reader(), functools.partial(plain, 1), len, sorted):
        for _ in range(2):
            assert signature_of(function) == inspect.signature(function)
    assert signature_of(dict.update) is None, "a function in C that does not tell"


def test_only_what_is_written_to_take_anything_takes_anything() -> None:
    def wrapped(*args: Any, **named: Any) -> None: ...

    functools.update_wrapper(wrapped, Reader().read)

    assert takes_anything(lambda *args, **named: None)
    for function in (
        wrapped,
        lambda a, *args, **named: None,
        lambda *args, key, **named: None,
        lambda *args: None,
        len,
    ):
        assert not takes_anything(function)
