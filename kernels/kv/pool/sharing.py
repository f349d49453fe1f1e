"""A pool that other processes on the same device read where it lies: no copy, as long as its owner holds its lease.

The owner shares a sequence: its blocks are pinned by a fork, so that nothing is written into them until every reader
has let go. A reader borrows it: it sees the owner's memory, and may copy the blocks into a pool of its own.
"""

import contextlib
import itertools
from collections.abc import Hashable, Iterator, Sequence

import msgspec
import torch

from morphogen.schemas.kv import Fingerprint, KvRef, differences

from ..errors import KvMismatch
from ..transport.contract import Meta, Released
from ..transport.ending import EndsByClose
from ..transport.ipc import DeviceMapped, Ipc
from .errors import PoolError, PoolFull, PoolMismatch
from .torch_pool import PoolShape, TorchKvPool


class SharedSequence(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader is told: the pool, and which of its blocks hold which tokens."""

    shape: PoolShape
    blocks: int  # of the pool
    table: list[int]
    length: int
    tokens: list[int] | None = None
    fingerprint: Fingerprint | None = None


class SharedPool(TorchKvPool):
    """A pool in memory that an `Ipc` hands out."""

    def __init__(self, shape: PoolShape, *, blocks: int, ipc: Ipc) -> None:
        self._ipc = ipc
        self._memory = ipc.memory.allocate(self.size_of(shape, blocks))
        memory = self._memory.tensor()
        super().__init__(shape, blocks=blocks, device=memory.device, memory=memory)
        self._pins = itertools.count()

    def extend(self, sequence: Hashable, tokens: int) -> None:
        """Make room for `tokens` more tokens, taking back first what readers have let go of where it is scarce."""
        try:
            super().extend(sequence, tokens)
        except PoolFull:
            self._ipc.reap()
            super().extend(sequence, tokens)

    def share(
        self,
        sequence: Hashable,
        *,
        tokens: Sequence[int] | None = None,
        fingerprint: Fingerprint | None = None,
        ttl: float | None = None,
    ) -> KvRef:
        """Give a sequence away for reading, as it is now; it may go on here meanwhile.

        With `ttl`, the ref is good for so many seconds for whoever opens it first; without, until it is released.
        """
        table = self.blocks.table(sequence)
        length = table.length
        if tokens is not None and len(tokens) != length:
            raise PoolError(f"{sequence!r} has {length} tokens in the pool, {len(tokens)} were named")
        pin = ("shared", next(self._pins))
        self.fork(sequence, pin)
        try:
            told = SharedSequence(
                shape=self.shape,
                blocks=self.blocks.count,
                table=list(self.blocks.table(pin).blocks),
                length=length,
                tokens=None if tokens is None else list(tokens),
                fingerprint=fingerprint,
            )
            meta = Meta(details={"tokens": length, "bytes": length * self.shape.width})
            ref = self._ipc.publish(self._memory, meta, what=told, freed=lambda: self.free(pin))
        except BaseException:
            self.free(pin)
            raise
        return ref if ttl is None else self._ipc.offer(ref, ttl=ttl)

    def release(self, ref: KvRef) -> Released:
        """Take a shared sequence back; its blocks are free once its readers have let go."""
        return self._ipc.release(ref)

    def close(self, timeout: float = 10.0) -> bool:
        """Revoke all that was shared, and free the memory once nobody reads it; return whether that came to be."""
        done = self._ipc.close(timeout)
        if done:
            del self.data, self.slots
            self._memory.free()
        return done


class Borrowed(EndsByClose):
    """A sequence of another process's pool, opened here."""

    def __init__(self, mapped: DeviceMapped) -> None:
        self._mapped = mapped
        try:
            self.told = msgspec.msgpack.decode(mapped.what, type=SharedSequence)
        except msgspec.DecodeError as error:
            raise PoolMismatch(f"ipc {mapped.ref.place} is no sequence of a pool: {error}") from error

    @property
    def length(self) -> int:
        """The number of tokens."""
        return self.told.length

    @property
    def tokens(self) -> list[int] | None:
        """The token ids, where the owner told them."""
        return self.told.tokens

    @contextlib.contextmanager
    def use(self) -> Iterator[TorchKvPool]:
        """Lend the owner's pool for one use, with the one sequence `None` in it; it must not be written.

        Raises LeaseEnded before the use, or at its end: then what was read must be thrown away.
        """
        with self._mapped.use() as memory:
            yield self._pool(memory)

    def check(self) -> None:
        """Raise LeaseEnded where the owner's lease has ended."""
        self._mapped.check()

    def into(self, pool: TorchKvPool, sequence: Hashable, *, fingerprint: Fingerprint | None = None) -> None:
        """Copy the sequence into a pool of this process, within the device. Nothing is left there where it is refused.

        Raises PoolMismatch, PoolFull, KvMismatch where `fingerprint` is not the owner's, and LeaseEnded.
        """
        if fingerprint is not None:
            if self.told.fingerprint is None:
                raise PoolMismatch(f"ipc {self._mapped.ref.place} has no fingerprint: it may be another model's")
            if found := differences(self.told.fingerprint, fingerprint):
                raise KvMismatch(found)
        mine = msgspec.structs.replace(pool.shape, block=self.told.shape.block)  # blocks may be of other sizes
        if mine != self.told.shape:
            raise PoolMismatch(f"a sequence of {self.told.shape} is none of this pool, {pool.shape}")
        copied = False
        try:
            with self._mapped.use() as memory:
                pool.unpack(sequence, self._pool(memory).tokens(None))
                copied = True
        except BaseException:
            if copied:  # the owner went meanwhile: nobody knows what was copied
                pool.free(sequence)
            raise

    def close(self) -> None:
        """Let go of the owner's memory."""
        self._mapped.close()

    def _pool(self, memory: torch.Tensor) -> TorchKvPool:
        pool = TorchKvPool(self.told.shape, blocks=self.told.blocks, device=memory.device, memory=memory)
        pool.adopt(None, self.told.table, self.told.length)
        return pool


def borrow(ipc: Ipc, ref: KvRef) -> Borrowed:
    """Open a shared sequence. Raises LeaseEnded where its owner is gone, PoolMismatch for what is none."""
    mapped = ipc.open(ref)
    try:
        return Borrowed(mapped)
    except BaseException:
        mapped.close()
        raise
