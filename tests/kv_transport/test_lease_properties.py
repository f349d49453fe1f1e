"""Whatever happens in whatever order, bytes are there exactly as long as somebody holds them."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from morphogen.kernels.kv.leases import (
    KEPT,
    OFFER,
    Holder,
    Lease,
    LeaseEnded,
    LeaseFolder,
    Segment,
    ending,
    plan,
    read_token,
)

SECOND = 1_000_000_000
holders = st.builds(
    Holder,
    st.integers(1, 2**22),
    st.integers(0, 2**50),
    st.text("0123456789abcdef", min_size=8, max_size=8),
    st.integers(0, 2**40),
)
leases = st.builds(
    Lease,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.one_of(holders, st.just(OFFER), st.just(KEPT)),
)
segments = st.builds(
    Segment,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.sampled_from(["writing", "ready", "empty"]),
    st.integers(0, 100),
    st.lists(st.tuples(leases, st.integers(0, 20)), max_size=4).map(tuple),
    st.lists(st.just("other"), max_size=1).map(tuple),
)


@given(leases)
def test_a_lease_reads_back_from_its_token(lease: Lease) -> None:
    assert read_token(lease.segment, lease.token) == lease


@given(st.text(), st.text())
def test_no_text_names_a_file_outside_its_folder(segment: str, token: str) -> None:
    found = read_token(segment, token)
    assert found is None or (found.segment == segment and found.token == token and "/" not in segment + token)


@given(st.lists(segments, max_size=6), st.integers(0, 20), st.sampled_from([True, False, None]))
def test_a_plan_removes_exactly_what_nobody_holds(found: list[Segment], now: int, lives: bool | None) -> None:
    every = [lease for segment in found for lease, _ in segment.leases]
    assume(len(set(every)) == len(every))  # each is a file of its own

    def live(holder: Holder) -> bool | None:
        return lives

    todo = plan(found, now, live)
    for segment in found:
        held = [lease for lease, until in segment.leases if ending(lease, until, now, live) is None]
        assert (segment in todo.remove) == (not held and not segment.foreign)
    dropped = [over.lease for over in todo.ended]
    assert not any(lease.holder == KEPT for lease in dropped)
    assert all(now >= until or lives is False for s in found for lease, until in s.leases if lease in dropped)


@given(leases, st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.sampled_from([True, False, None]))
def test_what_has_ended_does_not_begin_again(
    lease: Lease, until: int, now: int, later: int, lives: bool | None
) -> None:
    if ending(lease, until, now, lambda holder: lives) is not None:
        assert ending(lease, until, now + later, lambda holder: lives) is not None


class Processes(RuleBasedStateMachine):
    """Processes that write, hand out, renew, release, die and reap; beside the folder, a plain account of who holds what."""

    tokens: Bundle[Lease] = Bundle("tokens")
    parts: Bundle[Lease] = Bundle("parts")

    @initialize()
    def begin(self) -> None:
        shm = Path("/dev/shm")
        self.above = Path(tempfile.mkdtemp(prefix="morphogen-test-", dir=shm if shm.is_dir() else None))
        self.folder = LeaseFolder(self.above / "kv", liveness=lambda holder: holder.start not in self.killed)
        self.killed: set[int] = set()
        self.held: dict[str, set[str]] = {}  # segment -> tokens of the live leases on it
        self.of: dict[str, Lease] = {}

    def teardown(self) -> None:
        if hasattr(self, "above"):
            shutil.rmtree(self.above)

    def _dead(self, lease: Lease) -> bool:
        """Say whether the holder was killed: the dead do nothing."""
        return isinstance(lease.holder, Holder) and lease.holder.start in self.killed

    def _distinct(self, lease: Lease) -> Lease:
        """Give each lease a process of its own, so that one can be killed without the others."""
        if isinstance(lease.holder, str):
            self.of[lease.token] = lease
            return lease
        own = msgspec.structs.replace(lease.holder, start=10**9 + len(self.of))
        other = msgspec.structs.replace(lease, holder=own)
        place = self.folder.path / lease.segment
        os.rename(place / f"lease.{lease.token}", place / f"lease.{other.token}")
        self.of[other.token] = other
        return other

    @rule(target=parts, size=st.integers(1, 64))
    def create(self, size: int) -> Lease:
        lease, handle = self.folder.create(60.0)
        os.write(handle, b"x" * size)
        os.close(handle)
        lease = self._distinct(lease)
        self.held[lease.segment] = {lease.token}
        return lease

    @rule(target=tokens, lease=consumes(parts))
    def commit(self, lease: Lease) -> Lease:
        if self._dead(lease):
            return lease
        if os.path.exists(self.folder._file(lease)):
            assert self.folder.commit(lease) == lease
        else:
            try:
                self.folder.commit(lease)
            except LeaseEnded:
                return lease
            raise AssertionError("what was reaped was committed")
        return lease

    @rule(target=tokens, lease=tokens, offer=st.booleans())
    def grant(self, lease: Lease, offer: bool) -> Lease:
        live = lease.token in self.held.get(lease.segment, ())
        try:
            given = self._distinct(self.folder.grant(lease, 60.0, offer=offer))
        except LeaseEnded:
            assert not live
            return lease
        assert live
        self.held[lease.segment].add(given.token)
        return given

    @rule(lease=tokens)
    def release(self, lease: Lease) -> None:
        there = os.path.exists(self.folder._file(lease))
        told = self.folder.release(lease)
        self.held.get(lease.segment, set()).discard(lease.token)
        if not there:
            assert told == "already"
        else:
            assert told == ("held" if self.held[lease.segment] else "freed")
        assert self.folder.release(lease) == "already"

    @rule(lease=st.one_of(tokens, parts))
    def kill(self, lease: Lease) -> None:
        if isinstance(lease.holder, Holder):
            self.killed.add(lease.holder.start)
            self.held.get(lease.segment, set()).discard(lease.token)

    @rule(lease=tokens)
    def expire(self, lease: Lease) -> None:
        path = Path(self.folder._file(lease))
        if path.exists():
            os.utime(path, ns=(0, 0))
            self.held.get(lease.segment, set()).discard(lease.token)

    @rule(lease=tokens)
    def renew(self, lease: Lease) -> None:
        if self._dead(lease):
            return
        try:
            self.folder.renew(lease, 60.0)
        except LeaseEnded:
            assert lease.token not in self.held.get(lease.segment, ())
        else:
            self.held.setdefault(lease.segment, set()).add(lease.token)

    @rule(lease=tokens)
    def recycle(self, lease: Lease) -> None:
        if self._dead(lease):
            return
        alone = self.held.get(lease.segment, set()) <= {lease.token}  # it may have run out, unseen by any reaper
        fresh = self.folder.recycle(lease, 60.0)
        if fresh is not None:
            assert alone
            fresh = self._distinct(fresh)
            self.held.pop(lease.segment, None)
            self.held[fresh.segment] = {fresh.token}

    @rule(ahead=st.sampled_from([0, 0, 0, 3600 * SECOND]))
    def reap(self, ahead: int) -> None:
        self.folder.reap(time.time_ns() + ahead)
        if ahead:
            self.held = {name: set() for name in self.held}

    @invariant()
    def what_is_held_is_there(self) -> None:
        if hasattr(self, "held"):
            there = {segment.ident: segment for segment in self.folder.segments()}
            for name, tokens in self.held.items():
                assert not tokens or there[name].state in ("ready", "writing")
                for token in tokens:
                    assert self.folder.holds(self.of[token])

    @rule()
    def reap_and_count(self) -> None:
        self.folder.reap()
        assert {segment.ident for segment in self.folder.segments()} == {name for name, t in self.held.items() if t}


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
