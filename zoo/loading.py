"""Networks by name: from a checkpoint, the folder of a run, a card, the hub, or the library."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.checkpoints import read_checkpoint
from latticezoo.zoo.pretrained import load_pretrained
from latticezoo.zoo.sources import CONFIG, HUB, LOCAL, card_folder, list_pretrained

#: What a run folder has, and where its best weights lie in it.
RUN_RECORD, RUN_BEST = "run.json", Path("checkpoints") / "best.ckpt"


def load_network(name: str, *, what: str = "model", others: Sequence[str] = ()) -> ZooModel:
    """A network with its weights, in eval mode on the CPU.

    Args:
        name: Pretrained weights such as ``gcn.holstein_weak``; a checkpoint; the folder of a run,
            which stands for its best weights; the folder of a card; or a repository on the hub,
            ``hf-hub:user/name``.
        what: What the network is wanted as, for the message.
        others: Further names that the caller accepts, for the message.

    Raises:
        InputError: There is none of that name (the nearest are given), or it is damaged.
    """
    if name.startswith(HUB):
        return load_pretrained(name)
    place = _place(name, what, others)
    if place.suffix == ".ckpt":
        return ZooModel.load_from_checkpoint(place).eval()
    return load_pretrained(place)


def trained_system(name: str) -> dict[str, Any] | None:
    """The system that a network was trained on: its name under ``system``, and its parameters.

    Args:
        name: As :func:`load_network`.

    Returns:
        Plain values, or None where the checkpoint or the card does not say; of a repository on
        the hub nothing but the network is read.

    Raises:
        InputError: There is no network of that name, or its checkpoint is damaged.
    """
    if name.startswith(HUB):
        return None
    place = _place(name)
    if place.suffix == ".ckpt":
        found = read_checkpoint(place).get("latticezoo_data")
    else:
        try:
            found = json.loads((place / "metrics.json").read_text())
        except (OSError, ValueError):
            return None
    system = found.get("system") if isinstance(found, dict) else None
    return system if isinstance(system, dict) else None


def _place(name: str, what: str = "model", others: Sequence[str] = ()) -> Path:
    """The checkpoint, or the folder of the card, that a name stands for."""
    path = Path(name).expanduser()
    if path.suffix == ".ckpt":
        return path
    if (path / RUN_RECORD).exists():
        return path / RUN_BEST
    if name.startswith(LOCAL) or name in list_pretrained():
        return card_folder(name)
    if (path / CONFIG).exists():
        return path
    if path.is_dir() or os.sep in name:
        raise InputError(
            f"the {what} {name!r} is no network: a checkpoint (.ckpt), the folder of a run, or "
            "that of a card is needed."
        )
    raise unknown(what, name, [*others, *list_pretrained()])
