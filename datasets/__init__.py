"""Labelled data of lattice models: files, recipes that make them, Lightning data modules.

Names load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "LabelledData": "labelled",
    "Source": "labelled",
    "write_dataset": "file",
    "Recipe": "registry",
    "Unit": "registry",
    "recipe": "registry",
    "register_data": "registry",
    "create_recipe": "registry",
    "list_recipes": "registry",
    "create_data": "registry",
    "data_class": "registry",
    "list_data": "registry",
    "make_dataset": "make",
    "cache_folder": "cache",
    "split_by_group": "split",
    "Batch": "batches",
    "LatticeData": "module",
    "FromFile": "module",
    "Holstein": "holstein_module",
    "JahnTeller": "jahn_teller_module",
    "SyntheticData": "synthetic",
    "evaluation_data": "module",
    "compare_populations": "populations",
    "driver_errors": "populations",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
