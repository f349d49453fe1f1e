"""Processes to be killed: one that writes, one that reads, one that reaps. Run as a script; told what to do by stdin.

    produce FOLDER INBOX SEED    write, commit, hand over, release, forever
    consume FOLDER INBOX SEED    open what was handed over, check it, release it, sometimes twice, forever
    reap FOLDER                  reap, forever
    wait PID                     wait for a child; print how it ended

Each child is forked from this process, which has imported everything: a round costs milliseconds. A child that sees
what must never be seen exits with a status of its own, which `wait` tells.
"""

import os
import random
import sys
import time
from pathlib import Path

import msgspec

from morphogen.kernels.kv.leases import LeaseEnded
from morphogen.kernels.kv.transport import Gone, SharedMemory
from morphogen.schemas.kv import KvRef

TORN, LOST, TWICE = 3, 4, 5  # bytes that differ; an own lease that ended; a double release that was counted


def produce(folder: Path, inbox: Path, seed: int) -> None:
    """Write segments whose bytes are all equal, and hand over their refs by files."""
    chance = random.Random(seed)
    memory = SharedMemory(folder, ttl=30.0, spare=1 << 20)
    mine: list[KvRef] = []
    for turn in range(1 << 30):
        size = chance.randint(1, 200_000)
        with memory.reserve(size) as room:
            value = chance.randrange(256)
            room.buffer[:] = bytes([value]) * size
            if chance.random() < 0.1:
                continue
            ref = room.commit()
        if not memory.holds(ref):
            os._exit(LOST)
        handed = memory.offer(ref, ttl=30.0) if chance.random() < 0.5 else ref
        part = inbox / f".{os.getpid()}-{turn}"
        part.write_bytes(msgspec.json.encode(handed))
        part.rename(inbox / f"{os.getpid()}-{turn}")
        mine.append(ref)
        if len(mine) > 4:
            gone = mine.pop(chance.randrange(len(mine)))
            memory.release(gone)
            if memory.release(gone) != "already":
                os._exit(TWICE)


def consume(folder: Path, inbox: Path, seed: int) -> None:
    """Open what lies in the inbox; every byte must be equal to the first."""
    chance = random.Random(seed)
    memory = SharedMemory(folder, ttl=30.0)
    while True:
        for path in list(inbox.glob("[!.]*")):
            try:
                ref = msgspec.json.decode(path.read_bytes(), type=KvRef)
                path.unlink()
                mapped = memory.open(ref)
            except (FileNotFoundError, LeaseEnded, Gone):
                continue  # its owner was killed, or has released it
            data = bytes(mapped.buffer)
            if data.count(data[:1]) != len(data):
                os._exit(TORN)
            mapped.check()  # this process lives: nobody may have ended its lease
            if chance.random() < 0.8:
                mapped.close()
                if chance.random() < 0.5:
                    memory.release(ref)
                    if memory.release(ref) != "already":
                        os._exit(TWICE)


def reap(folder: Path) -> None:
    """Reap all the time, but for moments in which others get their turn."""
    memory = SharedMemory(folder)
    while True:
        memory.reap()
        time.sleep(0.0003)


def main() -> None:
    """Do what stdin says."""
    for line in sys.stdin:
        verb, *rest = line.split()
        if verb == "wait":
            _, status = os.waitpid(int(rest[0]), 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child:
            print(child, flush=True)
            continue
        try:
            if verb == "reap":
                reap(Path(rest[0]))
            else:
                {"produce": produce, "consume": consume}[verb](Path(rest[0]), Path(rest[1]), int(rest[2]))
        except BaseException:  # noqa: BLE001  (told by the test)
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(9)


if __name__ == "__main__":
    main()
