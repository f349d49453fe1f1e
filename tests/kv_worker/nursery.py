"""Processes that begin as copies of one that has imported everything: each would take a second to come so far by itself.

`morphogen serve llama` as people start it is what tests/kv_cli and tests/kv_examples start.
"""

import multiprocessing
import multiprocessing.process
import os
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

import pytest

_IMPORTED = [
    "pytest",  # each process looks at the program that asked for it
    "llama_cpp",
    "pydantic.type_adapter",
    "morphogen.bus.loop",
    "morphogen.cli.verbs",
    "morphogen.consumers.kv.worker",
]
_BEGINS = """
import os, sys
os.environ.clear()
os.environ.update(environment)
for number in (1, 2):
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), number)
sys.argv[1:] = arguments
"""


def born(
    program: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] = os.environ
) -> multiprocessing.process.BaseProcess:
    """Start a program in Python in a process of its own, with these arguments; what it says goes to `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # read as the libraries are loaded
        forkserver.ensure_running()
    log.touch()
    known = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
    process = context.Process(target=exec, args=(_BEGINS + program, known), daemon=True)
    process.start()
    return process
