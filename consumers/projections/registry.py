"""Which projections there are: the built-in ones, installed ones, and those that this process registered.

A package brings its own through the entry-point group "morphogen.projections":

    [project.entry-points."morphogen.projections"]
    mine = "my_package.projections"                  all that the module declares
    alarms = "my_package.alarms:GradientAlarms"      or one class
"""

import logging
from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType

from morphogen.schemas.installed import load_installed_events

from .errors import DeclarationError
from .projection import Projection

GROUP = "morphogen.projections"

_log = logging.getLogger("morphogen.projections")
_said: set[str] = set()
_registered: dict[str, type[Projection]] = {}


def register(cls: type[Projection]) -> type[Projection]:
    """Make a projection known to this process; usable as a class decorator. The newest declaration of a name wins."""
    if not cls.name:
        raise DeclarationError(f"{cls.__qualname__} has no name: declare class {cls.__name__}(Projection, name=...)")
    _registered[cls.name] = cls
    return cls


def unregister(name: str) -> None:
    """Forget a projection that `register` made known."""
    _registered.pop(name, None)


def discover(extra: Iterable[type[Projection]] = (), *, installed: bool = True) -> list[Projection]:
    """Return all projections in a stable order: built-in ones first, `events` at their head.

    Raises DeclarationError where two share a name (but for the newer declarations of this process, which win), a table
    or a view, or where an entry point cannot be loaded.
    """
    from .builtin import BUILTIN, Events

    if installed:
        _load_events()
    classes: dict[str, type[Projection]] = {cls.name: cls for cls in BUILTIN}
    found = [*(_one_a_name(_installed()) if installed else ()), *_registered.values(), *extra]
    for cls in found:
        known = classes.get(cls.name)
        if known is not None and known is not cls and (cls.name == Events.name or known in BUILTIN):
            raise DeclarationError(f"{cls.__module__}.{cls.__qualname__}: {cls.name!r} is built in, take another name")
        classes[cls.name] = cls
    if Events.name in classes:
        raise DeclarationError(f"{Events.name!r} is built in, take another name")
    others = [_made(cls) for cls in classes.values()]
    projections: list[Projection] = [Events(tuple(others)), *others]
    _refuse_doubles(projections)
    return projections


def _one_a_name(classes: Iterable[type[Projection]]) -> list[type[Projection]]:
    """Return each class once, in order. Raises DeclarationError where two share a name."""
    known: dict[str, type[Projection]] = {}
    for cls in classes:
        other = known.setdefault(cls.name, cls)
        if other is not cls:
            raise DeclarationError(
                f"projection {cls.name!r} is declared by two installed packages: {other.__module__}.{other.__qualname__} "
                f"and {cls.__module__}.{cls.__qualname__}; rename it in one, or uninstall that"
            )
    return list(known.values())


def _made(cls: type[Projection]) -> Projection:
    try:
        return cls()
    except (Exception, SystemExit) as error:
        raise DeclarationError(
            f"projection {cls.name!r} ({cls.__module__}.{cls.__qualname__}) cannot be made: {type(error).__name__}: "
            f"{error}; mend it, or uninstall its package"
        ) from error


def _load_events() -> None:
    """Make the events of installed packages known; those of a package that fails stay unknown, which stops nobody."""
    for line in load_installed_events():
        if line not in _said:
            _said.add(line)
            _log.warning("%s; its events are kept as unknown", line)


def _installed() -> Iterable[type[Projection]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found = point.load()
        except (Exception, SystemExit) as error:
            raise DeclarationError(
                f"projection {point.name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}; "
                "mend or uninstall its package"
            ) from error
        classes = _declared(found) if isinstance(found, ModuleType) else [found]
        if not classes or not all(
            isinstance(cls, type) and issubclass(cls, Projection) and cls.name for cls in classes
        ):
            raise DeclarationError(
                f"entry point {point.name!r} ({point.value}) is no named Projection class, nor a module that declares one"
            )
        yield from classes


def _declared(module: ModuleType) -> list[type[Projection]]:
    """Return the named projections that a module declares itself, not those that it only imports."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Projection)
        and value.name
        and value.__module__ == module.__name__
    ]


def _refuse_doubles(projections: list[Projection]) -> None:
    owners: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for projection in projections:
        names = [*projection.tables, *projection.views, *(f"{table}_versions" for table in projection.keys)]
        for name in names:
            if name in owners:
                raise DeclarationError(
                    f"{name!r} is declared by the projections {owners[name]!r} and {projection.name!r}: rename one"
                )
            owners[name] = projection.name
        for kind in projection.bodies:
            if kind in kinds:
                raise DeclarationError(
                    f"bodies of {kind!r} are declared by {kinds[kind]!r} and {projection.name!r}: keep one"
                )
            kinds[kind] = projection.name
