"""Names of a package that load on first use, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package.

    Args:
        package: Name of the package, its ``__name__``.
        homes: For each public name the module of the package that defines it, or
            ``"module:attribute"`` where the name there is another.

    Returns:
        A function for ``__getattr__`` (PEP 562).
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        return getattr(importlib.import_module(f"{package}.{module}"), attribute or name)

    return load
