"""Invariant descriptors of a site's surroundings, then a multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.invariants import Descriptor
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.spin_invariants import SpinInvariants
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.energy_model import EnergyModel
from latticezoo.zoo.layers.activations import activation, gain
from latticezoo.zoo.layers.energies import Energy, check_conservative, invariant_channels
from latticezoo.zoo.layers.graph import tiles
from latticezoo.zoo.layers.irrep_fields import check_site_field
from latticezoo.zoo.layers.scalars import scalar_channels, split_scalars
from latticezoo.zoo.layers.spin_tasks import maps_spins
from latticezoo.zoo.registry import register

OUTPUTS = ("direct", "energy", "hybrid")

#: Zhang's dissertation, section 7.3.3. The 24 shells about a site hold all 149 sites within r = 7.
_PUBLISHED_ENERGY = {
    "output": "energy",
    "shells": 24,
    "level": "ref-bispectrum",
    "smooth": 0.1,
    "widths": [1024, 512, 256, 128, 64, 64],
    "activation": "relu",
    "initialization": "fan_in",
    "learning_rate": 1e-3,
    "optimizer": "adam",
    "weight_decay": 0.0,
}


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
class DescriptorMLP(EnergyModel):
    r"""Symmetry-invariant features, then a perceptron (GNN force-field paper, section III).

    Each site sees the fields on the shells around it through numbers that no operation of the
    point group changes (:class:`~latticezoo.symmetry.invariants.Descriptor`); a perceptron, the
    same at every site, maps them to numbers that are therefore invariant too. Inputs may be site
    fields of any point type.

    ``output="direct"``: the numbers are the targets, which must be scalars.

    ``output="energy"``: the number is a local energy ε_i, and the targets, of any type, are minus
    the derivatives of E = Σ ε_i (Zhang's dissertation, Eqs. 7.60 and 7.62); such a network has
    ``energy(fields, lattice)``. The features must be smooth for that (``smooth`` > 0). The last
    bias is the zero of energy, which no force depends on; it is not trained.

    ``output="hybrid"``: as energy, but a second perceptron on the same features gives invariant
    channels of the targets directly, without differentiation (section 7.3.3 there: the force on
    the breathing mode). The forces are then not conservative.

    On unit vectors the features are made of scalar products and chiralities of the spins
    (:class:`~latticezoo.symmetry.spin_invariants.SpinInvariants`), and the fields are the
    derivatives of local energies (section 3.3.2 there).

    Presets:
        ``compact``: 48 smooth features of eight shells, widths 256-256-128-64, SiLU; 119,553
        parameters; trains in minutes on one core. For a task whose targets are no scalars this
        name stands for ``compact_energy``, the same with local energies: 138 features and 142,593
        parameters for the three Jahn–Teller modes. On spins it stands for ``compact_spins``.
        ``paper``: 45 features in the paper's form, ReLU, widths and initialization of the authors'
        code, 4096-2048-750-592-256-127-69. For a task whose targets are no scalars this name
        stands for ``paper_energy``.
        ``paper_energy``: local energies as published for the Jahn–Teller model: all sites within
        seven bond lengths, 450 features, ReLU, widths 1024-512-256-128-64-64, 1,163,329
        parameters. The features are the smooth ones.
        ``paper_hybrid``: the same with a second network for the first channel (breathing mode).
        ``compact_spins``: bonds within five bond lengths, pairs of nearest neighbours within two,
        widths 64-64.
        ``paper_spins``: neighbours within six bond lengths and all pairs among them at most two
        apart, which are 1992 bonds and chiralities on the triangular lattice, widths
        2048-1024-512-256-128-64-64-64, ReLU (the dissertation says 1806 features; no choice that
        it describes gives this number).
        ``table1``: 45 features, widths 128-512-1024-2048-1024-512-128, our reading of the paper's
        Table 1, whose numbers are lost; 5,385,217 parameters.

    Args:
        task: What to learn.
        preset: One of those above.
        output: ``"direct"``, ``"energy"`` or ``"hybrid"``.
        direct: Channels of the targets, side by side, that the second network of the hybrid
            gives; ``[]`` for all invariant ones.
        shells: Number of shells around the site.
        level: Completeness of the descriptor: ``"paper"``, ``"ref-bispectrum"`` or ``"full"``.
        smooth: Scale that rounds off the features where a coefficient vanishes, in units of the
            field's standard deviation; 0 is the form of the paper, which jumps there.
        bond_radius: Largest distance of a spin whose scalar product with the site's is a feature.
        pair_radius: Largest distance from the site of pairs of spins.
        pair_distance: Largest distance between the two of a pair.
        widths: Sizes of the hidden layers.
        activation: Nonlinearity: silu, relu, gelu, softplus or tanh.
        initialization: ``"fan_in"`` or ``"normal"`` (weights 0.1, biases 0.05, the paper's).
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When an input is not a real site field, a target is neither a scalar nor, where
            energies are asked for, the derivative of one, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "output": "direct",
            "direct": [],
            "shells": 8,
            "level": "ref-bispectrum",
            "smooth": 0.1,
            "bond_radius": 5.0,
            "pair_radius": 2.0,
            "pair_distance": 1.5,
            "widths": [256, 256, 128, 64],
            "activation": "silu",
            "initialization": "fan_in",
            "learning_rate": 3e-3,
            # On 240 snapshots it overfits without: held-out trajectory RMSE 0.0205 against 0.028.
            "optimizer": "adamw",
            "weight_decay": 0.3,
        },
        "compact_energy": {"output": "energy"},
        "compact_spins": {
            "output": "energy",
            "widths": [64, 64],
            "weight_decay": 0.01,
        },
        "paper_spins": {
            "output": "energy",
            "bond_radius": 6.0,
            "pair_radius": 6.0,
            "pair_distance": 2.0,
            "widths": [2048, 1024, 512, 256, 128, 64, 64, 64],
            "activation": "relu",
            "learning_rate": 1e-3,
            "optimizer": "adam",
            "weight_decay": 0.0,
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
        "paper_energy": _PUBLISHED_ENERGY,
        "paper_hybrid": {**_PUBLISHED_ENERGY, "output": "hybrid", "direct": [0]},
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
        output: str | None = None,
        direct: list[int] | None = None,
        shells: int | None = None,
        level: str | None = None,
        smooth: float | None = None,
        bond_radius: float | None = None,
        pair_radius: float | None = None,
        pair_distance: float | None = None,
        widths: list[int] | None = None,
        activation: str | None = None,
        initialization: str | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "output": output,
                "direct": direct,
                "shells": shells,
                "level": level,
                "smooth": smooth,
                "bond_radius": bond_radius,
                "pair_radius": pair_radius,
                "pair_distance": pair_distance,
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
        if options["output"] not in OUTPUTS:
            raise unknown("output", options["output"], OUTPUTS)
        self._spins = maps_spins(self.task)
        for field in () if self._spins else self.task.inputs:
            check_site_field(self, field)
        network_outputs = self._outputs()
        self.descriptor = self._descriptor()
        features = self.descriptor.n_features
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))
        self.network = self._perceptron(network_outputs)
        # Scalar products themselves make the exchange between pairs, most of a magnet's energy.
        self.exchange = nn.Linear(features, 1, bias=False) if self._spins else None
        if self.exchange is not None:
            nn.init.zeros_(self.exchange.weight)
        if options["output"] != "direct":
            last = self.network.layers[-1]
            assert isinstance(last, nn.Linear)
            last.bias.requires_grad_(False)
        self.direct_channels = self._direct_channels()
        if self.direct_channels:
            self.direct_network = self._perceptron(len(self.direct_channels))

    def _descriptor(self) -> Descriptor | SpinInvariants:
        task, options = self.task, self.options
        if self._spins:
            # Every feature is even where spins are odd.
            self.built_in_flips = frozenset(task.flips)
            return SpinInvariants(
                task.family,
                options["bond_radius"],
                options["pair_radius"],
                options["pair_distance"],
                options["smooth"],
            )
        return Descriptor(
            task.family,
            "+".join(field.point for field in task.inputs),
            options["shells"],
            options["level"],
            smooth=options["smooth"] or None,
        )

    def _perceptron(self, outputs: int) -> Perceptron:
        options = self.options
        return Perceptron(
            self.descriptor.n_features,
            options["widths"],
            outputs,
            options["activation"],
            options["initialization"],
        )

    def _outputs(self) -> int:
        """Numbers that the network gives at a site; raises for a task that it cannot serve."""
        if self.options["output"] == "direct":
            return scalar_channels(self, self.task.targets)
        if not self.options["smooth"]:
            raise InputError(
                "smooth is 0, but features that jump cannot be differentiated; take a positive "
                "number, such as 0.1."
            )
        check_conservative(self)
        return 1

    def _direct_channels(self) -> list[int]:
        """Channels of the targets, side by side, that a network of their own gives."""
        if self.options["output"] != "hybrid":
            return []
        invariant = invariant_channels(self.task.family, () if self._spins else self.task.targets)
        possible = [channel for channel, fits in enumerate(invariant) if fits]
        chosen = self.options["direct"] or possible
        if not chosen:
            raise self.refuse("no channel of its targets is invariant, as the hybrid needs.")
        for channel in chosen:
            if channel not in possible:
                raise InputError(
                    f"direct names channel {channel} of the targets; those without change under "
                    f"the point group are {possible}."
                )
        return sorted(set(chosen))

    def features(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        """Descriptor of standardized inputs, before its own standardization, ``[B, N, F]``."""
        if self._spins:
            name = self.task.inputs[0].name
            return self.descriptor(fields[name] * self.input_scaling.scale(name), lattice)
        joined = torch.cat([fields[field.name] for field in self.task.inputs], dim=-1)
        return self.descriptor(joined, lattice)

    def _standard_features(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        return (self.features(fields, lattice) - self.feature_mean) / self.feature_scale

    def energy_function(self, lattice: Lattice) -> Energy:
        """Sum of the local energies."""

        def total(given: dict[str, Tensor]) -> Tensor:
            features = self._standard_features(given, lattice)
            found = self.network(features)
            if self.exchange is not None:
                found = found + self.exchange(features)
            return found.flatten(1).sum(1)

        return total

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        if self.options["output"] == "direct":
            found = self.network(self._standard_features(fields, lattice))
            return split_scalars(found, self.task.targets, lattice)
        targets = self.derived_targets(fields, lattice)
        if not self.direct_channels:
            return targets
        joined = torch.cat([targets[field.name] for field in self.task.targets], dim=-1)
        found = self.direct_network(self._standard_features(fields, lattice))
        places = torch.tensor(self.direct_channels, device=joined.device)
        return split_scalars(joined.index_copy(-1, places, found), self.task.targets, lattice)

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

    @classmethod
    def preset_for(cls, task: Task, preset: str) -> str:
        """Targets other than scalars need local energies."""
        chosen = super().preset_for(task, preset)
        plain = all(invariant_channels(task.family, task.targets))
        return chosen if chosen not in ("compact", "paper") or plain else f"{chosen}_energy"

    @property
    def receptive_radius(self) -> float:
        """Radius of the outermost shell, twice that for the derivative of an energy."""
        return self.descriptor.radius * (1 if self.options["output"] == "direct" else 2)
