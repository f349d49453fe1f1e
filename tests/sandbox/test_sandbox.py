"""Calls, their outcomes and limits, the processes behind them, and what is left when they are over: nothing."""

import gc
import math
import multiprocessing
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from morphogen.kernels.sandbox import (
    ALL,
    WITHOUT_NAMESPACES,
    BadCapability,
    BadJob,
    Capabilities,
    Declared,
    LayerMissing,
    Limits,
    Sandbox,
    SandboxBroken,
    SandboxError,
    Unsupported,
)
from morphogen.kernels.sandbox.nursery import Exit

from .canary import descendants, strangers
from .conftest import QUICK
from .spoiling import without

ADD = "def run(a, b=1):\n    return a + b\n"


def test_a_call_returns_its_value_and_what_it_cost(either: Sandbox) -> None:
    outcome = either.run(
        "def run(a):\n    print('hello', a)\n    return {'sum': a + 1, 2: [None, True, 1.5, b'x']}\n", {"a": 1}
    )

    assert outcome.ok
    assert outcome.value == {"sum": 2, 2: [None, True, 1.5, b"x"]}
    assert outcome.printed == "hello 1\n"
    assert not outcome.printed_cut
    assert outcome.killed_by is None
    assert outcome.wall_ns > 0
    assert outcome.rss_bytes > 1 << 20
    assert set(outcome.layers_held) == ALL
    assert outcome.effects == ()


def test_values_cross_as_they_are_or_are_refused_with_what_to_do(pooled: Sandbox) -> None:
    whole: list[Any] = [
        0,
        -1,
        2**64 - 1,
        -(2**63),
        "",
        "é\U0001f600\0",
        b"\0\xff",
        [],
        {},
        {"": [{1: {}}]},
        -0.0,
        math.inf,
    ]
    echo = "def run(x):\n    return x\n"
    outcome = pooled.run(echo, {"x": whole})
    nan = pooled.run("def run():\n    return float('nan')\n")

    assert repr(outcome.value) == repr(whole)
    assert isinstance(nan.value, float)
    assert math.isnan(nan.value)
    for text, words in (
        ("2**64", "64 bits"), ("{1, 2}", "type set"), ("{(1, 2): 3}", "type tuple"), ("object()", "type object"),
        ("'\\ud800'", "surrogates"), ("lambda: 1", "type function"), ("['x' * 1000] * 2000", "1048576 bytes"),
    ):  # fmt: skip
        refused = pooled.run(f"def run():\n    return {text}\n")
        assert refused.error is not None
        assert refused.error.type == "Uncrossable"
        assert words in refused.error.message
    many = pooled.run("def run():\n    return [0] * 250000\n")
    assert many.error is not None
    assert "too many items" in many.error.message


def test_arguments_that_cannot_cross_are_the_callers_mistake(pooled: Sandbox) -> None:
    with pytest.raises(BadJob, match="a value of type set cannot cross"):
        pooled.run(ADD, {"a": {1}})  # type: ignore[dict-item]
    with pytest.raises(BadJob, match="there is no layer 'magic'"):
        Sandbox(layers={"magic"})
    with pytest.raises(BadJob, match="memory_bytes"):
        Limits(memory_bytes=1000)
    with pytest.raises(BadJob, match="wall_seconds"):
        Limits(wall_seconds=0)


@pytest.mark.parametrize(
    ("text", "kind", "words", "line"),
    [
        ("def run():\n    raise ValueError('no')\n", "ValueError", "no", 2),
        ("def f():\n    return 1 / 0\n\n\ndef run():\n    return f()\n", "ZeroDivisionError", "division", 2),
        ("def run(:\n", "SyntaxError", "", 1),
        ("import nothing_of_the_kind\n", "ModuleNotFoundError", "nothing_of_the_kind", 1),
        ("def other():\n    return 1\n", "NameError", "defines no function 'run'", None),
        ("def run(x):\n    return x\n", "TypeError", "missing 1 required", None),
        ("def run():\n    raise KeyboardInterrupt\n", "KeyboardInterrupt", "", 2),
        (
            "def run():\n    raise type('Odd', (BaseException,), {'__str__': lambda self: 1 / 0})\n",
            "Odd",
            "could not be",
            2,
        ),
        ("import math\n\n\ndef run():\n    from math import nothing\n", "ImportError", "cannot import name", 5),
        ("def run():\n    return open('/etc/passwd')\n", "PermissionError", "not permitted", 2),
        ("def run():\n    return [].__init__.__self__.append.x\n", "AttributeError", "x", 2),
        ("X = [" + "[" * 3000, "MemoryError|SyntaxError|RecursionError", "", None),
    ],
)
def test_what_a_tool_raises_is_told_by_type_text_and_line(
    pooled: Sandbox, text: str, kind: str, words: str, line: int | None
) -> None:
    outcome = pooled.run(text)

    assert outcome.error is not None
    assert re.fullmatch(kind, outcome.error.type)
    assert words in outcome.error.message
    if "|" not in kind:
        assert outcome.error.line == line
    assert sys.prefix not in outcome.error.message
    assert sys.base_prefix not in outcome.error.message


