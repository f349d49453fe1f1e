"""Units of measurement: which there are, what they measure, and exact factors between those of one dimension.

A dimension is a vector of powers over time, data, floating-point work, energy, money and angle-free counts, so that
`GB / s` and `GB/s` are the same thing. Factors are exact fractions of the base unit (s, B, FLOP, J, USD).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

Powers: TypeAlias = tuple[int, int, int, int, int]
"""Powers of time, data, work, energy and money."""

_NAMES = ("time", "data", "FLOP", "energy", "money")
_NONE: Powers = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: its name as written (empty for one that an expression made), what it measures, its exact size."""

    name: str
    powers: Powers
    factor: Fraction

    @property
    def dimensionless(self) -> bool:
        """Whether it is a plain number, a percentage included."""
        return self.powers == _NONE

    def __mul__(self, other: "Unit") -> "Unit":
        return _made(_added(self.powers, other.powers, 1), self.factor * other.factor)

    def __truediv__(self, other: "Unit") -> "Unit":
        return _made(_added(self.powers, other.powers, -1), self.factor / other.factor)

    def __str__(self) -> str:
        return self.name or describe(self)


def _added(one: Powers, other: Powers, sign: int) -> Powers:
    time, data, work, energy, money = (left + sign * right for left, right in zip(one, other, strict=True))
    return (time, data, work, energy, money)


PLAIN = Unit("", _NONE, Fraction(1))
"""The unit of a number that has none."""

_TIME: Powers = (1, 0, 0, 0, 0)
_DATA: Powers = (0, 1, 0, 0, 0)
_WORK: Powers = (0, 0, 1, 0, 0)
_ENERGY: Powers = (0, 0, 0, 1, 0)
_MONEY: Powers = (0, 0, 0, 0, 1)
_PER_TIME: Powers = (-1, 0, 0, 0, 0)


def _table() -> dict[str, Unit]:
    units: dict[str, Unit] = {}

    def add(name: str, powers: Powers, factor: Fraction | int) -> None:
        units[name] = Unit(name, powers, Fraction(factor))

    for name, factor in {
        "ns": Fraction(1, 10**9),
        "us": Fraction(1, 10**6),
        "µs": Fraction(1, 10**6),
        "μs": Fraction(1, 10**6),
        "ms": Fraction(1, 1000),
        "s": Fraction(1),
        "min": Fraction(60),
        "h": Fraction(3600),
        "d": Fraction(86400),
    }.items():
        add(name, _TIME, factor)
    sizes = {"B": 1} | {
        f"{prefix}{'iB' if binary else 'B'}": (1024 if binary else 1000) ** power
        for power, prefix in enumerate("KMGTP", 1)
        for binary in (False, True)
    }
    sizes["kB"] = 1000
    for name, size in sizes.items():
        add(name, _DATA, size)
        add(f"{name}/s", _added(_DATA, _TIME, -1), size)
    for prefix, size in {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}.items():
        add(f"{prefix}FLOP", _WORK, size)
        add(f"{prefix}FLOPS", _added(_WORK, _TIME, -1), size)
    for name, hertz in {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9}.items():
        add(name, _PER_TIME, hertz)
    for name, watts in {"mW": Fraction(1, 1000), "W": Fraction(1), "kW": Fraction(1000)}.items():
        add(name, _added(_ENERGY, _TIME, -1), watts)
    for name, joules in {
        "mJ": Fraction(1, 1000),
        "J": Fraction(1),
        "kJ": Fraction(1000),
        "kWh": Fraction(3_600_000),
    }.items():
        add(name, _ENERGY, joules)
    add("USD", _MONEY, 1)
    add("%", _NONE, Fraction(1, 100))
    return units


UNITS: dict[str, Unit] = _table()
"""Every unit by its name."""


def unit(name: str) -> Unit | None:
    """Return the unit of this name, None where there is none."""
    return UNITS.get(name)


def same_dimension(one: Unit, other: Unit) -> bool:
    """Tell whether values in one unit can be converted to the other."""
    return one.powers == other.powers


def ratio(source: Unit, target: Unit) -> Fraction:
    """Return what a value in `source` is multiplied with to stand in `target`; both must be of one dimension."""
    if not same_dimension(source, target):
        raise ValueError(f"{source} is {describe_dimension(source)}, {target} is {describe_dimension(target)}")
    return source.factor / target.factor


def convert(value: int | float, source: str, target: str) -> int | float:
    """Return a value in another unit of the same dimension, rounded once; an int stays one where that is exact.

    Raises ValueError for a name that is no unit, or for units that measure different things.
    """
    for name in (source, target):
        if name not in UNITS:
            raise ValueError(f"`{name}` is no unit; known are {', '.join(UNITS)}")
    return scaled(value, ratio(UNITS[source], UNITS[target]))


def scaled(value: int | float, factor: Fraction) -> int | float:
    """Return value times factor, rounded once from the decimal number that the value was written as."""
    if factor == 1:
        return value
    if isinstance(value, int):
        exact = value * factor
        return exact.numerator if exact.denominator == 1 else float(exact)
    try:
        return float(Fraction(repr(value)) * factor)
    except (ValueError, OverflowError):  # infinities and what becomes one
        return value * float(factor)


def named(powers: Powers, factor: Fraction) -> Unit | None:
    """Return the first named unit that is exactly this, None where there is none."""
    return next((one for one in UNITS.values() if one.powers == powers and one.factor == factor), None)


def _made(powers: Powers, factor: Fraction) -> Unit:
    if powers == _NONE and factor == 1:
        return PLAIN
    return named(powers, factor) or Unit("", powers, factor)


def describe_dimension(one: Unit) -> str:
    """Say what a unit measures, such as `time` or `data per time`."""
    above = [_power(name, power) for name, power in zip(_NAMES, one.powers, strict=True) if power > 0]
    below = [_power(name, -power) for name, power in zip(_NAMES, one.powers, strict=True) if power < 0]
    if not above and not below:
        return "a plain number"
    return " per ".join([" x ".join(above) or "one", *below])


def describe(one: Unit) -> str:
    """Say what a unit without a name is."""
    if one.dimensionless:
        return "a plain number" if one.factor == 1 else f"a plain number times {float(one.factor):g}"
    size = "" if one.factor == 1 else f" (times {float(one.factor):g})"
    return describe_dimension(one) + size


def _power(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"
