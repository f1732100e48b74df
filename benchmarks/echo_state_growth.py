"""Domain growth by echo state networks: the order parameter alone, no forces, no electrons.

    python benchmarks/echo_state_growth.py --lattice 24 --trajectories 24 --frames 20 \\
        --driver lattice_enn.holstein_weak --large-frames 30 --replicas 6   # some ten minutes

Quenches of the Holstein model on a small lattice (data cdw_growth; made once, kept in the cache)
train networks whose input is the local order phi of the last frames. Then:

1. Options are chosen on the validation quenches by the free-running error, the mean over the frames
   of rms(phi - true phi)/rms(phi), never by the one-step error.
2. One step ahead on the test quenches: rms error over rms increment (1 for persistence), for the
   network and linear maps of the orbit means of the last one and four frames, fit in the same way.
3. Free running on the test quenches: the same error beside persistence, mean and standard deviation
   over --seeds reservoirs.
4. A larger lattice: quenches by a force field, phi seen at the same intervals; the network is given
   the first frames of the same quenches and goes on alone. C(r, t) at three times, the half-height
   length L(t) and its power law for both, errors by resampling the replicas.
5. Exactness: the largest change of a free run under any point operation, a translation and
   phi -> -phi, over its size.

Writes <out>.json with the hardware and <out>.png. Times in units of tau0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from torch import Tensor

from latticezoo.datasets.cdw_growth import ORDER, CDWGrowth, half_order
from latticezoo.simulate import FunctionObserver, initial, simulate
from latticezoo.simulate import domain_growth as growth
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.dynamics.roll_out import RollOut
from latticezoo.simulate.files import atomic_write
from latticezoo.simulate.observers import Snapshot
from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import transform
from latticezoo.symmetry.lattices import Lattice, square
from latticezoo.training.plots import MARKERS, PALETTE, figure
from latticezoo.zoo import create_model, load_pretrained
from latticezoo.zoo.layers.ridge import RidgeRegression
from latticezoo.zoo.layers.surroundings import Surroundings

#: What is tried.
GRID: dict[str, tuple[Any, ...]] = {
    "coupling": ("orbits", "invariants"),
    "radius": (0.05, 0.3),
    "input_scale": (0.05, 0.1, 0.2, 0.5),
}
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3)


@dataclass
class Study:
    """Data and what every network has in common."""

    data: CDWGrowth
    nodes: int
    washout: int

    def series(self, split: str) -> Tensor:
        """Quenches ``[K, T, N, 1]``, single precision."""
        return self.data.runs(split)[ORDER].float()

    def gathered(self, **options: Any) -> Any:
        """A network that has seen the training quenches and can be solved for any ridge."""
        network = create_model(
            "echo_state", self.data.task, nodes=self.nodes, washout=self.washout, **options
        )
        network.set_statistics(self.data.statistics())
        network.on_train_epoch_start()
        for series in self.series("train").split(1):
            batch = {"fields": {ORDER: series[:, :-1]}, "targets": {ORDER: series[:, 1:]}}
            network.training_step({**batch, "lattice": self.data.lattice}, 0)
        return network

    def fit(self, **options: Any) -> Any:
        """A fitted network."""
        network = self.gathered(**options)
        network._solve()
        return network.eval()

    def free_run(self, network: Any, split: str) -> Tensor | None:
        """The frames after the washout, predicted without any truth; None where it runs away."""
        series = self.series(split)
        steps = series.shape[1] - self.washout
        try:
            start = {ORDER: series[:, : self.washout]}
            return network.roll_out(start, self.data.lattice, steps)[ORDER]
        except InputError:
            return None

    def free_error(self, found: Tensor | None, split: str) -> float:
        """Mean over frames of the relative error; infinite where it ran away."""
        if found is None:
            return float("inf")
        return float(relative(found, self.series(split)[:, self.washout :]).mean())


def relative(found: Tensor, truth: Tensor) -> Tensor:
    """rms(found − truth)/rms(truth) of each frame, ``[T]``, over quenches and sites."""
    return ((found - truth).square().mean((0, 2, 3)) / truth.square().mean((0, 2, 3))).sqrt()


# ---- small lattice -------------------------------------------------------------------------------


def choose(study: Study, grid: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Every set of options with its errors on the validation quenches, the best first."""
    rows = []
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        network = study.gathered(**options)
        for ridge in RIDGES:
            network.options["ridge"] = ridge
            network._solve()
            error = study.free_error(study.free_run(network, "val"), "val")
            step = one_step(network, study, "val")
            rows.append({**options, "ridge": ridge, "free": error, "one_step": step})
        print(json.dumps(min(rows[-len(RIDGES) :], key=lambda row: row["free"])), flush=True)
    return sorted(rows, key=lambda row: row["free"])


