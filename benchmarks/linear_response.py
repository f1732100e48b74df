"""Linear response of force fields at Q = 0 against perturbation theory, wave vector by wave vector.

    python benchmarks/linear_response.py gcn.holstein_weak energy_gnn.holstein_weak
    python benchmarks/linear_response.py runs/a runs/b --system holstein_strong --lattice 32

The dynamical matrix D(q) of each force field (pretrained name, run folder, checkpoint, or "exact"
for the diagonalization itself) is taken from its forces under a displacement of one site, in
float64, and compared with the exact one. Eigenvalues of D are m ω²; a negative one is an unstable
mode. At fixed electron number the exact D is not continuous at q = 0, where a uniform displacement
only moves the chemical potential; no force field of finite range can follow that, so errors are
given without q = 0 too. Writes JSON with the hardware, and pictures beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware

from latticezoo.simulate.linear_response import (
    branches,
    dynamical_matrix,
    exact_dynamical_matrix,
    zone_path,
)
from latticezoo.simulate.observables import wave_vectors
from latticezoo.training.plots import DASHES, MARKERS, PALETTE, figure
from latticezoo.training.simulate_command import Plan

DIFFERENCES = "finite differences of exact forces"


def measure(name: str, plan: Plan, exact: np.ndarray, step: float) -> tuple[np.ndarray, dict]:
    """D(q) of one force field, and its errors in units of the spring constant."""
    field = plan.force_field()
    if name != "exact":
        field = replace(field, model=field.model.double())
    channels = exact.shape[-1]
    began = time.perf_counter()
    matrix = dynamical_matrix(field, plan.lattice, channels=channels, step=step)
    seconds = time.perf_counter() - began
    half = dynamical_matrix(field, plan.lattice, channels=channels, step=step / 2)
    found, k = matrix.numpy(), float(plan.system.k)  # type: ignore[attr-defined]
    error = size(found - exact) / k
    return found, {
        "model": name,
        "parameters": None
        if name == "exact"
        else sum(weight.numel() for weight in field.model.parameters()),
        "rms_error": rms(error),
        "rms_error_without_q0": rms(error.ravel()[1:]),
        "largest_error": float(error.max()),
        "largest_error_at_over_pi": at(error.argmax(), plan),
        "not_hermitian": float(size(found - found.conj().swapaxes(-1, -2)).max() / k),
        "change_when_step_is_halved": float(size((half - matrix).numpy()).max() / k),
        "lowest_branch": float(branches(matrix).min() / k),
        "lowest_branch_at_over_pi": at(int(branches(matrix).min(-1).values.argmin()), plan),
        "seconds": round(seconds, 3),
    }


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt((values**2).mean()))


def size(matrix: np.ndarray) -> np.ndarray:
    """Root mean square over the entries of each matrix, ``[*shape]``."""
    return np.sqrt((np.abs(matrix) ** 2).mean((-2, -1)))


def at(place: Any, plan: Plan) -> list[float]:
    """A wave vector in units of π, from its place in the table."""
    q = wave_vectors(plan.lattice).abs().flatten(0, -2)[int(place)] / torch.pi
    return [round(float(value), 4) for value in q]


def draw_path(path: Path, plan: Plan, exact: np.ndarray, found: dict[str, np.ndarray]) -> None:
    """Branches and errors along Γ – X – M – Γ."""
    line, k = zone_path(plan.lattice), float(plan.system.k)  # type: ignore[attr-defined]
    with figure(path, nrows=2, figsize=(7.4, 6.4), sharex=True, height_ratios=(3, 2)) as (_, axes):
        upper, lower = axes[:, 0]
        for number, branch in enumerate(branches(torch.from_numpy(exact[line.points])).T):
            label = None if number else "exact"
            upper.plot(line.distances, branch / k, color="0.2", lw=3.2, alpha=0.45, label=label)
        for index, (label, matrix) in enumerate(found.items()):
            style: dict[str, Any] = {
                "color": PALETTE[index % len(PALETTE)],
                "ls": DASHES[index % len(DASHES)],
                "marker": MARKERS[index % len(MARKERS)],
                "markevery": (index % 3, 3),
                "lw": 1.4,
                "ms": 4,
            }
            for number, branch in enumerate(branches(torch.from_numpy(matrix[line.points])).T):
                shown = None if number else label
                upper.plot(line.distances, branch / k, label=shown, **style)
            if label != DIFFERENCES or len(found) == 1:
                lower.plot(line.distances, size(matrix - exact)[line.points] / k, **style)
        upper.axhline(0, color="0.35", lw=0.8)
        upper.set_ylabel("D(q) / k")
        upper.legend(loc="best")
        lower.set(yscale="log", ylabel="error of D(q) / k")
        ticks = [line.distances[index] for index, _ in line.corners]
        lower.set_xticks(ticks, [name for _, name in line.corners])
        lower.set_xlim(ticks[0], ticks[-1])


def draw_zone(path: Path, plan: Plan, exact: np.ndarray, found: dict[str, np.ndarray]) -> None:
    """The error over the whole zone, one map a force field, on one logarithmic scale."""
    from matplotlib.colors import LogNorm

    k = float(plan.system.k)  # type: ignore[attr-defined]
    errors = {
        label: np.fft.fftshift(size(matrix - exact)) / k
        for label, matrix in found.items()
        if label != DIFFERENCES
    } or {label: np.fft.fftshift(size(matrix - exact)) / k for label, matrix in found.items()}
    high = max(float(error.max()) for error in errors.values())
    low = max(min(float(np.percentile(error, 2)) for error in errors.values()), high / 1e4)
    count, half = len(errors), 1 / plan.lattice.shape[0]  # half the distance of two wave vectors
    extent = (-1 - half, 1 - half, -1 - half, 1 - half)
    with figure(path, ncols=count, figsize=(1.4 + 2.7 * count, 3.1), sharey=True) as (drawn, axes):
        for ax, (label, error) in zip(axes[0], errors.items(), strict=True):
            image = ax.imshow(
                error.T,
                origin="lower",
                extent=extent,
                norm=LogNorm(low, high),
                cmap="viridis",
                interpolation="nearest",
            )
            ax.grid(False)
            ax.set(title=label, xlabel="q$_x$ / π")
            ax.title.set_fontsize(9)
        axes[0, 0].set_ylabel("q$_y$ / π")
        drawn.colorbar(image, ax=axes, label="error of D(q) / k", shrink=0.9, extend="min")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("models", nargs="*", default=["gcn.holstein_weak", "descriptor_mlp.holstein_weak"])
    add("--system", default="holstein_weak", help="preset of the exact system")
    add("--lattice", default="square(24, 24)", help="or one number for a square one")
    add("--step", type=float, default=1e-3, help="displacement (default: 0.001)")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    plans = {
        name: Plan.make({"system": given.system, "lattice": given.lattice, "model": name})
        for name in given.models
    }
    plan = next(iter(plans.values()))
    exact = exact_dynamical_matrix(plan.system, plan.lattice).numpy()  # type: ignore[arg-type]
    k = float(plan.system.k)  # type: ignore[attr-defined]
    found, rows = {}, []
    for name, each in plans.items():
        label = DIFFERENCES if name == "exact" else each.label
        found[label], row = measure(name, each, exact, given.step)
        rows.append(row)
        print(json.dumps(row))
    q = wave_vectors(plan.lattice).flatten(0, -2).numpy() / np.pi
    wedge = [i for i, (x, y) in enumerate(np.abs(q)) if x >= y and (q[i] <= 0).all()]
    values = {"exact": exact, **found}
    folder = given.out.parent / given.out.stem
    result = {
        "benchmark": "linear_response",
        "system": {"system": plan.system.name, **plan.system.parameters},
        "lattice": str(plan.lattice),
        "step": given.step,
        "unit": "k",
        "exact": {
            "lowest_branch": float(branches(torch.from_numpy(exact)).min() / k),
            "spread_over_the_zone": rms(size(exact - exact.mean((0, 1)))) / k,
        },
        "results": rows,
        "branches_by_wave_vector": {
            "q_over_pi": [[round(float(abs(n)), 6) for n in q[i]] for i in wedge],
            **{
                label: (branches(torch.from_numpy(matrix)).flatten(0, -2)[wedge] / k)
                .round(decimals=6)
                .tolist()
                for label, matrix in values.items()
            },
        },
        "hardware": hardware(),
    }
    given.out.write_text(json.dumps(result) + "\n")
    folder.mkdir(exist_ok=True)
    draw_path(folder / "path.png", plan, exact, found)
    draw_zone(folder / "zone.png", plan, exact, found)
    print(given.out, folder)


if __name__ == "__main__":
    main()
