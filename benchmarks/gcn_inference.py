"""Speed of the graph network: against torch-geometric, against the matrix product, against size.

    python benchmarks/gcn_inference.py            writes benchmarks/gcn_inference.json

Everything is float32 inference on the CPU, with one and with two threads. Times are the minimum and
the median over repeats; the contestants take turns, so that other load on the machine meets all.

layer     one graph convolution W_self h_i + W_nn Σ_j h_j + b on a 64×64 square lattice, no
          activation, against torch_geometric.nn.GraphConv with the same weights; outputs compared
network   the compact preset (SiLU and residual mixing included) on 64×64, against the same network
          built from GraphConv and Linear with the same weights; outputs compared
size      the whole model, exact odd symmetry included (two evaluations), from 32² to 512² sites

The share of the matrix-product rate counts only the multiplications of the weight matrices and
divides by the best rate of square float32 products measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from torch import Tensor, nn

from latticezoo.symmetry.lattices import Lattice, square
from latticezoo.zoo import create_model
from latticezoo.zoo.gcn import GraphNetwork
from latticezoo.zoo.layers.graph import NeighbourLinear, bag_table, tiles
from latticezoo.zoo.testing import scalar_task

WIDTHS = (32, 48, 64, 96, 128)
SIDE = 64
SIZES = (32, 64, 128, 256, 512)


def timed(
    calls: dict[str, Callable[[], Any]], repeats: int, seconds: float = 0.02
) -> dict[str, dict[str, float]]:
    """Milliseconds per call of each, in turns: minimum and median over repeats."""
    counts = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, round(seconds / (time.perf_counter() - start)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            found[name].append((time.perf_counter() - start) / counts[name] * 1e3)
    return {
        name: {"min_ms": round(min(t), 4), "median_ms": round(statistics.median(t), 4)}
        for name, t in found.items()
    }


def matrix_rate(repeats: int) -> dict[str, float]:
    """Best rate of square float32 matrix products, Gflop/s, by size."""
    calls = {}
    for size in (512, 1024, 2048):
        a, b = torch.randn(size, size), torch.randn(size, size)
        calls[str(size)] = lambda a=a, b=b: a @ b
    times = timed(calls, repeats)
    return {name: round(2e-6 * int(name) ** 3 / t["min_ms"], 1) for name, t in times.items()}


class PyGNetwork(nn.Module):
    """The compact network built from torch-geometric's GraphConv, with given weights."""

    def __init__(self, source: GraphNetwork) -> None:
        super().__init__()
        from torch_geometric.nn import GraphConv

        self.convolutions = nn.ModuleList()
        for layer in source.layers:
            assert isinstance(layer, NeighbourLinear)
            convolution = GraphConv(layer.in_channels, layer.out_channels, aggr="add")
            convolution.lin_root.weight.data.copy_(layer.weight_self)
            convolution.lin_rel.weight.data.copy_(layer.weight_neighbours / layer.neighbours)
            convolution.lin_rel.bias.data.copy_(layer.bias)
            self.convolutions.append(convolution)
        self.mixers = source.mixers

    def forward(self, rows: Tensor, edges: Tensor) -> Tensor:
        """``[sites, C]`` to ``[sites, C']``."""
        first, *middle, last = self.convolutions
        hidden = torch.nn.functional.silu(first(rows, edges))
        for convolution, mixer in zip(middle, self.mixers, strict=True):
            update = torch.nn.functional.silu(convolution(hidden, edges), inplace=True)
            hidden = hidden + mixer(update)
        return last(hidden, edges)


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest value; it must be rounding."""
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error < 1e-5, f"outputs differ by {error:.1e}"
    return error


def bench_layers(lattice: Lattice, rate: float, repeats: int) -> list[dict[str, Any]]:
    """One layer at several widths."""
    from torch_geometric.nn import GraphConv

    table, edges = bag_table(lattice, 1), lattice.edge_index()
    results = []
    for width in WIDTHS:
        layer = NeighbourLinear(width, width, "sum")
        convolution = GraphConv(width, width, aggr="add")
        convolution.lin_root.weight.data.copy_(layer.weight_self)
        convolution.lin_rel.weight.data.copy_(layer.weight_neighbours)
        convolution.lin_rel.bias.data.copy_(layer.bias)
        rows = torch.randn(lattice.n_sites, width)

        def ours(layer=layer, rows=rows) -> Tensor:
            apply, result = layer.infer(rows, table), torch.empty_like(rows)
            for tile in tiles(len(rows)):
                apply(tile, result[tile])
            return result

        def theirs(convolution=convolution, rows=rows) -> Tensor:
            return convolution(rows, edges)

        error = deviation(ours(), theirs())
        times = timed({"latticezoo": ours, "torch_geometric": theirs}, repeats)
        flops = 2 * lattice.n_sites * 2 * width * width
        results.append(
            {
                "width": width,
                **times,
                "speedup": ratio(times),
                "share_of_matrix_rate": round(
                    flops * 1e-6 / times["latticezoo"]["min_ms"] / rate, 3
                ),
                "deviation": error,
            }
        )
    return results


def bench_network(lattice: Lattice, rate: float, repeats: int) -> dict[str, Any]:
    """The compact preset, one evaluation."""
    network = create_model("gcn", scalar_task("square")).eval().network
    reference, edges = PyGNetwork(network), lattice.edge_index()
    values = torch.randn(1, lattice.n_sites, 1)
    error = deviation(network(values, lattice)[0], reference(values[0], edges))
    times = timed(
        {
            "latticezoo": lambda: network(values, lattice),
            "torch_geometric": lambda: reference(values[0], edges),
        },
        repeats,
    )
    flops = 2 * lattice.n_sites * sum(w.numel() for w in network.parameters() if w.dim() == 2)
    return {
        **times,
        "speedup": ratio(times),
        "share_of_matrix_rate": round(flops * 1e-6 / times["latticezoo"]["min_ms"] / rate, 3),
        "sites_per_second": round(lattice.n_sites / times["latticezoo"]["min_ms"] * 1e3),
        "deviation": error,
    }


def bench_sizes(repeats: int) -> dict[str, Any]:
    """The whole model against the number of sites, and the exponent of its time."""
    model = create_model("gcn", scalar_task("square", odd=True)).eval()
    rows = []
    for side in SIZES:
        lattice = square(side)
        fields = {"Q": torch.randn(1, lattice.n_sites, 1)}
        times = timed({"model": lambda f=fields, on=lattice: model(f, on)}, repeats)["model"]
        rows.append(
            {
                "side": side,
                **times,
                "microseconds_per_site": round(times["min_ms"] * 1e3 / lattice.n_sites, 4),
            }
        )
    slope = np.polyfit(
        np.log([row["side"] ** 2 for row in rows]), np.log([row["min_ms"] for row in rows]), 1
    )[0]
    return {"exponent": round(float(slope), 4), "sizes": rows}


def ratio(times: dict[str, dict[str, float]]) -> float:
    """How many times faster than torch-geometric."""
    return round(times["torch_geometric"]["min_ms"] / times["latticezoo"]["min_ms"], 3)


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default=Path(__file__).with_suffix(".json"), type=Path)
    parser.add_argument("--repeats", default=15, type=int)
    options = parser.parse_args()
    torch.manual_seed(0)
    lattice = square(SIDE)
    result: dict[str, Any] = {
        "what": "float32 inference of gcn on square lattices",
        "lattice": str(lattice),
        "hardware": {
            **hardware(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "torch_geometric": version("torch_geometric"),
            "load_average_at_start": round(os.getloadavg()[0], 2),
        },
        "threads": {},
    }
    with torch.no_grad():
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rates = matrix_rate(options.repeats)
            rate = max(rates.values())
            entry = {
                "matrix_product_gflops": rates,
                "layer": bench_layers(lattice, rate, options.repeats),
                "network": bench_network(lattice, rate, options.repeats),
                "size": bench_sizes(max(3, options.repeats // 3)),
            }
            result["threads"][str(threads)] = entry
            layer = next(row for row in entry["layer"] if row["width"] == 64)
            print(
                f"{threads} thread(s): product {rate} Gflop/s; 64-channel layer "
                f"{layer['latticezoo']['min_ms']} ms, {layer['speedup']} x torch-geometric, "
                f"{100 * layer['share_of_matrix_rate']:.0f} % of the product; network "
                f"{entry['network']['latticezoo']['min_ms']} ms, "
                f"{entry['network']['speedup']} x, "
                f"{100 * entry['network']['share_of_matrix_rate']:.0f} %; "
                f"time ~ N^{entry['size']['exponent']}"
            )
    temporary = options.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
