"""Numbers that lie on an accelerator: copied beside the training stream, recorded when they have arrived.

Reading one number of a CUDA tensor stalls the stream until all work before it is done. Here all numbers of a call are
gathered on the device, copied to pinned memory without waiting, and picked up by a thread once the device says so.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

_POLL = 0.002  # seconds
_MOST_WAITING = 10_000  # calls; beyond that the oldest is waited for


class Arrival(Protocol):
    """What tells that a copy has arrived: torch.cuda.Event, or anything with these two."""

    def query(self) -> bool:
        """Tell whether it has."""

    def synchronize(self) -> None:
        """Wait until it has."""


class _Waiting(NamedTuple):
    names: list[str]
    numbers: Any  # a float64 tensor in host memory, one element a name
    arrival: Arrival
    step: int | None
    time_ns: int


def copy_to_host(values: "list[Any]") -> tuple[Any, Arrival]:
    """Gather 0-d tensors of one device into host memory without waiting; return the tensor and when it is there."""
    import torch

    gathered = torch.stack([value.detach().reshape(()).to(torch.float64) for value in values])
    host = torch.empty(gathered.shape, dtype=gathered.dtype, pin_memory=True)
    host.copy_(gathered, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(gathered.device))
    return host, event


class DeviceScalars:
    """Take numbers from the training thread, hand them to `emit(numbers, step, time_ns)` from a thread of its own."""

    def __init__(
        self,
        emit: Callable[[Mapping[str, int | float], int | None, int], None],
        copy: Callable[[list[Any]], tuple[Any, Arrival]] = copy_to_host,
    ) -> None:
        self._emit = emit
        self._copy = copy
        self._waiting: deque[_Waiting] = deque()
        self._work = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self, values: Mapping[str, Any], step: int | None, time_ns: int) -> None:
        """Begin the copy of `values`, which must be tensors of one element."""
        by_device: dict[str, list[str]] = {}
        for name, value in values.items():
            by_device.setdefault(str(value.device), []).append(name)
        for names in by_device.values():
            numbers, arrival = self._copy([values[name] for name in names])
            self._waiting.append(_Waiting(names, numbers, arrival, step, time_ns))
        if self._thread is None:
            self._thread = threading.Thread(target=self._resolve, name="morphogen-device-scalars", daemon=True)
            self._thread.start()
        if len(self._waiting) > _MOST_WAITING:
            self._drain_one(wait=True)
        self._work.set()

    def flush(self, timeout: float) -> bool:
        """Wait until all that was taken is recorded."""
        deadline = time.monotonic() + timeout
        while self._waiting:
            if time.monotonic() > deadline:
                return False
            if not self._drain_one(wait=False):
                time.sleep(_POLL)
        return True

    def close(self, timeout: float) -> None:
        """Record what has arrived within `timeout` seconds and end the thread."""
        self.flush(timeout)
        self._closed = True
        self._work.set()

    def _resolve(self) -> None:
        while not self._closed:
            self._work.wait()
            self._work.clear()
            while self._waiting and not self._closed:
                if not self._drain_one(wait=False):
                    time.sleep(_POLL)

    def _drain_one(self, *, wait: bool) -> bool:
        """Record the oldest if it has arrived; the order of calls is kept."""
        with self._lock:
            if not self._waiting:
                return True
            oldest = self._waiting[0]
            if wait:
                oldest.arrival.synchronize()
            elif not oldest.arrival.query():
                return False
            self._waiting.popleft()
            self._emit(dict(zip(oldest.names, oldest.numbers.tolist(), strict=True)), oldest.step, oldest.time_ns)
            return True
