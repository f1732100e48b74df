"""Linear autoregression: the baseline of all sequence models."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.read_out_model import ReadOutModel
from latticezoo.zoo.registry import register
from latticezoo.zoo.sequence_model import Memory


@register("autoregression")
class Autoregression(ReadOutModel):
    r"""The next frame as a fixed linear combination of the last p frames.

    .. math::
        x_{t+1} = x_t + \sum_{k=0}^{p-1} w_k\, x_{t-k}

    by ridge regression in one pass over the data. For several fields or channels each w is a matrix
    between them; on a lattice each site goes by its own past. It is odd by construction.
    Frames before the first of a series count as zero.

    Args:
        task: What to learn: the same field, or the same global fields, one frame later.
        order: Number p of frames of the past.
        ridge: Penalty, in units of the mean square of the series.

    Raises:
        InputError: As the base; an order below 1, or a field that is not odd.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "compact": {"order": 100, "ridge": 1e-8},
        "paper": {"order": 401},
    }

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        order: int | None = None,
        ridge: float | None = None,
        **training: Any,
    ) -> None:
        super().__init__(task, architecture={"order": order, "ridge": ridge}, **training)
        if not (isinstance(self.options["order"], int) and self.options["order"] >= 1):
            raise InputError(f"order is {self.options['order']!r}; it must be 1 frame or more.")
        if not 0 < self.options["ridge"] < float("inf"):
            raise InputError(f"ridge is {self.options['ridge']:g}; it must be positive.")
        fields = self.task.targets
        if any(field.point != "A1" or field.internal is not None for field in fields):
            raise self.refuse("it goes on with scalar fields alone.")
        channels = sum(field.channels(self._family) for field in fields)
        self.set_read_out(self.options["order"] * channels, channels)

    @property
    def built_in_flips(self) -> frozenset[str]:  # type: ignore[override]
        """A linear map commutes with every change of sign."""
        return frozenset(
            name for name in self.task.flips if all(name in f.odd for f in self.task.targets)
        )

    def features(self, series: Tensor, lattice: Lattice, last: int | None = None) -> Tensor:
        """The last frames, newest first, ``[B, T or last, …, p · C]``."""
        order, length = self.options["order"], series.shape[1]
        last = length if last is None else last
        past = series[:, -min(length, last + order - 1) :]
        missing = last + order - 1 - past.shape[1]
        if missing:
            zeros = past.new_zeros(len(past), missing, *past.shape[2:])
            past = torch.cat([zeros, past], 1)
        # [B, last, …, C, p] → newest first, frames before channels
        return past.unfold(1, order, 1).flip(-1).transpose(-1, -2).flatten(-2)

    def begin_features(self, series: Tensor, lattice: Lattice) -> tuple[Tensor, Memory]:
        """The last p frames."""
        found = self.features(series, lattice, 1)[:, 0]
        return found, {"past": found}

    def next_features(
        self, frame: Tensor, memory: Memory, lattice: Lattice
    ) -> tuple[Tensor, Memory]:
        """One frame more, the oldest forgotten."""
        found = torch.cat([frame, memory["past"][..., : -frame.shape[-1]]], -1)
        return found, {"past": found}
