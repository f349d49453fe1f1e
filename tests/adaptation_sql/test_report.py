"""A run as a page and a picture, read from the tables."""

import builtins
import html.parser
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import morphogen
from morphogen.bus.settings import Settings
from morphogen.cli.app import run as command
from morphogen.consumers.projections import Store
from morphogen.replay.errors import ReportFailed
from morphogen.replay.report import Ask, LineChart, gather, growth_charts, page, picture, write
from morphogen.replay.report.ticks import decades, label, ticks
from morphogen.replay.report.write import file_name
from morphogen.schemas import AlertRaised, HostRestored, Metrics, RunStarted

from .conftest import Log, open_store
from .story import decided, germinated, grown_run, measured

HOSTILE = "</title><script>document.title='pwned'</script><img src=x onerror=alert(1)> $\\frac{1$ \x07\x00 é 網 _'\""
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


def asks(store: Store) -> Ask:
    """Return what asks a store as the SQL client asks a projector."""

    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with store.reading(None) as con:
            answer = con.execute(sql, dict(params)) if params else con.execute(sql)
            names = [column[0] for column in answer.description]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    return ask


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """What asks the tables of five runs: one that grew, the same under a hostile name, and three that did not go far."""
    log = Log(chunk=100)
    for name in ("grown", HOSTILE):
        log.write(RunStarted(config={"lr": 0.01, name: [name, math.inf]}, host="h", git_commit="a" * 40), run=name)
        log.write(*grown_run(), run=name)
        log.write(AlertRaised(severity="warning", subject=name, message=name), run=name)
        for step in range(40):
            values = {"loss": 1 / (step + 1), name: math.nan if step == 7 else 10.0**step}
            log.write(Metrics(values=values), run=name, step=step)
    log.write(RunStarted(), run="plain")
    log.write(*(Metrics(values={"loss": float(step)}) for step in range(5)), run="plain")
    log.write(RunStarted(), run="empty")
    log.write(RunStarted(), *grown_run()[:1], *decided(0, 1), *germinated("fc1#0", 0, 8, "ab" * 32), run="diverged")
    for epoch, loss in enumerate([1.0, math.inf, math.nan, 1e-9, 1e9]):
        log.write(measured(epoch, loss, 8), run="diverged", step=epoch * 10)
    log.write(HostRestored(reason="nonfinite", snapshot_step=0, loss=math.inf), run="diverged", step=15)
    store = open_store(tmp_path_factory.mktemp("tables") / "store.duckdb", log)
    yield asks(store)
    store.close()


@pytest.fixture(scope="module")
def hostile(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of the report on the run with the hostile name."""
    return write(HOSTILE, tmp_path_factory.mktemp("reports") / "out", ask)


class Tags(html.parser.HTMLParser):
    """Collects the tags, the attributes that could run something, and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.risky: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.risky += [(key, value) for key, value in attrs if key.startswith("on") or key in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(text: str) -> Tags:
    """Return what is in a page."""
    found = Tags()
    found.feed(text)
    found.close()
    return found


def test_a_grown_run_shows_losses_decisions_growth_and_contributions(ask: Ask) -> None:
    story = gather("grown", ask)

    drawn = growth_charts(story)
    assert [chart.title for chart in drawn] == [
        "Loss, with the decisions",
        "Validation accuracy",
        "Parameters",
        "Contribution of each seed, as last measured",
    ]
    assert isinstance(drawn[0], LineChart)
    assert [(mark.x, mark.y, mark.kind) for mark in drawn[0].marks] == [
        (0.0, 2.0, "germinate"),
        (1.0, 1.5, "germinate"),
        (2.0, 1.0, "blocked"),
    ]
    assert drawn[0].marks[0].text == ("epoch 0, germinate fc1#0 mlp64: because of 0 (helped, +0.75 loss taken away)")
    assert drawn[0].marks[2].text.endswith("because of 2 (blocked by budget)")
    text = " ".join(parsed(page(story)).text)
    for shown in ("bandit", "test_accuracy", "0.875", "mlp64", "because of 1", "did not help", "fossilized", "4,288"):
        assert shown in text


def test_a_run_without_growth_still_shows_its_metrics(ask: Ask) -> None:
    story = gather("plain", ask)

    assert growth_charts(story) == []
    assert list(story.metrics) == ["loss"]
    assert story.metrics["loss"][-1] == (4.0, 4.0)
    assert "Nothing grew in this run" in page(story)


def test_an_empty_run_is_a_page_all_the_same(ask: Ask) -> None:
    story = gather("empty", ask)

    assert "empty" in page(story)
    assert picture(story).startswith(b"\x89PNG")


def test_a_run_that_does_not_exist_is_named_with_its_neighbours(ask: Ask) -> None:
    with pytest.raises(ReportFailed, match="there is no run 'grwon': did you mean 'grown'"):
        gather("grwon", ask)
    with pytest.raises(ReportFailed, match="lists them"):
        gather("zzz", ask)


def test_a_hostile_name_is_text_everywhere(hostile: list[Path]) -> None:
    text = hostile[0].read_text()
    found = parsed(text)

    assert "script" not in found.tags
    assert "img" not in found.tags
    assert found.risky == []
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org)", re.sub(r"content=\"[^\"]*\"", "", text))
    assert hostile[0].parent.name == hostile[1].parent.name == "out"
    assert hostile[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_a_browser_runs_nothing_and_fetches_nothing(hostile: list[Path], tmp_path: Path) -> None:
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]

    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", hostile[0].as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip

    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    assert title[1].startswith("&lt;/title&gt;&lt;script&gt;")
    assert done.stdout.count("<svg") > 6
    assert "Refused to" not in done.stderr
    assert "net::" not in done.stderr


