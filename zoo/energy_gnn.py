"""Energy graph network: local energies by message passing, forces by differentiation."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.energy_model import EnergyModel
from latticezoo.zoo.layers.bond_energies import BondEnergies
from latticezoo.zoo.layers.energies import Energy, check_conservative, invariant_channels
from latticezoo.zoo.layers.energy_graph import NORMALIZATIONS, LocalEnergies
from latticezoo.zoo.layers.graph import AGGREGATIONS
from latticezoo.zoo.layers.irrep_fields import check_site_field
from latticezoo.zoo.layers.scalars import join_scalars, scalar_channels
from latticezoo.zoo.layers.spin_graph import SpinGraph
from latticezoo.zoo.layers.spin_tasks import maps_spins
from latticezoo.zoo.registry import register


@register("energy_gnn")
class EnergyGNN(EnergyModel):
    r"""Energy graph network (GNN force-field paper, section V).

    Rounds of messages over nearest-neighbour bonds give a local energy at every site; the targets
    are minus the derivatives of their sum, :math:`E = \sum_i \epsilon_i`,
    :math:`F_i = -\partial E / \partial Q_i`, so forces are exactly conservative. Only forces are
    trained on: how the energy is shared among the sites is left to the network. Under the odd
    symmetry of a task the energy is [E(Q) + E(−Q)]/2.

    Scalar inputs go between sites as in the paper. Inputs of any other type (a doublet,
    displacements) go as features on directed bonds, in the frame of each bond, so that the energy
    is exactly invariant under the whole space group of any lattice
    (:mod:`~latticezoo.zoo.layers.bond_energies`).

    On unit vectors, messages are made of the scalar products on the bonds, and the energy is that
    of an exchange that depends on the surroundings,
    :math:`-\frac12 \sum_{ij} A_{ij}\, S_i \cdot S_j`
    (:class:`~latticezoo.zoo.layers.spin_graph.SpinGraph`).

    The energy of a site sees ``len(widths) + 1`` hops, its force twice as many.

    Presets:
        ``compact``: three blocks of width 48, SiLU, neighbour mean. For inputs that are no
        scalars this name stands for ``compact_bonds``: three blocks of width 24 on every bond;
            on spins for ``compact_spins``: three rounds of width 32.
        ``paper``: widths 512-1024-512 and LayerNorm, ReLU, as in the authors' code. The second
            derivatives that force training needs vanish almost everywhere for ReLU, except through
            the LayerNorm.

    Args:
        task: What to learn; every target must be paired with an input as its force.
        preset: ``"compact"`` or ``"paper"``.
        widths: Channels after each block, of a site or of a directed bond.
        activation: Nonlinearity: silu, relu, gelu, softplus or tanh.
        aggregation: ``"mean"`` or ``"sum"`` over the neighbours.
        normalization: ``"layer"`` for a LayerNorm in every block, or ``"none"``.
        shells: Shells of neighbours that send messages between spins.
        range_shells: Shells of neighbours that a spin has an exchange with.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task has an input that is not a real site field or a target that
            derives from no energy, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "widths": [48] * 3,
            "activation": "silu",
            "aggregation": "mean",
            "normalization": "none",
            "shells": 4,
            "range_shells": 11,
            "learning_rate": 4e-3,
        },
        "compact_spins": {"widths": [32] * 3},
        "compact_bonds": {"widths": [24] * 3},
        "paper": {
            "widths": [512, 1024, 512],
            "activation": "relu",
            "aggregation": "mean",
            "normalization": "layer",
            "learning_rate": 1e-4,
        },
    }

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        widths: list[int] | None = None,
        activation: str | None = None,
        aggregation: str | None = None,
        normalization: str | None = None,
        shells: int | None = None,
        range_shells: int | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            task,
            preset=preset,
            architecture={
                "widths": widths,
                "activation": activation,
                "aggregation": aggregation,
                "normalization": normalization,
                "shells": shells,
                "range_shells": range_shells,
            },
            **training,
        )
        options = self.options
        chosen = options["widths"]
        if not chosen or min(chosen) < 1:
            raise InputError(f"widths of energy_gnn must be positive numbers, not {chosen}.")
        for name, known in (("aggregation", AGGREGATIONS), ("normalization", NORMALIZATIONS)):
            if options[name] not in known:
                raise unknown(name, options[name], known)
        check_conservative(self)
        self.network: LocalEnergies | BondEnergies | SpinGraph
        if maps_spins(self.task):
            # Scalar products are even where spins are odd.
            self.built_in_flips = frozenset(self.task.flips)
            self.network = SpinGraph(
                self.task.family,
                chosen,
                options["shells"],
                options["range_shells"],
                options["activation"],
                options["aggregation"],
                normalization=options["normalization"],
            )
            return
        for field in self.task.inputs:
            check_site_field(self, field)
        given = (options["activation"], options["aggregation"], options["normalization"])
        if all(invariant_channels(self.task.family, self.task.inputs)):
            inputs = scalar_channels(self, self.task.inputs)
            neighbours = self._family.shells(count=1)[1].size
            self.network = LocalEnergies(inputs, chosen, neighbours, *given)
        else:
            self.network = BondEnergies(self.task.family, self.task.inputs, chosen, *given)

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        return self.derived_targets(fields, lattice)

    def energy_function(self, lattice: Lattice) -> Energy:
        """Sum of the local energies."""
        network, inputs = self.network, self.task.inputs
        if isinstance(network, SpinGraph):
            return lambda given: network.energies(given[inputs[0].name], lattice).sum(1)
        return lambda given: network(join_scalars(given, inputs), lattice).sum(1)

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """Nearest neighbours, or all that the spins look at."""
        if isinstance(self.network, SpinGraph):
            return self.network.shells
        return super().required_shells

    @classmethod
    def preset_for(cls, task: Task, preset: str) -> str:
        """Features on bonds are as many times more numbers, so there are fewer channels of them."""
        chosen = super().preset_for(task, preset)
        if chosen == "compact" and not all(invariant_channels(task.family, task.inputs)):
            return "compact_bonds"
        return chosen

    @property
    def receptive_radius(self) -> float:
        """Twice what a local energy sees."""
        if isinstance(self.network, SpinGraph):
            return 2.0 * self.network.radius
        return 2.0 * (len(self.options["widths"]) + 1)
