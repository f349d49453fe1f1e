"""A sequence of a pool as a KV state, through any transport: the same format, header and checks as llama.cpp's.

The payload is the tensor (L, 2, T, H, D) in its own type, written once, straight into the transport's room.
"""

from collections.abc import Hashable, Sequence

import msgspec
import numpy as np
import torch

from morphogen.schemas.kv import Fingerprint, KvRef, differences

from ..errors import KvMismatch, KvRefused
from ..format import OPAQUE, Header, encode_header, finish, payload_offset
from ..state import KvState
from ..transport.contract import Meta, Transport
from .errors import PoolError
from .torch_pool import PoolShape, TorchKvPool


def export_sequence(
    pool: TorchKvPool,
    sequence: Hashable,
    transport: Transport,
    *,
    tokens: Sequence[int],
    fingerprint: Fingerprint,
) -> KvRef:
    """Write a sequence out of a pool; return where it is. Raises PoolError where `tokens` are not its own in number."""
    length = pool.length(sequence)
    if len(tokens) != length or not length:
        raise PoolError(f"{sequence!r} has {length} tokens in the pool, {len(tokens)} were named")
    encoded = encode_header(
        Header(
            fingerprint=fingerprint,
            tokens=np.asarray(tokens, dtype="<i4").tobytes(),
            layout=OPAQUE,
            details={"pool": msgspec.to_builtins(pool.shape)},
        )
    )
    offset, size = payload_offset(encoded), length * pool.shape.width
    with transport.reserve(offset + size) as room:
        whole = room.buffer
        target = torch.frombuffer(whole, dtype=torch.uint8, offset=offset, count=size)
        pool.pack(sequence, target.view(pool.shape.torch_dtype))
        del target
        start = finish(whole, encoded, size)
        del whole
        return room.commit(Meta(checksum=start.reference, size=offset + size))


def import_sequence(
    pool: TorchKvPool, ref: KvRef, transport: Transport, sequence: Hashable, *, fingerprint: Fingerprint
) -> list[int]:
    """Read a state into a pool as `sequence`; return its token ids. What is refused leaves the pool as it was.

    Raises KvRefused for bytes that are not whole, KvMismatch for a state of another model, and PoolFull.
    """
    with transport.open(ref) as mapped:
        tokens = _unpack(pool, mapped.buffer, ref, sequence, fingerprint)  # nothing of the buffer is left behind
        try:
            mapped.check()
        except BaseException:
            pool.free(sequence)
            raise
    return tokens


def _unpack(
    pool: TorchKvPool, buffer: memoryview, ref: KvRef, sequence: Hashable, fingerprint: Fingerprint
) -> list[int]:
    state = KvState.read(buffer, where=f"{ref.transport} {ref.place}")
    if ref.checksum is not None and ref.checksum != state.checksum:
        raise KvRefused(f"{state.where}: the ref speaks of other bytes than lie there: export it again")
    if found := differences(state.fingerprint, fingerprint):
        raise KvMismatch(found)
    try:
        shape = msgspec.convert(state.header.details.get("pool"), PoolShape)
    except msgspec.ValidationError as error:
        raise KvRefused(f"{state.where}: no sequence of a pool") from error
    if state.payload_size != state.count * shape.width or shape.width != pool.shape.width:
        raise KvRefused(f"{state.where}: {state.payload_size} bytes are not {state.count} tokens of {shape}")
    dims = (shape.layers, 2, state.count, shape.heads, shape.head_dim)
    pool.unpack(sequence, _tensor(state.verify()).view(shape.torch_dtype).view(dims))
    return [int(token) for token in state.tokens]


def _tensor(payload: memoryview) -> torch.Tensor:
    # torch warns of any read-only memory; nothing here writes to it.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(payload, dtype=torch.uint8)
