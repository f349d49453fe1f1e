# Run a program that exists only in memory.
# This is tried without the sandbox too: there it does harm.
import ctypes
import os


def run(c):
    script = f"#!/bin/sh\ncp {c['secret']} {c['marker']}\n".encode()
    libc = ctypes.CDLL(None)
    handle = libc.memfd_create(b"x", 0)
    libc.write(handle, script, len(script))
    argv = (ctypes.c_char_p * 2)(b"x", None)
    libc.fexecve(handle, argv, (ctypes.c_char_p * 1)(None))
    return libc.syscall(322, handle, b"", argv, None, 0x1000)
