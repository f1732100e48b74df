"""Lightning's module class, imported without scipy.signal.

torchmetrics, which Lightning imports, loads ``scipy.signal`` for the sake of one alias in it
(``hamming``, an old name that another package calls). That is a fifth of the time from nothing to
the first force, so an empty module stands in its place meanwhile. Whoever needs ``scipy.signal``
imports the real one afterwards.
"""

from __future__ import annotations

import importlib
import sys
import types

_SLOW = "scipy.signal"


def _import_lightning() -> None:
    if _SLOW in sys.modules or "torchmetrics" in sys.modules:
        return
    stand_in = types.ModuleType(_SLOW)
    stand_in.hamming = None  # type: ignore[attr-defined]
    sys.modules[_SLOW] = stand_in
    try:
        importlib.import_module("pytorch_lightning")
    except ImportError:  # something does need it: the import below will find the real one
        pass
    finally:
        del sys.modules[_SLOW]
        package = sys.modules.get("scipy")
        if package is not None and vars(package).get("signal") is stand_in:
            del package.signal


_import_lightning()

from pytorch_lightning import LightningModule  # noqa: E402

__all__ = ["LightningModule"]
