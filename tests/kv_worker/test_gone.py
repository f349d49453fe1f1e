"""A worker remembers which handoffs came and went, over kills in the middle of a line."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv import gone
from morphogen.consumers.kv.gone import Gone

IDS = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8, unique=True)


@given(IDS, IDS, st.data())
def test_a_torn_line_is_forgotten_and_no_other(first: list[str], then: list[str], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gone"
        Gone(path).add(first)
        whole = path.read_bytes()
        kept = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:kept])
        before = Gone(path)
        known = {one for one in first if one in before}
        assert len(known) >= whole[:kept].count(b"\n") - 1

        before.add(then)

        after = Gone(path)
        assert all(one in after for one in [*known, *then])
        assert "never \n given" not in after


def test_only_the_newest_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone, "MOST", 5)
    for number in range(30):
        Gone(tmp_path / "gone").add([f"h{number}"])

    last = Gone(tmp_path / "gone")

    assert [number for number in range(30) if f"h{number}" in last] == [25, 26, 27, 28, 29]
    assert len((tmp_path / "gone").read_bytes().split()) <= 10
