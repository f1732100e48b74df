r"""Add your own network: one class, and it trains, compares, simulates and is held to the symmetry.

The network of this file lets every site hear the mean of each of its first shells of neighbours:

.. math::
    h_i^{(l+1)} = h_i^{(l)} + \mathrm{SiLU}\Big(W_0\, h_i^{(l)}
        + \sum_{s=1}^{S} W_s\, \frac{1}{z_s} \sum_{j \in s(i)} h_j^{(l)} + b\Big)

One matrix a shell commutes with translations and point group of any lattice. What is odd under
particle–hole symmetry is made so by the base class. Loss, optimizer, schedule and metrics come from
there as well, so that a comparison with the other networks is fair.

    python examples/my_network.py                      # about a minute on one core

The command line finds it by its import path, and the laws that every network of the library passes
are a class to inherit from (``examples/test_my_network.py``):

    PYTHONPATH=examples latticezoo fit --model my_network.ShellNetwork --data holstein
    pytest examples/test_my_network.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latticezoo.symmetry import Lattice, Shell, Task, assert_equivariant, square
from latticezoo.training.compare import Comparison
from latticezoo.zoo import ZooModel, register


@register("shell_network")
class ShellNetwork(ZooModel):
    """Residual layers over several shells of neighbours, for scalar fields on any lattice.

    Presets:
        ``compact``: three layers of width 32 over three shells.

    Args:
        task: What to learn.
        preset: ``"compact"``.
        width: Channels of a layer.
        layers: Number of layers.
        shells: Shells of neighbours that a layer hears.
        **training: Learning rate, optimizer, schedule: see :class:`~latticezoo.zoo.ZooModel`.

    Raises:
        InputError: For fields other than real scalars.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "compact": {"width": 32, "layers": 3, "shells": 3}
    }

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        width: int | None = None,
        layers: int | None = None,
        shells: int | None = None,
        **training: Any,
    ) -> None:
        own = {"width": width, "layers": layers, "shells": shells}
        super().__init__(task, preset=preset, architecture=own, **training)
        for field in (*self.task.inputs, *self.task.targets):
            # Say what the network cannot do here, in one sentence, and not in a failing layer.
            if field.support != "site" or field.point != "A1" or field.internal is not None:
                raise self.refuse(f"it carries scalar site fields only, unlike {field.name!r}.")
        size, count = self.options["width"], self.options["shells"] + 1
        self.enter = nn.Linear(len(self.task.inputs), size)
        self.layers = nn.ModuleList(
            nn.Linear(count * size, size) for _ in range(self.options["layers"])
        )
        self.leave = nn.Linear(size, len(self.task.targets))

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """Neighbours that must be different sites: smaller lattices are refused with a sentence."""
        cell = Lattice(self.task.family, (1,) * Lattice.dimension(self.task.family))
        return cell.shells(count=self.options["shells"])

    @property
    def receptive_radius(self) -> float:
        """How far it sees, in bond lengths; slabs of a large lattice exchange halos this wide."""
        return float(self.options["layers"] * self.required_shells[-1].radius)

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs ``[B, N, 1]`` to standardized targets ``[B, N, 1]``."""
        hidden = self.enter(torch.cat([fields[f.name] for f in self.task.inputs], dim=-1))
        around = self.required_shells[1:]
        for layer in self.layers:
            heard = [lattice.neighbour_sum(hidden, shell) / shell.size for shell in around]
            hidden = hidden + nn.functional.silu(layer(torch.cat([hidden, *heard], dim=-1)))
        found = self.leave(hidden).split(1, dim=-1)
        return {f.name: values for f, values in zip(self.task.targets, found, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lattice", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("my_network"))
    args = parser.parse_args()

    # The same data, the same budget, the same measurements as `latticezoo compare`.
    data = {"lattice": args.lattice, "random": 60, "trajectories": 12, "frames": 10}
    comparison = Comparison.open(
        "holstein", ["shell_network", "gcn"], data, epochs=args.epochs, accelerator="cpu"
    )
    results = comparison.run(args.out)
    for path in results.write(args.out, comparison.settings):  # prints the table
        print(path)

    network = comparison.members[0].network.double().eval()
    lattice = square(8, 10)
    print(assert_equivariant(network, network.task, lattice))


if __name__ == "__main__":
    main()
