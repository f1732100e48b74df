"""Pictures of simulations of spins: maps, what the observers saw, the structure factor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latticezoo.simulate.observables import wave_vectors
from latticezoo.simulate.run import Result
from latticezoo.simulate.spin_observables import spin_structure_factor
from latticezoo.simulate.trajectory import Series, open_trajectory
from latticezoo.symmetry.lattices import Lattice
from latticezoo.training.pictures import three_times
from latticezoo.training.plots import DASHES, PALETTE, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from latticezoo.training.plots import PathLike
    from latticezoo.training.simulate_command import Plan

#: Largest number of arrows along a side of a map.
_ARROWS = 32
_TITLES = {
    "energy": "energy per site (t)",
    "topological_charge": "topological charge",
    "peak_order": "peak order S(Q)",
    "peak_length": "length (bonds)",
}


def spin_pictures(out: Path, plan: Plan, result: Result) -> list[Path]:
    """Draw one run into a folder.

    Args:
        out: The folder.
        plan: What was simulated.
        result: Its result, with a trajectory.

    Returns:
        The pictures.
    """
    assert result.trajectory is not None
    with open_trajectory(result.trajectory) as trajectory:
        times = np.asarray(trajectory.times) / plan.time_unit
        chosen = three_times(times)
        frames = np.stack([trajectory.fields["S"][index] for index in chosen])
    shown = [float(f"{times[index]:.3g}") for index in chosen]
    factor = spin_structure_factor(torch.from_numpy(frames[-1]).double(), plan.lattice)
    return [
        spin_maps(out / "spins.png", frames[:, 0], plan.lattice, shown),
        factor_map(out / "structure_factor.png", factor.mean(0).numpy(), plan.lattice),
        histories(out / "observers.png", result.observers, plan),
    ]


def spin_maps(path: PathLike, spins: np.ndarray, lattice: Lattice, times: list[float]) -> Path:
    """Spins at several times: colour for the third component, arrows for the first two.

    Args:
        path: The PNG.
        spins: ``[times, N, 3]``.
        lattice: Two-dimensional.
        times: One column each.

    Returns:
        The path.
    """
    rows, columns = lattice.shape
    x, y = (lattice.positions[:, n].numpy().reshape(rows, columns) for n in (0, 1))
    stride = -(-max(rows, columns) // _ARROWS)
    few = (slice(None, None, stride), slice(None, None, stride))
    size = (1.6 + 3.0 * len(times), 0.6 + 3.0 * float(np.ptp(y) + 1) / float(np.ptp(x) + 1))
    with figure(path, ncols=len(times), figsize=size, sharex=True, sharey=True) as (drawn, axes):
        for column, time in enumerate(times):
            ax: Axes = axes[0, column]
            S = spins[column].reshape(rows, columns, 3)
            image = ax.pcolormesh(
                x, y, S[..., 2], cmap="RdBu_r", vmin=-1, vmax=1, shading="nearest"
            )
            ax.quiver(
                x[few],
                y[few],
                S[few][..., 0],
                S[few][..., 1],
                pivot="mid",
                angles="xy",
                scale_units="xy",
                scale=1.1 / stride,
            )
            ax.set(title=f"t = {time:g} τ₀", xlabel="x (bonds)", aspect="equal")
            ax.grid(False)
        axes[0, 0].set_ylabel("y (bonds)")
        drawn.colorbar(image, ax=axes, label="S_z", shrink=0.85, aspect=30)
    return Path(path)


def factor_map(path: PathLike, factor: np.ndarray, lattice: Lattice) -> Path:
    """S(q) on a logarithmic scale, at the wave vectors of the first Brillouin zone.

    Args:
        path: The PNG.
        factor: ``[*shape]``.
        lattice: Two-dimensional.

    Returns:
        The path.
    """
    from matplotlib.colors import LogNorm

    waves, index = _first_zone(lattice)
    values = np.maximum(factor.ravel()[index], 1e-3)
    size = 6e4 / (lattice.n_sites + 100)  # about the area of a wave vector in the picture
    with figure(path, figsize=(5.2, 4.4)) as (drawn, axes):
        ax = axes[0, 0]
        marks = ax.scatter(*waves.T, c=values, s=size, marker="h", norm=LogNorm(), lw=0)
        ax.set(xlabel="q_x (1/bond)", ylabel="q_y (1/bond)", aspect="equal")
        ax.grid(False)
        drawn.colorbar(marks, ax=ax, label="S(q)")
    return Path(path)


def histories(path: PathLike, samples: Mapping[str, Series], plan: Plan) -> Path:
    """What the observers saw against time, one panel each, a line a replica.

    Args:
        path: The PNG.
        samples: Series by the name of the observer.
        plan: What was simulated.

    Returns:
        The path.
    """
    panels: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name, series in samples.items():
        values, times = np.asarray(series.values), np.asarray(series.times) / plan.time_unit
        if name == "energy":
            values = values / plan.lattice.n_sites
        if name == "magnetization":
            panels.append(("|magnetization|", times, np.linalg.norm(values, axis=-1)))
        elif name == "chirality":
            panels.append(("mean chirality", times, values[..., 0]))
        elif values.ndim == 2:
            panels.append((_TITLES.get(name, name.replace("_", " ")), times, values))
    options: dict[str, Any] = {"figsize": (6.4, 0.6 + 1.7 * len(panels)), "sharex": True}
    with figure(path, nrows=len(panels), **options) as (_, axes):
        for ax, (title, times, values) in zip(axes[:, 0], panels, strict=True):
            for replica in range(values.shape[1]):
                ax.plot(
                    times,
                    values[:, replica],
                    color=PALETTE[replica % len(PALETTE)],
                    ls=DASHES[replica % len(DASHES)],
                    lw=1.2,
                )
            ax.set_ylabel(title)
        axes[-1, 0].set_xlabel("time t (τ₀)")
    return Path(path)


def _first_zone(lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Wave vectors of the first Brillouin zone, all its corners and edges, and which they are.

    Returns:
        Cartesian wave vectors ``[W, 2]``, and their places in the raveled torus ``[W]``.
    """
    inverse = np.linalg.inv(lattice.vectors)
    waves = wave_vectors(lattice).numpy().reshape(-1, 2) @ inverse.T
    steps = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    images = waves[:, None] + 2 * np.pi * steps @ inverse.T
    lengths = np.linalg.norm(images, axis=-1)
    index, image = np.nonzero(lengths < lengths.min(1, keepdims=True) + 1e-6)
    return images[index, image], index
