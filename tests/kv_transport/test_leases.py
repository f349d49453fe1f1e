"""Leases as files: who holds bytes, until when, and what every race with a reaper comes to."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from morphogen.kernels.kv.leases import (
    Holder,
    Keeper,
    Lease,
    LeaseEnded,
    LeaseError,
    LeaseFolder,
    alive,
    me,
    read_token,
    reap,
    started,
)
from morphogen.kernels.kv.leases import lock as locks

HOUR = 3_600_000_000_000


def written(folder: LeaseFolder, data: bytes = b"state", ttl: float = 30.0) -> Lease:
    lease, handle = folder.create(ttl)
    os.write(handle, data)
    os.close(handle)
    return lease


def names(folder: LeaseFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_bytes_live_as_long_as_the_last_lease_on_them(shm: Path) -> None:
    folder = LeaseFolder(shm)
    first = folder.commit(written(folder))
    second = folder.grant(first, 30.0)
    assert folder.release(first) == "held"
    assert folder.bytes_of(first.segment).read_bytes() == b"state"
    assert folder.release(second) == "freed"
    assert names(folder) == ["lock"]


def test_a_second_release_does_nothing_and_says_so(shm: Path) -> None:
    folder = LeaseFolder(shm)
    first = folder.commit(written(folder))
    second = folder.grant(first, 30.0)
    assert [folder.release(first), folder.release(first)] == ["held", "already"]
    assert folder.bytes_of(first.segment).exists()  # the other holder's count was not touched
    assert [folder.release(second), folder.release(second), folder.release(first)] == ["freed", "already", "already"]


def test_an_ended_lease_opens_nothing_whether_a_reaper_came_by_or_not(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder, ttl=0.02))
    time.sleep(0.03)
    with pytest.raises(LeaseEnded, match="its time ran out"):
        folder.grant(lease, 1.0)
    folder.reap()
    with pytest.raises(LeaseEnded, match="released, or reaped"):
        folder.grant(lease, 1.0)


def test_a_lease_is_renewed_until_a_reaper_has_acted_upon_its_end(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder, ttl=0.02))
    time.sleep(0.03)
    assert not folder.holds(lease)
    assert folder.renew(lease, 30.0) > time.time_ns()
    assert folder.holds(lease)
    assert folder.reap(time.time_ns() + HOUR).removed[0].ident == lease.segment
    with pytest.raises(LeaseEnded):
        folder.renew(lease, 30.0)


def test_renewing_never_shortens_a_lease(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder, ttl=100.0))
    before = folder.renew(lease, 1.0)
    assert before > time.time_ns() + 90_000_000_000


def test_a_lease_renewed_while_a_reaper_runs_is_either_kept_or_told_as_ended(shm: Path) -> None:
    """One of the two comes first, under the lock; there is no third outcome, in which bytes go and the renewal was told."""
    folder = LeaseFolder(shm)
    for _ in range(60):
        lease = folder.commit(written(folder, ttl=0.0))
        barrier = threading.Barrier(2)
        told: list[bool] = []

        def renew(lease: Lease = lease, barrier: threading.Barrier = barrier, told: list[bool] = told) -> None:
            barrier.wait()
            try:
                folder.renew(lease, 60.0)
            except LeaseEnded:
                told.append(False)
            else:
                told.append(True)

        thread = threading.Thread(target=renew)
        thread.start()
        barrier.wait()
        folder.reap()
        thread.join()
        assert told == [folder.bytes_of(lease.segment).exists()]
        folder.release(lease)


def test_bytes_that_are_being_written_are_nobody_elses_and_stay_while_the_writer_lives(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lease = written(folder)
    assert folder.reap().removed == ()
    with pytest.raises(LeaseEnded, match="not committed"):
        folder.grant(lease, 1.0)
    folder.commit(lease)
    assert folder.reap().kept == 1


def test_a_writer_that_slept_over_its_lease_is_told_when_it_commits(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lease = written(folder, ttl=0.0)
    assert len(folder.reap(time.time_ns() + 1).removed) == 1
    with pytest.raises(LeaseEnded):
        folder.commit(lease)
    assert names(folder) == ["lock"]


def test_what_is_left_half_made_belongs_to_nobody(shm: Path) -> None:
    """A folder without a lease is what a process leaves that was killed between two steps of a creation."""
    folder = LeaseFolder(shm)
    (shm / ("a" * 32)).mkdir()
    (shm / ("b" * 32)).mkdir()
    (shm / ("b" * 32) / "bytes").write_bytes(b"x" * 10)
    found = folder.reap()
    assert found.size == 10 and len(found.removed) == 2
    assert names(folder) == ["lock"]


def test_what_lies_in_the_folder_by_accident_is_left_alone(shm: Path) -> None:
    folder = LeaseFolder(shm)
    for name in ("c" * 32, "notes.txt"):
        (shm / name).write_text("mine")
    assert folder.reap().removed == () and folder.segments() == ()
    assert names(folder) == ["c" * 32, "lock", "notes.txt"]


def test_a_file_of_a_later_version_keeps_its_segment(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder, ttl=0.0))
    (shm / lease.segment / "lease.of-another-kind").touch()
    assert folder.reap(time.time_ns() + HOUR).removed == ()
    assert folder.bytes_of(lease.segment).exists()


def test_a_dead_holder_ends_its_lease_at_once(shm: Path) -> None:
    """Also while it is a zombie, whose pid is still listed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder))
    start = started(process.pid)
    assert start is not None
    who = msgspec.structs.replace(me(), pid=process.pid, start=start)
    theirs = Lease(lease.segment, "0" * 16, who)
    path = shm / lease.segment / f"lease.{theirs.token}"
    path.touch()
    os.utime(path, ns=(time.time_ns() + HOUR,) * 2)
    assert folder.holds(theirs)
    process.kill()
    deadline = time.monotonic() + 10
    while started(process.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not folder.holds(theirs)  # and nobody has waited for it yet
    assert folder.release(lease) == "freed"
    process.communicate()


def test_a_pid_that_was_handed_out_again_is_another_process() -> None:
    who = me()
    assert alive(who) is True
    assert alive(msgspec.structs.replace(who, start=who.start + 1)) is False
    assert alive(msgspec.structs.replace(who, boot="00000000")) is False
    assert alive(msgspec.structs.replace(who, space=1)) is None  # only time can tell
    assert alive(Holder(2**22 + 1, 1, who.boot, who.space)) is False


def test_the_name_of_a_process_does_not_confuse_its_start(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to(Path(sys.executable).resolve())
    process = subprocess.Popen([odd, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = started(process.pid)
        assert found is not None and found >= me().start
    finally:
        process.kill()
        process.communicate()


def test_a_holder_that_cannot_be_seen_from_here_holds_until_its_time_is_up(shm: Path) -> None:
    folder = LeaseFolder(shm, liveness=lambda holder: None)
    lease = folder.commit(written(folder))
    assert folder.reap().removed == ()
    assert len(folder.reap(time.time_ns() + HOUR).removed) == 1
    assert not folder.holds(lease)


def test_an_offer_outlives_the_one_who_made_it_but_not_its_time(shm: Path) -> None:
    dead: set[int] = set()
    folder = LeaseFolder(shm, liveness=lambda holder: holder.pid not in dead)
    lease = folder.commit(written(folder))
    offer = folder.grant(lease, 60.0, offer=True)
    dead.add(os.getpid())
    assert folder.reap().kept == 1
    assert not folder.holds(lease) and folder.holds(offer)
    assert len(folder.reap(time.time_ns() + HOUR).removed) == 1


def test_what_is_kept_ends_by_a_release_alone(shm: Path) -> None:
    folder = LeaseFolder(shm, durable=True, liveness=lambda holder: False)
    lease = folder.commit(written(folder))
    assert lease.holder == "kept"
    assert folder.reap(time.time_ns() + 10**18).kept == 1
    assert folder.release(lease) == "freed"


def test_a_recycled_file_gets_another_name_and_nothing_old_opens_it(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder))
    fresh = folder.recycle(lease, 30.0)
    assert fresh is not None and fresh.segment != lease.segment
    assert not folder.holds(lease) and folder.release(lease) == "already"
    assert folder.reap().kept == 1
    again = folder.commit(fresh)
    assert folder.bytes_of(again.segment).read_bytes() == b"state"


@pytest.mark.parametrize("how", ["held", "expired reader", "reader that still looks"])
def test_a_file_that_may_still_be_seen_is_never_recycled(shm: Path, how: str) -> None:
    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder))
    reader = folder.grant(lease, 0.0 if how == "expired reader" else 30.0)
    if how == "expired reader":
        assert len(folder.reap(time.time_ns() + 1).ended) == 1
    elif how == "reader that still looks":
        assert folder.release(reader, seen=True) == "held"
    assert folder.recycle(lease, 30.0) is None
    assert folder.holds(lease)


def test_the_folder_and_its_files_are_for_this_user_alone(shm: Path) -> None:
    old = os.umask(0)
    try:
        folder = LeaseFolder(shm)
        lease = folder.commit(written(folder))
    finally:
        os.umask(old)
    modes = {path.relative_to(shm): stat.S_IMODE(path.stat().st_mode) for path in (shm, *shm.rglob("*"))}
    assert {mode for path, mode in modes.items() if (shm / path).is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if (shm / path).is_file()} == {0o600}
    assert len(modes) == 5 and lease.segment in {path.name for path in modes}


@pytest.mark.parametrize("trap", ["open to others", "a link", "a file"])
def test_a_folder_that_someone_else_may_have_made_is_not_trusted(shm: Path, trap: str, tmp_path: Path) -> None:
    if trap == "open to others":
        shm.mkdir()
        shm.chmod(0o777)
    elif trap == "a link":
        shm.symlink_to(tmp_path)
    else:
        shm.touch()
    with pytest.raises(LeaseError, match=r"chmod 700|no folder") as refused:
        LeaseFolder(shm)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(shm: Path) -> None:
    shm.mkdir(mode=0o700)
    os.chown(shm, 12345, 12345)
    with pytest.raises(LeaseError, match="belongs to user 12345"):
        LeaseFolder(shm)


@pytest.mark.parametrize(
    "token",
    ["", "../../etc/passwd", "0" * 16, f"{'0' * 16}.offer/../..", f"{'0' * 16}.1-2-zzzzzzzz-3", f"{'0' * 16}.kept\n"],
)
def test_a_token_from_outside_names_no_other_file(token: str) -> None:
    assert read_token("a" * 32, token) is None


@pytest.mark.parametrize("segment", ["", "..", "A" * 32, "a" * 31, "a" * 32 + "\n", "../" + "a" * 32])
def test_a_segment_from_outside_names_no_other_folder(segment: str) -> None:
    assert read_token(segment, f"{'0' * 16}.offer") is None


def test_tokens_say_all_of_a_lease() -> None:
    for holder in (me(), "offer", "kept"):
        lease = Lease("a" * 32, "0123456789abcdef", holder)  # type: ignore[arg-type]
        assert read_token(lease.segment, lease.token) == lease
        assert len(f"lease.{lease.token}") < 255


def test_a_folder_that_was_removed_is_made_again(shm: Path) -> None:
    import shutil

    folder = LeaseFolder(shm)
    lease = folder.commit(written(folder))
    shutil.rmtree(shm)
    assert folder.release(lease) == "already"
    assert folder.segments() == ()
    assert folder.holds(folder.commit(written(folder)))


def test_reaping_a_folder_that_is_not_there_makes_none(shm: Path) -> None:
    assert reap(shm).kept == 0
    assert not shm.exists()


def test_a_stopped_process_cannot_hold_the_lock_for_ever(shm: Path, other: type) -> None:
    LeaseFolder(shm)
    held = other(
        "from pathlib import Path\n"
        "from morphogen.kernels.kv.leases.lock import locked\n"
        f"lock = locked(Path({str(shm)!r}))"
    )
    assert held("lock.__enter__()") == "None"
    pid = held.process.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(LeaseError, match=f"held by process {pid}"), locks.locked(shm, timeout=0.1):
        pass
    held.kill()  # the kernel drops what a dead process held
    held.process.wait()
    with locks.locked(shm, timeout=1.0):
        pass


def test_two_threads_never_hold_the_lock_together(shm: Path) -> None:
    LeaseFolder(shm)
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(50):
            with locks.locked(shm):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}


