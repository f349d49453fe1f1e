"""Columns on their way to Arrow: what tables of one batch share is made once."""

import numpy as np

from morphogen.consumers.projections import Columns
from morphogen.consumers.projections.fold.arrays import Words, strings
from morphogen.consumers.projections.fold.rows import Made


def test_tables_of_one_batch_share_what_was_made_of_their_columns() -> None:
    seq, run = np.arange(3), strings(["a", "b", "a"])
    made: Made = {}
    first = Columns({"seq": seq, "run": run, "value": [1.0, None, 3.0]})
    second = Columns({"seq": seq, "run": run, "n": np.arange(3)})

    one = first.arrow({"seq": "BIGINT", "run": "VARCHAR", "value": "DOUBLE"}, made)
    two = second.arrow({"seq": "BIGINT", "run": "VARCHAR", "n": "BIGINT"}, made)

    assert one.to_pydict() == {"seq": [0, 1, 2], "run": ["a", "b", "a"], "value": [1.0, None, 3.0]}
    assert two.to_pydict() == {"seq": [0, 1, 2], "run": ["a", "b", "a"], "n": [0, 1, 2]}
    assert len(made) == 4


def test_one_column_can_have_two_types() -> None:
    values = [1, 2]
    made: Made = {}

    table = Columns({"a": values, "b": values}).arrow({"a": "BIGINT", "b": "DOUBLE"}, made)

    assert [str(field.type) for field in table.schema] == ["int64", "double"]


def test_words_that_were_kept_from_the_last_batch_are_not_those_of_another() -> None:
    for words in (["x", "y"], ["x", "z"], ["x", "y"], ["é", "\ud800"], [""], []):
        codes = np.array([*range(len(words)), -1], np.int32)

        assert Words(codes, words).arrow().to_pylist() == [
            *(w.encode("utf-8", "replace").decode() for w in words),
            None,
        ]
