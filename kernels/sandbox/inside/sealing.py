"""The layers, put on one after another; each says whether it holds, and if not, why.

`outer` runs once in the process that forks the workers: namespaces, and a root with nothing in it. `inner` runs in each
worker before it hears what to do: limits, no capabilities, no new privileges, Landlock, seccomp.
"""

import posix
import resource  # `wait4` of the zygote imports it as well, when it could not any more

from . import kernel

TYPE_CHECKING = False  # the real one would import `typing`, which takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
NOBODY = 65534

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _CAPBSET_DROP, _SET_SECUREBITS = 1, 4, 22, 24, 28
_SET_NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 38, 47, 4
_SECUREBITS_ALL_LOCKED = 0b11101111  # no root, no fixup, no raising of ambient capabilities; keep-caps off; all locked
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 32, 16384, 1 << 18
_MNT_DETACH = 2
_CAPABILITY_VERSION_3 = 0x20080522

# RLIMIT_* numbers of Linux: equal on x86_64 and aarch64.
_CPU, _FSIZE, _CORE, _NPROC, _NOFILE, _MEMLOCK, _AS, _SIGPENDING, _MSGQUEUE, _NICE, _RTPRIO = (
    0,
    1,
    4,
    6,
    7,
    8,
    9,
    11,
    12,
    13,
    14,
)

Held = dict[str, str]  # layer -> "" where it holds, else the reason why not


def outer() -> Held:
    """Leave root, enter namespaces, and stand in an empty root; called once, before there is anything hostile."""
    held: Held = {}
    _leave_root()
    uid, gid = posix.getuid(), posix.getgid()

    def user() -> None:
        kernel.call(kernel.PRCTL, _SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self/uid_map belongs to the host's root
        kernel.call(kernel.UNSHARE, NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")

    _try(held, "user_ns", user)
    spaces = {"net_ns": NEWNET, "ipc_ns": NEWIPC, "uts_ns": NEWUTS, "mount_ns": NEWNS, "cgroup_ns": NEWCGROUP}
    for name, flag in spaces.items():
        _try(held, name, lambda flag=flag: kernel.call(kernel.UNSHARE, flag))  # type: ignore[misc]
    if not held["uts_ns"]:
        kernel.call(kernel.SETHOSTNAME, b"sandbox", 7)
    if held["mount_ns"]:
        held["empty_root"] = held["mount_ns"]
    else:
        _try(held, "empty_root", _empty_root)
    _quietly(_drop_bounding)
    kernel.call(kernel.PRCTL, _SET_DUMPABLE, 0, 0, 0, 0)
    return held


def inner(channel: int, program: bytes, limits: dict[str, int]) -> Held:
    """Seal the calling process for good; `channel` becomes descriptor 3, and the only one beside three to /dev/null."""
    held: Held = {}

    def descriptors() -> None:
        if channel != 3:
            posix.dup2(channel, 3, False)
        posix.closerange(4, 1 << 20)

    _try(held, "closed_descriptors", descriptors)
    _try(held, "no_capabilities", _drop_capabilities)
    kernel.call(kernel.PRCTL, _SET_PDEATHSIG, 9, 0, 0, 0)  # after the capabilities: to lose some would clear it
    _try(held, "no_new_privs", lambda: kernel.call(kernel.PRCTL, _SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _try(held, "landlock", _landlock)
    _try(held, "rlimits", lambda: _limit(limits))  # after Landlock, which opens a descriptor for a moment

    def seccomp() -> None:
        address, keep = kernel.memory(program)
        count = len(program) // 8
        head = count.to_bytes(2, _ORDER) + bytes(6) + address.to_bytes(8, _ORDER)
        kernel.call(kernel.PRCTL, _SET_SECCOMP, 2, head, 0, 0)
        del keep

    _try(held, "seccomp", seccomp)
    return held


_ORDER: "Literal['little']" = "little"  # both machines that we know


def _try(held: Held, name: str, action: "Callable[[], object]") -> None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever is in its way, the layer does not hold
        held[name] = f"{getattr(error, 'strerror', None) or error}"
    else:
        held[name] = ""


def _quietly(action: "Callable[[], object]") -> None:
    try:
        action()
    except OSError:
        return


def _write(path: str, text: str) -> None:
    handle = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(handle, text.encode())
    finally:
        posix.close(handle)


def _leave_root() -> None:
    """Become nobody where we are root: what a namespace maps is then no owner of anything outside."""
    if posix.geteuid() != 0:
        return

    def leave() -> None:
        posix.setgroups([])
        posix.setresgid(NOBODY, NOBODY, NOBODY)
        posix.setresuid(NOBODY, NOBODY, NOBODY)

    _quietly(leave)


def _empty_root() -> None:
    """Make an empty, read-only file system the root, and let go of every other."""
    kernel.call(kernel.MOUNT, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    place = next(path for path in (b"/tmp", b"/run", b"/proc", b"/dev", b"/var", b"/usr") if _is_folder(path))
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    kernel.call(kernel.MOUNT, b"none", place, b"tmpfs", flags, b"size=4k,nr_inodes=2,mode=0555")
    posix.chdir(place)
    kernel.call(kernel.PIVOT_ROOT, b".", b".")
    kernel.call(kernel.UMOUNT, b".", _MNT_DETACH)
    posix.chdir("/")
    kernel.call(kernel.MOUNT, b"none", b"/", None, flags | _MS_REMOUNT | _MS_RDONLY, None)


def _is_folder(path: bytes) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def _drop_bounding() -> None:
    kernel.call(kernel.PRCTL, _CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    kernel.call(kernel.PRCTL, _SET_SECUREBITS, _SECUREBITS_ALL_LOCKED, 0, 0, 0)
    for capability in range(64):
        kernel.call(kernel.PRCTL, _CAPBSET_DROP, capability, 0, 0, 0)  # the first unknown one ends it


def _drop_capabilities() -> None:
    head = _CAPABILITY_VERSION_3.to_bytes(4, _ORDER) + bytes(4)
    kernel.call(kernel.CAPSET, head, bytes(24))


def _limit(limits: dict[str, int]) -> None:
    wanted = {
        _CPU: limits["cpu_seconds"], _AS: limits["memory_bytes"], _FSIZE: 0, _CORE: 0, _NPROC: 0, _NOFILE: 4,
        _MEMLOCK: 0, _SIGPENDING: 16, _MSGQUEUE: 0, _NICE: 0, _RTPRIO: 0,
    }  # fmt: skip
    for which, most in wanted.items():
        _, allowed = resource.getrlimit(which)
        bound = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(which, (bound, bound))


def _landlock() -> None:
    """Deny every file, every TCP port, and abstract sockets and signals out of here, as far as this kernel knows them."""
    abi = kernel.call(kernel.LANDLOCK_CREATE, 0, 0, 1)
    files = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    words = [files] + ([3] if abi >= 4 else []) + ([3] if abi >= 6 else [])
    ruleset = kernel.call(
        kernel.LANDLOCK_CREATE, b"".join(word.to_bytes(8, _ORDER) for word in words), 8 * len(words), 0
    )
    try:
        kernel.call(kernel.LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        posix.close(ruleset)
