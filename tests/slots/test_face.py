"""The face of the room."""

import subprocess
import sys
from pathlib import Path

import morphogen.kernels.slots as room


def test_every_public_name_is_there() -> None:
    assert set(room.__all__) == set(room._HOMES)
    for name in room.__all__:
        assert getattr(room, name) is not None
        assert name.isupper() or getattr(room, name).__doc__


def run(source: str) -> None:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_table_the_ramps_and_the_gates_need_no_torch_and_the_rest_names_the_extra() -> None:
    run(
        """
import sys
sys.modules["torch"] = None
from morphogen.kernels.slots import GATE_OF, LEGAL, MissingExtra, Ramp, evaluate_gate, refusal
try:
    from morphogen.kernels.slots import adapt
except MissingExtra as error:
    assert str(error) == "adapt needs torch: pip install 'morphogen[adapt]'", error
else:
    raise SystemExit("no error")
"""
    )


def test_no_module_takes_the_name_of_a_function() -> None:
    modules = {path.stem for path in Path(room.__file__).parent.glob("*.py")}

    assert not modules & set(room.__all__)
