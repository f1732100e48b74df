"""Measure a network: held-out errors, equivariance, speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.datasets.batches import Samples
from latticezoo.datasets.file import KINDS
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import EquivarianceReport, equivariance_error, random_inputs

Model = Callable[[dict[str, Tensor], Lattice], Mapping[str, Tensor]]
#: ``{kind: (exact, predicted)}``, flat arrays over sites and channels.
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]

#: Above this many sites the whole group is tried on a smaller torus: it has as many elements as
#: sites times point operations, each of them a forward pass over all sites.
_EXHAUSTIVE_SITES = 400
#: The same where a forward pass takes more seconds than this, as where electrons are diagonalized.
_EXHAUSTIVE_SECONDS = 0.02
#: Sides of the smaller torus, the first that takes no longer.
_SMALLER = (12, 8, 6)


def predict(model: Model, samples: Samples, chunk_sites: int = 65536) -> dict[str, Tensor]:
    """Targets of all samples.

    Args:
        model: ``model(fields, lattice) -> targets``.
        samples: The samples.
        chunk_sites: About how many sites go through at once.

    Returns:
        ``{target: [S, N, C]}``.
    """
    size = max(1, chunk_sites // samples.lattice.n_sites)
    parts: list[Mapping[str, Tensor]] = []
    for start in range(0, len(samples), size):
        fields = {name: values[start : start + size] for name, values in samples.fields.items()}
        parts.append({k: v.detach() for k, v in model(fields, samples.lattice).items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def pairs(model: Model, samples: Samples, target: str) -> Pairs:
    """Exact and predicted values of a target by kind of state, in physical units.

    Args:
        model: ``model(fields, lattice) -> targets``.
        samples: The samples.
        target: Name of the target field.

    Returns:
        ``{"random": (exact, predicted), "trajectory": …}``; kinds without samples are left out.
    """
    return paired(predict(model, samples), samples, target)


def paired(predictions: Mapping[str, Tensor], samples: Samples, target: str) -> Pairs:
    """The same for predictions of all samples, ``{target: [S, N, C]}``, that are there already."""
    predicted, exact = predictions[target], samples.targets[target]
    if exact.is_complex():  # real and imaginary parts
        predicted = torch.view_as_real(predicted.to(exact.dtype).resolve_conj())
        exact = torch.view_as_real(exact.resolve_conj())
    predicted, exact = predicted.double(), exact.double()
    found: Pairs = {}
    for number, kind in enumerate(KINDS):
        chosen = samples.kind == number
        if chosen.any():
            found[kind] = (exact[chosen].flatten().numpy(), predicted[chosen].flatten().numpy())
    return found


def errors(found: Pairs) -> dict[str, float]:
    """Root-mean-square error by kind, absolute and as a share of the target's spread there.

    Returns:
        ``rmse_<kind>``, ``spread_<kind>`` (standard deviation of the exact values) and
        ``share_<kind>`` for every kind, and the same for ``all``.
    """
    everything = {**found, "all": tuple(map(np.concatenate, zip(*found.values(), strict=True)))}
    result = {}
    for kind, (exact, predicted) in everything.items():
        rmse = float(np.sqrt(np.mean((predicted - exact) ** 2)))
        spread = float(np.std(exact))
        result[f"rmse_{kind}"] = rmse
        result[f"spread_{kind}"] = spread
        result[f"share_{kind}"] = rmse / spread if spread > 0 else float("nan")
    return result


def equivariance(
    model: Model, task: Task, samples: Samples, dtype: torch.dtype
) -> EquivarianceReport:
    """Largest relative equivariance error over the whole symmetry group.

    The finite part is tried element by element on physical states, on the lattice of the samples
    when it is small and a pass is quick, else on random states of a smaller torus; a continuous
    part is sampled.

    Args:
        model: The map; modules are copied to ``dtype``.
        task: Types and symmetry.
        samples: States to try.
        dtype: ``torch.float64`` or ``torch.float32``.

    Returns:
        The report.
    """
    if isinstance(model, nn.Module):
        model = deepcopy(model).to(dtype)
    lattice = samples.lattice
    fields = {
        name: values[:1].to(dtype.to_complex() if values.is_complex() else dtype)
        for name, values in samples.fields.items()
    }
    if lattice.n_sites <= _EXHAUSTIVE_SITES and _is_quick(model, fields, lattice):
        return equivariance_error(model, task, lattice, fields=fields, dtype=dtype)
    for side in _SMALLER:
        small = Lattice(lattice.family, (side,) * lattice.dim)
        try:
            given = random_inputs(task, small, 1, dtype)
            if side > min(_SMALLER) and not _is_quick(model, given, small):
                continue
            return equivariance_error(model, task, small, dtype=dtype, batch=1)
        except InputError:  # the neighbourhood does not fit on it
            break
    return equivariance_error(model, task, lattice, dtype=dtype, batch=1)


def _is_quick(model: Model, fields: dict[str, Tensor], lattice: Lattice) -> bool:
    """Whether a forward pass takes little time; the second is measured."""
    with torch.no_grad():
        model(fields, lattice)
        start = time.process_time()
        model(fields, lattice)
    return time.process_time() - start <= _EXHAUSTIVE_SECONDS


def sites_per_second(
    model: Model, samples: Samples, sites: int = 16384, seconds: float = 1.0, calls: int = 50
) -> float:
    """Forward speed without gradients, in sites a second: the median over repeats.

    Args:
        model: ``model(fields, lattice) -> targets``.
        samples: States to take; repeated until there are about ``sites`` sites in one call.
        sites: Sites in one call.
        seconds: How long to measure, at most, but for five calls.
        calls: How many calls to measure, at most.
    """
    size = max(1, sites // samples.lattice.n_sites)
    one = {name: values[:1] for name, values in samples.fields.items()}
    with torch.inference_mode(not getattr(model, "needs_gradient", False)):
        model(one, samples.lattice)  # builds caches
        start = time.perf_counter()
        model(one, samples.lattice)
        # A network that takes seconds for many samples gains nothing from their company.
        size = min(size, max(1, int(seconds / (time.perf_counter() - start))))
        rows = torch.arange(size) % len(samples)
        fields = {name: values[rows] for name, values in samples.fields.items()}
        model(fields, samples.lattice)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 5 or (len(times) < calls and time.perf_counter() < end):
            start = time.perf_counter()
            model(fields, samples.lattice)
            times.append(time.perf_counter() - start)
    return size * samples.lattice.n_sites / float(np.median(times))


def parameter_count(model: Any) -> int:
    """Number of trainable parameters."""
    if isinstance(model, nn.Module):
        return sum(p.numel() for p in model.parameters() if p.requires_grad)
    return int(model.n_parameters)
