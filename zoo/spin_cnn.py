"""Plain convolutional network on spins, which learns the symmetry from turned examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.augmentation import turned
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.layers.circular import circular_convolution
from latticezoo.zoo.layers.spin_tasks import maps_spins
from latticezoo.zoo.registry import register

FAMILIES = ("square", "triangular")
#: Half the side of the 5×5 filters.
REACH = 2


class Convolution(nn.Module):
    """Circular convolution with a 5×5 filter, whose corners can be left out.

    Args:
        into: Channels that go in.
        out: Channels that come out.
        gain: Change of the size of values.
        taps: Which of the 5×5 sites the filter sees.

    Shapes:
        - input ``[batch, L1, L2, into]``
        - output ``[batch, L1, L2, out]``
    """

    _taps: Tensor

    def __init__(self, into: int, out: int, gain: float, taps: Tensor) -> None:
        super().__init__()
        self.register_buffer("_taps", taps.nonzero()[:, 0], persistent=False)
        self.weight = nn.Parameter(torch.empty(out, into, len(self._taps)))
        self.bias = nn.Parameter(torch.zeros(out))
        nn.init.normal_(self.weight, std=gain / math.sqrt(into * len(self._taps)))

    def forward(self, values: Tensor) -> Tensor:
        """Apply the layer; shapes as above."""
        side = 2 * REACH + 1
        kernel: Tensor = self.weight
        if len(self._taps) < side**2:
            empty = kernel.new_zeros(*kernel.shape[:2], side**2)
            kernel = empty.index_copy(2, self._taps, kernel)
        kernel = kernel.unflatten(2, (side, side)).contiguous(memory_format=torch.channels_last)
        return circular_convolution(values, kernel) + self.bias


class ResidualBlock(nn.Module):
    """Two convolutions, each with a ReLU, beside the identity or, for other widths, a 1×1 map."""

    def __init__(self, into: int, out: int, taps: Tensor) -> None:
        super().__init__()
        self.first = Convolution(into, out, math.sqrt(2), taps)
        self.second = Convolution(out, out, math.sqrt(2), taps)
        self.skip = nn.Identity() if into == out else nn.Linear(into, out)

    def forward(self, values: Tensor) -> Tensor:
        """Map ``[batch, L1, L2, into]`` to ``[batch, L1, L2, out]``."""
        return self.skip(values) + torch.relu(self.second(torch.relu(self.first(values))))


@register("spin_cnn")
class SpinCNN(ZooModel):
    """Plain convolutional network on spins (S. Zhang, dissertation, section 3.3.1).

    The three components of the spins are the channels of an image with periodic boundaries;
    residual blocks of two 5×5 convolutions and then two more convolutions make three channels of
    it, the field. ReLU everywhere but behind the last layer; no normalization, no dropout.

    Of the symmetry it keeps the translations alone. Rotations of the spins, point operations and
    time reversal it learns: each sample of each training step is turned by a random element of the
    group, input and target alike. (The dissertation adds one turned copy of each sample to the
    data, once.) Its error of equivariance is therefore as large as its error:
    :func:`~latticezoo.zoo.group_average.symmetrize` makes the point operations and time reversal
    exact, at 24 times the cost. Networks with the symmetry built in are measured beside it.

    In oblique coordinates the 5×5 taps of the triangular lattice are a rhombus; ``hexagonal``
    leaves out the six that are further than two bond lengths away.

    Presets:
        ``compact``: two blocks of 32 channels, six layers of 5×5: 107,491 parameters.
        ``paper``: four blocks, ten layers, receptive field of 41 sites, as published. Their width
            is not given there: 64 channels make 829,635 parameters, ``channels=32`` 210,019.

    Args:
        task: What to learn.
        preset: ``"compact"`` or ``"paper"``.
        channels: Channels between the layers.
        blocks: Number of residual blocks.
        hexagonal: Whether filters leave out the far corners of the rhombus.
        augment: Whether training turns the samples.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task is not from unit vectors to fields perpendicular to them on the
            square or the triangular lattice, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "channels": 32,
            "blocks": 2,
            "hexagonal": False,
            "augment": True,
            "learning_rate": 1e-3,
        },
        "paper": {"channels": 64, "blocks": 4},
    }
    equivariant: ClassVar[bool] = False

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        channels: int | None = None,
        blocks: int | None = None,
        hexagonal: bool | None = None,
        augment: bool | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "channels": channels,
                "blocks": blocks,
                "hexagonal": hexagonal,
                "augment": augment,
            },
            **training,
        )
        options = self.options
        for name in ("channels", "blocks"):
            if options[name] < 1:
                raise InputError(f"{name} must be 1 or more, not {options[name]}.")
        if not maps_spins(self.task):
            raise self.refuse("it maps unit vectors to fields perpendicular to them alone.")
        if self.task.family not in FAMILIES:
            raise self.refuse(f"it runs on square and triangular lattices, not {self.task.family}.")
        if options["hexagonal"] and self.task.family != "triangular":
            raise self.refuse("hexagonal filters belong to the triangular lattice.")
        width = options["channels"]
        taps = self._taps()
        self.blocks = nn.ModuleList(
            ResidualBlock(3 if number == 0 else width, width, taps)
            for number in range(options["blocks"])
        )
        self.inner = Convolution(width, width, math.sqrt(2), taps)
        self.outer = Convolution(width, 3, 1.0, taps)

    def _taps(self) -> Tensor:
        """Which of the 5×5 sites a filter sees, ``[25]``."""
        steps = range(-REACH, REACH + 1)
        cells = np.array([(m, n) for m in steps for n in steps])
        distances = np.linalg.norm(cells @ self._family.vectors, axis=1)
        near = distances <= REACH + 1e-6
        return torch.from_numpy(near if self.options["hexagonal"] else near | True)

    def _images(self) -> list[frozenset[str]]:
        """The input alone: as published, time reversal is learned."""
        return [frozenset()]

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        values = fields[self.task.inputs[0].name].unflatten(1, lattice.shape)
        for block in self.blocks:
            values = block(values)
        found = self.outer(torch.relu(self.inner(values)))
        return {self.task.targets[0].name: found.flatten(1, 2)}

    def augmented(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch with every sample turned by a random element of the task's group.

        Elements are drawn by torch's own random number generator: point operations, translations
        and flips alike, rotations by the Haar measure.
        """
        return turned(batch, self.task) if self.options["augment"] else batch

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """All sites within two steps: the 5×5 taps are different sites where these are."""
        return self._family.shells(cutoff=float(REACH))

    @property
    def receptive_radius(self) -> float:
        """To the far corner of what all filters see."""
        layers = 2 * self.options["blocks"] + 2
        corner = np.linalg.norm(self._family.vectors.sum(0))
        return layers * REACH * float(1.0 if self.options["hexagonal"] else corner)