@pytest.mark.parametrize(
    ("text", "killed_by"),
    [
        ("def run():\n    while True:\n        pass\n", "wall"),
        ("import time\ndef run():\n    time.sleep(99)\n", "wall"),
        ("import os\ndef run():\n    os.write(3, b'noise' * 99)\n    return 1\n", "protocol"),
        ("import os, time\ndef run():\n    os.close(3)\n    time.sleep(99)\n", None),
        ("import os\ndef run():\n    os._exit(3)\n", None),
        ("import os\ndef run():\n    os.abort()\n", "signal:SIGSEGV"),
    ],
)
def test_a_tool_that_does_not_answer_is_ended_and_told(pooled: Sandbox, text: str, killed_by: str | None) -> None:
    outcome = pooled.run(text)

    assert outcome.error is not None
    assert outcome.killed_by == killed_by


def test_a_signal_without_a_name_is_told_by_its_number(pooled: Sandbox) -> None:
    assert pooled._died_of(Exit(40, 0, 0)) == ("signal:SIG40", "it ended by SIG40")


def test_what_an_answer_cost_is_counted_by_the_kernel(either: Sandbox) -> None:
    text = "def run(n):\n    kept = bytearray(n << 20)\n    total = 0\n    for i in range(10**6):\n        total += i\n    return len(kept)\n"
    small, large = either.run(text, {"n": 0}), either.run(text, {"n": 64})

    assert large.value == 64 << 20
    assert large.rss_bytes - small.rss_bytes > 50 << 20
    assert 5_000_000 < small.cpu_ns < 2_000_000_000


def test_the_processor_limit_ends_a_tool_before_a_long_deadline() -> None:
    with Sandbox(Limits(wall_seconds=30.0, cpu_seconds=1), pool=1) as sandbox:
        outcome = sandbox.run("def run():\n    while True:\n        pass\n")

    assert outcome.killed_by == "cpu"
    assert 500_000_000 < outcome.cpu_ns < 2_500_000_000


def test_what_is_printed_is_kept_up_to_its_cap() -> None:
    with Sandbox(Limits(printed_chars=10), pool=1) as sandbox:
        outcome = sandbox.run("def run():\n    for _ in range(1000):\n        print('x' * 1000)\n    return 1\n")

    assert outcome.value == 1
    assert outcome.printed == "x" * 10
    assert outcome.printed_cut


def test_no_state_passes_from_call_to_call(pooled: Sandbox) -> None:
    leave = """
        import builtins, math, json, sys
        def run():
            seen = getattr(builtins, "left", None), getattr(math, "left", None), "left" in sys.modules, len(json.loads("[1]"))
            builtins.left = math.left = 1
            sys.modules["left"] = math
            json.loads = lambda text: [1, 2, 3]
            return list(seen)
    """
    for _ in range(8):
        assert pooled.run(textwrap.dedent(leave)).value == [None, None, False, 1]


def test_chance_differs_from_call_to_call_though_the_workers_are_copies() -> None:
    with Sandbox(pool=2, modules=("random",)) as sandbox:
        told = {repr(sandbox.run("import random\ndef run():\n    return random.random()\n").value) for _ in range(5)}

    assert len(told) == 5


