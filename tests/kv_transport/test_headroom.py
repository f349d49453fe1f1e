"""Nobody is killed for memory that was asked for: what is there is known before anything is taken."""

from pathlib import Path

import pytest

from morphogen.kernels.kv.transport import HostMemory, NoRoom, SharedMemory
from morphogen.kernels.kv.transport import headroom as module
from morphogen.kernels.kv.transport.headroom import headroom


def machine(tmp_path: Path, group: str = "", **files: str) -> tuple[Path, Path]:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:  16000 kB\nMemFree: 10 kB\nMemAvailable:  9000 kB\n")
    (proc / "self" / "cgroup").write_text(group)
    for name, text in files.items():
        path = groups / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, groups


def test_a_part_of_the_machine_is_left_to_others(tmp_path: Path) -> None:
    assert headroom(*machine(tmp_path)) == (9000 - 1000) * 1024


def test_the_limit_of_a_control_group_above_counts(tmp_path: Path) -> None:
    proc, groups = machine(
        tmp_path, "0::/a/b\n", a__memory_dot_max="5000", a__memory_dot_current="2000", a__b__memory_dot_max="max"
    )
    assert headroom(proc, groups) == 3000


def test_the_older_layout_of_control_groups_is_read(tmp_path: Path) -> None:
    proc, groups = machine(
        tmp_path,
        "4:cpu:/x\n3:memory:/job\n",
        memory__job__memory_dot_limit_in_bytes="7000",
        memory__job__memory_dot_usage_in_bytes="9000",
    )
    assert headroom(proc, groups) == 0


def test_a_machine_that_does_not_tell_is_believed(tmp_path: Path) -> None:
    assert headroom(tmp_path / "none", tmp_path) is None


def test_more_than_there_is_is_refused_before_it_is_taken(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SharedMemory(shm)
    for name in ("segments", "device_memory", "same_process"):
        monkeypatch.setattr(f"morphogen.kernels.kv.transport.{name}.headroom", lambda: 1000)
    assert module.headroom is headroom
    with pytest.raises(NoRoom, match="1,001 bytes"):
        memory.reserve(1001)
    with pytest.raises(NoRoom, match="1,000 may be taken"):
        HostMemory().allocate(1001)
    memory.reserve(1000).abort()
    memory.close()
