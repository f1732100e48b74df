"""Verify the symmetry of somebody else's model: any callable, one call, every group element.

Three networks that know nothing of this library predict the electron density of the Holstein model
from the displacements: a graph network of torch-geometric, a convolution with periodic boundaries,
and one with zero padding, as is easily overlooked. The task states the full symmetry of the map
(translations × D4 × particle–hole); the check goes through all its elements, names the worst one,
and finds out which part of the symmetry a model does keep. At last the models are made exact by
averaging, without training anything.

    python examples/verify_symmetry.py                 # seconds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch_geometric.nn import GraphConv

from latticezoo.simulate import preset
from latticezoo.symmetry import (
    Lattice,
    SymmetryGroup,
    assert_equivariant,
    equivariance_error,
    square,
)
from latticezoo.zoo.group_average import symmetrize
from latticezoo.zoo.interop import to_pyg

Model = Callable[[Mapping[str, Tensor], Lattice], dict[str, Tensor]]


class GraphNetwork(nn.Module):
    """What a user of torch-geometric would write."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConv(1, 16, aggr="mean"), GraphConv(16, 1, aggr="mean")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(torch.nn.functional.silu(self.first(x, edge_index)), edge_index)


def of_graphs(network: nn.Module) -> Model:
    """A graph network as a map between fields: the shape that the check takes."""

    def model(fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        graph = to_pyg(fields, lattice)
        found = network(graph.x, graph.edge_index)
        return {"density": found.view(-1, lattice.n_sites, 1)}

    return model


def of_images(padding: str) -> Model:
    """A convolutional network on the square lattice as a map between fields."""
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, padding_mode=padding),
        nn.SiLU(),
        nn.Conv2d(16, 1, 3, padding=1, padding_mode=padding),
    ).double()

    def model(fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        values = fields["Q"]
        found = network(values.view(-1, 1, *lattice.shape))
        return {"density": found.view_as(values)}

    return model


def main() -> None:
    torch.manual_seed(0)
    task, lattice = preset("holstein_weak").task(), square(6, 8)
    models = {
        "graph network": of_graphs(GraphNetwork().double()),
        "convolution, periodic": of_images("circular"),
        "convolution, zero padding": of_images("zeros"),
    }
    # Parts of the group, to see which of them a model keeps: (flips, point operations).
    parts = {
        "all": task.symmetry(lattice),
        "translations and point group": SymmetryGroup(lattice),
        "translations": SymmetryGroup(lattice, point_operations=(0,)),
    }
    for name, model in models.items():
        print(name)
        for part, group in parts.items():
            report = equivariance_error(model, task, lattice, group=group)
            verdict = "exact" if report.error < 1e-12 else f"broken by {report.worst}"
            print(f"  {part:<30} {report.error:8.1e}  {verdict}")

    # A model that fails is told by an exception that names the element.
    try:
        assert_equivariant(models["convolution, periodic"], task, lattice)
    except AssertionError as error:
        print(f"\nassert_equivariant: {error}")

    # The mean over point group and particle–hole of a model that commutes with translations is
    # exact; its outputs change, so train it like this or fine-tune it.
    for name in ("graph network", "convolution, periodic"):
        exact = symmetrize(models[name], task=task)
        print(f"{name}, averaged: {assert_equivariant(exact, task, lattice)}")


if __name__ == "__main__":
    main()
