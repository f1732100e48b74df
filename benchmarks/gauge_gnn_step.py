"""Training step of gauge_gnn (SU(2)) beside a plain implementation with loops over neighbours.

    python benchmarks/gauge_gnn_step.py                 # square(8) and square(16), batch 8

The plain one has the same weights. It keeps every feature as a complex 2 × 2 matrix and goes
through the flags of a site and their neighbours one after another: indexed access, U H U† by matrix
products, numbers and traceless parts taken from the matrix where weights differ. gauge_gnn keeps
quaternions, carries vectors by one rotation for all channels, and fetches the neighbours of all
flags at once. Both must agree to rounding, in the loss and in all derivatives, before they are
timed. JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hardware import hardware
from torch import Tensor, nn

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.internal import SU2
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.layers.covariant import CovariantLayer, rescaled
from latticezoo.zoo.layers.flags import EXCHANGED, FLAGS, MIRRORED, STEPS, Matrices, Surroundings

TASK = Task(
    "su2_bonds",
    (Field("U", "link", internal="link"),),
    (Field("bond", "link"), Field("energy_per_site", "global")),
    "square",
    gauge="SU2",
)


def to_matrices(values: Matrices) -> list[Tensor]:
    """Complex matrices ``[B, N, C, 2, 2]`` of every flag: w − i(xσ¹ + yσ² + zσ³)."""
    assert values.charged is not None
    found = []
    for flag in range(8):
        numbers, vectors = values.numbers[:, :, 0, flag], values.charged[:, :, :, flag]
        unit = torch.eye(2, dtype=torch.complex(numbers, numbers).dtype)
        part = SU2.matrix(2 * vectors.movedim(2, -1))
        found.append(numbers[..., None, None] * unit - 1j * part)
    return found


def from_matrices(given: list[Tensor]) -> Matrices:
    """The inverse of :func:`to_matrices`."""
    numbers = torch.stack([number(values) for values in given], 2)[:, :, None]
    vectors = torch.stack([0.5 * SU2.components(1j * values) for values in given], 2)
    return Matrices(numbers, vectors.movedim(4, 2))


def number(values: Tensor) -> Tensor:
    """Half the trace of matrices, ``[B, N, C]``."""
    return 0.5 * values.diagonal(dim1=-2, dim2=-1).sum(-1).real


def traceless(values: Tensor) -> Tensor:
    """Matrices without their trace."""
    return values - number(values)[..., None, None] * torch.eye(2, dtype=values.dtype)


def combine(weight: Tensor, values: Tensor) -> Tensor:
    """Real combinations of matrices."""
    return torch.einsum("oc,bncij->bnoij", weight.to(values.dtype), values)


class PlainLayer(nn.Module):
    """The layer of gauge_gnn, flag by flag and neighbour by neighbour."""

    def __init__(self, layer: CovariantLayer, links: list[Tensor], lattice: Lattice) -> None:
        super().__init__()
        self.layer, self.links, self.lattice = layer, links, lattice
        place = torch.arange(lattice.n_sites).view(lattice.shape)
        self.ends = [torch.roll(place, (-a, -b), (0, 1)).flatten() for a, b in STEPS]

    def forward(self, given: Matrices, around: Surroundings) -> Matrices:
        """As :meth:`CovariantLayer.forward`."""
        layer, own, near = self.layer, self.layer.own, self.layer.near
        values, kept = to_matrices(rescaled(given)), to_matrices(given)
        products, hidden = layer.products, layer.hidden
        found = []
        for flag, (e1, e2) in enumerate(FLAGS):
            sources = torch.cat([values[flag], values[MIRRORED[flag]], values[EXCHANGED[flag]]], 2)
            carried = []
            for way in (e1, e1 ^ 1, e2, e2 ^ 1):
                link = self.links[way][:, :, None]
                carried.append(link @ values[flag][:, self.ends[way]] @ link.mH)
            arrived = torch.cat(carried, 2)
            numbers = own.of_numbers(number(sources)) + near.of_numbers(number(arrived))
            charged = combine(own.charged.weight, traceless(sources)) + combine(
                near.charged.weight, traceless(arrived)
            )
            a, b, shown = numbers.split([products, products, hidden], dim=-1)
            unit = torch.eye(2, dtype=charged.dtype)
            one = a[..., None, None] * unit + charged[:, :, :products]
            two = b[..., None, None] * unit + charged[:, :, products : 2 * products]
            product = one @ two
            seen = torch.cat([F.silu(shown), number(product)], -1)
            gate = 2 * torch.sigmoid(layer.gate(seen))
            change = (
                combine(layer.charged.weight, traceless(product)) + charged[:, :, 2 * products :]
            )
            changed = layer.numbers(seen)[..., None, None] * unit + gate[..., None, None] * change
            found.append(kept[flag] + changed)
        return from_matrices(found)


def directed(links: Tensor, lattice: Lattice) -> list[Tensor]:
    """Links along +x, −x, +y, −y of every site, ``[B, N, 2, 2]`` each."""
    place = torch.arange(lattice.n_sites).view(lattice.shape)
    found = []
    for step, (a, b) in enumerate(STEPS):
        forward = links[:, :, step // 2]
        end = torch.roll(place, (-a, -b), (0, 1)).flatten()
        found.append(forward if step % 2 == 0 else forward[:, end].mH)
    return found


def step(network: Any, links: Tensor, targets: dict[str, Tensor], lattice: Lattice) -> Tensor:
    """Loss and its derivatives by all weights."""
    network.zero_grad()
    loss = network.loss(network({"U": links}, lattice), {"targets": targets})
    loss.backward()
    return loss.detach()


def seconds(function: Callable[[], object], least: float) -> float:
    """Fastest of repeated calls, for at least so many seconds of computing."""
    function()
    best, total = float("inf"), 0.0
    while total < least:
        start = time.process_time()
        function()
        spent = time.process_time() - start
        best, total = min(best, spent), total + spent
    return best


def measure(size: int, batch: int, least: float) -> dict[str, Any]:
    """Agreement in float64, times in float32, on one lattice."""
    lattice = Lattice("square", (size, size))
    generator = torch.Generator().manual_seed(0)
    shape = (batch, lattice.n_sites, lattice.directions)
    links = SU2().random(*shape, generator=generator, dtype=torch.float64)
    targets = {
        "bond": torch.randn(batch, lattice.n_sites, 2, generator=generator, dtype=torch.float64),
        "energy_per_site": torch.randn(batch, 1, generator=generator, dtype=torch.float64),
    }
    torch.manual_seed(0)
    network = create_model("gauge_gnn", TASK).double()
    times, deviation = {}, 0.0
    for dtype in (torch.float64, torch.float32):
        fast = deepcopy(network).to(dtype)
        plain = deepcopy(fast)
        given = links.to(dtype.to_complex())
        wanted = {name: values.to(dtype) for name, values in targets.items()}
        sides = directed(given, lattice)
        for position, block in enumerate(plain.blocks):
            plain.blocks[position] = PlainLayer(block, sides, lattice)
        if dtype is torch.float64:
            losses = [step(one, given, wanted, lattice) for one in (fast, plain)]
            deviation = float((losses[0] - losses[1]).abs() / losses[0])
            for one, two in zip(fast.parameters(), plain.parameters(), strict=True):
                scale = float(one.grad.abs().max())
                deviation = max(deviation, float((one.grad - two.grad).abs().max()) / scale)
            if not deviation < 1e-10:
                raise SystemExit(f"the two differ by {deviation:.1e}")
            continue
        for name, one in (("gauge_gnn", fast), ("plain", plain)):
            times[name] = seconds(partial(step, one, given, wanted, lattice), least)
    return {
        "lattice": str(lattice),
        "batch": batch,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "deviation": deviation,
        "seconds": times,
        "ratio": times["plain"] / times["gauge_gnn"],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--sizes", default="8,16", help="sides of the tori (default 8,16)")
    add("--batch", type=int, default=8, help="configurations in a batch (default 8)")
    add("--seconds", type=float, default=5.0, help="computing time of every measurement")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(int(size), given.batch, given.seconds) for size in given.sizes.split(",")]
    for row in rows:
        times = row["seconds"]
        print(
            f"{row['lattice']:14s} gauge_gnn {1e3 * times['gauge_gnn']:.1f} ms, plain "
            f"{1e3 * times['plain']:.1f} ms: {row['ratio']:.1f} times; they agree to "
            f"{row['deviation']:.0e}"
        )
    result = {"rows": rows, "hardware": hardware()}
    given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
