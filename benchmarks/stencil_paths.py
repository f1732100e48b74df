"""Gather or convolution: cost of an equivariant layer on either path.

    python benchmarks/stencil_paths.py

One thread, float32, 64 to 64 channels on 4096 sites; forward pass without gradients, and a whole
training step. Least time over the repeats, since neighbours on the machine only add to it. Writes
JSON with the hardware; the table in ``symmetry/stencils.py`` and its rule come from there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hardware import hardware

from latticezoo.symmetry.lattices import Lattice, chain, honeycomb, square, triangular
from latticezoo.symmetry.stencils import EquivariantLinear

CASES: list[tuple[Lattice, int]] = [
    (chain(4096), 1),
    (square(64), 1),
    (triangular(64), 1),
    (square(64), 2),
    (square(64), 3),
    (square(64), 8),
    (honeycomb(64, 32), 1),
    (square(256), 1),
    (square(256), 2),
]


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Least time of a call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times), 2)


def measure(lattice: Lattice, shells: int, channels: int, repeats: int) -> dict[str, object]:
    """Both paths on one lattice."""
    spec = f"{channels}xA1"
    layer = EquivariantLinear(lattice, spec, spec, shells)
    values = torch.randn(1, lattice.n_sites, channels)
    found: dict[str, object] = {
        "lattice": str(lattice),
        "shells": shells,
        "offsets": sum(shell.size for shell in layer.shells),
    }
    for path in ("gather", "dense") if lattice.sublattices == 1 else ("gather",):
        layer.path = path  # type: ignore[assignment]
        layer.eval()
        with torch.no_grad():
            found[f"{path}_forward_ms"] = milliseconds(lambda: layer(values, lattice), repeats)
        layer.train()
        found[f"{path}_training_step_ms"] = milliseconds(
            lambda: layer(values, lattice).square().mean().backward(), repeats
        )
    return found


def main() -> None:
    """Measure all cases and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    here = Path(__file__).with_suffix(".json")
    parser.add_argument("--output", type=Path, default=here)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for lattice, shells in CASES:
        rows.append(measure(lattice, shells, options.channels, options.repeats))
        print(rows[-1], flush=True)
    result = {"hardware": hardware(), "channels": options.channels, "cases": rows}
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(options.output)


if __name__ == "__main__":
    main()
