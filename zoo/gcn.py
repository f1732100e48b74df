"""Graph convolutional network: direct prediction of scalar fields, or of fields on spins."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.layers.activations import activation, gain
from latticezoo.zoo.layers.graph import TILE, NeighbourLinear, bag_table, bags_serve, tiles
from latticezoo.zoo.layers.scalars import join_scalars, scalar_channels, split_scalars
from latticezoo.zoo.layers.spin_graph import SpinGraph
from latticezoo.zoo.layers.spin_tasks import maps_spins
from latticezoo.zoo.registry import register


class GraphNetwork(nn.Module):
    r"""Graph convolutions between scalar channels.

    Plain: :math:`h^{(l+1)} = \sigma(G_l h^{(l)})` with :math:`G_l` a
    :class:`~latticezoo.zoo.layers.graph.NeighbourLinear` (GNN force-field paper, Eqs. 15–17).
    Residual: :math:`h^{(l+1)} = h^{(l)} + W_l\,\sigma(G_l h^{(l)})` after the first. The last
    layer is linear.

    Args:
        in_channels: Channels that go in.
        widths: Channels after each layer but the last.
        out_channels: Channels that come out.
        neighbours: Nearest neighbours of a site.
        nonlinearity: Name of σ.
        aggregation: ``"mean"`` or ``"sum"`` over the neighbours.
        residual: Whether the layers after the first add to their input.

    Shapes:
        - input ``[batch, sites, in_channels]``
        - output ``[batch, sites, out_channels]``
    """

    def __init__(
        self,
        in_channels: int,
        widths: list[int],
        out_channels: int,
        neighbours: int,
        nonlinearity: str,
        aggregation: str,
        residual: bool,
    ) -> None:
        super().__init__()
        activation(nonlinearity)  # an unknown name is refused here, not at the first use
        self.nonlinearity = nonlinearity
        sizes = [in_channels, *widths, out_channels]
        gains = [1.0 if residual else gain(nonlinearity)] * len(widths) + [1.0]
        self.layers = nn.ModuleList(
            NeighbourLinear(into, out, aggregation, factor, neighbours)
            for into, out, factor in zip(sizes[:-1], sizes[1:], gains, strict=True)
        )
        # A bias here would only repeat that of the next layer.
        self.mixers = nn.ModuleList(
            nn.Linear(width, width, bias=False) for width in (widths[1:] if residual else ())
        )

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the network; shapes as above. Without gradients it takes a faster way."""
        fast = not (torch.is_grad_enabled() or torch.is_autocast_enabled(values.device.type))
        if fast and bags_serve(values):
            return self._infer(values, lattice)
        act = activation(self.nonlinearity)
        layers, mixers = self._parts()
        hidden = act(layers[0](values, lattice))
        for number, layer in enumerate(layers[1:-1]):
            update = act(layer(hidden, lattice))
            hidden = hidden + mixers[number](update) if mixers else update
        return layers[-1](hidden, lattice)

    def _infer(self, values: Tensor, lattice: Lattice) -> Tensor:
        """The same numbers, tile by tile: a layer reads and writes main memory only once.

        Layers write into two arrays in turn: fresh memory for each would cost as much as the
        activation, for the system hands it out page by page.
        """
        table = bag_table(lattice, len(values))
        act = activation(self.nonlinearity, in_place=True)
        layers, mixers = self._parts()
        hidden = values.flatten(0, 1)
        rows, width = len(hidden), max(layer.out_channels for layer in layers)
        arrays = [hidden.new_empty(rows * width) for _ in range(2)]
        scratch = hidden.new_empty(min(TILE, rows) * width)
        for number, layer in enumerate(layers):
            apply = layer.infer(hidden, table)
            result = _head(arrays[number % 2], rows, layer.out_channels)
            for tile in tiles(rows):
                if layer is layers[-1]:
                    apply(tile, result[tile])
                elif mixers and number > 0:
                    update = _head(scratch, tile.stop - tile.start, layer.out_channels)
                    mixer = mixers[number - 1].weight.t()
                    torch.addmm(hidden[tile], act(apply(tile, update)), mixer, out=result[tile])
                else:
                    act(apply(tile, result[tile]))
            hidden = result
        # A copy lets go of the large array behind the few output channels.
        return hidden.clone().view(*values.shape[:2], -1)

    def _parts(self) -> tuple[list[NeighbourLinear], list[nn.Linear]]:
        return cast(Any, list(self.layers)), cast(Any, list(self.mixers))


