"""Equivariant network whose features are irreps of the site group, for any lattice and field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.stencils import EquivariantLinear
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.energy_model import EnergyModel
from latticezoo.zoo.layers.e_fnn import NONLINEARITIES, ExpandedLayer
from latticezoo.zoo.layers.energies import Energy, check_conservative
from latticezoo.zoo.layers.enn import Blocks
from latticezoo.zoo.layers.group_convolution import RegularNetwork
from latticezoo.zoo.layers.irrep_fields import (
    Embedding,
    IrrepsToFields,
    NeighbourhoodIrreps,
    Readout,
    check_site_field,
    unreachable,
)
from latticezoo.zoo.layers.irreps import Features
from latticezoo.zoo.layers.pair_exchange import fit_exchange
from latticezoo.zoo.layers.spin_network import LARGEST_L, SpinNetwork, degree
from latticezoo.zoo.layers.spin_tasks import maps_spins
from latticezoo.zoo.registry import register

BODIES = ("regular", "products", "e_fnn")
OUTPUTS = ("direct", "energy")

_PUBLISHED = {
    "body": "e_fnn",
    "embedding_shells": 8,
    "nonlinearity": "sign_sigmoid",
    "squares": False,
    "learning_rate": 1e-3,
    "conserve": False,
}

#: Sites that the E-FNN takes through its layers at once.
PIECE = 1024

#: The energy of a site as a field: invariant, and even under every two-element symmetry.
LOCAL_ENERGY = "local energy"


class BlockNetwork(nn.Module):
    """Embedding, blocks, readout: fields to fields, every parity of the flips carried along."""

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        family: str,
        flips: tuple[str, ...],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        features = Features(family, options["features"])
        self.embedding = Embedding(inputs, features, flips, options["embedding_shells"])
        self.readout = Readout(features, outputs, flips, options["readout_shells"])
        self.blocks = Blocks(
            features,
            options["products"],
            options["blocks"],
            options["shells"],
            2 ** len(flips),
            self.readout.parities,
        )

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return self.embedding.radius + self.blocks.radius + self.readout.radius

    def forward(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Outputs by name, ``[batch, sites, C]``."""
        return self.readout(self.blocks(self.embedding(fields, lattice), lattice), lattice)


