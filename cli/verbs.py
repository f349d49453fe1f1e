"""Importing this registers every verb on the command tree, in the order in which `--help` shows them."""

from . import (  # noqa: F401, I001
    up,
    projector,
    sql,
    history,
    events,
    letters,
    blobs,
    loop,
    do,
    know,
    know_lift,
    know_log,
    facts,
    report,
    backtest,
    policy,
    serve,
    serve_llama,
    serve_kv,
    serve_crystallizer,
    crystals,
    crystals_make,
    kv,
    kv_file,
    kv_send,
    demonstration,
)

__all__: list[str] = []
