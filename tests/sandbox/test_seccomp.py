"""The filter, run by an interpreter of classic BPF: what it answers to every call, on both processors."""

import platform
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from morphogen.kernels.sandbox import Sandbox, Unsupported
from morphogen.kernels.sandbox.seccomp import ALLOW, KILL, REFUSE, program
from morphogen.kernels.sandbox.syscalls import AARCH64, AUDIT_ARCH, X86_64, table

from .conftest import lacking

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

    for number in range(1024):  # argument 1 says that a futex is private
        assert answer(code, number, AUDIT_ARCH[machine], (0, 128)) == (ALLOW if number in allowed else REFUSE)


@pytest.mark.parametrize("machine", MACHINES)
def test_memory_cannot_be_made_executable(machine: str) -> None:
    code, calls = program(machine), table(machine)

    for name in ("mmap", "mprotect"):
        for protection in range(8):
            expected = REFUSE if protection & 4 else ALLOW
            assert answer(code, calls[name], AUDIT_ARCH[machine], (0, 4096, protection)) == expected
            assert answer(code, calls[name], AUDIT_ARCH[machine], (0, 4096, protection | 1 << 33)) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_a_futex_is_of_one_process_alone(machine: str) -> None:
    code, futex = program(machine), table(machine)["futex"]

    for operation in range(256):
        expected = ALLOW if operation & 128 else REFUSE
        assert answer(code, futex, AUDIT_ARCH[machine], (0, operation)) == expected
        assert answer(code, futex, AUDIT_ARCH[machine], (0, operation | 128 << 32)) == expected


WAIT_OR_WAKE = """
import ctypes, time

libc = ctypes.CDLL(None, use_errno=True)


class Span(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def run(number, wake):
    place = ctypes.c_void_p(ctypes.cast(libc.getpid, ctypes.c_void_p).value & ~3)  # a page that all workers share
    if not wake:
        held = ctypes.c_int.from_address(place.value).value
        return libc.syscall(number, place, 0, held, ctypes.byref(Span(2, 0)), None, 0)
    woken = 0
    end = time.monotonic() + 1
    while woken < 1 and time.monotonic() < end:
        woken = libc.syscall(number, place, 1, 9, None, None, 0)
    return woken
"""


def test_two_calls_at_once_cannot_wake_each_other() -> None:
    if lacking():
        pytest.skip(f"this machine has not what the sandbox requires: {lacking()}")
    number = table(platform.machine())["futex"]
    with Sandbox(pool=2, modules=["ctypes", "time"]) as sandbox, ThreadPoolExecutor(2) as both:
        calls = both.map(lambda wake: sandbox.run(WAIT_OR_WAKE, {"number": number, "wake": wake}), (False, True))
        told = [call.value for call in calls]

    assert told == [-1, -1]


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
