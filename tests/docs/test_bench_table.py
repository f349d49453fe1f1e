"""The table that `make bench` prints, of the figures that are kept in docs/measured/."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import all as bench  # noqa: E402


def test_each_script_has_its_lines() -> None:
    measured = ROOT / "docs" / "measured"
    kept = {name: json.loads((measured / f"{name}.json").read_text()) for name in bench.SCRIPTS}
    whole = bench.rows(kept)
    for name in set(kept) - {"blueprints"}:  # which prints a table of its own
        assert len(bench.rows({other: kept[other] for other in kept if other != name})) < len(whole), name
    assert all(isinstance(one, str) and one for line in whole for one in line)


def test_a_script_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.py").write_text("open(__import__('sys').argv[2], 'w').write('{\"get_ratio\": 30}')")
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(bench, "HERE", tmp_path)
    monkeypatch.setattr(bench, "SCRIPTS", {"parse": ["bad.py"], "blobs": ["good.py"]})
    monkeypatch.setattr(sys, "argv", ["all.py", "--keep", str(tmp_path / "kept")])
    with pytest.raises(SystemExit, match=r"failed.*: bad\.py"):
        bench.main()
    assert "| ≥ 10x | 30x |" in capfd.readouterr().out