def test_each_worker_is_sealed_as_the_kernel_itself_reports() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may look into a worker")
    with Sandbox(pool=1) as sandbox:
        sandbox.probe()
        idle(sandbox)
        sandbox._kept.idle[0].layers()  # its process is there sooner than its seal
        worker = sandbox._kept.idle[0]._pid
        told = status(worker)
        spaces = {
            name: os.readlink(f"/proc/{worker}/ns/{name}") for name in ("user", "net", "pid", "mnt", "ipc", "uts")
        }
        handles = sorted(os.listdir(f"/proc/{worker}/fd"), key=int)
        environment = Path(f"/proc/{worker}/environ").read_bytes()

    assert told["Seccomp"] == "2"
    assert told["NoNewPrivs"] == "1"
    assert {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert told["NSpid"].split()[-1] == "1"
    assert "0" not in told["Uid"].split()
    for name, space in spaces.items():
        assert space != os.readlink(f"/proc/self/ns/{name}")
    assert handles == ["0", "1", "2", "3"]
    assert environment.replace(b"LC_CTYPE=C.UTF-8\0", b"") == b""


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


def handles_and_folders() -> tuple[int, set[str], set[int]]:
    gc.collect()
    folders = {name for name in os.listdir(tempfile.gettempdir()) if "sandbox" in name}
    return len(os.listdir("/proc/self/fd")), folders, descendants(os.getpid())


def test_five_hundred_calls_leave_nothing_behind() -> None:
    kinds = [
        ADD, "def run(a):\n    raise ValueError\n", "import os\ndef run(a):\n    os._exit(1)\n",
        "import os\ndef run(a):\n    os.write(3, b'x' * 100)\n", "def run(a):\n    return {1}\n", "def run(a):\n    return 'x' * 10**5\n",
        "import os\ndef run(a):\n    os.fork()\n", "import ctypes\ndef run(a):\n    ctypes.string_at(0)\n",
    ]  # fmt: skip
    with Sandbox(Limits(wall_seconds=5), pool=2, modules=("ctypes",)) as sandbox:
        sandbox.run(ADD, {"a": 1})
        idle(sandbox)
        before = handles_and_folders()
        for number in range(500):
            sandbox.run(kinds[number % len(kinds)], {"a": number})
        idle(sandbox)
        after = handles_and_folders()

    assert after[:2] == before[:2]
    assert len(after[2]) == len(before[2])
    assert gone(strangers()) == set()


def idle(sandbox: Sandbox) -> None:
    """Wait until the pool is full: a worker that is asked for may not be there yet."""
    assert sandbox._kept.nursery is not None
    deadline = time.monotonic() + 20
    while len(descendants(sandbox._kept.nursery._process.pid)) != sandbox.pool and time.monotonic() < deadline:
        time.sleep(0.01)


def test_fresh_calls_and_closed_pools_leave_no_process_and_no_descriptor() -> None:
    before = handles_and_folders()
    for way in ({"own_interpreter": True}, {"pool": 0}, {"pool": 1}, {"pool": 3}):
        with Sandbox(**way) as sandbox:
            for _ in range(3):
                assert sandbox.run(ADD, {"a": 1}).value == 2
    assert handles_and_folders() == before

    Sandbox(pool=1).run(ADD, {"a": 1})
    assert handles_and_folders() == before, "one that is forgotten is closed by the collector"


PARENT = """
import os, sys, threading, time
from morphogen.kernels.sandbox import Capabilities, Limits, Sandbox
tools = Capabilities(tools={"say": lambda: os.write(1, b"running\\n")})
sandbox = Sandbox(Limits(wall_seconds=60, cpu_seconds=60), pool=int(sys.argv[1]), own_interpreter=sys.argv[1] == "0", capabilities=tools)
loop = "def run():\\n    say()\\n    while True:\\n        pass\\n"
def spin():
    sandbox.run(loop)
threads = [threading.Thread(target=spin) for _ in range(2)]
for thread in threads:
    thread.start()
time.sleep(60)
"""


@pytest.mark.parametrize("pool", [0, 2])
def test_when_the_parent_is_killed_nothing_survives(pool: int) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(pool)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == ["running\n"] * 2
    below = descendants(parent.pid)
    assert len(below) >= 3
    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert gone(below) == set()


def test_when_the_zygote_is_killed_its_workers_die_and_the_next_call_starts_another() -> None:
    with Sandbox(Limits(wall_seconds=30, cpu_seconds=30), pool=1) as sandbox:
        sandbox.run(ADD, {"a": 1})
        assert sandbox._kept.nursery is not None
        zygote = sandbox._kept.nursery._process.pid
        below = {zygote, *descendants(zygote)}
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(sandbox.run, "import time\ndef run():\n    time.sleep(20)\n")
            time.sleep(0.5)
            sandbox._kept.nursery._process.kill()
            outcome = running.result(10)
        assert outcome.error is not None
        assert outcome.error.type == "Died"
        assert gone(below) == set()
        assert sandbox.run(ADD, {"a": 1}).value == 2


def gone(pids: set[int], patience: float = 10.0) -> set[int]:
    """Wait until processes are gone, and return those that are not."""
    deadline = time.monotonic() + patience
    left = pids
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if lives(pid)}
        time.sleep(0.02)
    return left


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return status(pid).get("State", "Z")[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may go while it is looked at
        return False


def test_calls_from_many_threads_at_once_do_not_meet() -> None:
    with Sandbox(Limits(wall_seconds=20), pool=2) as sandbox, ThreadPoolExecutor(6) as threads:
        told = list(threads.map(lambda n: sandbox.run(ADD, {"a": n}).value, range(60)))

    assert told == [n + 1 for n in range(60)]


def test_a_forked_copy_of_the_host_has_a_sandbox_of_its_own() -> None:
    def child(conn: Any) -> None:
        conn.send(sandbox.run(ADD, {"a": 5}).value)
        sandbox.close()

    with Sandbox(Limits(wall_seconds=20), pool=1) as sandbox:
        assert sandbox.run(ADD, {"a": 1}).value == 2
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # threads of other tests; this child starts none of theirs
            process = context.Process(target=child, args=(there,))
            process.start()
        assert here.poll(30)
        assert here.recv() == 6
        process.join(20)
        assert sandbox.run(ADD, {"a": 2}).value == 3


def test_without_namespaces_the_other_layers_still_hold_and_the_default_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "namespaces")
    with Sandbox(QUICK, pool=1) as sandbox, pytest.raises(LayerMissing, match="user namespaces"):
        sandbox.run(ADD, {"a": 1})
    for own in (True, False):
        with Sandbox(QUICK, own_interpreter=own, pool=1, layers=WITHOUT_NAMESPACES) as sandbox:
            outcome = sandbox.run(ADD, {"a": 1})
            assert outcome.value == 2
            assert set(outcome.layers_held) == WITHOUT_NAMESPACES
            for attack in (
                "open('/etc/passwd')",
                "__import__('os').fork()",
                f"__import__('os').kill({os.getpid()}, 0)",
            ):
                refused = sandbox.run(f"def run():\n    return {attack}\n")
                assert refused.error is not None
                assert refused.error.type == "PermissionError"
            assert sandbox.run("def run():\n    while True:\n        pass\n").killed_by == "wall"


