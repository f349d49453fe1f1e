"""`kv_index`, `kv_states`, `kv_decisions`, ...: which KV caches there are, who holds which prefix, what became of each.

Our own workers tell of states (`kv.exported`, `kv.imported`, ...), other engines of blocks (`kv.blocks_stored`, ...). Both
end in rows of `kv_index` under one key: the chain hash of a block, which stands for all tokens up to it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from morphogen.schemas.kv import (
    FILE,
    HASH_BYTES,
    KvAccepted,
    KvBlocksCleared,
    KvBlocksRemoved,
    KvBlocksStored,
    KvDecided,
    KvEvicted,
    KvExported,
    KvGap,
    KvImported,
    KvOffered,
    KvRef,
    KvRejected,
    KvReleased,
    SessionLoaded,
    SessionSaved,
    SessionTurn,
    tier_of,
    unpack_hashes,
)

from ..fold.batch import Entry
from ..projection import Projection
from .bounds import int32, int64

_TYPES = (
    KvExported, KvImported, KvOffered, KvAccepted, KvRejected, KvReleased, KvEvicted, KvDecided, KvBlocksStored,
    KvBlocksRemoved, KvBlocksCleared, KvGap, SessionSaved, SessionLoaded, SessionTurn,
)  # fmt: skip


class Kv(Projection, name="kv", version=3, types=tuple(cls.type for cls in _TYPES)):
    """States and where they lie, handoffs, decisions, sessions, and the blocks of other engines.

    A state is `held` in a tier from the event that put it there until one that took it away; in the device it is a
    context that goes on, so it counts as held until it is released. A file that a user had written is the user's, and not
    held. `hits` are imports of it. Its chain of hashes is the newest one that was told since somebody holds it.
    """

    tables = {
        "_kv_moves": "state VARCHAR, worker VARCHAR, tier VARCHAR, held BOOLEAN, what VARCHAR, reason VARCHAR",
        "_kv_made": "state VARCHAR, worker VARCHAR, session VARCHAR, model VARCHAR, root VARCHAR, tokens BIGINT, size BIGINT, "
        "block INTEGER, blocks INTEGER, tip VARCHAR, pinned BOOLEAN, fingerprint VARIANT",
        "_kv_places": "state VARCHAR, worker VARCHAR, tier VARCHAR, transport VARCHAR, place VARCHAR, bytes BIGINT, "
        "checksum VARCHAR, host VARCHAR, expires BIGINT",
        "kv_transfers": "state VARCHAR, what VARCHAR, worker VARCHAR, other VARCHAR, tier VARCHAR, transport VARCHAR, "
        "tokens BIGINT, size BIGINT, duration_ns BIGINT, first_token_ns BIGINT, handoff VARCHAR, session VARCHAR, "
        "reason VARCHAR, field VARCHAR, expected VARCHAR, actual VARCHAR, expires BIGINT",
        "kv_decisions": "worker VARCHAR, choice VARCHAR, reason VARCHAR, state VARCHAR, session VARCHAR, tokens BIGINT, "
        "size BIGINT, tier VARCHAR, restore_ns BIGINT, recompute_ns BIGINT, bandwidth DOUBLE, overhead_ns BIGINT, "
        "prefill_rate DOUBLE",
        "_kv_chains": "state VARCHAR, root VARCHAR, block INTEGER, depth INTEGER, hash VARCHAR",
        "kv_blocks": "op VARCHAR, engine VARCHAR, dialect VARCHAR, worker VARCHAR, tier VARCHAR, name VARCHAR, hash VARCHAR, "
        "depth INTEGER, block INTEGER, root VARCHAR, lora VARCHAR, model VARCHAR, event_id BIGINT",
        "_kv_clears": "engine VARCHAR, dialect VARCHAR, worker VARCHAR, event_id BIGINT, reason VARCHAR",
        "kv_gaps": "engine VARCHAR, dialect VARCHAR, worker VARCHAR, first BIGINT, last BIGINT, reason VARCHAR, received BIGINT",
        "kv_session_events": "session VARCHAR, what VARCHAR, worker VARCHAR, revision BIGINT, turns BIGINT, tokens BIGINT, "
        "total BIGINT, restored BIGINT, recomputed BIGINT, state VARCHAR, pending BOOLEAN, role VARCHAR, finish VARCHAR, "
        "reused BIGINT, text VARCHAR, duration_ns BIGINT",
    }
    views = {
        "kv_states": """
            WITH made AS (
                SELECT * FROM _kv_made
                QUALIFY row_number() OVER (PARTITION BY state ORDER BY seq DESC, idx DESC) = 1
            ), stands AS (
                SELECT *, min(time) OVER (PARTITION BY state, worker, tier) AS since FROM _kv_moves
                QUALIFY row_number() OVER (PARTITION BY state, worker, tier ORDER BY seq DESC, idx DESC, held DESC) = 1
            ), lies AS (
                SELECT * FROM _kv_places
                QUALIFY row_number() OVER (PARTITION BY state, worker, tier ORDER BY seq DESC, idx DESC) = 1
            ), used AS (
                SELECT state, count(*) AS hits, max(time) AS last_hit FROM kv_transfers WHERE what = 'imported' GROUP BY state
            )
            SELECT s.state, s.worker, s.tier, s.held, m.session, m.model, m.tokens, m.size, m.blocks, m.block, m.root, m.tip,
                   m.pinned, coalesce(u.hits, 0) AS hits, u.last_hit, s.since, s.time AS changed, s.what, s.reason,
                   l.transport, l.place, l.checksum, l.host, l.expires, m.fingerprint, s.run, s.seq, s.idx
            FROM stands s LEFT JOIN made m ON s.state = m.state LEFT JOIN used u ON s.state = u.state
            LEFT JOIN lies l ON s.state = l.state AND s.worker = l.worker AND s.tier = l.tier
        """,
        "kv_index": """
            WITH placed AS (
                SELECT state, worker, tier, seq, idx, max(held::INTEGER) AS held FROM _kv_moves GROUP BY ALL
            ), stepped AS (
                SELECT state, seq, idx, held - lag(held, 1, 0) OVER (PARTITION BY state, worker, tier ORDER BY seq, idx) AS step
                FROM placed
            ), counted AS (
                SELECT state, seq, idx, sum(sum(step)) OVER (PARTITION BY state ORDER BY seq, idx) AS places
                FROM stepped GROUP BY state, seq, idx
            ), forgotten AS (
                SELECT state, max_by(seq, (seq, idx)) AS seq, max_by(idx, (seq, idx)) AS idx
                FROM counted WHERE places = 0 GROUP BY state
            ), chains AS (
                SELECT c.* FROM _kv_chains c LEFT JOIN forgotten f ON c.state = f.state
                WHERE f.seq IS NULL OR (c.seq, c.idx) > (f.seq, f.idx)
                QUALIFY rank() OVER (PARTITION BY c.state ORDER BY c.seq DESC, c.idx DESC) = 1
            ), newest AS (
                SELECT * FROM kv_blocks
                QUALIFY row_number() OVER (PARTITION BY engine, worker, tier, name ORDER BY seq DESC, idx DESC) = 1
            ), cleared AS (
                SELECT engine, worker, max_by(seq, (seq, idx)) AS seq, max_by(idx, (seq, idx)) AS idx
                FROM _kv_clears GROUP BY ALL
            )
            SELECT c.root, c.hash, c.depth, c.depth::BIGINT * c.block AS tokens, c.block, NULL::VARCHAR AS engine, s.worker,
                   s.tier, s.state, s.model, NULL::VARCHAR AS lora, s.size, s.hits, s.since, NULL::VARCHAR AS name
            FROM chains c JOIN kv_states s ON c.state = s.state WHERE s.held
            UNION ALL
            SELECT n.root, n.hash, n.depth, n.depth::BIGINT * n.block, n.block, n.engine, n.worker, n.tier, NULL, n.model, n.lora,
                   NULL, NULL, n.time, n.name
            FROM newest n LEFT JOIN cleared x ON n.engine = x.engine AND n.worker = x.worker
            WHERE n.op = 'stored' AND (x.seq IS NULL OR (n.seq, n.idx) > (x.seq, x.idx))
        """,
        "kv_handoffs": """
            WITH told AS (
                SELECT handoff, any_value(state) AS state, any_value(session) AS session,
                       max(worker) FILTER (what = 'offered') AS source,
                       coalesce(max(other) FILTER (what = 'offered'), max(worker) FILTER (what IN ('accepted', 'imported'))) AS target,
                       coalesce(max(session) FILTER (what = 'accepted'), any_value(session)) AS there,
                       min(time) FILTER (what = 'accepted') AS accepted, count(*) FILTER (what = 'imported') > 0 AS imported,
                       count(*) FILTER (what = 'rejected') > 0 AS rejected, max(reason) FILTER (what = 'rejected') AS reason,
                       max(transport) AS transport, max(tokens) AS tokens, max(size) AS size,
                       max(duration_ns) FILTER (what = 'imported') AS transfer_ns, max(first_token_ns) AS first_token_ns,
                       min(time) AS began, max(time) AS ended
                FROM kv_transfers WHERE handoff IS NOT NULL GROUP BY handoff
            ), loaded AS (
                SELECT t.handoff, l.restored, l.recomputed, l.time
                FROM told t JOIN kv_session_events l
                ON l.what = 'loaded' AND l.session = t.there AND l.worker = t.target AND l.time >= t.accepted
                QUALIFY row_number() OVER (PARTITION BY t.handoff ORDER BY l.time, l.seq, l.idx) = 1
            )
            SELECT t.handoff, t.state, t.session, t.source, t.target,
                   CASE WHEN t.imported OR l.time IS NOT NULL THEN 'done' WHEN t.rejected THEN 'rejected'
                        WHEN t.accepted IS NOT NULL THEN 'accepted' ELSE 'offered' END AS status,
                   t.reason, t.transport, t.tokens, t.size, l.restored, l.recomputed, t.transfer_ns, t.first_token_ns, t.began,
                   greatest(t.ended, l.time) AS ended
            FROM told t LEFT JOIN loaded l USING (handoff)
        """,
        "kv_sessions": """
            SELECT session, count(*) FILTER (what = 'turn') AS turns_told, last(turns ORDER BY time, seq, idx) AS turns,
                   last(total ORDER BY time, seq, idx) FILTER (total IS NOT NULL) AS tokens,
                   last(worker ORDER BY time, seq, idx) FILTER (worker IS NOT NULL) AS worker,
                   last(state ORDER BY time, seq, idx) FILTER (state IS NOT NULL) AS state,
                   last(revision ORDER BY time, seq, idx) FILTER (revision IS NOT NULL) AS revision,
                   coalesce(last(pending ORDER BY time, seq, idx), false) AS pending,
                   count(*) FILTER (what = 'loaded') AS loads, sum(restored) AS restored, sum(recomputed) AS recomputed,
                   min(time) AS began, max(time) AS changed
            FROM kv_session_events GROUP BY session
        """,
        "kv_holders": """
            SELECT engine, worker, tier, count(DISTINCT hash) AS blocks, count(DISTINCT state) AS states,
                   max(tokens) AS longest, min(since) AS oldest, max(since) AS newest
            FROM kv_index GROUP BY engine, worker, tier
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield the rows of one event."""
        body = event.body
        match body:
            case KvExported():
                yield _made(body)
                users = "for the user" if body.tier == FILE else None
                yield "_kv_moves", (body.state, body.worker, body.tier, users is None, "exported", users)
                yield _place(body.state, body.worker, body.tier, body.ref)
                yield _transfer(body, "exported", tier=body.tier)
                yield from _chain(body)
            case KvImported():
                yield _made(body)
                yield "_kv_moves", (body.state, body.worker, "device", True, "imported", None)
                yield _transfer(body, "imported", other=body.source, tier=body.tier)
                yield from _chain(body)
            case KvOffered():
                yield _transfer(body, "offered", other=body.to)
            case KvAccepted():
                yield _transfer(body, "accepted", other=body.source)
            case KvRejected():
                yield _transfer(body, "rejected", other=body.source)
            case KvReleased():
                yield "_kv_moves", (body.state, body.worker, body.tier, False, "released", body.reason)
            case KvEvicted():
                yield "_kv_moves", (body.state, body.worker, body.from_tier, False, "evicted", body.reason)
                if body.to_tier is not None:
                    yield "_kv_moves", (body.state, body.worker, body.to_tier, True, "evicted", body.reason)
                    if body.ref is not None:
                        yield _place(body.state, body.worker, body.to_tier, body.ref)
            case KvDecided():
                yield "kv_decisions", (
                    body.worker, body.choice, body.reason, body.state, body.session, int64(body.tokens), int64(body.size),
                    body.tier, int64(body.restore_ns), int64(body.recompute_ns), body.bandwidth, int64(body.overhead_ns),
                    body.prefill_rate,
                )  # fmt: skip
            case KvBlocksStored():
                yield from _stored(body)
            case KvBlocksRemoved():
                tier, number = tier_of(body.medium), int64(body.event_id)
                for name in body.block_hashes:
                    yield "kv_blocks", (
                        "removed", body.engine, body.dialect, body.worker, tier, name, None, None, None, None, None, None,
                        number,
                    )  # fmt: skip
            case KvBlocksCleared():
                reason = body.details.get("reason")
                yield "_kv_clears", (
                    body.engine, body.dialect, body.worker, int64(body.event_id), None if reason is None else str(reason),
                )  # fmt: skip
            case KvGap():
                yield "kv_gaps", (
                    body.engine, body.dialect, body.worker, int64(body.first), int64(body.last), body.reason,
                    int64(body.received),
                )  # fmt: skip
            case SessionSaved() | SessionLoaded() | SessionTurn():
                yield _session(body)


def _made(body: KvExported | KvImported) -> tuple[str, tuple[Any, ...]]:
    hashes = _hashes(body.blocks)
    fingerprint = getattr(body, "fingerprint", None)
    return "_kv_made", (
        body.state, body.worker, body.session, body.model, body.root, int64(body.tokens), int64(body.size), int32(body.block),
        len(hashes), hashes[-1] if hashes else None, getattr(body, "pinned", None),
        None if fingerprint is None else {name: getattr(fingerprint, name) for name in _SHOWN},
    )  # fmt: skip


_SHOWN = ("engine", "build", "weights", "arch", "type_k", "type_v", "layers", "heads_kv", "head_dim")


def _chain(body: KvExported | KvImported) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield a row for each block of a state that is held here; none where no prompt could be cut into such blocks."""
    if not _is_block(body.block) or (isinstance(body, KvExported) and body.tier == FILE):
        return
    for depth, name in enumerate(_hashes(body.blocks), 1):
        yield "_kv_chains", (body.state, body.root, body.block, depth, name)


