"""The wheel and the sdist hold every room under one import name, and get on with a package called `kernels`."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("bus", "schemas", "producers", "consumers", "replay", "cli")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both distributions from the sdist's own tree."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return folder


def test_the_wheel_holds_one_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"morphogen"}
    assert "morphogen/py.typed" in names
    for path in (*(ROOT / room for room in ROOMS),):
        for file in (*path.rglob("*.py"), *path.rglob("*.mk"), *path.rglob("*.lark")):
            assert f"morphogen/{file.relative_to(ROOT)}" in names
    assert "morphogen/schemas/knowledge/library/training.mk" in names


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_the_wheel_holds_what_was_compiled(built: Path) -> None:
    (wheel,) = built.glob("*.whl")

    names = zipfile.ZipFile(wheel).namelist()

    assert {"morphogen/bus/spool/_records.abi3.so", "morphogen/producers/watch/_reading.abi3.so"} <= {*names}
    assert "-cp311-abi3-" in wheel.name


def test_the_sdist_holds_the_real_folders(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"api/__init__.py", "bus/bus.py", "README.md", "LICENSE", "tests/conftest.py"} <= names


def test_every_module_imports_from_an_installed_wheel_beside_a_package_called_kernels(
    built: Path, tmp_path: Path
) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "kernels").mkdir()
    (site / "kernels" / "__init__.py").write_text("OWNER = 'somebody else'\n")
    script = """
import importlib, pkgutil, sys
site = sys.argv[1]
sys.path.insert(0, site)
import morphogen, kernels
assert morphogen.__file__.startswith(site), morphogen.__file__
assert kernels.OWNER == "somebody else"
for module in pkgutil.walk_packages(morphogen.__path__, "morphogen."):
    if not module.name.startswith(("morphogen.cli.demo", "morphogen.cli.__main__", "morphogen.producers.watch")):
        importlib.import_module(module.name)
for name in morphogen.__all__:
    getattr(morphogen, name)
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import site; site.main(); " + "exec(open('/dev/stdin').read())", str(site)],
        input=script, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_every_room_has_its_link_for_editable_installs() -> None:
    for room in ROOMS:
        assert (ROOT / ".dev" / "morphogen" / room).resolve() == ROOT / room