def one_step(network: Any, study: Study, split: str) -> float:
    """rms one-step error over rms increment."""
    series, washout = study.series(split), study.washout
    with torch.no_grad():
        found = network({ORDER: series[:, :-1]}, study.data.lattice)[ORDER]
    return share(found, series, washout)


def share(found: Tensor, series: Tensor, washout: int) -> float:
    """rms error of predictions ``[K, T − 1, N, 1]`` over that of persistence."""
    truth, now = series[:, washout:], series[:, washout - 1 : -1]
    error = found[:, washout - 1 :] - truth
    return float((error.square().mean() / (truth - now).square().mean()).sqrt())


def linear(study: Study, frames: int) -> float:
    """One-step error on the test quenches of a linear map of orbit means of the last frames."""
    surroundings = Surroundings("square", 8)
    lattice, washout = study.data.lattice, study.washout

    def features(series: Tensor) -> Tensor:
        means = surroundings(series.flatten(0, 1), lattice)[:, :, 0].unflatten(0, series.shape[:2])
        past = [means.roll(back, 1) for back in range(frames)]
        return torch.cat(past, -1)[:, washout - 1 : -1]

    ridge = RidgeRegression(9 * frames, 1)
    for series in study.series("train").split(1):
        changes = series[:, washout:] - series[:, washout - 1 : -1]
        ridge.add(features(series).flatten(0, 2), changes.flatten(0, 2))
    weights = ridge.solve(1e-8).float()
    series = study.series("test")
    found = series[:, :-1].clone()
    found[:, washout - 1 :] += features(series) @ weights
    return share(found, series, washout)


def exactness(network: Any, lattice: Lattice, frames: int) -> dict[str, float]:
    """Largest relative change of a free run under elements of each kind, double precision."""
    network, field = network.double(), network.task.inputs[0]
    draw = torch.Generator().manual_seed(0)
    shape = (1, frames, lattice.n_sites, 1)
    series = 0.4 * torch.randn(shape, generator=draw, dtype=torch.float64).tanh()

    def run(given: Tensor) -> Tensor:
        return network.roll_out({ORDER: given}, lattice, 5)[ORDER][0]

    before = run(series)
    worst = {"point": 0.0, "translation": 0.0, "flip": 0.0, "combined": 0.0}
    for element in SymmetryGroup(lattice, network.task.flips).finite():
        kinds = {
            "point": element.point != 0,
            "translation": bool(element.translation and any(element.translation)),
            "flip": bool(element.flips),
        }
        there = [kind for kind, is_there in kinds.items() if is_there]
        kind = there[0] if len(there) == 1 else "combined"
        after = run(transform(field, series[0], element)[None])
        change = (after - transform(field, before, element)).abs().max() / before.abs().max()
        worst[kind] = max(worst[kind], float(change))
    network.float()
    return worst


# ---- large lattice -------------------------------------------------------------------------------


def statistics_of(order: Tensor, lattice: Lattice) -> Tensor:
    """Averages ``[R, D + 5]`` of a local order."""
    return growth.domain_statistics(order.double(), lattice)


def observers(order: Any, every: int, kept: int) -> list[FunctionObserver]:
    """The averages of every frame, and the order itself of every ``kept``-th."""

    def measured(snapshot: Snapshot) -> Tensor:
        return statistics_of(order(snapshot), snapshot.lattice)

    def seen(snapshot: Snapshot) -> Tensor:
        return order(snapshot)[..., 0].float()

    return [
        FunctionObserver(every, "statistics", measured),
        FunctionObserver(every * kept, "order", seen),
    ]


def by_forces(given: argparse.Namespace, lattice: Lattice, spacing: float, frames: int) -> Any:
    """Quenches by a force field, seen frame by frame; the first frame at ``spacing``."""
    system: Any = create_system(given.preset, chemical_potential=0.0)
    field = system.learned(load_pretrained(given.forces))
    dynamics = Langevin(given.dt * system.tau0, system.temperature, system.damping, system.mass)
    start = initial.random(lattice, given.replicas, amplitude=system.Q0, seed=given.seed + 1)
    every = round(spacing / given.dt)

    def order(snapshot: Snapshot) -> Tensor:
        return half_order(snapshot.values("density"), snapshot.lattice)

    watching = observers(order, every, 1)
    return simulate(field, dynamics, start, every * frames, lattice=lattice, observers=watching)


