"""Units convert exactly, and only to what measures the same."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas.knowledge.loading import Sources, examined_source
from morphogen.schemas.knowledge.tools import TOOLS
from morphogen.schemas.knowledge.units import UNITS, Unit, convert, describe_dimension, same_dimension, unit
from morphogen.schemas.knowledge.wording import source

names = st.sampled_from(sorted(UNITS))


@pytest.mark.parametrize(
    ("value", "from_", "to", "wanted"),
    [
        (3, "s", "ms", 3000),
        (3.3, "s", "ms", 3300.0),
        (0.1, "ms", "ns", 100_000.0),
        (1500, "us", "ms", 1.5),
        (2, "h", "min", 120),
        (1, "GiB", "MiB", 1024),
        (1, "GB", "MiB", 953.67431640625),
        (1, "TB/s", "GB/s", 1000),
        (989.5, "TFLOPS", "GFLOPS", 989_500.0),
        (90, "%", "%", 90),
        (1, "GHz", "MHz", 1000),
        (1, "kWh", "J", 3_600_000),
        (math.inf, "s", "ms", math.inf),
    ],
)
def test_a_value_converts_exactly(value: float, from_: str, to: str, wanted: float) -> None:
    found = convert(value, from_, to)

    assert found == wanted
    assert type(found) is type(wanted)


@given(names, names, st.integers(-(10**6), 10**6))
def test_a_conversion_there_and_back_is_where_it_began(one: str, other: str, value: int) -> None:
    if not same_dimension(UNITS[one], UNITS[other]):
        with pytest.raises(ValueError, match="is"):
            convert(value, one, other)
        return

    assert convert(convert(value, one, other), other, one) == pytest.approx(value)


def test_an_unknown_unit_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="`parsec` is no unit; known are ns"):
        convert(1, "parsec", "s")


def test_a_size_by_a_time_is_a_rate() -> None:
    def of(name: str) -> Unit:
        found = unit(name)
        assert found is not None
        return found

    assert of("GB") / of("s") == of("GB/s")
    assert of("GB") / of("GB/s") == of("s")
    assert of("W") * of("s") == of("J")
    assert (of("s") / of("ms")).dimensionless
    assert describe_dimension(of("GB/s")) == "data per time"


@pytest.mark.parametrize(
    ("fact", "wanted"),
    [
        ("t.ms > 3 s", "t.ms > 3000 ms"),
        ("3 s < t.ms", "3000 ms < t.ms"),
        ("t.ms > t.s", "t.ms > t.s * 1000"),
        ("t.s > t.ms", "t.s > t.ms / 1000"),
        ("t.ms > 3", "t.ms > 3"),
        ("t.gb / t.s > 300 MB/s", "t.gb / t.s > 0.3 GB/s"),
        ("t.gb / t.ms > 200 GB/s", "t.gb / t.ms > 0.2 TB/s"),
        ("t.ratio > 90%", "t.ratio > 0.9"),
        ("t.percent > 0.5", "t.percent > 0.5"),
        ("t.ms + 1 s > 2 min", "t.ms + 1000 ms > 120000 ms"),
        ("t.ms in [1 s, 2]", "t.ms in [1000 ms, 2]"),
        ("clamp(t.ms, 1 s, 2 s) > 1", "clamp(t.ms, 1000 ms, 2000 ms) > 1"),
        ("avg(t.ms) over last 3 > 1 us", "(avg(t.ms) over last 3) > 0.001 ms"),
        ("t.ms > LIMIT", "t.ms > LIMIT * 1000"),
        ("t.n * t.ms > 1 s", "t.n * t.ms > 1000 ms"),
        ("abs(-t.ms) > 1 s", "abs(-t.ms) > 1000 ms"),
        ("t.ms > -1 s", "t.ms > -1000 ms"),
    ],
)
def test_a_checked_fact_has_every_number_in_the_unit_of_what_it_meets(fact: str, wanted: str) -> None:
    text = (
        "system S { const LIMIT = 2 s trace_schema { variant V { case C { ms: float in ms, s: float in s, gb: float in GB,"
        f" ratio: float, percent: float in %, n: int }} }} }} knowledge {{ fact f(t: C) {{ return {fact} }} }} }}"
    )

    examined, _, diagnostics = examined_source(text, "units.mk", Sources(TOOLS))

    assert diagnostics == ()
    assert source(examined.module.systems[0].facts[0].body) == wanted
