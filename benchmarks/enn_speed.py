"""Speed and memory of lattice_enn: against escnn at equal channels, against size, against its peak.

    python benchmarks/enn_speed.py               writes benchmarks/enn_speed.json
    python benchmarks/enn_speed.py --quick       small lattices and few repeats

Everything is float32 on the CPU, on square lattices with one scalar in and out.

networks  inference on 64×64 and a training step (forward pass, loss, backward pass, Adam) on 40×40
          with batch 8, with one and with two threads, for the presets of lattice_enn, for gcn,
          and, where it is installed, for escnn: a D4 network of four layers of eight regular
          representations, 64 channels, 3×3 filters, periodic padding, and a 1×1 readout, exported
          to plain convolutions for inference, in either memory layout. ``four layers`` is
          lattice_enn with as many layers and channels: 64 of one kind for a task without a
          two-element symmetry, or 32 even and 32 odd for one with particle–hole symmetry, which
          escnn does not have.
size      inference of the compact preset from 32² to 1000² sites on one thread: sites a second,
          exponent of the time, and largest memory of a process beyond what it held before.

The contestants take turns, so that other load on the machine meets all; the least time of all turns
counts. With one thread ``cpu`` is processor time, which a busy machine disturbs less than time on
the wall. The share of the matrix-product rate counts the multiplications of the expanded filters
alone and divides by the best rate of square float32 products measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from torch import Tensor, nn

from latticezoo.symmetry.lattices import square
from latticezoo.zoo import create_model
from latticezoo.zoo.testing import scalar_task

SIZES = (32, 64, 128, 256, 512, 1000)
SIDE, TRAINING_SIDE, BATCH = 64, 40, 8
FOUR_LAYERS = {"blocks": 3}

#: Name, and task and options of the network.
NETWORKS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "lattice_enn four layers, 64 channels": ("lattice_enn", False, {"width": 64, **FOUR_LAYERS}),
    "lattice_enn four layers, 32 even + 32 odd": (
        "lattice_enn",
        True,
        {"width": 32, **FOUR_LAYERS},
    ),
    "lattice_enn compact": ("lattice_enn", True, {}),
    "lattice_enn accurate": ("lattice_enn", True, {"preset": "accurate"}),
    "lattice_enn products": ("lattice_enn", True, {"preset": "products"}),
    "lattice_enn e_fnn": ("lattice_enn", True, {"preset": "e_fnn"}),
    "gcn compact": ("gcn", True, {}),
}

Call = Callable[[], Any]


def least(calls: dict[str, Call], repeats: int) -> dict[str, dict[str, float]]:
    """Least milliseconds of each, on the wall and of the processor, in turns."""
    for call in calls.values():
        call()
    found = {name: {"wall_ms": math.inf, "cpu_ms": math.inf} for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            for kind, seconds in zip(("wall_ms", "cpu_ms"), spent, strict=True):
                found[name][kind] = min(found[name][kind], round(1e3 * seconds, 3))
    return found


def matrix_rate(repeats: int) -> float:
    """Best rate of square float32 matrix products, Gflop/s."""
    rates = []
    for size in (512, 1024):
        a, b = torch.randn(size, size), torch.randn(size, size)
        times = least({"product": lambda a=a, b=b: a @ b}, 2 * repeats)["product"]
        rates.append(2e-6 * size**3 / times["wall_ms"])
    return round(max(rates), 1)


def trained(network: nn.Module, run: Callable[[], Tensor], target: Tensor) -> Call:
    """A training step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        (run() - target).square().mean().backward()
        optimizer.step()

    return step


def dense_flops(network: nn.Module) -> int | None:
    """Multiplications and additions of the expanded filters at a site, where they say it all."""
    if hasattr(network, "irreps"):
        return None  # the E-FNN is made of products
    layers = [m for m in network.modules() if hasattr(m, "filter") and hasattr(m, "product")]
    return sum(2 * layer.filter().numel() for layer in layers) or None


def zoo_calls(sides: tuple[int, int]) -> Iterator[tuple[str, int | None, int, Call, Call]]:
    """Name, flops a site, weights, inference and training step of our networks."""
    for title, (name, odd, options) in NETWORKS.items():
        torch.manual_seed(0)
        task = scalar_task("square", odd)
        small, large = square(sides[0]), square(sides[1])
        network = create_model(name, task, **options).eval()
        learner = create_model(name, task, **options).train()
        fields = {"Q": torch.randn(1, small.n_sites, 1)}
        batch = {"Q": torch.randn(BATCH, large.n_sites, 1)}

        def infer(network=network, fields=fields, lattice=small) -> Tensor:
            with torch.no_grad():
                return network(fields, lattice)["force"]

        def run(learner=learner, batch=batch, lattice=large) -> Tensor:
            return learner(batch, lattice)["force"]

        target = torch.randn(BATCH, large.n_sites, 1)
        weights = sum(weight.numel() for weight in network.parameters())
        step = trained(learner, run, target)
        yield title, dense_flops(network.network), weights, infer, step


