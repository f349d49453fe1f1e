"""Threads on which a capability may wait: one that overruns its time ends the call, and not the host."""

import os
import queue
import threading
from collections.abc import Callable

Action = Callable[[], object]


class Unfinished(Exception):
    """A declared tool did not return in time."""


def contained(failure: BaseException) -> Exception:
    """Return what a function's failure is to the host: what would end the host's own thread is an error that names it."""
    return failure if isinstance(failure, Exception) else RuntimeError(repr(failure))


class WaitingThreads:
    """A thread for each capability that waits at the same time, kept for the next; safe to use from several threads.

    One that overran is let go: it ends by itself when its capability returns, and keeps no interpreter from ending.
    """

    def __init__(self) -> None:
        self._idle: list[_Thread] = []  # append and pop are atomic
        self._owner = os.getpid()

    def run(self, action: Action, patience: float) -> object:
        """Return what `action` returns, or raise what it raises; Unfinished after `patience` seconds."""
        if self._owner != os.getpid():  # a forked copy of the host has none of its threads
            self._idle, self._owner = [], os.getpid()
        try:
            thread = self._idle.pop()
        except IndexError:
            thread = _Thread()
        job = _Job(action)
        thread.jobs.put(job)
        finished = False
        try:
            finished = job.done.acquire(timeout=max(0.0, patience))
        finally:  # an interrupt may come here as well
            if not finished:
                thread.jobs.put(None)
        if not finished:
            raise Unfinished
        self._idle.append(thread)
        if job.failure is not None:
            raise contained(job.failure)
        return job.answer

    def end(self) -> None:
        """Let go of the idle threads."""
        while self._idle:
            self._idle.pop().jobs.put(None)


class _Job:
    """One use of a capability: `done` is released when `answer` or `failure` is there."""

    def __init__(self, action: Action) -> None:
        self.action = action
        self.answer: object = None
        self.failure: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class _Thread:
    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self.jobs,), name="sandbox-capability", daemon=True).start()


def _serve(jobs: "queue.SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        try:
            job.answer = job.action()
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            job.failure = error
        job.done.release()
        del job  # while it waits for the next, it keeps nothing of this one