def test_another_system_or_processor_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "riscv64")
        with pytest.raises(Unsupported, match="no system calls of 'riscv64'"):
            Sandbox()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Unsupported, match="runs on Linux only"):
        Sandbox()


def test_an_interpreter_that_cannot_start_is_our_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/nonexistent/python")
    for own in (True, False):
        with Sandbox(own_interpreter=own) as sandbox, pytest.raises(SandboxBroken, match="cannot start an interpreter"):
            sandbox.run(ADD, {"a": 1})
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    for own in (True, False):
        with Sandbox(own_interpreter=own) as sandbox, pytest.raises(SandboxBroken, match="did not start"):
            sandbox.run(ADD, {"a": 1})


def test_declared_tools_are_called_and_each_use_is_recorded() -> None:
    seen: list[object] = []

    def lookup(key: str, *, fallback: int = 0) -> dict[str, int]:
        seen.append(key)
        if key == "bad":
            raise KeyError("no such key")
        return {key: len(key) + fallback}

    def slow() -> None:
        time.sleep(3)

    tools = Capabilities(tools={"db.lookup": Declared(lookup, "read"), "slow": slow, "odd": lambda: {1, 2}})
    text = """
        def run(key):
            first = db.lookup(key, fallback=1)
            errors = []
            for action in (lambda: db.lookup("bad"), lambda: db.lookup(1, 2, 3), lambda: odd()):
                try:
                    action()
                except ToolError as error:
                    errors.append(str(error))
            return [first, errors]
    """
    with Sandbox(Limits(wall_seconds=20, capability_seconds=1.0), pool=1, capabilities=tools) as sandbox:
        outcome = sandbox.run(textwrap.dedent(text), {"key": "abc"})
        again = sandbox.run(textwrap.dedent(text), {"key": "abc"})
        late = sandbox.run("def run():\n    return slow()\n")
        none = sandbox.run("def run():\n    return slow()\n", capabilities=Capabilities())

    assert isinstance(outcome.value, list)
    assert outcome.value[0] == {"abc": 4}
    assert outcome.value[1] == [
        "db.lookup failed: KeyError: 'no such key'",
        "db.lookup: too many positional arguments",
        "a value of type set cannot cross; use None, bool, int, float, str, bytes, list or dict",
    ]
    assert [(effect.name, effect.effect, effect.error is None) for effect in outcome.effects] == [
        ("db.lookup", "read", True), ("db.lookup", "read", False), ("db.lookup", "read", False), ("odd", "external", False),
    ]  # fmt: skip
    assert [(e.arguments, e.result) for e in outcome.effects] == [(e.arguments, e.result) for e in again.effects]
    assert outcome.effects[0].arguments.startswith("sha256:")
    assert late.killed_by == "capabilities"
    assert late.effects[0].error == "unfinished: the deadline passed"
    assert none.error is not None
    assert none.error.type == "NameError"
    assert seen == ["abc", "bad"] * 2


