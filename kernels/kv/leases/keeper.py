"""The heartbeat: renews what this process holds while it lives, and says what was lost while it did not run."""

import os
import threading
from collections.abc import Callable

from .errors import LeaseError
from .folder import LeaseFolder
from .lease import Lease

Lost = Callable[[Lease, str], None]


class Keeper:
    """Renews leases of one folder from a thread of its own, every third of their time to live.

    A process that was stopped for longer than that may find leases reaped: `lost` is then called, from that thread,
    with the lease and one line. A forked child keeps nothing of its parent's.
    """

    def __init__(self, folder: LeaseFolder, ttl: float, *, lost: Lost | None = None) -> None:
        if not ttl > 0:
            raise ValueError(f"a lease lives for more than {ttl:g} s")
        self.folder, self.ttl = folder, ttl
        self._lost = lost
        self._pid = os.getpid()
        self._wake = threading.Condition()
        self._leases: dict[tuple[str, str], Lease] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def keep(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self._own()
        with self._wake:
            self._leases[lease.token, lease.segment] = lease
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="kv-leases", daemon=True)
                self._thread.start()

    def forget(self, lease: Lease) -> None:
        """Renew a lease no more."""
        self._own()
        with self._wake:
            self._leases.pop((lease.token, lease.segment), None)

    def beat(self) -> None:
        """Renew all leases once, now."""
        self._own()
        with self._wake:
            held = list(self._leases.values())
        for lease in held:
            try:
                self.folder.renew(lease, self.ttl)
            except LeaseError as error:
                with self._wake:
                    mine = self._leases.pop((lease.token, lease.segment), None)
                if mine is not None and self._lost is not None:  # else it was released meanwhile
                    self._lost(lease, str(error))
            except OSError:
                continue  # the next beat comes long before the lease ends

    def close(self) -> None:
        """Renew nothing any more; what is held ends with its time."""
        self._own()
        with self._wake:
            self._closed, thread = True, self._thread
            self._leases.clear()
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def _own(self) -> None:
        if self._pid != os.getpid():  # after a fork there is no thread, and the lock may be held by one that is gone
            self._pid = os.getpid()
            self._wake, self._leases, self._thread = threading.Condition(), {}, None

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._wake.wait_for(lambda: self._closed, timeout=self.ttl / 3) or not self._leases:
                    self._thread = None  # the next lease starts another one
                    return
            self.beat()
