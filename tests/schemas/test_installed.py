"""Events that installed packages declare."""

from pathlib import Path

import pytest

from morphogen.schemas.installed import load_installed_events


def test_a_package_that_ends_the_process_at_its_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends_here.py").write_text("raise SystemExit\n")
    described = tmp_path / "ends_here-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: ends_here\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[morphogen.events]\nends = ends_here\n")
    monkeypatch.syspath_prepend(tmp_path)

    (line,) = load_installed_events.__wrapped__()

    assert line == "entry point ends = ends_here cannot be loaded: SystemExit: no details"
