"""Plain convolutional network on raw links, which learns gauge invariance from turned examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.augmentation import turned
from latticezoo.zoo.gauge_model import GaugeModel
from latticezoo.zoo.layers.flags import components
from latticezoo.zoo.registry import register
from latticezoo.zoo.spin_cnn import REACH, Convolution, ResidualBlock


@register("link_cnn")
class LinkCNN(GaugeModel):
    """Plain convolutional network on raw links, the baseline without symmetry.

    The components of the links (one for Z2, two for U(1), the quaternion for SU(2)) are the
    channels of an image with periodic boundaries; residual blocks of two 5×5 convolutions and one
    more make the targets of it. Of the symmetry it keeps the translations alone. D4, charge
    conjugation and local transformations it learns: each sample of each training step is turned by
    a random element of the group, target alike. Its error of equivariance is therefore as large as
    its error. It sees no Polyakov loops, as its view ends before it has been around the torus.

    Presets:
        ``compact``: two blocks of 32 channels.
        ``paper``: four blocks of 64 channels (no published network has this form).

    Args:
        task: What to learn.
        preset: ``"compact"`` or ``"paper"``.
        channels: Channels between the layers.
        blocks: Number of residual blocks.
        augment: Whether training turns the samples.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task is not one of links on the square lattice, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {"channels": 32, "blocks": 2, "augment": True, "learning_rate": 1e-3},
        "paper": {"channels": 64, "blocks": 4},
    }
    equivariant: ClassVar[bool] = False
    groups: ClassVar = ("Z2", "U1", "SU2")
    learns_energy: ClassVar[bool] = False

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        channels: int | None = None,
        blocks: int | None = None,
        augment: bool | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={"channels": channels, "blocks": blocks, "augment": augment},
            **training,
        )
        options = self.options
        for name in ("channels", "blocks"):
            if options[name] < 1:
                raise InputError(f"{name} must be 1 or more, not {options[name]}.")
        self.check_task()
        width, taps = options["channels"], torch.ones((2 * REACH + 1) ** 2)
        into = 2 * {"Z2": 1, "U1": 2, "SU2": 4}[str(self.task.gauge)] + len(self.scalars)
        self.blocks = nn.ModuleList(
            ResidualBlock(into if number == 0 else width, width, taps)
            for number in range(options["blocks"])
        )
        self.widths = [self._width(field.name) for field in self.task.targets]
        self.outer = Convolution(width, sum(self.widths), 1.0, taps)

    def _width(self, name: str) -> int:
        """Channels of the image that a target takes."""
        per_link = {"link": 1, "current": 1, "adjoint": 3, "field": 2}
        kind = str(self.kinds[name])
        return 2 * per_link[kind] if kind in per_link else len(self.target_scaling.scale(name))

    def features(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        """Channels of all targets ``[batch, sites, C]``."""
        links = components(fields[self.links.name], str(self.task.gauge)).flatten(2)
        scalars = [fields[field.name] for field in self.scalars]
        values = torch.cat([links, *scalars], -1).unflatten(1, lattice.shape)
        for block in self.blocks:
            values = block(values)
        return self.outer(torch.relu(values)).flatten(1, 2)

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """Standardized values of all targets."""
        found = {}
        parts = features.split(self.widths, dim=-1)
        for field, part in zip(self.task.targets, parts, strict=True):
            kind = self.kinds[field.name]
            if kind == "global":
                found[field.name] = 8 * part.mean(1)
            elif kind == "field":
                found[field.name] = torch.view_as_complex(part.unflatten(2, (2, 2)).contiguous())
            elif kind == "adjoint":
                found[field.name] = part.unflatten(2, (2, 3))
            else:
                found[field.name] = part
        return found

    def local_energies(self, features: Tensor) -> Tensor:
        """It has none.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError

    def augmented(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch with every sample turned by a random element of the task's group."""
        return turned(batch, self.task) if self.options["augment"] else batch

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """All sites within two steps: the 5×5 taps are different sites where these are."""
        return self._family.shells(cutoff=float(REACH))

    @property
    def receptive_radius(self) -> float:
        """To the far corner of what all filters see, and along one more link."""
        return (2 * self.options["blocks"] + 1) * REACH * math.sqrt(2) + 1
