"""Growth of charge-density-wave domains after a quench, with learned forces.

    python benchmarks/domain_growth.py                                  # a small one
    python benchmarks/domain_growth.py --model gcn.holstein_weak --temperature 0.05 \\
        --lattice 200 --replicas 8 --steps 30000 --out growth_weak_005

The files of the folder domain_growth, each with its preset and temperature (weak: 0.1, 0.05;
strong: 0.1, 0.3):

    python benchmarks/domain_growth.py --model lattice_enn.holstein_weak --preset holstein_weak \\
        --potential 0 --temperature 0.1 --lattice 128 --replicas 8 --dt 0.3 --steps 1500 \\
        --sample-every 4 --map-every 100 --threads 1 --out weak_010

--model is a pretrained name, run folder, checkpoint or "exact". Temperature is that of the bath;
the electrons of a learned force field keep the one it was trained at. At half filling a network
that keeps the number of electrons searches the chemical potential at every step; --potential 0
fixes it there, its value for any state without a net order, at a fifth of the cost. Only averages
are kept on the way (and the local order at some times), in the folder --out, where the same command
goes on with a run that was stopped; with more --steps it goes on from the end.

L(t) is where the correlation function C(r, t) of the local order falls to one half, and the inverse
first moment of its structure factor about (π, π), of all wave vectors and of those below --cutoff.
Averages are over replicas, errors from resampling them. The power law is fitted in a window of
times, by default from the time at which the mean square of the local order has come within 10 % of
its last value to the time at which the half-height length reaches a sixth of the box. Domains that
wind around the torus with flat walls count as frozen. Writes <out>.json with the hardware, and a
picture into the folder.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from torch import Tensor

from latticezoo.simulate import Checkpoint, FunctionObserver, KineticTemperature, simulate
from latticezoo.simulate import domain_growth as growth
from latticezoo.simulate.files import atomic_write
from latticezoo.simulate.observables import local_order
from latticezoo.simulate.observers import Snapshot
from latticezoo.simulate.run import Result
from latticezoo.simulate.stripes import domain_state
from latticezoo.training.plots import MARKERS, PALETTE, figure
from latticezoo.training.simulate_command import Plan
from latticezoo.training.threads import suited_threads, work


def order_maps(source: str) -> Any:
    """A function that gives the local order ``[R, N]`` in half the memory."""

    def order(snapshot: Snapshot) -> Tensor:
        return local_order(snapshot.values(source), snapshot.lattice)[..., 0].float()

    return order


def run(plan: Plan, field: Any, given: argparse.Namespace) -> Result:
    """Simulate into the folder, or go on there."""
    source = plan.system.order_source
    observers: list[Any] = [
        growth.DomainStatistics(given.sample_every, source=source, cutoff=given.cutoff),
        FunctionObserver(given.map_every, "order_map", order_maps(source)),
        KineticTemperature(given.sample_every),
    ]
    return simulate(
        field,
        plan.integrator(),
        plan.state(),
        plan.steps,
        lattice=plan.lattice,
        observers=observers,
        checkpoint=Checkpoint(given.out / "checkpoint.h5", every_seconds=120.0),
        progress="always" if given.bar else True,
        batch_replicas=plan.batch_replicas,
    )


# ---- analysis ----------------------------------------------------------------------------------


def analyse(plan: Plan, result: Result, window: list[float] | None) -> dict[str, Any]:
    """Lengths, exponents, collapse and frozen replicas; arrays, times in τ₀."""
    series = result.observers["domains"]
    keep = growth.geometric_rows(series.times, per_octave=12)
    times = series.times[keep] / plan.time_unit
    samples = growth.unpack(series.values[keep])
    replicas = samples.means.shape[1]

    def half(rows: np.ndarray) -> np.ndarray:
        return growth.half_height(growth.ensemble_correlation(samples, rows))

    measures = {
        "half_height": half,
        "first_moment": lambda rows: growth.structure_length(samples.moments, rows),
        "first_moment_below_cutoff": lambda rows: growth.structure_length(
            samples.low_moments, rows
        ),
    }
    lengths = {name: growth.bootstrap(of, replicas) for name, of in measures.items()}
    mean = lengths["half_height"].value
    chosen = (window[0], window[1]) if window else default_window(plan, times, samples, mean)
    fits = {}
    for name, of in measures.items():
        exponent = growth.bootstrap(
            lambda rows, of=of: growth.power_law(times, of(rows), chosen).exponent, replicas
        )
        fits[name] = {
            "exponent": float(exponent.value),
            "standard_error": float(exponent.error),
            "prefactor": growth.power_law(times, lengths[name].value, chosen).prefactor,
        }
    local_at = times[::6]
    local = growth.bootstrap(
        lambda rows: growth.running_exponent(times, half(rows), local_at), replicas, samples=100
    )
    inside = np.flatnonzero((times >= chosen[0]) & (times <= chosen[1]) & np.isfinite(mean))
    shown = inside[np.unique(np.linspace(0, len(inside) - 1, 6).astype(int))] if len(inside) else []
    scaled = None
    if len(shown) >= 2:
        scaled = growth.collapse(growth.ensemble_correlation(samples)[shown], mean[shown])
    maps = result.observers["order_map"]
    frames = maps.values.reshape(*maps.values.shape[:2], *plan.lattice.shape)
    return {
        "times": times,
        "lengths": lengths,
        "window": chosen,
        "fits": fits,
        "running": (local_at, local.value, local.error),
        "collapse": scaled,
        "collapse_times": times[shown] if len(inside) else times[:0],
        "frames": frames,
        "frame_times": maps.times / plan.time_unit,
        "states": [domain_state(frame) for frame in frames[-1]],
        "squares": samples.products[:, :, 0].mean(1),
        "kinetic": result.observers["kinetic_temperature"],
    }


def default_window(
    plan: Plan, times: np.ndarray, samples: growth.Statistics, lengths: np.ndarray
) -> tuple[float, float]:
    """From formed domains to domains that begin to feel the box."""
    squares = samples.products[:, :, 0].mean(1)
    outside = np.flatnonzero(np.abs(squares / squares[-1] - 1) > 0.1)
    first = min(int(outside[-1]) + 1 if len(outside) else 0, len(times) - 1)
    limit = min(plan.lattice.shape) / 6
    too_long = np.flatnonzero(~(lengths < limit) & (np.arange(len(times)) > first))
    last = int(too_long[0]) - 1 if len(too_long) else len(times) - 1
    return float(times[first]), float(times[max(first, last)])


def plain(values: Any) -> Any:
    """Numbers that JSON can hold, six digits; None for what is not finite."""
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    if isinstance(values, np.ndarray | list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, float | np.floating):
        return float(f"{values:.6g}") if np.isfinite(values) else None
    return values


def report(
    plan: Plan, given: argparse.Namespace, result: Result, found: dict[str, Any]
) -> dict[str, Any]:
    """What was run and what came out."""
    kinetic = found["kinetic"].values
    scaled = found["collapse"]
    kinds = Counter(state.kind for state in found["states"])
    local_at, local, local_error = found["running"]
    system: Any = plan.system
    return {
        "benchmark": "domain_growth",
        "model": plan.model,
        "system": {"system": system.name, **system.parameters},
        "bath_temperature": plan.integrator().temperature,
        "electron_temperature": system.temperature,
        "lattice": str(plan.lattice),
        "replicas": plan.replicas,
        "steps": plan.steps,
        "dt_tau0": given.dt,
        "seed": plan.seed,
        "initial": plan.initial,
        "window_tau0": found["window"],
        "fits": found["fits"],
        "times_tau0": found["times"],
        "lengths": {
            name: {"mean": estimate.value, "standard_error": estimate.error}
            for name, estimate in found["lengths"].items()
        },
        "moment_cutoff": given.cutoff,
        "running_exponent": {
            "times_tau0": local_at,
            "mean": local,
            "standard_error": local_error,
        },
        "collapse": None
        if scaled is None
        else {
            "times_tau0": found["collapse_times"],
            "rms_residual": scaled.residual,
            "largest_residual": scaled.largest,
            "up_to_r_over_L": scaled.x[-1],
        },
        "mean_square_order": found["squares"],
        "final": {
            "kinds": dict(kinds),
            "stripe_frozen": kinds["stripes"],
            "diagonal_stripes": kinds["diagonal"],
            "replicas": [state._asdict() for state in found["states"]],
            "kinetic_temperature_last_tenth": kinetic[-max(1, len(kinetic) // 10) :].mean(),
        },
        "cost": {
            "steps": result.steps_done,
            "seconds": round(result.seconds, 1),
            "milliseconds_per_step": round(1e3 * result.seconds / max(1, result.steps_done), 2),
        },
        "hardware": hardware(),
    }


# ---- picture -----------------------------------------------------------------------------------


def draw(path: Path, plan: Plan, found: dict[str, Any]) -> None:
    """L(t) with errors and fit, running exponent, collapse, four maps of the local order."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    with figure(path, nrows=2, ncols=4, figsize=(14.0, 7.2)) as (drawn, axes):
        grid = axes[0, 0].get_gridspec()
        for ax in axes[0]:
            ax.remove()
        top = grid[0, :].subgridspec(1, 3)
        lengths, exponents, scaling = (drawn.add_subplot(top[0, n]) for n in range(3))
        draw_lengths(lengths, found)
        at, local, error = found["running"]
        exponents.errorbar(at, local, error, fmt="o-", color=PALETTE[0], ms=4, lw=1.2, capsize=2)
        exponents.axhline(0.5, color="0.45", lw=1, ls=":")
        exponents.axvspan(*found["window"], color="0.5", alpha=0.1, lw=0)
        exponents.set(xscale="log", xlabel="time t (τ₀)", ylabel="d ln L / d ln t", ylim=(0, 0.8))
        exponents.set_xlim(lengths.get_xlim())
        draw_collapse(scaling, found)
        times, frames = found["frame_times"], found["frames"]
        wanted = np.geomspace(max(times[times > 0][0], times[-1] / 100), times[-1], 4)
        chosen = sorted({int(np.abs(times - time).argmin()) for time in wanted})
        limit = float(np.percentile(np.abs(frames[chosen, 0]), 99))
        for ax in axes[1, len(chosen) :]:
            ax.remove()
        image = None
        for ax, index in zip(axes[1], chosen, strict=False):
            image = ax.imshow(
                frames[index, 0].T,
                origin="lower",
                cmap="RdBu_r",
                vmin=-limit,
                vmax=limit,
                interpolation="nearest",
            )
            ax.grid(False)
            ax.set(title=f"t = {times[index]:.3g} τ₀", xlabel="x (sites)")
        axes[1, 0].set_ylabel("y (sites)")
        if image is not None:
            drawn.colorbar(
                image, ax=list(axes[1, : len(chosen)]), label="local order φ", shrink=0.9
            )
        low, high = lengths.get_ylim()
        if high / low < 100:  # 2, 3, 5, 10 in place of powers of ten
            lengths.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
            lengths.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            lengths.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def draw_lengths(ax: Any, found: dict[str, Any]) -> None:
    """Both lengths with error bars, and the fit in its window."""
    times, labels = (
        found["times"],
        {"half_height": "C(L) = ½", "first_moment_below_cutoff": "first moment"},
    )
    for index, (name, label) in enumerate(labels.items()):
        estimate = found["lengths"][name]
        rows = slice(None, None, 3)
        ax.errorbar(
            times[rows],
            estimate.value[rows],
            estimate.error[rows],
            fmt=MARKERS[index],
            color=PALETTE[index],
            ms=4,
            lw=1,
            capsize=2,
            label=label,
        )
    fit = found["fits"]["half_height"]
    if np.isfinite(fit["exponent"]):
        line = np.geomspace(*found["window"], 20)
        note = f"t^α, α = {fit['exponent']:.3f}"
        if np.isfinite(fit["standard_error"]):
            note += f" ± {fit['standard_error']:.3f}"
        ax.plot(line, fit["prefactor"] * line ** fit["exponent"], color="k", lw=1.6, label=note)
    ax.axvspan(*found["window"], color="0.5", alpha=0.1, lw=0)
    ax.set(xscale="log", yscale="log", xlabel="time t (τ₀)", ylabel="length L (lattice constants)")
    ax.legend(loc="upper left")


