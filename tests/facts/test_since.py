"""Since when a fact holds is shown as a time that can be typed back."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.app import run
from morphogen.consumers.projections.sql.asof import parse_as_of
from morphogen.consumers.projections.sql.query import SqlClient

from .modules import MATMUL, perf


@pytest.fixture
def tokyo(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a log, nine hours east of UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield settings
    SqlClient.shared(settings).close()
    monkeypatch.undo()
    time.tzset()


def test_a_fact_holds_since_a_local_time_and_for_programs_since_one_with_its_zone(
    tokyo: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "matmul.mk").write_text(MATMUL)
    assert run(["know", "load", str(tmp_path / "matmul.mk")]) == 0
    before = time.time_ns()
    with Bus.open(tokyo) as bus:
        bus.emit(perf(9.0), run="r", msg_id="item")
    capsys.readouterr()

    assert run(["facts"]) == 0
    shown = re.search(r"since (\S+ \S+),", capsys.readouterr().out)
    assert run(["facts", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[0])["since"]

    assert shown is not None
    for text in (shown[1], told):
        ns = parse_as_of(text)[1]
        assert ns is not None
        assert -1 <= (ns - before) / 1e9 < 60
