"""A host that may open no more files: an error of the sandbox in one line, and a sandbox that works again after."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, resource, sys, threading, time
from morphogen.kernels.sandbox import *

TEXT = "def run():\\n    return 1\\n"
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
told = set()
for warm in (False, True):
    for spare in range(12):
        sandbox = Sandbox(pool=3, own_interpreter=sys.argv[1] == "own")
        if warm:
            sandbox.run(TEXT)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + spare, hard))
        for _ in range(5):
            try:
                told.add(f"value {sandbox.run(TEXT).value}")
            except SandboxBroken as broken:
                told.add("no files" if "Too many open files" in str(broken) else str(broken))
        time.sleep(0.02)  # the pool is filled beside it
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert sandbox.run(TEXT).value == 1
        sandbox.close()
print(sorted(told))
"""


@pytest.mark.parametrize("way", ["pool", "own"])
def test_a_host_without_descriptors_is_told_so_and_goes_on_when_it_has_some(way: str) -> None:
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, way], capture_output=True, text=True, timeout=120, check=False
    )

    assert (told.stdout, told.stderr) == ("['no files', 'value 1']\n", "")
