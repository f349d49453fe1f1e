"""Signed versions: what a signature is over, and who is believed."""

import msgspec
import pytest

pytest.importorskip("cryptography")

from morphogen.consumers.crystallizer import KeyRefused, distrust, signed, trusted_keys
from morphogen.kernels.blueprints import new_key, public_key
from morphogen.schemas import CrystalRegistered, decode_event
from morphogen.schemas.crystals import Guard, Parameter

MADE = CrystalRegistered(
    tool="tool_a", number=1, signature="g1-a", attempt="a", source="def run():\n    return 1\n", source_sha256="sha256:1",
    params=[Parameter(name="n", type="int", seen=(1, 2))], guards=[Guard(kind="type", subject="n", expected="int")],
    provenance={"replayed": 3},
)  # fmt: skip


def test_a_signature_holds_across_the_log_and_for_its_key_alone() -> None:
    key, other = new_key(), new_key()
    made = signed(MADE, key)
    back = decode_event(made.type, made.version, made.encode())
    assert isinstance(back, CrystalRegistered)
    assert distrust(back, trusted_keys([public_key(key)])) is None
    assert "not among" in str(distrust(back, trusted_keys([public_key(other)])))


@pytest.mark.parametrize(
    "change",
    [
        {"source": "def run():\n    return 2\n"}, {"number": 2}, {"guards": []}, {"capabilities": ["files.remove"]},
        {"provenance": {}}, {"entry": "other"}, {"signature": "g1-b"}, {"signed": "00" * 64}, {"signed": "x"},
    ],
)  # fmt: skip
def test_whatever_is_changed_after_signing_is_noticed(change: dict[str, object]) -> None:
    key = new_key()
    made = msgspec.structs.replace(signed(MADE, key), **change)
    assert "changed after it was signed" in str(distrust(made, trusted_keys([public_key(key)])))


def test_what_is_not_signed_is_not_trusted() -> None:
    assert "not signed" in str(distrust(MADE, trusted_keys([public_key(new_key())])))


def test_keys_that_are_none_are_refused_in_one_line() -> None:
    for wrong in (b"short", b""):
        with pytest.raises(KeyRefused):
            signed(MADE, wrong)
    for keys in (["xyz"], "a" * 64):
        with pytest.raises(KeyRefused):
            trusted_keys(keys)