class ExpandedNetwork(nn.Module):
    """The published E-FNN: irreps of the neighbourhood, then layers at every site by itself."""

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        family: str,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.irreps = NeighbourhoodIrreps(family, inputs, options["embedding_shells"])
        self.fields = IrrepsToFields(family, outputs)
        group = Features(family, "1x").group
        sizes = [dict.fromkeys(group.irreps, n) for n in options["channels"]]
        self.layers = nn.ModuleList()
        copies, constant = self.irreps.copies, options["output"] == "direct"
        for out in (*sizes, self.fields.copies):
            kind = None if out is self.fields.copies else options["nonlinearity"]
            layer = ExpandedLayer(group, copies, out, kind, options["squares"], constant)
            self.layers.append(layer)
            copies = layer.out

    @property
    def _expanded(self) -> list[ExpandedLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return self.irreps.radius

    def forward(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Outputs by name, ``[batch, sites, C]``."""
        shape = tuple(next(iter(fields.values())).shape[:2])
        columns = self.irreps.columns(fields, lattice)
        # The expanded layers are a hundred times wider than the input: a few sites are taken
        # through all of them at a time, so that they stay in the cache.
        filters = [layer.filters() for layer in self._expanded]
        parts = []
        step = PIECE * (2 if torch.is_grad_enabled() else 1)
        for start in range(0, len(columns), step):
            values = self.irreps(columns[start : start + step])
            for layer, given in zip(self._expanded, filters, strict=True):
                values = layer(values, given)
            parts.append(values)
        joined = {name: torch.cat([p[name] for p in parts], dim=-1) for name in parts[0]}
        return self.fields(joined, shape, lattice)


@register("lattice_enn")
class LatticeENN(EnergyModel):
    r"""Equivariant network on a lattice: irreps of the site group as features.

    It is built from the task alone: fields of any representation of the site group (scalars,
    doublets, displacements) on any lattice, in and out. Features are direct sums of irreps, and
    every map is equivariant by construction; nothing is averaged over the group.

    ``body="regular"``: features hold every irrep as often as its dimension, which makes them
    functions on the site group; maps over a neighbourhood are convolutions over the group, and the
    nonlinearity acts on each group element
    (:class:`~latticezoo.zoo.layers.group_convolution.RegularNetwork`).

    Where the task has rotations of all spins (SO(3)), the values of these functions are irreps of
    SO(3), and products of them take the place of the pointwise nonlinearity
    (:class:`~latticezoo.zoo.layers.spin_network.SpinNetwork`).

    ``body="products"``: any direct sum of irreps; each block mixes them over a neighbourhood by an
    equivariant stencil, takes their Clebsch–Gordan products at the site, and adds the result
    (:class:`~latticezoo.zoo.layers.enn.Block`). Products are polynomials: where densities follow
    the sign of a large field they need more depth than a pointwise nonlinearity.

    In both, the two-element symmetries of the task are part of the group: every feature is even or
    odd under each of them, so that no second evaluation is needed.

    ``body="e_fnn"``: the published network, pointwise layers on the irreps of one neighbourhood
    (:mod:`~latticezoo.zoo.layers.e_fnn`).

    ``output="energy"``: a local energy in place of the targets, which are then minus the
    derivatives of its sum; such a network has ``energy(fields, lattice)``.

    Presets:
        ``compact``: trains in minutes on one core. On spins it stands for ``compact_spins``: local
            energies, with pairs over eleven shells (five bond lengths on the triangular lattice).
        ``direct_spins``: the same layers, but the field itself comes out and need not derive from
            an energy.
        ``accurate``: more channels and blocks.
        ``products``: the same depth with Clebsch–Gordan products.
        ``e_fnn``: the published E-FNN: 45 sites, 32, 8 and 4 copies of every irrep, products of
            different copies only, the authors' activation, which jumps at zero
            (``nonlinearity="smooth"`` does not); 142,914 weights and 221 biases. ``paper`` is
            another name for it.

    Args:
        task: What to learn.
        preset: ``"compact"``, ``"accurate"``, ``"products"`` or ``"e_fnn"`` (``"paper"``).
        body: ``"regular"``, ``"products"`` or ``"e_fnn"``.
        output: ``"direct"`` or ``"energy"``.
        embedding_shells: Shells around a site that the first map sees.
        width: Numbers at a site and for every parity between the blocks of the regular body,
            rounded to whole functions on the site group, at least one.
        activation: Its nonlinearity: silu, relu, gelu, softplus or tanh.
        features: Irreps between the blocks, for every parity: such as ``"32xA1+8xB1+8xE"``, or
            ``"8x"`` for as many copies of every irrep, or ``"4xregular"`` for as many as four
            functions on the site group hold.
        products: Number of functions on the site group that a block multiplies, for every parity:
            each holds every irrep as often as its dimension.
        blocks: Number of blocks.
        shells: Shells around a site that the stencil of a block sees.
        readout_shells: Shells around a site that the last map sees.
        largest_l: Largest l of the features under rotations of all spins, 1 or 2, where the task
            has them.
        range_shells: Shells of the pair exchange beside the blocks, 0 for none, where the task has
            rotations of all spins. Training starts from its least-squares fit.
        channels: Copies of every irrep after each hidden layer of the E-FNN.
        nonlinearity: ``"sign_sigmoid"`` (published) or ``"smooth"``, of the E-FNN.
        squares: Whether the E-FNN multiplies copies with themselves too.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When a field is not a real site field without internal type or cannot be
            reached, for a target that derives from no energy when one is wanted, or when an option
            is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "body": "regular",
            "output": "direct",
            "embedding_shells": 2,
            "width": 32,
            "activation": "silu",
            "features": "4xregular",
            "products": 4,
            "blocks": 6,
            "shells": 2,
            "readout_shells": 2,
            "largest_l": 1,
            "range_shells": 0,
            "channels": [32, 8, 4],
            "nonlinearity": "smooth",
            "squares": True,
            "learning_rate": 5e-3,
            "gradient_clip": 1.0,
            "conserve": True,
        },
        "accurate": {"width": 64, "blocks": 8, "learning_rate": 3e-3},
        # Spins interact over many shells, mostly in pairs: the range, with few layers above it.
        "compact_spins": {
            "output": "energy",
            "width": 24,
            "blocks": 3,
            "shells": 1,
            "range_shells": 11,
        },
        "direct_spins": {"width": 24, "blocks": 3, "shells": 1, "range_shells": 11},
        "products": {"body": "products", "blocks": 4, "learning_rate": 2e-2},
        "e_fnn": _PUBLISHED,
        "paper": _PUBLISHED,
    }

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        body: str | None = None,
        output: str | None = None,
        embedding_shells: int | None = None,
        width: int | None = None,
        activation: str | None = None,
        features: str | None = None,
        products: int | None = None,
        blocks: int | None = None,
        shells: int | None = None,
        readout_shells: int | None = None,
        largest_l: int | None = None,
        range_shells: int | None = None,
        channels: list[int] | None = None,
        nonlinearity: str | None = None,
        squares: bool | None = None,
        **training: Any,
    ) -> None:
        if output == "energy":
            training.setdefault("conserve", False)
        super().__init__(
            task,
            preset=preset,
            architecture={
                "body": body,
                "output": output,
                "embedding_shells": embedding_shells,
                "width": width,
                "activation": activation,
                "features": features,
                "products": products,
                "blocks": blocks,
                "shells": shells,
                "readout_shells": readout_shells,
                "largest_l": largest_l,
                "range_shells": range_shells,
                "channels": channels,
                "nonlinearity": nonlinearity,
                "squares": squares,
            },
            **training,
        )
        self._check_options()
        self._turns = self.task.internal == "SO3" and self.options["body"] == "regular"
        for field in (*self.task.inputs, *self.task.targets):
            check_site_field(self, field, turning=self._turns)
            if self._turns and (degree(field) is None or degree(field) > self.options["largest_l"]):
                raise self.refuse(
                    f"{field.name!r} has internal type {field.internal!r}, and a field may hold "
                    f"one irrep up to largest_l = {self.options['largest_l']}."
                )
        outputs = self.task.targets
        if self.options["output"] == "energy":
            check_conservative(self)
            outputs = (Field(LOCAL_ENERGY, point=self._family.site_group.trivial),)
        self.network = self._build(outputs)

    def _check_options(self) -> None:
        options = self.options
        for name, known in (
            ("body", BODIES),
            ("output", OUTPUTS),
            ("nonlinearity", NONLINEARITIES),
        ):
            if options[name] not in known:
                raise unknown(name, options[name], known)
        for name, least in (
            ("embedding_shells", 0),
            ("shells", 0),
            ("readout_shells", 0),
            ("largest_l", 1),
            ("range_shells", 0),
            ("width", 1),
            ("products", 1),
            ("blocks", 1),
        ):
            if options[name] < least:
                raise InputError(f"{name} must be {least} or more, not {options[name]}.")
        if options["largest_l"] > LARGEST_L:
            raise InputError(f"largest_l must be 1 or {LARGEST_L}, not {options['largest_l']}.")
        if not options["channels"] or min(options["channels"]) < 1:
            raise InputError(f"channels must be positive numbers, not {options['channels']}.")

    def _build(self, outputs: tuple[Field, ...]) -> nn.Module:
        task, options = self.task, self.options
        if options["body"] == "e_fnn":
            return ExpandedNetwork(task.inputs, outputs, task.family, options)
        # Parities are part of the features, so the mean over the flips need not be taken.
        self.built_in_flips = frozenset(task.flips)
        order = self._family.site_group.order
        common = {
            "functions": max(1, round(options["width"] / order)),
            "blocks": options["blocks"],
            "embedding_shells": options["embedding_shells"],
            "shells": options["shells"],
            "readout_shells": options["readout_shells"],
            "nonlinearity": options["activation"],
        }
        if self._turns:
            return SpinNetwork(
                task.inputs,
                outputs,
                task.family,
                task.flips,
                range_shells=options["range_shells"],
                largest=options["largest_l"],
                **common,
            )
        if options["body"] == "regular":
            return RegularNetwork(task.inputs, outputs, task.family, task.flips, **common)
        features = Features(task.family, options["features"])
        for field in outputs:
            missing = unreachable(
                task.family, features.spec, field.point, options["readout_shells"]
            )
            if missing is not None:
                raise self.refuse(
                    f"no equivariant map leads from features {features.spec!r} to the part "
                    f"{missing!r} of {field.name!r}."
                )
        return BlockNetwork(task.inputs, outputs, task.family, task.flips, options)

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        if self.options["output"] == "direct":
            return self.network(fields, lattice)
        return self.derived_targets(fields, lattice)

    def energy_function(self, lattice: Lattice) -> Energy:
        """Sum of the local energies."""
        return lambda given: self.network(given, lattice)[LOCAL_ENERGY].flatten(1).sum(1)

    def calibrate(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Set the scale of the E-FNN's irreps: their largest modulus over the training batches.

        The pair exchange of spins is fit to the training batches by least squares.
        """
        if isinstance(self.network, SpinNetwork) and maps_spins(self.task):
            for layer in self.network.pairs.values():
                assert isinstance(layer, EquivariantLinear)
                fit_exchange(layer, self._vectors_and_fields(batches))
        if not isinstance(self.network, ExpandedNetwork):
            return
        irreps = self.network.irreps
        largest = torch.zeros_like(irreps.scale)
        with torch.no_grad():
            for batch in batches:
                fields = {
                    field.name: self._cast(batch["fields"][field.name].to(self.device))
                    for field in self.task.inputs
                }
                standard = self.input_scaling.normalize(fields)
                found = irreps.coefficients(irreps.columns(standard, batch["lattice"]))
                sizes = [part.square().sum(1).max().sqrt() for part in found.values()]
                largest = torch.maximum(largest, torch.stack(sizes))
        irreps.scale.copy_(torch.where(largest > 0, largest, 1.0))

    def _vectors_and_fields(
        self, batches: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Lattice]]:
        """Standardized spins and fields, and the spins, of the batches that have targets."""
        (spin,), (target,) = self.task.inputs, self.task.targets
        for batch in batches:
            if "targets" not in batch:
                continue
            given = self._cast(batch["fields"][spin.name].to(self.device))
            wanted = self._cast(batch["targets"][target.name].to(self.device))
            vectors = self.input_scaling.normalize({spin.name: given})[spin.name]
            fields = self.target_scaling.normalize({target.name: wanted})[target.name]
            yield vectors, fields, given, batch["lattice"]

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """The largest neighbourhood of all maps."""
        options = self.options
        counts = [options["embedding_shells"]]
        if options["body"] != "e_fnn":
            counts += [options["shells"], options["readout_shells"]]
        if isinstance(self.network, SpinNetwork) and self.network.pairs:
            counts.append(options["range_shells"])
        return self._family.shells(count=max(counts))

    @property
    def receptive_radius(self) -> float:
        """What all maps together see, twice that for the derivative of an energy."""
        network = self.network
        assert isinstance(network, RegularNetwork | SpinNetwork | BlockNetwork | ExpandedNetwork)
        return network.radius * (2 if self.options["output"] == "energy" else 1)