def by_network(network: Any, lattice: Lattice, series: Tensor, steps: int, spacing: float) -> Any:
    """The network goes on with ``[R, T, N, 1]``."""
    state = RollOut.washed_in(network, {ORDER: series}, lattice)
    watching = observers(lambda snapshot: snapshot.state.fields[ORDER], 1, 1)
    return simulate(network, RollOut(spacing), state, steps, lattice=lattice, observers=watching)


def growth_of(values: np.ndarray, times: np.ndarray, window: tuple[float, float]) -> dict[str, Any]:
    """L(t), its exponent and C(r, t) of samples ``[T, R, D + 5]``, with errors."""
    samples = growth.unpack(values)
    replicas = samples.means.shape[1]

    def correlation(rows: Any) -> Any:
        return growth.ensemble_correlation(samples, rows)

    def length(rows: Any) -> Any:
        return growth.half_height(correlation(rows))

    def exponent(rows: Any) -> float:
        return growth.power_law(times, length(rows), window).exponent

    return {
        "length": growth.bootstrap(length, replicas),
        "exponent": growth.bootstrap(exponent, replicas),
        "correlation": growth.bootstrap(correlation, replicas),
        "mean_square": samples.products[:, :, 0].mean(1),
    }


# ---- output --------------------------------------------------------------------------------------


def plain(values: Any) -> Any:
    """Numbers that JSON can hold, five digits; None for what is not finite."""
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    if isinstance(values, np.ndarray | list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, float | np.floating):
        return float(f"{values:.5g}") if np.isfinite(values) else None
    return values


def mean_and_spread(values: list[float]) -> dict[str, Any]:
    """Over the seeds."""
    finite = np.array([value for value in values if np.isfinite(value)])
    return {
        "mean": finite.mean() if len(finite) else None,
        "std": finite.std(ddof=1) if len(finite) > 1 else None,
        "ran_away": len(values) - len(finite),
    }