def test_a_keeper_renews_what_it_holds_and_says_what_was_lost(shm: Path) -> None:
    folder = LeaseFolder(shm)
    lost: list[tuple[Lease, str]] = []
    keeper = Keeper(folder, 0.3, lost=lambda lease, why: lost.append((lease, why)))
    kept = folder.commit(written(folder, ttl=0.3))
    gone = folder.commit(written(folder, ttl=0.3))
    try:
        keeper.keep(kept)
        keeper.keep(gone)
        folder.release(gone)
        time.sleep(1.0)
        assert folder.holds(kept)
        assert folder.reap().kept == 1
        assert [lease for lease, _ in lost] == [gone] and "\n" not in lost[0][1]
        keeper.forget(kept)
        time.sleep(0.6)
        assert len(folder.reap().removed) == 1
    finally:
        keeper.close()


def test_a_forked_child_renews_nothing_of_its_parents(shm: Path) -> None:
    folder = LeaseFolder(shm)
    keeper = Keeper(folder, 30.0)
    lease = folder.commit(written(folder))
    keeper.keep(lease)
    child = os.fork()
    if child == 0:
        try:
            keeper.beat()
            mine = folder.commit(written(folder))
            keeper.keep(mine)
            os._exit(0 if isinstance(mine.holder, Holder) and mine.holder.pid == os.getpid() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    found = folder.reap()
    assert [over.why for over in found.ended] == ["owner_died"]
    assert found.kept == 1 and folder.holds(lease)
    keeper.close()
