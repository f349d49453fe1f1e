"""Which transport fits two ends."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.kv.transport import Place, choose, here
from morphogen.schemas.kv import TRANSPORTS

ONE = Place(host="h", process="1", memory="m", disk="d", device="cuda/0", blobs=True)
names = st.sampled_from(["a", "b"])
maybe = st.one_of(st.none(), names)
places = st.builds(Place, host=names, process=names, memory=maybe, disk=maybe, device=maybe, blobs=st.booleans())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "same_process"),
        ({"process": "2"}, "ipc"),
        ({"process": "2", "device": None}, "shared_memory"),
        ({"process": "2", "device": "cuda/1"}, "shared_memory"),
        ({"process": "2", "device": None, "memory": "other"}, "disk"),
        ({"process": "2", "device": None, "memory": None, "disk": None}, "blobs"),
        ({"host": "g"}, "blobs"),
        ({"host": "g", "blobs": False}, None),
    ],
)
def test_the_cheapest_that_both_ends_have_is_chosen(change: dict[str, object], expected: str | None) -> None:
    assert choose(ONE, msgspec.structs.replace(ONE, **change)) == expected


@given(places, places)
def test_both_ends_choose_the_same(one: Place, two: Place) -> None:
    chosen = choose(one, two)
    assert chosen == choose(two, one)
    assert chosen is None or chosen in TRANSPORTS
    if one.host != two.host:
        assert chosen in (None, "blobs")


@given(places)
def test_a_place_is_plain_data(place: Place) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(place), type=Place) == place


def test_two_names_of_one_folder_are_one_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("kv")
    link = folder.with_name("link-to-kv")
    link.symlink_to(folder)
    assert here(memory=folder) == here(memory=link)
    assert choose(here(), here()) == "same_process"