def _hashes(packed: bytes) -> list[str]:
    """Return the hashes of a packed chain; a cut last one is left out."""
    return unpack_hashes(packed[: len(packed) // HASH_BYTES * HASH_BYTES])


def _is_block(size: int | None) -> bool:
    return size is not None and 1 <= size < 2**31


def _place(state: str, worker: str, tier: str, ref: KvRef) -> tuple[str, tuple[Any, ...]]:
    return "_kv_places", (
        state, worker, tier, ref.transport, ref.place, int64(ref.size), ref.checksum, ref.host, int64(ref.expires),
    )  # fmt: skip


def _transfer(
    body: KvExported | KvImported | KvOffered | KvAccepted | KvRejected,
    what: str,
    *,
    other: str | None = None,
    tier: str | None = None,
) -> tuple[str, tuple[Any, ...]]:
    def said(name: str) -> Any:
        return getattr(body, name, None)

    expected, actual = (None if said(name) is None else str(said(name)) for name in ("expected", "actual"))
    return "kv_transfers", (
        body.state, what, body.worker, other, tier, said("transport"), int64(said("tokens")), int64(said("size")),
        int64(said("duration_ns")), int64(said("first_token_ns")), said("handoff"), body.session, said("reason"),
        said("field"), expected, actual, int64(said("expires")),
    )  # fmt: skip


def _stored(body: KvBlocksStored) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield a row for each block; hash and depth are NULL where our chain over them is not known."""
    hashes: list[str | None] = list(_hashes(body.hashes))
    depths = body.details.get("depths")
    count = len(body.block_hashes)
    if len(hashes) != count or body.root is None or not _is_block(body.block_size):
        hashes = [None] * count
    known = isinstance(depths, list) and len(depths) == count and all(type(depth) is int for depth in depths)
    front = ("stored", body.engine, body.dialect, body.worker, tier_of(body.medium))
    back = (int32(body.block_size), body.root, body.lora, body.model, int64(body.event_id))
    for at, (name, found) in enumerate(zip(body.block_hashes, hashes, strict=True)):
        yield "kv_blocks", (*front, name, found, int32(depths[at]) if known and depths else None, *back)


def _session(body: SessionSaved | SessionLoaded | SessionTurn) -> tuple[str, tuple[Any, ...]]:
    def said(name: str) -> Any:
        return getattr(body, name, None)

    turns, total = (body.turn, body.total) if isinstance(body, SessionTurn) else (body.turns, body.tokens)
    return "kv_session_events", (
        body.session, type(body).type.partition(".")[2], body.worker, int64(said("revision")), int64(turns),
        int64(body.tokens), int64(total), int64(said("restored")), int64(said("recomputed")), said("state"),
        said("pending"), said("role"), said("finish"), int64(said("reused")), said("text"), int64(said("duration_ns")),
    )  # fmt: skip