def _head(array: Tensor, rows: int, width: int) -> Tensor:
    """The beginning of a flat array as a matrix."""
    return array[: rows * width].view(rows, width)


@register("gcn")
class GCN(ZooModel):
    r"""Graph convolutional network with direct output (GNN force-field paper, section IV).

    Sites are nodes, nearest-neighbour bonds are edges. One matrix for the site and one shared by
    all its neighbours make every layer commute with the whole space group of any lattice. It
    carries scalars.

    It also maps unit vectors to fields perpendicular to them: sites then send each other what they
    make of the scalar products on their bonds, and the field is :math:`H_i = \sum_j A_{ij} S_j`
    with an exchange :math:`A_{ij}` that depends on the surroundings
    (:class:`~latticezoo.zoo.layers.spin_graph.SpinGraph`).

    Presets:
        ``compact``: seven layers of width 48 with residual blocks, SiLU, neighbour mean, and a
        readout; 42,001 parameters for one scalar in and out; trains in minutes on one core. On
        spins this name stands for ``compact_spins``: three rounds of width 32.
        ``paper``: Table 2 of the paper, widths 128-512-1024-2048-1024-512-128, ReLU, 10,753,793
        parameters. The mean over neighbours is that of the authors' code; ``aggregation="sum"`` is
        the text's (Eq. 15), which stalls for a long time before it learns.

    Args:
        task: What to learn.
        preset: ``"compact"`` or ``"paper"``.
        widths: Channels after each layer but the last; ``len(widths) + 1`` is the number of hops
            that the network sees.
        activation: Nonlinearity: silu, relu, gelu, softplus or tanh.
        aggregation: ``"mean"`` or ``"sum"`` over the neighbours.
        residual: Whether layers add to their input; the widths must then be equal.
        shells: Shells of neighbours that send messages between spins.
        range_shells: Shells of neighbours whose spins make up the field.
        **training: Learning rate, optimizer, schedule: see
            :class:`~latticezoo.zoo.base.ZooModel`.

    Raises:
        InputError: When the task has other fields, or an option is wrong.
    """

    presets: ClassVar = {
        "compact": {
            "widths": [48] * 7,
            "activation": "silu",
            "aggregation": "mean",
            "residual": True,
            "shells": 4,
            "range_shells": 11,
            "learning_rate": 4e-3,
        },
        "compact_spins": {"widths": [32] * 3},
        "paper": {
            "widths": [128, 512, 1024, 2048, 1024, 512, 128],
            "activation": "relu",
            "aggregation": "mean",
            "residual": False,
            "learning_rate": 3e-4,
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
        residual: bool | None = None,
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
                "residual": residual,
                "shells": shells,
                "range_shells": range_shells,
            },
            **training,
        )
        options = self.options
        chosen = options["widths"]
        if not chosen or min(chosen) < 1:
            raise InputError(f"widths of gcn must be positive numbers, not {chosen}.")
        if options["residual"] and len(set(chosen)) > 1:
            raise InputError(f"a residual gcn needs equal widths, not {chosen}.")
        self.network: GraphNetwork | SpinGraph
        if maps_spins(self.task):
            # Scalar products are even where spins are odd, and S times them is as odd as S.
            self.built_in_flips = frozenset(self.task.flips)
            self.network = SpinGraph(
                self.task.family,
                chosen,
                options["shells"],
                options["range_shells"],
                options["activation"],
                options["aggregation"],
                options["residual"],
            )
            return
        self.network = GraphNetwork(
            scalar_channels(self, self.task.inputs),
            chosen,
            scalar_channels(self, self.task.targets),
            self._family.shells(count=1)[1].size,
            options["activation"],
            options["aggregation"],
            options["residual"],
        )

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets."""
        if isinstance(self.network, SpinGraph):
            spins, target = fields[self.task.inputs[0].name], self.task.targets[0].name
            return {target: self.network.fields(spins, lattice)}
        found = self.network(join_scalars(fields, self.task.inputs), lattice)
        return split_scalars(found, self.task.targets, lattice)

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """Nearest neighbours, or all that the spins look at."""
        if isinstance(self.network, SpinGraph):
            return self.network.shells
        return super().required_shells

    @property
    def receptive_radius(self) -> float:
        """One bond length a layer, or what the rounds of messages and the range see together."""
        if isinstance(self.network, SpinGraph):
            return self.network.radius
        return float(len(self.options["widths"]) + 1)
