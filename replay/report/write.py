"""Where the files of a report lie, and putting them there whole."""

import hashlib
from pathlib import Path
from urllib.parse import quote

from morphogen.bus.place import replace

from ..errors import ReportFailed
from .page import page
from .picture import picture
from .story import Ask, gather

_LONGEST = 120  # of a file name, before its ending


def write(run: str, folder: Path, ask: Ask) -> list[Path]:
    """Write `<run>.html` and `<run>.png` into a folder, which is made; return their paths.

    The page is written first: without matplotlib it is there all the same. Raises ReportFailed, and OSError where the
    folder cannot be written.
    """
    story = gather(run, ask)
    folder.mkdir(parents=True, exist_ok=True)
    stem = file_name(run)
    html, png = folder / f"{stem}.html", folder / f"{stem}.png"
    replace(html, page(story).encode("utf-8", "replace"))
    try:
        data = picture(story)
    except ReportFailed as error:
        raise ReportFailed(f"{html} is written, but no PNG: {error}") from error
    replace(png, data)
    return [html, png]


def file_name(run: str) -> str:
    """Return a file name for a run: what cannot stand in one is percent-encoded, what is too long ends in a hash."""
    name = quote(run, safe=" ()+,=@").replace(".", "%2E") if run.startswith(".") else quote(run, safe=" ()+,=@")
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 17]}-{hashlib.sha256(run.encode('utf-8', 'replace')).hexdigest()[:16]}"
