"""Recurrent networks for time series: LSTM and GRU."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.neural_sequence import SEQUENCE_DEFAULTS, NeuralSequenceModel
from latticezoo.zoo.registry import register
from latticezoo.zoo.sequence_model import Memory

_SIZES: dict[str, Any] = {**SEQUENCE_DEFAULTS, "layers": 2, "learning_rate": 2e-3}


class _Recurrent(NeuralSequenceModel):
    """What both have: layers of cells over the frames, a linear read-out of the change.

    Args:
        task: What to learn: the same global fields one frame later.
        width: Hidden channels of a layer.
        layers: Number of layers.

    Raises:
        InputError: As the base, and for a size below 1.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "compact": {**_SIZES, "width": 96, "context": 192},
        "large": {"width": 256, "context": 0},
    }
    #: Tables that a layer remembers, by the names of the memory.
    states: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        width: int | None = None,
        layers: int | None = None,
        **training: Any,
    ) -> None:
        super().__init__(task, architecture={"width": width, "layers": layers}, **training)
        for name in ("width", "layers"):
            if not isinstance(self.options[name], int) or self.options[name] < 1:
                raise InputError(
                    f"{name} is {self.options[name]!r}; it must be a whole number, 1 or up."
                )
        self.cells = self.make_cells(self.channels, self.options["width"], self.options["layers"])
        self.head = nn.Linear(self.options["width"], self.channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @staticmethod
    def make_cells(channels: int, width: int, layers: int) -> nn.RNNBase:
        """The layers."""
        raise NotImplementedError

    def read(self, values: Tensor, last: int | None = None) -> tuple[Tensor, Memory]:
        hidden, state = self.cells(values)
        recent = hidden if last is None else hidden[:, -last:]
        return self.head(recent), self._kept(state)

    def read_next(self, values: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        tables = [memory[name].transpose(0, 1).contiguous() for name in self.states]
        state: Any = tables[0] if len(tables) == 1 else tuple(tables)
        hidden, state = self.cells(values[:, None], state)
        return self.head(hidden[:, 0]), self._kept(state)

    def _kept(self, state: Any) -> Memory:
        """The memory with the batch as first axis, ``[B, layers, width]``."""
        tables = (state,) if isinstance(state, Tensor) else state
        return {k: v.transpose(0, 1) for k, v in zip(self.states, tables, strict=True)}


@register("lstm")
class LSTM(_Recurrent):
    """Long short-term memory (S. Hochreiter, J. Schmidhuber, Neural Comput. 9, 1735 (1997)).

    Args:
        task: What to learn: the same global fields one frame later.
        width: Hidden channels of a layer; 256 in the preset ``large``.
        layers: Number of layers.
    """

    states = ("hidden", "cell")

    @staticmethod
    def make_cells(channels: int, width: int, layers: int) -> nn.RNNBase:
        """The layers; gates that forget begin open."""
        cells = nn.LSTM(channels, width, layers, batch_first=True)
        with torch.no_grad():
            for name, values in cells.named_parameters():
                if name.startswith("bias_ih"):
                    values[width : 2 * width] += 1.0
        return cells


@register("gru")
class GRU(_Recurrent):
    """Gated recurrent units (K. Cho et al., arXiv:1406.1078).

    Args:
        task: What to learn: the same global fields one frame later.
        width: Hidden channels of a layer; 256 in the preset ``large``.
        layers: Number of layers.
    """

    states = ("hidden",)

    @staticmethod
    def make_cells(channels: int, width: int, layers: int) -> nn.RNNBase:
        """The layers."""
        return nn.GRU(channels, width, layers, batch_first=True)
