"""The filter, run by an interpreter of classic BPF: what it answers to every call, on both processors."""

import re
import struct
from pathlib import Path

import pytest

from morphogen.kernels.sandbox import Unsupported
from morphogen.kernels.sandbox.seccomp import ALLOW, KILL, REFUSE, program
from morphogen.kernels.sandbox.syscalls import AARCH64, AUDIT_ARCH, X86_64, table

MACHINES = ["x86_64", "aarch64"]


def answer(code: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """Run a filter over one system call, as the kernel does."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    steps = list(struct.iter_unpack("<HBBI", code))
    at = accumulator = 0
    while True:
        operation, yes, no, k = steps[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif operation == 0x06:
            return int(k)
        else:
            held = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
            at += yes if held else no


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_is_refused_but_those_of_the_table(machine: str) -> None:
    code, allowed = program(machine), set(table(machine).values())

    for number in range(1024):
        assert answer(code, number, AUDIT_ARCH[machine]) == (ALLOW if number in allowed else REFUSE)


@pytest.mark.parametrize("machine", MACHINES)
def test_memory_cannot_be_made_executable(machine: str) -> None:
    code, calls = program(machine), table(machine)

    for name in ("mmap", "mprotect"):
        for protection in range(8):
            expected = REFUSE if protection & 4 else ALLOW
            assert answer(code, calls[name], AUDIT_ARCH[machine], (0, 4096, protection)) == expected
            assert answer(code, calls[name], AUDIT_ARCH[machine], (0, 4096, protection | 1 << 33)) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_and_x32_kill(machine: str) -> None:
    code = program(machine)

    for arch in (0x40000003, 0x40000028, *(AUDIT_ARCH[other] for other in MACHINES if other != machine)):
        assert answer(code, 0, arch) == KILL
    assert answer(code, 0x40000000, AUDIT_ARCH[machine]) == KILL
    assert answer(code, 0xFFFFFFFF, AUDIT_ARCH[machine]) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_is_one_that_the_kernel_takes(machine: str) -> None:
    steps = list(struct.iter_unpack("<HBBI", program(machine)))

    assert len(steps) < 4096
    for at, (operation, yes, no, _) in enumerate(steps):
        if operation in (0x15, 0x35, 0x45):
            assert at + 1 + max(yes, no) < len(steps)
    assert steps[-1][0] == 0x06


DANGEROUS = ["open", "openat", "openat2", "creat", "execve", "execveat", "fork", "vfork", "clone", "clone3", "socket", "socketpair", "connect", "bind", "sendto", "sendmsg", "ptrace", "kill", "tgkill", "tkill", "rt_sigqueueinfo", "pidfd_open", "pidfd_send_signal", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "bpf", "perf_event_open", "io_uring_setup", "io_uring_enter", "keyctl", "add_key", "request_key", "memfd_create", "userfaultfd", "init_module", "finit_module", "kexec_load", "reboot", "prctl", "seccomp", "ioctl", "fcntl", "dup", "dup2", "dup3", "pipe", "pipe2", "setuid", "capset", "shmget", "shmat", "msgget", "semget", "mq_open", "unlink", "rename", "link", "symlink", "mkdir", "truncate", "ftruncate", "chmod", "utimensat", "stat", "newfstatat", "statx", "prlimit64", "setrlimit", "setsid", "setpgid", "sched_setscheduler", "setpriority", "setitimer", "timer_create", "pkey_mprotect", "personality", "splice", "name_to_handle_at", "open_by_handle_at", "fsopen", "fsmount", "move_mount", "open_tree", "landlock_create_ruleset", "modify_ldt", "arch_prctl"]  # fmt: skip


def test_no_dangerous_call_is_in_a_table() -> None:
    for calls in (X86_64, AARCH64):
        assert not set(calls) & set(DANGEROUS)


@pytest.mark.parametrize(
    ("calls", "header"),
    [(X86_64, "x86_64-linux-gnu/asm/unistd_64.h"), (AARCH64, "asm-generic/unistd.h")],
    ids=MACHINES,
)
def test_the_numbers_are_those_of_the_kernels_headers(calls: dict[str, int], header: str) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"no {path} on this machine")
    numbers = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    }

    assert calls == {name: numbers[name] for name in calls}


def test_another_processor_is_refused() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        program("riscv64")
