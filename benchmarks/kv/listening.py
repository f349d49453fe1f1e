"""Does a listener keep up with an engine whose queue drops what it has no room for? Beside it, a plain subscriber.

    python benchmarks/kv/listening.py [--messages 20000] [--rounds 3] [--json FILE]

A process publishes messages of 8 blocks as fast as it can, as vLLM does: a PUB socket with a queue of 1,000 for each
subscriber, and a ROUTER socket that sends again what it kept. `Listener` writes all of them into the log of a broker that
syncs before it acknowledges; the plain subscriber decodes what reaches it and writes nothing.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from morphogen.bus import Bus, Settings, broker
from morphogen.consumers.kv_index import Endpoint, Listener
from morphogen.schemas import KvBlocksStored

BLOCKS, TOKENS, QUEUE = 8, 16, 1000
END = (-1).to_bytes(8, "big", signed=True)


def payload(number: int) -> bytes:
    """Return a batch that stores the next blocks of a chain."""
    first = number * BLOCKS
    hashes = list(range(first + 1, first + BLOCKS + 1))
    tokens = [(first * TOKENS + at) % 32_000 for at in range(BLOCKS * TOKENS)]
    event = ["BlockStored", hashes, first or None, tokens, TOKENS, None, "GPU", None]
    return msgspec.msgpack.encode([1.5, [event], 0])


def publish(messages: int, told: Any) -> None:
    """Bind, wait for both subscribers and a word, send everything, and answer replays until ended."""
    context = zmq.Context()
    pub, router = context.socket(zmq.XPUB), context.socket(zmq.ROUTER)
    pub.setsockopt(zmq.SNDHWM, QUEUE)
    router.setsockopt(zmq.SNDHWM, 0)
    told.send([f"tcp://127.0.0.1:{one.bind_to_random_port('tcp://127.0.0.1')}" for one in (pub, router)])
    kept = [(number.to_bytes(8, "big"), payload(number)) for number in range(messages)]
    sent = 0
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(told, zmq.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready is router:
                client, _, start = router.recv_multipart()
                for number, data in kept[int.from_bytes(start, "big") : sent]:
                    router.send_multipart([client, b"", number, data])
                router.send_multipart([client, b"", END, b""])
            else:
                told.recv()
                began = time.monotonic()
                for number, data in kept:
                    pub.send_multipart([b"kv-events", number, data])
                sent = messages
                told.send(time.monotonic() - began)


def plain(address: str, until: Any) -> int:
    """Count what reaches a subscriber that decodes it, until nothing has come for a second after `until` is set."""
    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"kv-events")
    socket.connect(address)
    until.send(None)
    count = 0
    while socket.poll(1000) or not until.poll():
        while socket.poll(0):
            msgspec.msgpack.decode(socket.recv_multipart()[2])
            count += 1
    return count


def count_plain(address: str, until: Any) -> None:
    """Run `plain` in a process of its own, and send what it counted."""
    until.send(plain(address, until))


def measure(messages: int) -> dict[str, float]:
    """Return the seconds until all blocks were in the log, and what share of the messages reached each."""
    spawn = multiprocessing.get_context("spawn")
    told, other = spawn.Pipe()
    publisher = spawn.Process(target=publish, args=(messages, other), daemon=True)
    publisher.start()
    address, replay = told.recv()
    beside, end = spawn.Pipe()
    subscriber = spawn.Process(target=count_plain, args=(address, end), daemon=True)
    subscriber.start()
    beside.recv()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        with Bus.open(settings) as bus:
            endpoint = Endpoint(address=address, replay=replay, worker="w")
            listener = Listener(bus.conn, settings, "engine", [endpoint])
            serving = bus.start(listener.run())
            bus.run(asyncio.wait_for(listener.ready.wait(), 30))
            time.sleep(0.5)  # until the subscriptions are there
            began = time.monotonic()
            told.send("go")
            sending = told.recv()
            goal = messages * BLOCKS
            seen, after = 0, 0
            while seen < goal and time.monotonic() < began + 120:
                for one in bus.events(run="kv.engine", family="kv", after=after):
                    after = one.frame.seq
                    seen += len(one.event.block_hashes) if isinstance(one.event, KvBlocksStored) else 0
                time.sleep(0.02)
            took = time.monotonic() - began
            serving.cancel()
        broker.down(settings)
    beside.send(None)
    reached = beside.recv()
    publisher.kill()
    return {
        "sending_s": sending,
        "logged_s": took,
        "blocks_s": goal / took,
        "share_logged": seen / goal,
        "share_plain": reached / messages,
        "replayed": float(listener.counts["w"].replayed),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = [measure(options.messages) for _ in range(options.rounds)]
    figures = {name: statistics.median(one[name] for one in found) for name in found[0]}
    for name, value in figures.items():
        print(f"{name:16}{value:14,.2f}")
    if options.json:
        options.json.write_text(json.dumps({"messages": options.messages, **figures}, indent=1))


if __name__ == "__main__":
    main()