def test_a_declared_tool_may_take_and_return_every_value() -> None:
    tools = Capabilities(tools={"echo": lambda x: x})
    value: list[Any] = [{1: "a", "b": [None, b"\0", 1.5]}, {"z": 1, "a": 2, 3: 4}]
    with Sandbox(pool=1, capabilities=tools) as sandbox:
        outcome = sandbox.run("def run(x):\n    return echo(x)\n", {"x": value})

    assert outcome.value == value
    assert outcome.effects[0].result is not None


@pytest.mark.parametrize("name", ["", "a b", "_x", "a._b", "class", "a.", "ToolError", "print"])
def test_a_bad_name_for_a_tool_is_refused(name: str) -> None:
    with pytest.raises(BadCapability):
        Capabilities(tools={name: len})


def test_names_of_tools_and_groups_do_not_hide_each_other() -> None:
    for names in (("a", "a.b"), ("a.b", "a"), ("a.b", "a.b.c")):
        with pytest.raises(BadCapability, match="taken"):
            Capabilities(tools=dict.fromkeys(names, len))
    with pytest.raises(BadCapability, match="none of pure"):
        Capabilities(tools={"a": Declared(len, "sideways")})  # type: ignore[arg-type]


def test_every_error_is_of_one_family() -> None:
    assert all(
        issubclass(kind, SandboxError) for kind in (LayerMissing, Unsupported, BadJob, BadCapability, SandboxBroken)
    )


def test_a_pooled_call_takes_milliseconds() -> None:
    with Sandbox(pool=4) as sandbox:
        sandbox.run(ADD, {"a": 1})
        spent = [sandbox.run(ADD, {"a": 1}).wall_ns for _ in range(30)]

    assert statistics.median(spent) < 200_000_000, (
        "a bound for the sanity of the thing; the figures are measured elsewhere"
    )


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, as it does in a terminal; a job in the background of a shell ignores it from birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_leaves_no_worker_running() -> None:
    with Sandbox(Limits(wall_seconds=30, cpu_seconds=30), pool=1) as sandbox:
        sandbox.run(ADD, {"a": 1})
        threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("def run():\n    while True:\n        pass\n")
        assert sandbox.run(ADD, {"a": 1}).value == 2
        idle(sandbox)
        assert sandbox._kept.nursery is not None
        nursery = sandbox._kept.nursery._process.pid
        end = time.monotonic() + 10
        while len(descendants(nursery)) > 1 and time.monotonic() < end:  # a killed process takes its time
            time.sleep(0.01)
        assert len(descendants(nursery)) == 1


def test_limits_that_the_host_itself_is_under_are_kept() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (50, 50)); resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from morphogen.kernels.sandbox import *\n"
        "with Sandbox(Limits(cpu_seconds=99, memory_bytes=64 << 20), pool=1) as sandbox:\n"
        "    print(sandbox.run('def run():\\n    return 1\\n').value)\n"
        "    print(sandbox.run('def run():\\n    return len(bytes(1 << 27))\\n').error.type)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (told.stdout, told.stderr) == ("1\nMemoryError\n", "")
