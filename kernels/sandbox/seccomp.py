"""The seccomp filter as classic BPF: an allow-list by number, no executable memory, no futex that two processes share.

Pure: bytes for the kernel. A futex on a page of the C library would let two workers that run at once wake each other.
A refused call fails with EPERM, so an honest tool gets a PermissionError that says so. A call of another architecture
(32-bit entry, x32) kills the process: nothing honest makes one. See seccomp(2), linux/filter.h, linux/seccomp.h.
"""

import struct

from .syscalls import AUDIT_ARCH, table

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG1, _ARG2 = 0, 4, 24, 32  # offsets in struct seccomp_data; the low halves of arguments (little-endian)
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000
_X32, _PROT_EXEC, _FUTEX_PRIVATE = 0x40000000, 4, 128


def program(machine: str) -> bytes:
    """Return the filter of a processor: 8 bytes per instruction, little-endian."""
    calls = table(machine)
    guarded = [calls["mmap"], calls["mprotect"], calls["futex"]]
    plain = sorted(set(calls.values()) - set(guarded))
    last = len(plain) - 1
    code = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NR),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, KILL),
        (_JUMP_EQUAL, len(plain) + 4, 0, guarded[0]),
        (_JUMP_EQUAL, len(plain) + 3, 0, guarded[1]),
        (_JUMP_EQUAL, len(plain) + 6, 0, guarded[2]),
        *((_JUMP_EQUAL, last - at + 1, 0, number) for at, number in enumerate(plain)),
        (_RETURN, 0, 0, REFUSE),
        (_RETURN, 0, 0, ALLOW),
        (_LOAD, 0, 0, _ARG2),
        (_JUMP_SET, 0, 1, _PROT_EXEC),
        (_RETURN, 0, 0, REFUSE),
        (_RETURN, 0, 0, ALLOW),
        (_LOAD, 0, 0, _ARG1),
        (_JUMP_SET, 1, 0, _FUTEX_PRIVATE),
        (_RETURN, 0, 0, REFUSE),
        (_RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in code)
