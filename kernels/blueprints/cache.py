"""Artifacts in memory: least recently used out first, counted by bytes, each checked before it is kept.

A hit takes a lock and moves one entry. Several threads that miss one address load it once. What failed its checks is never
kept, and the failure is raised to everyone who waited for it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import msgspec

from .artifact import Artifact, load, unpack
from .errors import ArtifactRefused, BlueprintError
from .ops import Shape
from .signing import trusted_keys


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache has done so far."""

    hits: int
    misses: int
    prefetched: int  # loaded because `prefetch` asked
    evicted: int
    refused: int  # loads that failed, and asked-for sites that did not fit
    entries: int
    bytes: int

    @property
    def hit_rate(self) -> float | None:
        """Return hits by all `get`; None before the first one."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class Cache:
    """A cache of artifacts by their address. Thread-safe; close it, or use it as a context, to end its thread.

    Args:
        fetch: Returns the bytes, or the path, of the artifact with an address; it may raise what it likes.
        limit: Bytes of tensors to keep at most; what is larger by itself is returned and not kept.
        trusted: Public keys; where given, each artifact must be signed by one of them.
    """

    def __init__(
        self,
        fetch: Callable[[str], bytes | Path],
        *,
        limit: int = 256 * 1024 * 1024,
        trusted: Iterable[str] | None = None,
    ) -> None:
        self._fetch = fetch
        self._limit = limit
        self._trusted = None if trusted is None else trusted_keys(trusted)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Artifact] = OrderedDict()
        self._loading: dict[str, Future[Artifact]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._bytes = self._hits = self._misses = self._prefetched = self._evicted = self._refused = 0

    def __enter__(self) -> "Cache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, address: str) -> bool:
        """Tell whether an artifact is kept; this does not count as use."""
        with self._lock:
            return address in self._kept

    def get(
        self,
        address: str,
        *,
        site_in: Shape | list[int] | None = None,
        site_out: Shape | list[int] | None = None,
        device: str | None = None,
    ) -> Artifact:
        """Return an artifact, from memory if it is there.

        Raises:
            ArtifactRefused: what `fetch` gave is no good artifact, or is another one than was asked for.
            UnfitBlueprint: it does not fit the site or the device; it is then not kept because of this call.
        """
        with self._lock:
            found = self._kept.get(address)
            if found is not None:
                self._kept.move_to_end(address)
                self._hits += 1
            else:
                self._misses += 1
        if found is None:
            found = self._load(address, lambda artifact: artifact.check(site_in, site_out, device))
        if site_in is not None or site_out is not None or device is not None:
            try:
                found.check(site_in, site_out, device)
            except BlueprintError:
                with self._lock:
                    self._refused += 1
                raise
        return found

    def prefetch(self, addresses: Iterable[str]) -> list[Future[Artifact]]:
        """Load artifacts in the background, in this order; what fails shows in the futures and in the statistics.

        Raises:
            ArtifactRefused: the cache is closed.
        """
        futures = []
        for address in addresses:
            with self._lock:
                if self._closed:
                    raise ArtifactRefused("the cache is closed: prefetch before close()")
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(1, "morphogen-artifacts")
                futures.append(self._pool.submit(self._prefetch, address))
        return futures

    def drop(self, address: str) -> bool:
        """Forget an artifact; tell whether it was kept."""
        with self._lock:
            found = self._kept.pop(address, None)
            if found is not None:
                self._bytes -= found.nbytes
            return found is not None

    def stats(self) -> CacheStats:
        """Return what the cache has done so far."""
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                prefetched=self._prefetched,
                evicted=self._evicted,
                refused=self._refused,
                entries=len(self._kept),
                bytes=self._bytes,
            )

    def close(self) -> None:
        """End the background thread after what it is loading now; what is kept stays usable."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prefetch(self, address: str) -> Artifact:
        with self._lock:
            found = self._kept.get(address)
        if found is not None:
            return found
        found = self._load(address, None)
        with self._lock:
            self._prefetched += 1
        return found

    def _load(self, address: str, check: Callable[[Artifact], None] | None) -> Artifact:
        """Load an artifact once for all threads that want it now, and keep it if it is good."""
        with self._lock:
            if (kept := self._kept.get(address)) is not None:  # another thread was faster
                return kept
            waiting = self._loading.get(address)
            if waiting is None:
                mine = self._loading[address] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            found = self._checked(address)
        except BaseException as error:
            with self._lock:
                del self._loading[address]
                self._refused += 1
            mine.set_exception(error)
            raise
        fits = True
        if check is not None:
            try:
                check(found)
            except BlueprintError:
                fits = False
        with self._lock:
            del self._loading[address]
            if fits:
                self._keep(address, found)
        mine.set_result(found)
        return found

    def _checked(self, address: str) -> Artifact:
        given = self._fetch(address)
        found = load(given, trusted=self._trusted) if isinstance(given, Path) else unpack(given, trusted=self._trusted)
        if found.address != address:
            raise ArtifactRefused(
                f"artifact {address[:12]} was asked for, {found.address[:12]} was given: check the store"
            )
        return found

    def _keep(self, address: str, artifact: Artifact) -> None:
        if artifact.nbytes > self._limit:
            return
        self._kept[address] = artifact
        self._bytes += artifact.nbytes
        while self._bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.nbytes
            self._evicted += 1
