"""Every tree that can be written is read back as it was: the parser knows the whole language, and no more keywords than it says."""

from hypothesis import given, settings

from morphogen.schemas.knowledge.diagnostics import render
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.tree import Module

from .generated import MODULES, plain_source


@settings(max_examples=50)
@given(MODULES)
def test_a_module_written_from_its_tree_parses_to_that_tree(module: Module) -> None:
    source = plain_source(module)

    parsed = parse(source)

    assert [render(one, source) for one in parsed.diagnostics] == []
    assert parsed.module == module
