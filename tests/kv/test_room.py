"""The room shows its names without its packages, and each name is where it says."""

import subprocess
import sys

import morphogen.kernels.kv as room


def test_every_name_can_be_had() -> None:
    assert room.__all__ == sorted(room.__all__)
    assert set(room.__all__) == set(room._HOMES)
    for name in room.__all__:
        assert getattr(room, name) is not None


def test_importing_the_room_loads_neither_llama_cpp_nor_xxhash() -> None:
    code = (
        "import sys, morphogen.kernels.kv; print(sorted({'llama_cpp', 'xxhash', 'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
