"""How long it takes to find the longest prefix among a million blocks: `PrefixIndex`, a plain dict, and SQL in DuckDB.

    python benchmarks/kv/index.py [--blocks 1000000] [--json FILE]

All three answer the same question over the same blocks: which workers hold the longest prefix of this prompt. A prompt of
N tokens comes as a Python list (as a tokenizer gives it) and as an int32 array; hashing it is part of every figure. Half of
the blocks are our own states (64 tokens a block), half are those of another engine (16 tokens a block). The plain dict
maps a hash to a tuple of workers and needs to be told root and block size; SQL is given the hashes of all blocks at once.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from morphogen.consumers.kv_index import PrefixIndex, VllmFeed
from morphogen.consumers.kv_index.chains import root_of
from morphogen.schemas.kv import HASH_BYTES, KvExported, KvRef, chain

OWN, FOREIGN = 64, 16  # tokens of a block
LONGEST = 32_768  # tokens of the prompts that are asked for
WORKERS = 8
ROOT = "f" * 64
MODEL = "another"
REF = KvRef(transport="disk", place="p", size=1)


def filled(blocks: int, prompts: dict[int, np.ndarray]) -> tuple[PrefixIndex, dict[bytes, list[str]], float]:
    """Return an index of so many blocks, the same as a plain dict, and the seconds that filling the index took."""
    random = np.random.default_rng(0)
    index, plain = PrefixIndex(), {}
    spent = 0.0

    def take(event: Any, keys: list[bytes], worker: str) -> None:
        nonlocal spent
        begun = time.perf_counter()
        index.take(event)
        spent += time.perf_counter() - begun
        for key in keys:
            plain.setdefault(key, []).append(worker)

    def own(tokens: np.ndarray, number: int) -> None:
        keys = list(chain(tokens, ROOT.encode(), OWN))
        worker = f"w{number % WORKERS}"
        event = KvExported(
            state=f"s{number}", worker=worker, tokens=len(tokens), size=1, tier="disk", transport="disk", ref=REF, root=ROOT,
            blocks=b"".join(keys),
        )  # fmt: skip
        take(event, keys, worker)

    def foreign(tokens: np.ndarray, number: int) -> None:
        import msgspec

        worker = f"e{number % WORKERS}"
        names = [number << 32 | at for at in range(len(tokens) // FOREIGN)]
        batch = [0.0, [["BlockStored", names, None, tokens.tolist(), FOREIGN, None, "GPU"]], 0]
        for event in VllmFeed("fleet", worker, MODEL).message(0, msgspec.msgpack.encode(batch)):
            keys = [event.hashes[at : at + HASH_BYTES] for at in range(0, len(event.hashes), HASH_BYTES)]  # type: ignore[attr-defined]
            take(event, keys, worker)

    for number, tokens in enumerate(prompts.values()):
        own(tokens, number)
        foreign(tokens, number)
    number = len(prompts)
    while len(index) < blocks:
        tokens = random.integers(0, 128_000, LONGEST, dtype=np.int32)
        if len(index) < blocks // 2:
            foreign(tokens, number)
        else:
            own(np.tile(tokens, 4) + number % 7, number)
        number += 1
    return index, plain, spent


def plain_lookup(plain: dict[bytes, list[str]], tokens: Any, root: str, block: int) -> tuple[int, set[str]]:
    """Do what one would write without an index: hash, look up, cut the workers down."""
    alive: set[str] | None = None
    depth = 0
    for key in chain(tokens, root.encode(), block):
        here = plain.get(key)
        left = set() if here is None else set(here) if alive is None else alive.intersection(here)
        if not left:
            break
        alive, depth = left, depth + 1
    return depth, alive or set()


def sql_lookup(con: duckdb.DuckDBPyConnection, tokens: Any, root: str, block: int) -> tuple[int, set[str]]:
    """Ask DuckDB, which has the blocks in a table with an index over the hashes."""
    hashes = [key.hex() for key in chain(tokens, root.encode(), block)]
    rows = con.execute(
        "SELECT worker, max(depth) AS d FROM blocks WHERE hash IN (SELECT unnest($1)) GROUP BY worker ORDER BY d DESC",
        [hashes],
    ).fetchall()
    return (rows[0][1], {worker for worker, depth in rows if depth == rows[0][1]}) if rows else (0, set())


def table(plain: dict[bytes, list[str]], depths: dict[bytes, int]) -> duckdb.DuckDBPyConnection:
    """Return a database with one row for each block and holder."""
    con = duckdb.connect()
    con.execute("SET threads = 1")
    rows = [(key.hex(), depths.get(key, 0), worker) for key, workers in plain.items() for worker in workers]
    hashes, depth, workers = zip(*rows, strict=True)
    arrow = pa.table({"hash": hashes, "depth": pa.array(depth, pa.int32()), "worker": workers})
    con.register("arrow", arrow)
    con.execute("CREATE TABLE blocks AS SELECT * FROM arrow")
    con.execute("CREATE INDEX by_hash ON blocks (hash)")
    return con


def timed(rounds: int, work: Callable[..., Any], *given: Any, **more: Any) -> tuple[float, float]:
    """Return the median and the best of so many calls, in milliseconds."""
    work(*given, **more)
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work(*given, **more)
        found.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(found), 1e3 * min(found)


def footprint(index: PrefixIndex) -> int:
    """Return about how many bytes the dictionaries of an index take up, with their keys."""
    own = sum(sys.getsizeof(state.chain) for state in index._states.values())
    tables = sys.getsizeof(index._masks) + sys.getsizeof(index._in_states)
    return tables + own + len(index) * sys.getsizeof(b"x" * HASH_BYTES)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    prompts = {size: random.integers(0, 128_000, size, dtype=np.int32) for size in (1024, 3072, 8192, 16_384, LONGEST)}
    index, plain, spent = filled(options.blocks, prompts)
    gc.collect()
    gc.freeze()
    worlds = {"ours, 64 a block": (ROOT, OWN), "vLLM, 16 a block": (root_of(MODEL), FOREIGN)}
    depths = {
        key: at
        for root, block in worlds.values()
        for tokens in prompts.values()
        for at, key in enumerate(chain(tokens, root.encode(), block), 1)
    }
    con = table(plain, depths)
    print(
        f"{len(index):,} blocks of {len(index.holders)} holders, folded in {spent:.2f} s, "
        f"about {footprint(index) / 1e6:.0f} MB"
    )
    kinds = ("index, list", "index, array", "no root told", "plain dict", "DuckDB")
    head = f"{'prompt':>8} {'blocks':>6}" + "".join(f"{kind:>17}" for kind in kinds)
    results = []
    for title, (root, block) in worlds.items():
        print(f"\n{title}; ms, median (best) of {options.rounds}\n{head}")
        for size, tokens in prompts.items():
            as_list = tokens.tolist()
            match = index.longest_prefix(as_list, root=root)
            depth, workers = plain_lookup(plain, as_list, root, block)
            asked = sql_lookup(con, as_list, root, block)
            told = {held.holder.worker for held in match.holders}
            assert (match.blocks, told) == (depth, workers) == asked, (match.blocks, told, depth, workers, asked)
            figures = (
                timed(options.rounds, index.longest_prefix, as_list, root=root),
                timed(options.rounds, index.longest_prefix, tokens, root=root),
                timed(options.rounds, index.longest_prefix, as_list),
                timed(options.rounds, plain_lookup, plain, as_list, root, block),
                timed(max(3, options.rounds // 10), sql_lookup, con, as_list, root, block),
            )
            row = {"world": title, "tokens": size, "blocks": match.blocks}
            for kind, (median, best) in zip(kinds, figures, strict=True):
                row[kind] = {"median_ms": median, "best_ms": best}
            results.append(row)
            print(
                f"{size:>8,} {match.blocks:>6,}"
                + "".join(f"{f'{median:.3f} ({best:.3f})':>17}" for median, best in figures)
            )
    miss = random.integers(0, 128_000, LONGEST, dtype=np.int32)
    nothing, _ = timed(options.rounds, index.longest_prefix, miss)
    print(f"\na prompt of {LONGEST:,} tokens (an array) of which nobody holds anything: {nothing:.3f} ms")
    con.close()
    if options.json:
        document = {
            "blocks": len(index), "fold_seconds": spent, "bytes": footprint(index), "miss_ms": nothing, "rows": results,
        }  # fmt: skip
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
