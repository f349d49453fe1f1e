"""A reply of a long conversation goes on in another process: from the event to the first token there.

A real broker, two real `morphogen serve llama`. In each round a worker reads 3,000 tokens and begins to reply; a command
hands the session over; the other one goes on, and the reader follows. Beside it, what one would do without a handoff: send
the text to the other worker, which reads it again.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rounds import Row, line
from subjects import TALK, made, memory_folder

from morphogen.bus import broker
from morphogen.bus.connection import Connection, connect
from morphogen.bus.requests import call_stream
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams
from morphogen.cli.outcomes import done
from morphogen.consumers.kv.wire import GENERATE, Ask, Bit, pack, unpack
from morphogen.schemas.kv import DROP, HANDOFF, worker_subject, worker_target

TOKENS = 3000
LIMIT = 4000  # tokens of a reply: it is still being made when the session goes
BEFORE = 5  # pieces of it that are read before the command
NAMES = ("one", "two")
ALLOWED = 20.0  # ms beside the transfer
STARTS = 90.0  # seconds


def text(number: int) -> str:
    """Return a text of that many tokens, another one each time: nothing of it is in a cache."""
    return "".join(chr(33 + (at * 7 + number) % 64) for at in range(TOKENS))


@contextlib.contextmanager
def workers(model: Path, threads: int) -> Iterator[None]:
    """Two workers of that model."""
    line_ = "from morphogen.cli import main; import sys; sys.exit(main())"
    with memory_folder() as memory, contextlib.ExitStack() as stack:
        for name in NAMES:
            arguments = [
                sys.executable, "-c", line_, "serve", "llama", "--model", str(model), "--name", name, "--ctx", "16384",
                "--parallel", "2", "--threads", str(threads), "--memory-folder", str(memory), "--every", "0",
            ]  # fmt: skip
            process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            stack.callback(_end, process)
            assert process.stdout is not None
            told = process.stdout.readline()
            if "serves" not in told:
                raise SystemExit(f"worker {name} did not start: {told}{process.stdout.read()}")
        yield


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def first_bit(conn: Connection, worker: str, ask: Ask) -> float:
    """Return how long a worker takes to send the first text of what is asked for."""
    began = time.perf_counter()
    async with contextlib.aclosing(call_stream(conn, worker_subject(worker, GENERATE), pack(ask))) as chunks:
        async for chunk in chunks:
            if unpack(chunk, Bit).text:
                return time.perf_counter() - began
    raise SystemExit(f"worker {worker} said nothing")


async def drop(conn: Connection, worker: str, session: str) -> None:
    """Forget a session."""
    await done(conn, worker_target(worker), DROP, {"session": session}, timeout=30, who=worker)


async def hand_over(conn: Connection, number: int) -> dict[str, float]:
    """Begin a reply at one worker, hand it over in the middle, and read on at the other; return what it took, in ms."""
    source, target = NAMES[number % 2], NAMES[(number + 1) % 2]
    session, at, pieces = f"s{number}", 0, 0
    handed: asyncio.Task[Any] | None = None
    asked = 0.0
    stream = call_stream(
        conn, worker_subject(source, GENERATE), pack(Ask(session=session, say=text(number), max_tokens=LIMIT))
    )
    async with contextlib.aclosing(stream) as chunks:
        async for chunk in chunks:
            bit = unpack(chunk, Bit)
            if bit.moved is not None:
                break
            at, pieces = bit.at + len(bit.text), pieces + 1
            if pieces == BEFORE:
                asked = time.perf_counter()
                args = {"session": session, "to": target}
                handed = asyncio.create_task(done(conn, worker_target(source), HANDOFF, args, timeout=30, who=source))
            elif handed is not None and handed.done():
                handed.result()  # tells why it failed
    await first_bit(conn, target, Ask(session=session, resume=True, since=at))
    seen = time.perf_counter() - asked
    assert handed is not None
    given = await handed
    if not given["restored"]:
        raise SystemExit(f"the session was computed again instead of restored: {given}")
    await drop(conn, target, session)
    again = await first_bit(conn, target, Ask(session=f"again{number}", say=text(number + 1000), max_tokens=1))
    await drop(conn, target, f"again{number}")
    first, transfer = given["first_token_ns"] / 1e6, given["transfer_ns"] / 1e6
    return {
        "event_to_first_token_ms": first,
        "import_ms": transfer,
        "beside_import_ms": first - transfer,
        "command_to_reader_ms": seen * 1e3,
        "reading_again_ms": again * 1e3,
        "bytes": given["size"],
        "tokens": given["tokens"],
    }


async def _rounds(settings: Settings, rounds: int) -> list[dict[str, float]]:
    conn = await connect(settings, name="benchmark")
    try:
        await ensure_streams(conn)
        return [found for number in range(rounds + 2) if (found := await hand_over(conn, number)) and number >= 2]
    finally:
        await conn.close()


def measure(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Return the figures of all rounds, and their medians."""
    os.environ["MORPHOGEN_HOME"] = str(folder / "handoff")
    settings = Settings.from_environ()
    broker.ensure(settings)
    try:
        with workers(made(folder, TALK), threads):
            found = asyncio.run(_rounds(settings, rounds))
    finally:
        broker.down(settings)
    names = [name for name in found[0] if name.endswith("_ms")]
    medians = {name: statistics.median(one[name] for one in found) for name in names}
    return {"medians": medians, "worst": {name: max(one[name] for one in found) for name in names}, "rounds": found}


def show(found: dict[str, Any]) -> None:
    """Print the stages."""
    tokens, size = found["rounds"][0]["tokens"], found["rounds"][0]["bytes"]
    widths = (62, 12, 12)
    print(f"\nhandoff of a reply under way, {tokens:,.0f} tokens, {size / 2**20:.2f} MiB, two processes and a broker")
    print(line("", "median ms", "worst ms", widths=widths))
    told = {
        "event_to_first_token_ms": "kv.offered to the first token in the other process",
        "import_ms": "of it the import: open, verify, restore",
        "beside_import_ms": "of it all else: what may take 20 ms",
        "command_to_reader_ms": "command sent to the reader's first text from the other process",
        "reading_again_ms": "without a handoff: the other process reads the text again",
    }
    for name, words in told.items():
        print(line(words, f"{found['medians'][name]:.1f}", f"{found['worst'][name]:.1f}", widths=widths))


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    middle = found["medians"]
    beside = middle["beside_import_ms"]
    told = (
        f"{beside:.1f} ms + {middle['import_ms']:.1f} ms; command to the reader's first text "
        f"{middle['command_to_reader_ms']:.0f} ms, reading again {middle['reading_again_ms']:.0f} ms"
    )
    return [Row("handoff between two processes, event to first token", "≤ 20 ms + transfer", told, beside <= ALLOWED)]