def draw(path: Path, times: np.ndarray, found: dict[str, Any], shown: list[int]) -> None:
    """L(t), C(r, t) and the order at three times, both ways."""
    labels = {"forces": "force field", "network": "echo state"}
    with figure(path, nrows=2, ncols=4, figsize=(14.0, 7.0)) as (_, axes):
        lengths, correlations = axes[0, 0], axes[1, 0]
        for index, (who, label) in enumerate(labels.items()):
            length = found[who]["length"]
            lengths.errorbar(
                times,
                length.value,
                length.error,
                fmt=MARKERS[index],
                color=PALETTE[index],
                ms=4,
                lw=1,
                capsize=2,
                label=f"{label}: t^{float(found[who]['exponent'].value):.2f}",
            )
            for number, row in enumerate(shown):
                curve = found[who]["correlation"].value[row]
                correlations.plot(
                    np.arange(len(curve)),
                    curve,
                    color=PALETTE[number],
                    ls="-" if who == "forces" else "--",
                    label=f"t = {times[row]:g} τ₀" if who == "forces" else None,
                )
            limit = float(np.abs(found["forces"]["maps"][shown]).max())
            for column, row in enumerate(shown):
                ax = axes[index, column + 1]
                image = found[who]["maps"][row]
                ax.imshow(image.T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
                ax.grid(False)
                ax.set(title=f"{label}, t = {times[row]:g} τ₀")
        lengths.set(
            xscale="log", yscale="log", xlabel="time t (τ₀)", ylabel="L (lattice constants)"
        )
        lengths.legend()
        correlations.set(xlabel="r", ylabel="C(r, t); dashed: echo state")
        correlations.axhline(0, color="0.4", lw=0.8)
        correlations.legend()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", default="holstein_weak")
    add("--lattice", type=int, default=32, help="side of the training quenches")
    add("--trajectories", type=int, default=40)
    add("--frames", type=int, default=40)
    add("--spacing", type=float, default=5.0)
    add("--driver", help="network that drives the training quenches (default: exact forces)")
    add("--data", help="dataset file (default: in the cache)")
    add("--workers", type=int)
    add("--nodes", type=int, default=500)
    add("--washout", type=int, default=7, help="frames taken in before a free run")
    add("--options", type=json.loads, help="instead of a choice, such as '{\"radius\": 0.3}'")
    add("--seeds", type=int, default=5, help="reservoirs")
    add("--forces", default="lattice_enn.holstein_weak", help="force field on the large lattice")
    add("--large", type=int, default=64)
    add("--large-frames", type=int, default=80)
    add("--replicas", type=int, default=8)
    add("--dt", type=float, default=0.25)
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path(__file__).with_suffix(""))
    given = parser.parse_args()
    torch.set_num_threads(1)

    data = CDWGrowth(
        lattice=given.lattice,
        preset=given.preset,
        trajectories=given.trajectories,
        frames=given.frames,
        spacing=given.spacing,
        driver=given.driver,
        path=given.data,
        workers=given.workers,
        seed=given.seed,
    )
    study = Study(data, given.nodes, given.washout)
    series = study.series("test")
    table = [] if given.options else choose(study, GRID)
    best = given.options or {k: table[0][k] for k in (*GRID, "ridge")}

    fitted, seconds = [], []
    for seed in range(given.seeds):
        begin = time.perf_counter()
        fitted.append(study.fit(**best, seed=seed))
        seconds.append(time.perf_counter() - begin)
    free = [study.free_run(network, "test") for network in fitted]
    still = series[:, given.washout - 1 : given.washout].expand_as(series[:, given.washout :])
    small = {
        "one_step": {
            "persistence": 1.0,
            "linear, last frame": linear(study, 1),
            "linear, last 4 frames": linear(study, min(4, given.washout)),
            "echo_state": mean_and_spread([one_step(n, study, "test") for n in fitted]),
        },
        "free_running": {
            "persistence": float(relative(still, series[:, given.washout :]).mean()),
            "echo_state": mean_and_spread([study.free_error(run, "test") for run in free]),
        },
        "train_seconds": min(seconds),
    }
    print(json.dumps(plain(small), indent=1), flush=True)

    lattice, w = square(given.large), given.washout
    forced = by_forces(given, lattice, given.spacing, given.large_frames)
    whole = torch.from_numpy(forced.observers["order"].values[1:]).transpose(0, 1)[..., None]
    network = fitted[0]
    rolled = by_network(network, lattice, whole[:, :w], given.large_frames - w, given.spacing)
    times = given.spacing * np.arange(w, given.large_frames + 1)
    window = (float(times[1]), float(times[-1]))
    found = {
        "forces": growth_of(forced.observers["statistics"].values[w:], times, window),
        "network": growth_of(rolled.observers["statistics"].values, times, window),
    }
    found["forces"]["maps"] = whole[0, w - 1 :, :, 0].numpy().reshape(-1, *lattice.shape)
    found["network"]["maps"] = rolled.observers["order"].values[:, 0].reshape(-1, *lattice.shape)
    shown = [int(row) for row in np.geomspace(2, len(times) - 1, 3).round()]
    large = {
        "lattice": str(lattice),
        "replicas": given.replicas,
        "forces": given.forces,
        "window": window,
        "times": times,
        "seconds": {"forces": forced.seconds, "network": rolled.seconds},
        "largest_difference_of_C": {
            f"t = {times[row]:g}": {
                "difference": float(np.abs(difference(found, row)).max()),
                "in_standard_errors": float(np.nanmax(np.abs(in_errors(found, row)))),
            }
            for row in shown
        },
        **{
            who: {
                "length": part["length"].value,
                "length_error": part["length"].error,
                "exponent": float(part["exponent"].value),
                "exponent_error": float(part["exponent"].error),
                "mean_square_order": part["mean_square"],
                "correlation": {
                    f"t = {times[row]:g}": part["correlation"].value[row] for row in shown
                },
            }
            for who, part in found.items()
        },
    }
    result = {
        "benchmark": "echo_state_growth",
        "system": {"preset": given.preset, **data.system.parameters},
        "data": {**data.recipe.options(), "splits": data.split_sizes},
        "nodes": given.nodes,
        "washout": w,
        "chosen": best,
        "tried_on_validation": table,
        "seeds": given.seeds,
        "small_lattice": small,
        "large_lattice": large,
        "exactness": exactness(network, square(8), w),
        "hardware": hardware(),
    }
    target = given.out.with_suffix(".json")
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(plain(result)) + "\n")
    draw(given.out.with_suffix(".png"), times, found, shown)
    for who in found:
        print(who, "L ~ t^", large[who]["exponent"], "±", large[who]["exponent_error"])
    print(
        json.dumps(plain(large["largest_difference_of_C"])), json.dumps(plain(result["exactness"]))
    )
    print(target)


def difference(found: dict[str, Any], row: int) -> np.ndarray:
    """C of the network minus that of the forces at one time."""
    values: np.ndarray = (
        found["network"]["correlation"].value[row] - found["forces"]["correlation"].value[row]
    )
    return values


def in_errors(found: dict[str, Any], row: int) -> np.ndarray:
    """The same in units of its standard error."""
    errors = [found[who]["correlation"].error[row] for who in found]
    total = np.hypot(*errors)
    return np.divide(difference(found, row), total, out=np.zeros_like(total), where=total > 0)


if __name__ == "__main__":
    main()
