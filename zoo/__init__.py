"""The networks: interchangeable Lightning modules, their registry, and pretrained weights.

    >>> from latticezoo.zoo import create_model, list_models, load_pretrained
    >>> list_models()                                       # doctest: +SKIP
    >>> network = create_model("gcn", task, preset="compact")   # doctest: +SKIP

Names are resolved when first used, so that listing the models imports none of them.
"""

from __future__ import annotations

import importlib
from typing import Any

from latticezoo.zoo.registry import MEMBERS, create_model, list_models, model_class, register

_LAZY = {
    "Ensemble": "latticezoo.zoo.ensemble",
    "ZooModel": "latticezoo.zoo.base",
    "check_golden": "latticezoo.zoo.pretrained",
    "list_pretrained": "latticezoo.zoo.sources",
    "load_pretrained": "latticezoo.zoo.pretrained",
    **{member.class_name: member.module for member in MEMBERS.values()},
}

__all__ = [
    "create_model",
    "list_models",
    "model_class",
    "register",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
