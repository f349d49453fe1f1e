"""A machine on which some layer cannot be had: the far side started with one of its files changed."""

from pathlib import Path
from types import CodeType

import pytest

from morphogen.kernels.sandbox import nursery

_AS_THEY_ARE = nursery._codes
_NO_UNSHARE = """def call(number: int, *rest: "int | bytes | None") -> int:
    if number == UNSHARE:
        raise OSError(1, "spoilt")
    return really_call(number, *rest)


def really_call(number: int, """
_CHANGES = {
    "namespaces": ("kernel", "def call(number: int, ", _NO_UNSHARE),
    "landlock": ("sealing", "    abi = kernel.call(", "    raise OSError(95, 'spoilt')\n    abi = kernel.call("),
    "seccomp": ("sealing", "        address, keep = kernel.memory(program)", "        raise OSError(22, 'spoilt')"),
}


def without(monkeypatch: pytest.MonkeyPatch, layer: str) -> None:
    """Start far sides, from now on, on which `namespaces`, `landlock` or `seccomp` do not hold."""
    name, old, new = _CHANGES[layer]
    text = (Path(nursery.__file__).parent / "inside" / f"{name}.py").read_text()
    if layer == "seccomp":
        start = text.index(old)
        end = text.index('    _try(held, "seccomp"', start)
        changed = text[:start] + new + "\n\n" + text[end:]
    else:
        assert old in text
        changed = text.replace(old, new)
    codes: list[tuple[str, CodeType]] = [
        (other, compile(changed, name, "exec", optimize=2) if other == name else code) for other, code in _AS_THEY_ARE()
    ]
    monkeypatch.setattr(nursery, "_codes", lambda: codes)
