"""Events of which a store has no more than the envelope, since their bodies lay in blobs that could not be had."""

from morphogen.consumers.projections.store import Store

_VIEW = "events_without_body"


def bodiless(store: Store) -> int:
    """Return how many there are; 0 in a store without the view that lists them."""
    if _VIEW not in store.views():
        return 0
    with store.reading() as cursor:
        row = cursor.execute(f"SELECT count(*) FROM {_VIEW}").fetchone()
    return int(row[0]) if row is not None else 0


def told(count: int, *, archive: bool = False, lines: bool = False) -> str:
    """Return the line on so many of them; `archive` where it alone was read, `lines` where no tables were made."""
    one = count == 1
    events = "1 event lies in a blob" if one else f"{count:,} events lie in blobs"
    why = "which an archive does not hold" if archive else "gone or damaged"
    if lines:
        where = "the line names the blob instead" if one else "the lines name the blobs instead"
    else:
        where = (
            f"no table made now has what {'it says' if one else 'they say'}, `{_VIEW}` lists {'it' if one else 'them'}"
        )
    return f"{events}, {why}: {where}"
