"""Data of the experiment: a split is a pure function of the data set and a seed, and its test part is read once."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TEXT = Path(__file__).parents[2] / "LICENSE"  # what the character model reads: prose that is there on every machine
WINDOW = 32
Indices = NDArray[np.int64]


class TestReadTwiceError(RuntimeError):
    """The test part of a split was asked for a second time."""

    __test__ = False  # no test class, whatever its name begins with


class Sealed:
    """A test part that opens once, so that nothing can be chosen by it."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self._parts: tuple[Tensor, Tensor] | None = (inputs, targets)

    def open(self) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, the first time; raise TestReadTwiceError after that."""
        if self._parts is None:
            raise TestReadTwiceError("this test part was read before: judge a run once, at its end")
        parts, self._parts = self._parts, None
        return parts


@dataclass(frozen=True)
class Split:
    """Training and validation parts, a sealed test part, and the rows of the data set that each was made of."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: Sealed
    rows: tuple[Indices, Indices, Indices]

    @property
    def sha256(self) -> str:
        """The hash of which rows went where; equal for all arms of a seed."""
        digest = hashlib.sha256()
        for part in self.rows:
            digest.update(np.ascontiguousarray(part, "<i8").tobytes() + b"|")
        return digest.hexdigest()


def split_of(inputs: Tensor, targets: Tensor, rows: tuple[Indices, Indices, Indices]) -> Split:
    """Return the split that puts these rows into training, validation and test."""
    train, validation, test = (torch.from_numpy(part) for part in rows)
    return Split(
        train=(inputs[train], targets[train]),
        validation=(inputs[validation], targets[validation]),
        test=Sealed(inputs[test], targets[test]),
        rows=rows,
    )


def stratified(targets: NDArray[np.int64], seed: int) -> tuple[Indices, Indices, Indices]:
    """Return rows for training, validation and test: a quarter for test, a quarter of the rest for validation."""
    from sklearn.model_selection import train_test_split

    every = np.arange(len(targets))
    rest, test = train_test_split(every, test_size=0.25, stratify=targets, random_state=seed)
    train, validation = train_test_split(rest, test_size=0.25, stratify=targets[rest], random_state=seed)
    return train, validation, test


@functools.cache
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels.astype(np.int64)


def digits(seed: int) -> Split:
    """Return 8x8 digits as 64 numbers from 0 to 1: 1010 to train on, 337 to validate, 450 to test."""
    inputs, labels = _digits()
    return split_of(torch.from_numpy(inputs), torch.from_numpy(labels), stratified(labels, seed))


def digit_images(seed: int) -> Split:
    """Return the digits as images of one channel."""
    inputs, labels = _digits()
    return split_of(torch.from_numpy(inputs).view(-1, 1, 8, 8), torch.from_numpy(labels), stratified(labels, seed))


def wine(seed: int) -> Split:
    """Return the 178 wines: 13 numbers, scaled by mean and deviation of the training part, 3 classes."""
    from sklearn.datasets import load_wine

    values, labels = load_wine(return_X_y=True)
    rows = stratified(labels, seed)
    known = values[rows[0]]
    scaled = ((values - known.mean(0)) / known.std(0)).astype(np.float32)
    return split_of(torch.from_numpy(scaled), torch.from_numpy(labels.astype(np.int64)), rows)


def moons(seed: int) -> Split:
    """Return 1200 points of two moons, drawn anew for each seed."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(1200, noise=0.15, random_state=seed)
    points, labels = points.astype(np.float32), labels.astype(np.int64)
    return split_of(torch.from_numpy(points), torch.from_numpy(labels), stratified(labels, seed))


def spirals(seed: int) -> Split:
    """Return 1200 points of three spiral arms of one turn each, drawn anew for each seed."""
    generator = np.random.default_rng(seed)
    labels = np.arange(1200) % 3
    radius = np.sqrt(generator.uniform(0.02, 1, 1200))
    angle = 2 * np.pi * (radius + labels / 3) + generator.normal(0, 0.12, 1200)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)
    labels = labels.astype(np.int64)
    return split_of(torch.from_numpy(points), torch.from_numpy(labels), stratified(labels, seed))


@functools.cache
def _characters() -> tuple[NDArray[np.int64], int]:
    text = TEXT.read_text().lower()
    alphabet = sorted(set(text))
    at = {letter: number for number, letter in enumerate(alphabet)}
    return np.array([at[letter] for letter in text]), len(alphabet)


def alphabet_size() -> int:
    """Return how many different characters the text has."""
    return _characters()[1]


def characters(seed: int) -> Split:
    """Return windows of 32 characters, each with the 32 that follow one place on; windows do not overlap."""
    codes, _ = _characters()
    count = (len(codes) - 1) // WINDOW
    inputs = torch.from_numpy(codes[: count * WINDOW].reshape(count, WINDOW))
    targets = torch.from_numpy(codes[1 : count * WINDOW + 1].reshape(count, WINDOW))
    order = np.random.default_rng(seed).permutation(count)
    test, validation = count // 4, count // 2 - count // 16
    return split_of(inputs, targets, (order[validation:], order[test:validation], order[:test]))


SPLITS: dict[str, Callable[[int], Split]] = {
    "digits": digits,
    "digit-images": digit_images,
    "wine": wine,
    "moons": moons,
    "spirals": spirals,
    "characters": characters,
}
