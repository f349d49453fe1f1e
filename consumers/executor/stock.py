"""What may be germinated at each site, by the names of the menu, and how each of them becomes a module."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from torch import nn

from morphogen.kernels import blueprints
from morphogen.kernels.blueprints import Blueprint, Cache
from morphogen.kernels.blueprints.menus import NAMES
from morphogen.schemas import SiteInfo, line_of, sound

from .errors import ExecutorError, LoadError

Entry: TypeAlias = Blueprint | str | PathLike[str]
"""A blueprint, or the path of an artifact."""

Menu: TypeAlias = Mapping[str, Entry] | Sequence[str] | Callable[[SiteInfo], Mapping[str, Entry]] | None
"""What to offer: the standard menu, names of it, entries by name, or a function of the site."""


ROOM = 256 << 20  # bytes of the artifacts' weights that are kept in memory


@dataclass(frozen=True)
class Item:
    """One thing that can be germinated at one site. `artifact` is the path of the weights that it begins with."""

    name: str
    blueprint: Blueprint
    address: str
    params: int
    flops: int | None
    artifact: Path | None = None
    spec: bytes | None = None
    """The blueprint itself, as bytes."""
    artifact_digest: str | None = None
    """The content address of those weights."""
    cache: Cache | None = field(default=None, compare=False, repr=False)
    """Where those weights are once they were read."""

    def make(self, seed: int, *, zero_last: bool = True) -> nn.Module:
        """Build it, or load its weights. Raises LoadError, which says whether another try could help."""
        try:
            if self.artifact is None:
                return blueprints.build(self.blueprint, seed=seed, zero_last=zero_last)
            if self.cache is not None and self.artifact_digest is not None:
                return self.cache.get(self.artifact_digest).build()
            return blueprints.load(self.artifact).build()
        except LoadError:
            raise
        except blueprints.UnfitBlueprint as error:
            raise LoadError(line_of(error), kind="device", lasting=True) from error
        except blueprints.BadInit as error:
            raise LoadError(line_of(error), kind="nonfinite", lasting=True) from error
        except (blueprints.ArtifactRefused, blueprints.InvalidBlueprint) as error:
            raise LoadError(line_of(error), kind="checksum", lasting=True) from error
        except blueprints.BlueprintError as error:
            raise LoadError(line_of(error), kind="load", lasting=True) from error
        except MemoryError as error:
            raise LoadError(f"{self.name}: no memory for it", kind="memory") from error
        except OSError as error:
            raise LoadError(
                f"{self.name}: {error.strerror or line_of(error)}: {error.filename}", kind="load"
            ) from error
        except Exception as error:
            kind = "memory" if "out of memory" in sound(error) else "exception"
            raise LoadError(f"{self.name}: {type(error).__name__}: {line_of(error)}", kind=kind) from error


Stock: TypeAlias = Mapping[str, Mapping[str, Item]]
"""By site, by name."""


def stock(sites: Sequence[SiteInfo], menu: Menu = None, *, room: int = ROOM) -> dict[str, dict[str, Item]]:
    """Return what may be germinated where: of the menu, what fits the shapes of each site.

    Artifacts are read and checked now, once each, and kept in `room` bytes; what has no room there is read again when
    it is germinated, and is then to be what it is now.

    Raises ExecutorError for a menu that fits nowhere, or a name or a file that is none.
    """
    if isinstance(menu, str | bytes) or not (menu is None or callable(menu) or isinstance(menu, Mapping | Sequence)):
        raise ExecutorError(f"a menu is names, entries by name, or a function of the site, not {menu!r:.100}")
    if isinstance(menu, Sequence) and (unknown := [name for name in menu if name not in NAMES]):
        raise ExecutorError(f"the standard menu has no {unknown[0]!r:.100}: it has {', '.join(NAMES)}")
    shelf = _Shelf(room)
    found = {site.site: _items(site, menu, shelf) for site in sites}
    known = [site for site in sites if site.in_shape is not None]
    if known and menu is not None and not any(found[site.site] for site in known):
        raise ExecutorError("nothing of the menu fits any site: give blueprints for the shapes that its sites have")
    return found


class _Shelf:
    """The artifacts of a menu, by path and by what is in them."""

    def __init__(self, room: int) -> None:
        self._paths: dict[str, Path] = {}
        self._known: dict[Path, tuple[Blueprint, str]] = {}
        self.cache = Cache(self._paths.__getitem__, limit=room)

    def read(self, path: Path) -> tuple[Blueprint, str]:
        """Return what is in a file: the blueprint, and the address of the artifact."""
        known = self._known.get(path)
        if known is None:
            address = blueprints.load(path).address
            self._paths[address] = path
            known = self._known[path] = self.cache.get(address).blueprint, address
        return known


def _items(site: SiteInfo, menu: Menu, shelf: _Shelf) -> dict[str, Item]:
    if site.in_shape is None or site.out_shape is None:
        return {}
    entries: Mapping[str, Entry]
    if callable(menu):
        try:
            entries = menu(site)
        except Exception as error:
            raise ExecutorError(
                f"the menu's function failed for {site.site}: {type(error).__name__}: {line_of(error)}"
            ) from error
        if not isinstance(entries, Mapping):
            raise ExecutorError(f"the menu's function gave {entries!r:.100} for {site.site}: it gives entries by name")
    elif isinstance(menu, Mapping):
        entries = menu
    else:
        standard = blueprints.menu(site)
        entries = standard if menu is None else {name: standard[name] for name in menu if name in standard}
    items = {}
    for key, entry in entries.items():
        item = _item(sound(key), entry, site, shelf)
        if item is not None:
            items[item.name] = item
    return items


def _item(name: str, entry: Entry, site: SiteInfo, shelf: _Shelf) -> Item | None:
    """Return an entry as it is at a site, or None where it does not fit there."""
    artifact = digest = None
    if isinstance(entry, Blueprint):
        blueprint = entry
    elif not isinstance(entry, str | PathLike):
        raise ExecutorError(f"menu entry {name!r} is a blueprint or the path of an artifact, not {entry!r:.100}")
    else:
        artifact = Path(entry)
        try:
            blueprint, digest = shelf.read(artifact)
        except blueprints.BlueprintError as error:
            raise ExecutorError(f"menu entry {name!r}: {line_of(error)}") from error
        except OSError as error:
            raise ExecutorError(f"menu entry {name!r}: {artifact}: {error.strerror or line_of(error)}") from error
    assert site.in_shape is not None
    length = _length(site)
    try:
        blueprints.validate(blueprint, site.in_shape, site.out_shape, length=length)
    except blueprints.UnfitBlueprint:
        return None
    except blueprints.BlueprintError as error:
        raise ExecutorError(f"menu entry {name!r}: {line_of(error)}") from error
    return Item(
        name=name,
        blueprint=blueprint,
        address=blueprints.address(blueprint),
        params=blueprints.params(blueprint),
        flops=blueprints.flops(blueprint, length=length),
        artifact=artifact,
        spec=blueprints.encode(blueprint),
        artifact_digest=digest,
        cache=None if digest is None else shelf.cache,
    )


def _length(site: SiteInfo) -> int | None:
    return site.in_shape[0] if site.kind == "sequence" and site.in_shape and len(site.in_shape) == 2 else None


def rng_seed(seed: int, seed_id: str) -> int:
    """Return the seed of a seed's weights: the same for the same run seed and place in the run's growth."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{seed_id}".encode()).digest()[:7], "big")
