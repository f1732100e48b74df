r"""Do trajectories driven by a network look like exact ones?

Frames of both are compared at equal times through means over the sites. One trajectory gives one
number x at a time; the difference of the two means is judged by Student's t with the variance
pooled over both populations,

.. math::
    t = \frac{\bar x_\mathrm{learned} - \bar x_\mathrm{exact}}
             {s \sqrt{1/n_\mathrm{learned} + 1/n_\mathrm{exact}}} , \qquad
    \nu = n_\mathrm{learned} + n_\mathrm{exact} - 2 ,

so that a few exact trajectories are enough. z is the normal deviate of the same two-sided
probability: it reads the same however few trajectories there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from latticezoo.datasets.driver import Driver
from latticezoo.datasets.labelled import KINDS, TRAJECTORY, LabelledData
from latticezoo.simulate.observables import staggered_order
from latticezoo.simulate.systems import create_system
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem
from latticezoo.symmetry.errors import InputError

#: What is compared, with its meaning.
QUANTITIES: dict[str, str] = {
    "force_square": "mean square of the total force",
    "displacement_square": "mean of |Q|²",
    "density_variance": "variance of the density over the sites",
    "order_parameter": "modulus of the staggered mean",
    "neighbour_correlation": "mean of Q_i·Q_j over nearest neighbours, by that of |Q|²",
    "energy_per_site": "exact potential per site",
}
_CHANNEL = re.compile(r"(\w+)\[(\d+)\]")


@dataclass(frozen=True)
class Mean:
    """Mean over trajectories.

    Attributes:
        mean: The mean.
        error: Its standard error, None for a single trajectory.
        trajectories: How many there are.
    """

    mean: float
    error: float | None
    trajectories: int

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """Mean of one number for each trajectory, ``[n]``."""
        n = len(values)
        error = float(values.std()) / math.sqrt(n) if n > 1 else None
        return cls(float(values.mean()), error, n)


@dataclass(frozen=True)
class Comparison:
    """One quantity in both populations.

    Attributes:
        quantity: One of :data:`QUANTITIES`.
        time: Time of the frames in the recipe's unit; None for the mean over all frames.
        exact: Of exact trajectories.
        learned: Of those that a network drove.
        z: Deviation learned − exact as a normal deviate; None where it is undecided.
    """

    quantity: str
    time: float | None
    exact: Mean
    learned: Mean
    z: float | None


@dataclass(frozen=True)
class Populations:
    """Exact and driven trajectories side by side.

    Attributes:
        overall: A comparison for each quantity, of means over all frames of a trajectory.
        by_time: A comparison for each quantity and time.
    """

    overall: tuple[Comparison, ...]
    by_time: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def compare_populations(data: LabelledData) -> Populations:
    """Compare frames of exact trajectories with frames of driven ones at equal times.

    Args:
        data: Holds both, with frames at the same steps.

    Raises:
        InputError: One of the populations is missing, or they have no step in common.
    """
    driven, exact = data.driven > 0, (data.kind == TRAJECTORY) & (data.driven == 0)
    counts = [len(data.trajectory[chosen].unique()) for chosen in (exact, driven)]
    if not all(counts):
        raise InputError(
            f"the data hold {counts[0]} exact trajectories and {counts[1]} driven by a network; a "
            "comparison needs both (options driver and exact_trajectories of a recipe)."
        )
    steps = sorted({*data.step[exact].tolist()} & {*data.step[driven].tolist()})
    if not steps:
        raise InputError("exact and driven trajectories have no frame at the same step.")
    at_common = torch.isin(data.step, torch.tensor(steps))
    overall, by_time = [], []
    for quantity, values in quantities(data).items():
        both = [
            torch.stack(
                [
                    values[chosen & at_common & (data.trajectory == number)].mean()
                    for number in data.trajectory[chosen].unique()
                ]
            )
            for chosen in (exact, driven)
        ]
        overall.append(_comparison(quantity, None, *both))
        for step in steps:
            now = data.step == step
            time = float(data.time[driven & now][0])
            by_time.append(_comparison(quantity, time, values[exact & now], values[driven & now]))
    return Populations(tuple(overall), tuple(by_time))


def quantities(data: LabelledData) -> dict[str, Tensor]:
    """What can be compared, one number a sample: ``[S]`` by name, see :data:`QUANTITIES`.

    Raises:
        InputError: The system of the data is none with displacements Q and electrons.
    """
    system, lattice, Q = _system(data), data.lattice, data.fields["Q"]
    square = Q.square().sum(2).mean(1)
    neighbours = (Q * lattice.neighbour_sum(Q)).sum(2).mean(1) / lattice.neighbours(1).shape[1]
    found = {
        "force_square": _exact_forces(data, system).square().sum(2).mean(1),
        "displacement_square": square,
        "neighbour_correlation": neighbours / square.clamp(min=torch.finfo(square.dtype).tiny),
    }
    density = data.labels["density" if "density" in data.labels else "orbital"][..., :1]
    found["density_variance"] = density.var(1, correction=0)[:, 0]
    channel = _CHANNEL.fullmatch(system.order_source)
    ordered = density if channel is None else Q[..., int(channel[2]), None]
    with suppress(InputError):  # a lattice that holds no staggered order
        found["order_parameter"] = staggered_order(ordered, lattice)[:, 0].abs()
    if data.energy is not None:
        found["energy_per_site"] = data.energy / lattice.n_sites
    return {name: found[name] for name in QUANTITIES if name in found}


def driver_errors(data: LabelledData, driver: str | None = None) -> dict[str, Any]:
    """Errors of a driver against the exact labels; on frames that it drove, its on-policy error.

    Args:
        data: Labelled data.
        driver: Pretrained name, checkpoint, run folder or card folder; by default the driver that
            the data name, with the very weights.

    Returns:
        ``driver``, ``sha256``, ``target``, and under ``populations``, by ``random``,
        ``exact trajectory`` and ``driven trajectory``, the number of ``samples``; ``rmse``, ``rms``
        and their ratio ``share`` for the target and for the total force.

    Raises:
        InputError: The data name no driver and none is given, it is not to be found, has changed,
            or is none for the system of the data.
    """
    recorded = data.source.driver
    if driver is None and recorded is None:
        raise InputError("these data name no driver; give one with --driver.")
    system = _system(data)
    name = driver if driver is not None else recorded[0] if recorded else ""
    opened = Driver.open(name, system, data.lattice, list(data.labels))
    if driver is None and recorded and opened.sha256 != recorded[1]:
        raise InputError(
            f"the driver {name!r} has other weights (sha256 {opened.sha256[:12]}…) than when it "
            f"drove these trajectories ({recorded[1][:12]}…)."
        )
    exact = {opened.target: data.labels[opened.target], "force": _exact_forces(data, system)}
    wrong = {opened.target: opened.errors(data.fields, data.labels, data.lattice)}
    wrong["force"] = system.assemble(
        {opened.target: exact[opened.target] + wrong[opened.target]}, data.fields, data.lattice
    )["Q"]
    wrong["force"] = wrong["force"] - exact["force"]
    populations = {}
    for stratum, words in enumerate((KINDS[0], "exact trajectory", "driven trajectory")):
        rows = data.strata == stratum
        if rows.any():
            measured = {
                what: _errors(wrong[what][rows], values[rows]) for what, values in exact.items()
            }
            populations[words] = {"samples": int(rows.sum()), **measured}
    return {
        "driver": name,
        "sha256": opened.sha256,
        "target": opened.target,
        "populations": populations,
    }


def _errors(wrong: Tensor, exact: Tensor) -> dict[str, float]:
    rmse, rms = (float(values.square().mean().sqrt()) for values in (wrong, exact))
    return {"rmse": rmse, "rms": rms, "share": rmse / rms if rms else math.nan}


def _system(data: LabelledData) -> AdiabaticSystem:
    parameters: Mapping[str, Any] = data.source.parameters
    system = create_system(data.source.system, **parameters)
    if not isinstance(system, AdiabaticSystem):
        raise InputError(
            f"the data are of system {data.source.system!r}, which has no electrons; drivers are "
            "for those that have."
        )
    return system


def _exact_forces(data: LabelledData, system: AdiabaticSystem) -> Tensor:
    """Total forces ``[S, N, C]``, from the exact targets."""
    return system.assemble(dict(data.targets), data.fields, data.lattice)["Q"]


def _comparison(quantity: str, time: float | None, exact: Tensor, learned: Tensor) -> Comparison:
    return Comparison(quantity, time, Mean.of(exact), Mean.of(learned), deviate(exact, learned))


def deviate(exact: Tensor, learned: Tensor) -> float | None:
    """Normal deviate of the difference of two means, by Student's t with pooled variance.

    Args:
        exact: Independent numbers ``[n]``.
        learned: Independent numbers ``[m]``.

    Returns:
        z, positive when the second mean is larger, at most 38 in size, where its probability
        leaves the range of numbers. None when n + m < 3, or when nothing varies.
    """
    from scipy.stats import norm, t

    freedom = len(exact) + len(learned) - 2
    squares = sum(float((values - values.mean()).square().sum()) for values in (exact, learned))
    if freedom < 1 or not squares > 0:
        return None
    width = math.sqrt(squares / freedom * (1 / len(exact) + 1 / len(learned)))
    difference = float(learned.mean() - exact.mean())
    z = min(float(norm.isf(t.sf(abs(difference) / width, freedom))), 38.0)
    return math.copysign(z, difference)
