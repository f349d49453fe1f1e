"""Measure, once at the start, what restoring from each tier and prefilling cost on this machine."""

import contextlib
import time
from pathlib import Path

from morphogen.kernels.kv import KvState, RawContext, export_kv, import_kv
from morphogen.kernels.kv.transport import Transport
from morphogen.schemas.kv import KvRef

from .cost import Costs
from .store import LOST

_SMALL, _LARGE = 16, 128  # tokens
_SLOW = 0.5  # seconds of the small prompt after which the large one is left out
_FILLER = 1  # a token that every vocabulary has


def calibrate(context: RawContext, transports: dict[str, Transport], *, cache: Path | None = None) -> Costs:
    """Return what was measured with two sizes of prompt, and leave the context as empty as it was.

    A tier that fails is left as assumed: what it costs shows when it is used.
    """
    costs = Costs()
    large = max(_SMALL, min(_LARGE, int(context.params.n_batch), context.room // 2))
    for turn, count in enumerate((_SMALL, _SMALL, large, large)):
        context.drop(0)
        began = time.perf_counter()
        context.decode(0, [_FILLER] * count)
        seconds = time.perf_counter() - began
        measured = costs.prefilled(count, seconds)
        for tier, transport in transports.items():
            with contextlib.suppress(*LOST):
                measured = _restore(context, measured, tier, transport, cache)
        if turn > 0:  # the first of all also warms up
            costs = measured
        if seconds > _SLOW:
            costs = measured
            break
    context.drop(0)
    return costs


def _restore(context: RawContext, costs: Costs, tier: str, transport: Transport, cache: Path | None) -> Costs:
    ref = export_kv(context, 0, into=transport, cache=cache)
    assert isinstance(ref, KvRef)
    try:
        began = time.perf_counter()
        with transport.open(ref) as mapped:
            state = KvState.read(mapped.buffer)
            import_kv(context, state, 0, cache=cache)
            state.release()
        return costs.restored(tier, ref.size, time.perf_counter() - began)
    finally:
        transport.release(ref)
