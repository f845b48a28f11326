"""Policies and rules that other packages bring, found through their entry points."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any


def load(group: str, base: type, ours: dict[str, Any], name_of: Callable[[Any], str]) -> dict[str, Any]:
    """`ours`, and the classes that other packages register in the entry point `group`, by name.

    Raises ImportError for an entry point that cannot be imported, TypeError for one that is no subclass of `base`,
    and ValueError for one whose name is taken or differs from its class's, as `name_of` tells it.
    """
    found = dict(ours)
    for point in entry_points(group=group):
        where = f"entry point {point.name} = {point.value} of {group}"
        try:
            loaded = point.load()
        except Exception as e:
            raise ImportError(f"{where} cannot be imported ({e!r}): mend its package or uninstall it") from e
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise TypeError(f"{where} is not a subclass of {base.__name__}")
        if name_of(loaded) != point.name:
            raise ValueError(f"{where} has another name: {name_of(loaded)}")
        if found.setdefault(point.name, loaded) is not loaded:
            raise ValueError(f"{where} has a name that is taken: choose another one")
    return found
