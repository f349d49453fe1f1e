"""The child that measures with a Python function: loads it once, then calls it for each configuration.

Run as a program, by its path: it imports nothing of Morphogen, so that the measured function has the process to itself. Messages
are JSON behind a length of four bytes, on what was standard input and output; what the function prints goes to standard error.
"""

import ctypes
import importlib
import json
import os
import signal
import struct
import sys
import time
import traceback
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")


def send(pipe: BinaryIO, message: Any) -> None:
    """Write one message."""
    data = json.dumps(message, default=_plain).encode()
    pipe.write(LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Read one message; None at the end."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return json.loads(pipe.read(LENGTH.unpack(head)[0]))


def main() -> None:
    """Load the function that the first message names, then call it until the pipe ends."""
    answers = os.fdopen(os.dup(1), "wb")
    questions = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    _die_with_parent()
    first = receive(questions)
    sys.path[:0] = first["path"]
    try:
        function = getattr(importlib.import_module(first["module"]), first["function"])
    except BaseException as error:  # noqa: BLE001  whatever a foreign module does on import is told, not passed on
        send(answers, {"error": _told(error)})
        return
    if not callable(function):
        send(answers, {"error": f"{first['module']}:{first['function']} is not a function"})
        return
    send(answers, {"ready": os.getpid()})
    while (asked := receive(questions)) is not None:
        began = time.perf_counter()
        try:
            result = function(**asked)
            answer = {"result": result}
        except Exception as error:  # noqa: BLE001  a function that raises is a failed trial
            answer = {"error": _told(error)}
        answer["seconds"] = time.perf_counter() - began
        try:
            send(answers, answer)
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            send(answers, {"error": f"what it returned is no plain data: {error}", "seconds": answer["seconds"]})


def _told(error: BaseException) -> str:
    """Return an exception as one line, with the place in the user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    where = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else ""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # noqa: BLE001  an exception of the user's, whose own text may fail
        text = ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _plain(value: Any) -> Any:
    """Return arrays and numbers of numpy as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _die_with_parent() -> None:
    """Ask Linux to end this process with its parent; elsewhere the end of the pipe does, after the call that runs."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main()