def draw_collapse(ax: Any, found: dict[str, Any]) -> None:
    """C against r / L at the times in the window."""
    scaled = found["collapse"]
    ax.axhline(0, color="0.35", lw=0.8)
    ax.set(xlabel="r / L(t)", ylabel="C(r, t)")
    if scaled is None:
        return
    for index, (time, curve) in enumerate(zip(found["collapse_times"], scaled.curves, strict=True)):
        ax.plot(
            scaled.x,
            curve,
            color=PALETTE[index % len(PALETTE)],
            marker=MARKERS[index % len(MARKERS)],
            markevery=(index, 8),
            ms=4,
            lw=1.1,
            label=f"t = {time:.3g} τ₀",
        )
    ax.legend(loc="upper right", title=f"rms residual {scaled.residual:.3f}")


def main() -> None:
    """Run, analyse, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model", default="gcn.holstein_weak", help="pretrained name, run folder, checkpoint")
    add("--preset", default="holstein_weak", help="of the system (default: holstein_weak)")
    add("--temperature", type=float, help="of the bath (default: that of the system)")
    add("--potential", type=float, help="fixed chemical potential (default: half filling)")
    add("--lattice", default="48", help="such as 200 or square(200, 200) (default: 48)")
    add("--replicas", type=int, default=8)
    add("--steps", type=int, default=1000)
    add("--dt", type=float, default=0.1, help="time step in units of tau0 (default: 0.1)")
    add("--amplitude", type=float, default=1.0, help="of the random start, in units of g/k")
    add("--seed", type=int, default=1)
    add("--sample-every", type=int, default=10, help="steps between samples (default: 10)")
    add("--map-every", type=int, default=250, help="steps between maps of the order")
    add("--cutoff", type=float, default=1.0, help="largest |q - K| of the second moment length")
    add("--window", type=float, nargs=2, metavar="T", help="times of the fit, in tau0")
    add("--threads", type=int, help="torch threads (default: torch's choice)")
    add("--device", default="cpu")
    add("--batch", action="store_true", help="all replicas in one call: for small lattices, GPUs")
    add("--bar", action="store_true", help="progress bar even without a terminal")
    add("--out", type=Path, default=Path(__file__).with_suffix(""), help="folder; JSON beside it")
    given = parser.parse_args()
    if given.steps < given.map_every:
        parser.error(f"--steps is {given.steps}; it must be at least --map-every {given.map_every}")
    if given.threads:
        torch.set_num_threads(given.threads)
    dynamics: dict[str, Any] = {"name": "langevin", "dt": given.dt}
    if given.temperature is not None:
        dynamics["temperature"] = given.temperature
    system: Any = given.preset
    if given.potential is not None:
        system = {"name": given.preset, "chemical_potential": given.potential}
    plan = Plan.make(
        {
            "system": system,
            "model": given.model,
            "lattice": given.lattice,
            "replicas": given.replicas,
            "steps": given.steps,
            "seed": given.seed,
            "initial": {"kind": "random", "amplitude": given.amplitude},
            "dynamics": dynamics,
            "device": given.device,
            "batch_replicas": True if given.batch else None,
        }
    )
    field = plan.force_field()
    network = getattr(field, "model", None)
    amount = work(network, plan.lattice.n_sites) if network is not None else 0
    with nullcontext() if given.threads else suited_threads(amount):
        result = run(plan, field, given)
    found = analyse(plan, result, given.window)
    about = plain(report(plan, given, result, found))
    target = given.out.parent / f"{given.out.name}.json"
    if not result.steps_done and target.exists():  # only analysed again
        about["cost"] = json.loads(target.read_text())["cost"]
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(about) + "\n")
    draw(given.out / "growth.png", plan, found)
    fit = about["fits"]["half_height"]
    print(
        f"L ~ t^{fit['exponent']} ± {fit['standard_error']} in {about['window_tau0']} tau0; "
        f"{about['final']['kinds']}; {about['cost']['milliseconds_per_step']} ms a step"
    )
    print(os.fspath(target), given.out / "growth.png")


if __name__ == "__main__":
    main()
