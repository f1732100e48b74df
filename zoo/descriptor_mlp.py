"""Invariant descriptors of a site's surroundings, then a multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.invariants import Descriptor
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.layers.activations import activation, gain
from latticezoo.zoo.layers.graph import tiles
from latticezoo.zoo.layers.scalars import scalar_channels, split_scalars
from latticezoo.zoo.registry import register


class Perceptron(nn.Module):
    """Fully connected layers, the last one linear: ``[..., in]`` to ``[..., out]``.

    Args:
        in_features: Numbers that go in.
        widths: Sizes of the hidden layers.
        out_features: Numbers that come out.
        nonlinearity: Name of the activation.
        initialization: ``"fan_in"`` keeps the size of values from layer to layer; ``"normal"`` is
            the paper's: weights of standard deviation 0.1, biases of 0.05.
    """

    def __init__(
        self,
        in_features: int,
        widths: list[int],
        out_features: int,
        nonlinearity: str,
        initialization: str = "fan_in",
    ) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        sizes = itertools.pairwise([in_features, *widths, out_features])
        self.layers = nn.ModuleList(nn.Linear(into, out) for into, out in sizes)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            if initialization == "normal":
                nn.init.normal_(layer.weight, std=0.1)
                nn.init.normal_(layer.bias, std=0.05)
            else:
                factor = 1.0 if layer is self.layers[-1] else gain(nonlinearity)
                nn.init.normal_(layer.weight, std=factor * layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Apply the layers; without gradients to a few sites at a time, which stay in the cache."""
        if torch.is_grad_enabled():
            return self._apply_layers(values, in_place=False)
        rows = values.flatten(0, -2)
        done = [self._apply_layers(rows[tile], in_place=True) for tile in tiles(len(rows))]
        return torch.cat(done).view(*values.shape[:-1], -1)

    def _apply_layers(self, values: Tensor, in_place: bool) -> Tensor:
        act = activation(self.nonlinearity, in_place)
        *hidden, last = self.layers
        for layer in hidden:
            values = act(layer(values))
        return last(values)


@register("descriptor_mlp")
class DescriptorMLP(ZooModel):
    """Symmetry-invariant features, then a perceptron (GNN force-field paper, section III).

    Each site sees the fields on the shells around it through numbers that no operation of the
    point group changes (:class:`~latticezoo.symmetry.invariants.Descriptor`); a perceptron, the
    same at every site, maps them to the targets. Inputs may be site fields of any point type, the
    targets are scalars.

    Presets:
        ``compact``: 48 smooth features of eight shells, widths 256-256-128-64, SiLU; 119,553
        parameters; trains in minutes on one core.
        ``paper``: 45 features in the paper's form, ReLU, widths and initialization of the authors'
        code, 4096-2048-750-592-256-127-69.
        ``table1``: 45 features, widths 128-512-1024-2048-1024-512-128, our reading of the paper's
        Table 1, whose numbers are lost; 5,385,217 parameters.

    Args:
        task: What to learn.
        preset: ``"compact"``, ``"paper"`` or ``"table1"``.
        shells: Number of shells around the site.
        level: Completeness of the descriptor: ``"paper"``, ``"ref-bispectrum"`` or ``"full"``.
        smooth: Scale that rounds off the features where a coefficient vanishes, in units of the
            field's standard deviation; 0 is the form of the paper, which jumps there.
        widths: Sizes of the hidden layers.
        activation: Nonlinearity: silu, relu, gelu, softplus or tanh.
        initialization: ``"fan_in"`` or ``"normal"`` (weights 0.1, biases 0.05, the paper's).
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task has other than real site fields in or scalars out, or an option
            is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "shells": 8,
            "level": "ref-bispectrum",
            "smooth": 0.1,
            "widths": [256, 256, 128, 64],
            "activation": "silu",
            "initialization": "fan_in",
            "learning_rate": 3e-3,
            # On 240 snapshots it overfits without: held-out trajectory RMSE 0.0205 against 0.028.
            "optimizer": "adamw",
            "weight_decay": 0.3,
        },
        "paper": {
            "level": "paper",
            "smooth": 0.0,
            "widths": [4096, 2048, 750, 592, 256, 127, 69],
            "activation": "relu",
            "initialization": "normal",
            "learning_rate": 1e-3,
            "optimizer": "adam",
            "weight_decay": 0.0,
        },
        "table1": {
            "level": "paper",
            "smooth": 0.0,
            "widths": [128, 512, 1024, 2048, 1024, 512, 128],
            "activation": "relu",
            "initialization": "normal",
            "learning_rate": 1e-3,
            "optimizer": "adam",
            "weight_decay": 0.0,
        },
    }

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        shells: int | None = None,
        level: str | None = None,
        smooth: float | None = None,
        widths: list[int] | None = None,
        activation: str | None = None,
        initialization: str | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "shells": shells,
                "level": level,
                "smooth": smooth,
                "widths": widths,
                "activation": activation,
                "initialization": initialization,
            },
            **training,
        )
        options = self.options
        if options["widths"] and min(options["widths"]) < 1:
            raise InputError(
                f"widths of descriptor_mlp must be positive numbers, not {options['widths']}."
            )
        for field in self.task.inputs:
            self._check_input_type(field)
        self.descriptor = Descriptor(
            self.task.family,
            "+".join(field.point for field in self.task.inputs),
            options["shells"],
            options["level"],
            smooth=options["smooth"] or None,
        )
        features = self.descriptor.n_features
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))
        self.network = Perceptron(
            features,
            options["widths"],
            scalar_channels(self, self.task.targets),
            options["activation"],
            options["initialization"],
        )

    def _check_input_type(self, field: Field) -> None:
        if field.support != "site" or field.internal is not None or field.conjugated:
            raise self.refuse(
                f"it takes real site fields without internal type, but {field.name!r} lives on the "
                f"{field.support} support with internal type {field.internal!r}."
            )

    def features(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        """Descriptor of standardized inputs, before its own standardization, ``[B, N, F]``."""
        joined = torch.cat([fields[field.name] for field in self.task.inputs], dim=-1)
        return self.descriptor(joined, lattice)

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        features = (self.features(fields, lattice) - self.feature_mean) / self.feature_scale
        return split_scalars(self.network(features), self.task.targets, lattice)

    def calibrate(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Standardize the features by their mean and spread over the training batches."""
        count = 0
        total = square = torch.zeros_like(self.feature_mean, dtype=torch.float64)
        with torch.no_grad():
            for batch in batches:
                fields = {
                    field.name: self._cast(batch["fields"][field.name].to(self.device))
                    for field in self.task.inputs
                }
                # Both signs where the task is odd: the network is evaluated on both.
                found = self.features(
                    self.input_scaling.normalize(self.images(fields)), batch["lattice"]
                )
                found = found.flatten(0, 1).double()
                count += len(found)
                total, square = total + found.sum(0), square + found.square().sum(0)
        if not count:
            raise InputError("there are no training samples to standardize the features with.")
        mean = total / count
        spread = (square / count - mean.square()).clamp(min=0).sqrt()
        self.feature_mean.copy_(mean)
        # A feature that never changes is left at its mean, whatever rounding says of its spread.
        negligible = spread <= 1e-6 * (1 + mean.abs())
        self.feature_scale.copy_(torch.where(negligible, 1.0, spread))

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """The shells of the descriptor."""
        return self.descriptor.shells

    @property
    def receptive_radius(self) -> float:
        """Radius of the outermost shell."""
        return self.descriptor.radius