def test_a_diverged_loss_is_a_gap_and_a_restore_a_line(ask: Ask) -> None:
    story = gather("diverged", ask)

    chart = growth_charts(story)[0]
    assert isinstance(chart, LineChart)
    assert chart.rules == ((2.0, "host restored: nonfinite"),)
    assert picture(story).startswith(b"\x89PNG")
    assert page(story).count('class="rule"') == 2


def test_the_command_writes_both_files_and_says_where(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with morphogen.record("team/digits", config={"lr": 0.1}) as run:
        for event in grown_run():
            run.event(event)
        run.log(loss=0.5, step=1)

    assert command(["report", "team/digits", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.split()
    assert [Path(line).name for line in lines] == ["team%2Fdigits.html", "team%2Fdigits.png"]
    assert all(Path(line).stat().st_size > 5_000 for line in lines)
    assert sorted(os.listdir(tmp_path / "out")) == ["team%2Fdigits.html", "team%2Fdigits.png"]
    assert command(["report", "team/digit", "--out", str(tmp_path)]) == 1
    assert "did you mean 'team/digits'" in capsys.readouterr().err


def test_without_matplotlib_the_page_is_there_and_the_extra_is_named(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(ReportFailed, match=r"grown\.html is written, but no PNG: .*pip install 'morphogen\[report\]'"):
        write("grown", tmp_path, ask)
    assert (tmp_path / "grown.html").exists()


def test_the_same_story_is_the_same_bytes(ask: Ask, hostile: list[Path]) -> None:
    story = gather(HOSTILE, ask)

    assert page(story).encode() == hostile[0].read_bytes()
    assert picture(story) == hostile[1].read_bytes()


@given(st.text(min_size=1, max_size=300))
def test_every_name_has_a_file_of_its_own_in_the_folder(name: str) -> None:
    found = file_name(name)

    assert 0 < len(found) <= 120
    assert not set('/\\\0:*?"<>|') & set(found)
    assert not found.startswith(".")


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_ticks_are_few_and_within_the_range(one: float, other: float) -> None:
    low, high = sorted((one, other))

    found = ticks(low, high)

    assert 1 <= len(found) <= 12
    slack = abs(high - low) * 1e-6 if math.isfinite(high - low) else math.inf
    assert all(low - slack <= tick <= high + slack for tick in found)
    if 0 < low < high:
        assert 1 <= len(decades(low, high)) <= 8


def test_an_axis_is_labelled_as_people_write() -> None:
    assert [label(v) for v in (0, 0.5, 1000, 20_000, 1.5e6, -3e9, 1e-7)] == [
        "0",
        "0.5",
        "1000",
        "20k",
        "1.5M",
        "-3G",
        "1e-07",
    ]


def test_numbers_at_the_end_of_what_floats_can_hold_are_drawn(tmp_path: Path) -> None:
    log = Log()
    log.write(RunStarted(), run="far")
    for step, loss in enumerate([1.0, -1.7e308, 1.7e308, 5e-324]):
        log.write(Metrics(values={"loss": loss, "positive": abs(loss)}), run="far", step=step)
    store = open_store(tmp_path / "store.duckdb", log)
    try:
        written = write("far", tmp_path / "out", asks(store))
    finally:
        store.close()
    assert [path.name for path in written] == ["far.html", "far.png"]
    assert all(path.stat().st_size > 1000 for path in written)
