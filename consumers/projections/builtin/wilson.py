"""The Wilson bound in SQL, as `morphogen.schemas.evidence.wilson_lower` reckons it; a test holds the two equal."""

from morphogen.schemas.evidence import Z


def wilson_sql(successes: str, trials: str) -> str:
    """Return the expression of the one-sided 95% lower bound of a share, of two expressions; 0 where there are no trials."""
    s, n, square = f"({successes})::DOUBLE", f"nullif(({trials}), 0)::DOUBLE", repr(Z * Z)
    margin = f"{Z} * sqrt({s} / {n} * (1 - {s} / {n}) / {n} + {square} / (4 * {n} * {n}))"
    bound = f"({s} / {n} + {square} / (2 * {n}) - {margin}) / (1 + {square} / {n})"
    return f"CASE WHEN ({successes}) BETWEEN 0 AND ({trials}) THEN coalesce(greatest(0.0, {bound}), 0.0) END"