def escnn_calls(sides: tuple[int, int]) -> Iterator[tuple[str, int, int, Call, Call | None]]:
    """The same of escnn, exported in both memory layouts."""
    from escnn import gspaces
    from escnn import nn as steerable

    space = gspaces.flipRot2dOnR2(4)
    scalar = steerable.FieldType(space, [space.trivial_repr])
    hidden = steerable.FieldType(space, 8 * [space.regular_repr])

    def build() -> Any:
        layers: list[Any] = []
        for number in range(4):
            into = scalar if number == 0 else hidden
            layers.append(steerable.R2Conv(into, hidden, 3, padding=1, padding_mode="circular"))
            layers.append(steerable.ReLU(hidden))
        return steerable.SequentialModule(*layers, steerable.R2Conv(hidden, scalar, 1))

    learner = build().train()
    batch = steerable.GeometricTensor(torch.randn(BATCH, 1, sides[1], sides[1]), scalar)
    target = torch.randn(BATCH, 1, sides[1], sides[1])
    step = trained(learner, lambda: learner(batch).tensor, target)
    weights = sum(weight.numel() for weight in learner.parameters())
    name = "escnn four layers, 64 channels"
    for layout in (torch.contiguous_format, torch.channels_last):
        exported = build().eval().export().eval().to(memory_format=layout)
        for layer in exported.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                layer.padding_mode = "circular"  # which the export leaves out
        image = torch.randn(1, 1, sides[0], sides[0]).to(memory_format=layout)

        def infer(exported=exported, image=image) -> Tensor:
            with torch.no_grad():
                return exported(image)

        flops = sum(2 * m.weight.numel() for m in exported.modules() if isinstance(m, nn.Conv2d))
        if layout is torch.contiguous_format:
            yield name, flops, weights, infer, step
        else:
            yield name + ", channels last", flops, weights, infer, None


def bench_networks(
    rate: float, sides: tuple[int, int], repeats: int, compare: bool
) -> dict[str, Any]:
    """Inference and training of everybody, in turns."""
    contestants = list(zoo_calls(sides))
    if compare:
        contestants += list(escnn_calls(sides))  # type: ignore[arg-type]
    inference = least({title: infer for title, _, _, infer, _ in contestants}, repeats)
    training = least(
        {title: step for title, _, _, _, step in contestants if step is not None},
        max(3, repeats // 3),
    )
    result = {}
    for title, flops, weights, _, step in contestants:
        found = inference[title]
        entry: dict[str, Any] = {
            "weights": weights,
            "inference": found,
            "inference_sites_per_second": round(sides[0] ** 2 / found["wall_ms"] * 1e3),
        }
        if flops is not None:
            share = flops * sides[0] ** 2 * 1e-6 / found["wall_ms"] / rate
            entry |= {"flops_per_site": flops, "share_of_matrix_rate": round(share, 3)}
        if step is not None:
            sites = BATCH * sides[1] ** 2
            entry["training_step"] = training[title]
            entry["training_sites_per_second"] = round(sites / training[title]["wall_ms"] * 1e3)
        result[title] = entry
    return result


def peak_memory() -> int:
    """Largest memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # the other way counts what the parent held before
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _one_size(side: int, repeats: int, queue: Any) -> None:
    """In a process of its own: time and memory of one size."""
    torch.set_num_threads(1)
    network = create_model("lattice_enn", scalar_task("square", odd=True)).eval()
    with torch.no_grad():
        network({"Q": torch.randn(1, 1024, 1)}, square(32))
        lattice = square(side)
        fields = {"Q": torch.randn(1, lattice.n_sites, 1)}
        before = peak_memory()
        times = least({"model": lambda: network(fields, lattice)}, repeats)["model"]
        after = peak_memory()
    queue.put((times, after - before))


def bench_sizes(sizes: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """The compact preset against the number of sites."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for side in sizes:
        queue = context.Queue()
        process = context.Process(
            target=_one_size, args=(side, 3 if side > 300 else repeats, queue)
        )
        process.start()
        times, memory = queue.get()
        process.join()
        row = {"side": side, **times}
        row["sites_per_second"] = round(side**2 / times["cpu_ms"] * 1e3)
        if side >= 256:  # below, the process has held that much already
            row["memory_bytes_per_site"] = round(memory / side**2)
        rows.append(row)
    points = np.log([[row["side"] ** 2, row["cpu_ms"]] for row in rows]).T
    return {"exponent": round(float(np.polyfit(points[0], points[1], 1)[0]), 3), "sizes": rows}


def installed(name: str) -> str | None:
    """Version of a library, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default=Path(__file__).with_suffix(".json"), type=Path)
    parser.add_argument("--repeats", default=15, type=int)
    parser.add_argument("--threads", default=[1, 2], type=int, nargs="+")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="escnn|lie_learn")
    repeats = 2 if options.quick else options.repeats
    sides = (16, 12) if options.quick else (SIDE, TRAINING_SIDE)
    compare = installed("escnn") is not None
    if not compare:
        print("escnn is not installed, so nothing is compared with it; the Makefile installs it.")
    result: dict[str, Any] = {
        "what": "float32 inference and training of lattice_enn on square lattices",
        "inference_lattice": str(square(sides[0])),
        "training_lattice": f"{square(sides[1])}, batch {BATCH}",
        "hardware": {
            **hardware(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "escnn": installed("escnn"),
            "load_average_at_start": round(os.getloadavg()[0], 2),
        },
        "threads": {},
    }
    for threads in options.threads:
        torch.set_num_threads(threads)
        rate = matrix_rate(repeats)
        networks = bench_networks(rate, sides, repeats, compare)
        result["threads"][str(threads)] = {"matrix_product_gflops": rate, "networks": networks}
        print(f"{threads} thread(s), matrix product {rate} Gflop/s")
        for title, entry in networks.items():
            training = entry.get("training_step", {}).get("wall_ms", "-")
            print(
                f"  {title}: inference {entry['inference_sites_per_second']:.3g} sites/s, "
                f"share {entry.get('share_of_matrix_rate', '-')}, training step {training} ms"
            )
    result["size"] = bench_sizes((32, 64) if options.quick else SIZES, repeats)
    result["hardware"]["load_average_at_end"] = round(os.getloadavg()[0], 2)
    for row in result["size"]["sizes"]:
        print(f"  {row}")
    print(f"  time ~ N^{result['size']['exponent']}")
    temporary = options.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
