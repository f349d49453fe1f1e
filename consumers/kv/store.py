"""The states that a worker has stored, by tier: in, out, down a tier as budgets say, and still there after a restart."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from morphogen.bus.errors import BusError
from morphogen.kernels.kv import KvError as StateError
from morphogen.kernels.kv import KvState
from morphogen.kernels.kv.leases import LeaseError
from morphogen.kernels.kv.transport import Disk, Meta, Transport, TransportError
from morphogen.schemas.kv import KvEvicted, KvExported, KvRef, KvReleased

from .errors import NoRoomLeft
from .inventory import DURABLE, Inventory, Line, sweep
from .tiers import Item, Move, Shelf

Tell = Callable[..., str]
TIER_OF = {"same_process": "device", "shared_memory": "memory", "disk": "disk", "ipc": "device", "blobs": "blobs"}
LOST = (StateError, TransportError, LeaseError, BusError, OSError)  # what a state that cannot be had raises


class Store:
    """Stored states of the worker `name`. `transports` by tier: memory, disk and, where a bus is there, blobs."""

    def __init__(
        self,
        name: str,
        transports: dict[str, Transport],
        budgets: dict[str, int],
        tell: Tell,
        inventory: Inventory | None = None,
    ) -> None:
        self.shelf = Shelf(budgets)
        self.transports = transports
        self._name, self._tell, self._inventory = name, tell, inventory
        self._refs: dict[str, KvRef] = {}
        self._held: dict[str, Line] = {}  # beside the shelf: by whoever is to let go of it
        self._clock = 0
        self._recover()

    def get(self, state: str) -> tuple[Item, KvRef] | None:
        """Return what is known of a state, and where it is; None where it is not stored."""
        item, ref = self.shelf.items.get(state), self._refs.get(state)
        return None if item is None or ref is None else (item, ref)

    def transport(self, tier: str) -> Transport:
        """Return the transport of a tier. Raises NoRoomLeft where there is none."""
        found = self.transports.get(tier)
        if found is None:
            known = ", ".join(self.transports)
            raise NoRoomLeft(f"worker {self._name} has no tier {tier!r} to store into: choose one of {known}")
        return found

    def put(self, exported: KvExported) -> None:
        """Store a state that was just written into its tier, and tell of it; others make room.

        It takes the place of the same state stored before, and is pinned if that was. Raises NoRoomLeft where there is no
        room for it, or that one lies where it outlasts this process and this one would not; the bytes are given back then,
        and that one stays.
        """
        older = self.get(exported.state)
        if older is not None:
            exported = msgspec.structs.replace(exported, pinned=exported.pinned or older[0].pinned)
        self._clock += 1
        item = Item(
            state=exported.state,
            tier=exported.tier,
            size=exported.size,
            used=self._clock,
            session=exported.session,
            tokens=exported.tokens,
            pinned=exported.pinned,
        )
        before = self.shelf
        try:
            if older is not None and older[0].tier in DURABLE and item.tier not in DURABLE:
                raise NoRoomLeft(
                    f"state {item.state} is stored in tier {older[0].tier} already, and would not outlast the worker in "
                    f"tier {item.tier}: drop it first"
                )
            self.shelf, moves = before.put(item)
        except NoRoomLeft:
            self._give_back(item.tier, exported.ref, older)
            raise
        if older is not None:
            self._released(older[0], "replaced")
        self._tell(exported)
        self._refs[exported.state] = exported.ref
        self._carry_out(before, moves)
        if older is not None:  # last: who is killed before this has the new one written down
            self._give_back(older[0].tier, older[1], (item, exported.ref))

    def _give_back(self, tier: str, ref: KvRef, beside: tuple[Item, KvRef] | None) -> None:
        """Give back bytes, unless they are those of another one that stays: equal blobs are one."""
        if beside is None or beside[1].place != ref.place:
            with suppress(*LOST):
                self.transports[tier].release(ref)

    def touch(self, state: str) -> None:
        """Take note that a state was used."""
        self._clock += 1
        self.shelf = self.shelf.touch(state, self._clock)

    def drop(self, state: str, reason: str) -> bool:
        """Remove a state; tell whether there was one."""
        found = self.get(state)
        if found is None:
            return False
        item, ref = found
        self.shelf = self.shelf.drop(state)
        del self._refs[state]
        self._note()
        try:
            self.transports[item.tier].release(ref)
        except LOST:
            reason = "expired"
        self._released(item, reason)
        return True

    def _released(self, item: Item, reason: str) -> None:
        self._tell(
            KvReleased(
                state=item.state,
                worker=self._name,
                tier=item.tier,
                reason=reason,
                size=item.size,
                session=item.session,
            )
        )

    def hold(self, who: str, state: str, tier: str, *, size: int = 0, session: str | None = None) -> None:
        """Take note, before it is told, that a state lies somewhere for `who`: a session that goes on from it, a handoff."""
        self._held[who] = Line(state=state, tier=tier, size=size, session=session)
        self._note()

    def let_go(self, who: str, reason: str, *, cause: str | None = None) -> bool:
        """Tell that what lay somewhere for `who` is gone, unless it lies there for somebody else; False where nothing did."""
        line = self._held.pop(who, None)
        if line is None:
            return False
        self._gone(line, reason, cause)
        self._note()
        return True

    def holds(self, state: str, tier: str) -> bool:
        """Return whether a state lies in a tier, as far as was told."""
        item = self.shelf.items.get(state)
        return (item is not None and item.tier == tier) or any(
            (line.state, line.tier) == (state, tier) for line in self._held.values()
        )

    @contextmanager
    def opened(self, ref: KvRef, tier: str, transport: Transport | None = None) -> Iterator[KvState]:
        """Give the state at a reference, checked as far as its header goes; `transport` where it is not of this store."""
        with (transport or self.transports[tier]).open(ref) as mapped:
            state = KvState.read(mapped.buffer, f"{ref.transport} {ref.place}")
            state.held = mapped.check  # asked by whoever takes it over, while that can still be taken back
            try:
                yield state
            finally:
                state.release()  # a segment that is still looked at cannot be written again

    def close(self) -> None:
        """Bring what lies in memory to the disk, as far as there is room; the rest goes."""
        for who in list(self._held):
            self.let_go(who, "closed")
        before = Shelf({**self.shelf.budgets, "memory": 0}, self.shelf.items)
        self.shelf, moves = before.settle()
        self._carry_out(before, moves)
        for state in [item.state for item in self.shelf.items.values() if item.tier not in DURABLE]:
            self.drop(state, "closed")

    def _recover(self) -> None:
        """Take over what an earlier worker of this name left in the tiers that last, as far as the budgets go."""
        if self._inventory is None:
            return
        found: dict[str, Item] = {}
        lost: list[Line] = []
        for line in self._inventory.read():
            transport = self.transports.get(line.tier)
            ref = line.ref if line.tier in DURABLE and transport is not None else None
            if ref is None or (isinstance(transport, Disk) and not transport.holds(ref)):
                lost.append(line)
                continue
            self._refs[line.state] = ref
            found[line.state] = Item(
                state=line.state,
                tier=line.tier,
                size=line.size,
                session=line.session,
                tokens=line.tokens,
                pinned=line.pinned,
            )
        disk = self.transports.get("disk")
        if isinstance(disk, Disk):
            sweep(disk, self._refs.values())
        before = self.shelf = Shelf(self.shelf.budgets, found)
        for line in lost:
            self._gone(line, "owner_died")
        self.shelf, moves = before.settle()
        self._carry_out(before, moves)

    def _gone(self, line: Line, reason: str, cause: str | None = None) -> None:
        if not self.holds(line.state, line.tier):
            self._tell(
                KvReleased(
                    state=line.state,
                    worker=self._name,
                    tier=line.tier,
                    reason=reason,
                    size=line.size or None,
                    session=line.session,
                ),
                cause=cause,
            )

    def _carry_out(self, before: Shelf, moves: list[Move]) -> None:
        for move in moves:
            item = self.shelf.items.get(move.state) or before.items.get(move.state)
            self._move(move, item.session if item else None)
        self._note()

    def _move(self, move: Move, session: str | None) -> None:
        """Move bytes between tiers; what cannot be moved is gone, and told so."""
        ref, made = self._refs.pop(move.state, None), None
        if ref is None:  # lost on the way of a move before this one
            return
        if move.to_tier is not None and move.to_tier in self.transports:
            with suppress(*LOST):
                made = copy_bytes(self.transports[move.from_tier], ref, self.transports[move.to_tier])
                self._refs[move.state] = made
        if made is None:
            self.shelf = self.shelf.drop(move.state)
        with suppress(*LOST):
            self.transports[move.from_tier].release(ref)
        self._tell(
            KvEvicted(
                state=move.state,
                worker=self._name,
                from_tier=move.from_tier,
                to_tier=move.to_tier if made else None,
                size=move.size,
                reason="budget",
                ref=made,
                session=session,
            )
        )

    def _note(self) -> None:
        if self._inventory is None:
            return
        stored = [
            Line(
                state=item.state,
                tier=item.tier,
                size=item.size,
                ref=self._refs[item.state],
                session=item.session,
                tokens=item.tokens,
                pinned=item.pinned,
            )
            for item in self.shelf.items.values()
            if item.state in self._refs
        ]
        with suppress(OSError):  # a full disk: what is written the next time has all of it
            self._inventory.note([*stored, *self._held.values()])


def copy_bytes(source: Transport, ref: KvRef, target: Transport) -> KvRef:
    """Copy the bytes of a reference into another transport, and return where they are there."""
    with source.open(ref) as mapped, target.reserve(ref.size) as room:
        room.buffer[: ref.size] = mapped.buffer
        mapped.check()
        return room.commit(Meta(checksum=ref.checksum, size=ref.size, details=dict(ref.details)))
