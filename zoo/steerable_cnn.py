"""Steerable convolutional network of the library escnn on the square lattice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.energy_model import EnergyModel
from latticezoo.zoo.layers.energies import Energy, check_conservative
from latticezoo.zoo.layers.irrep_fields import check_site_field
from latticezoo.zoo.layers.steerable import SteerableNetwork
from latticezoo.zoo.registry import register

OUTPUTS = ("direct", "energy")


@register("steerable_cnn")
class SteerableCNN(EnergyModel):
    """Steerable convolutional network of escnn (Weiler and Cesa, NeurIPS 2019), square lattice.

    Features are copies of the regular representation of D4, eight channels each, between which
    equivariant 3×3 filters convolve; the nonlinearity acts on every channel by itself. Inputs and
    targets are real site fields of any representation of D4. Two-element symmetries hold by the
    mean over the images of the input.

    It needs the library escnn (the extra ``escnn``). Without gradients it runs as plain
    convolutions with the expanded filters.

    ``output="energy"``: a local energy in place of the targets, which are then minus the
    derivatives of its sum; such a network has ``energy(fields, lattice)``.

    Presets:
        ``compact``: five residual layers of 64 channels with all equivariant filters, 18,752
        weights for one odd scalar in and out; trains in minutes on one core.
        ``wide``: four layers of 64 channels as escnn's users would write them, with its own choice
        of filters; 9,384 weights.

    Args:
        task: What to learn.
        preset: ``"compact"`` or ``"wide"``.
        output: ``"direct"`` or ``"energy"``.
        copies: Copies of the regular representation in every layer.
        layers: Number of layers before the readout.
        first_kernel: Side of the first filter: 1, 3 or 5.
        kernel: Side of all other filters.
        activation: Nonlinearity: elu, relu, tanh or sigmoid.
        filters: ``"band_limited"`` as escnn chooses them, or ``"all"`` that are equivariant.
        residual: Whether the layers after the first add to their input.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When escnn cannot be imported, the lattice is not the square one, a field is not
            a real site field without internal type, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "output": "direct",
            "copies": 8,
            "layers": 5,
            "first_kernel": 5,
            "kernel": 3,
            "activation": "elu",
            "filters": "all",
            "residual": True,
            "learning_rate": 1e-2,
        },
        "wide": {
            "copies": 8,
            "layers": 4,
            "filters": "band_limited",
            "residual": False,
        },
    }

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        output: str | None = None,
        copies: int | None = None,
        layers: int | None = None,
        first_kernel: int | None = None,
        kernel: int | None = None,
        activation: str | None = None,
        filters: str | None = None,
        residual: bool | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "output": output,
                "copies": copies,
                "layers": layers,
                "first_kernel": first_kernel,
                "kernel": kernel,
                "activation": activation,
                "filters": filters,
                "residual": residual,
            },
            **training,
        )
        options = self.options
        if options["output"] not in OUTPUTS:
            raise unknown("output", options["output"], OUTPUTS)
        for name in ("copies", "layers"):
            if options[name] < 1:
                raise InputError(f"{name} must be 1 or more, not {options[name]}.")
        if self.task.family != "square":
            raise self.refuse(f"it runs on the square lattice, not on {self.task.family} lattices.")
        for field in (*self.task.inputs, *self.task.targets):
            check_site_field(self, field)
        if options["output"] == "energy":
            check_conservative(self)
            target = self._family.site_group.trivial
        else:
            target = _joined(self.task.targets)
        self.network = SteerableNetwork(
            self._family.site_group,
            _joined(self.task.inputs),
            target,
            copies=options["copies"],
            layers=options["layers"],
            first_kernel=options["first_kernel"],
            kernel=options["kernel"],
            nonlinearity=options["activation"],
            filters=options["filters"],
            residual=options["residual"],
            # It drops out of a derivative, and of the mean over a symmetry that changes its sign.
            constant=options["output"] == "direct"
            and not all({*self.task.flips} & {*field.odd} for field in self.task.targets),
        )

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        if self.options["output"] == "energy":
            return self.derived_targets(fields, lattice)
        values = self._run(fields, lattice, torch.is_grad_enabled())
        widths = [field.channels(lattice) for field in self.task.targets]
        parts = values.flatten(2).transpose(1, 2).split(widths, dim=-1)
        return {f.name: part for f, part in zip(self.task.targets, parts, strict=True)}

    def _run(self, fields: Mapping[str, Tensor], lattice: Lattice, trains: bool) -> Tensor:
        joined = torch.cat([fields[field.name] for field in self.task.inputs], dim=-1)
        image = joined.transpose(1, 2).unflatten(2, lattice.shape)
        return self.network(image) if trains else self.network.infer(image)

    def energy_function(self, lattice: Lattice) -> Energy:
        """Sum of the local energies."""
        trains = torch.is_grad_enabled()  # before the derivative by the input switches it on
        return lambda given: self._run(given, lattice, trains).flatten(1).sum(1)

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """The pixels of the largest filter."""
        side = max(self.options["first_kernel"], self.options["kernel"])
        return self._family.shells(count={1: 0, 3: 2, 5: 5}[side])

    @property
    def receptive_radius(self) -> float:
        """To the corner of what all filters see, twice that for the derivative of an energy."""
        options = self.options
        reach = options["first_kernel"] // 2 + options["layers"] * (options["kernel"] // 2)
        return 2**0.5 * reach * (2 if options["output"] == "energy" else 1)


def _joined(fields: tuple[Field, ...]) -> str:
    return "+".join(field.point for field in fields)
