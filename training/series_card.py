"""What the card of a sequence model measures: one step, symmetry, speed, and free runs.

The numbers have the names of any other card, and mean here:

* errors are those of the next frame after true ones, by the last frames of each held-out window;
  their share is that of the root-mean-square change from frame to frame, 1 for persistence;
* the run beside the exact one continues true frames of held-out runs without further truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latticezoo.datasets.series import SeriesData, Windows
from latticezoo.simulate.observables import correlation_function
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.testing import EquivarianceReport, equivariance_error
from latticezoo.training.evaluate import Pairs, errors, parameter_count
from latticezoo.training.rollout import draw_observables
from latticezoo.training.runs import RunFolder, hardware
from latticezoo.training.series_results import FRAMES, ROLL_OUTS, SeriesResults
from latticezoo.training.threads import suited_threads
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.sequence_model import SequenceModel, unbounded

#: Windows that go through a network at once.
_TOGETHER = 16
#: Above this many sites symmetry is tried on a smaller torus.
_EXHAUSTIVE_SITES = 100
#: What is reported of a climate, in words.
_CLIMATE = {
    "std": "standard deviation",
    "increment_std": "change from frame to frame, rms",
    "kurtosis": "kurtosis",
    "first_zero": "first zero of C (frames)",
    "first_minimum": "first minimum of C (frames)",
    "minimum": "C at its first minimum",
    "residence": "frames between changes of sign",
}


class SeriesCard:
    """Measures a sequence model on the test split of its data.

    Args:
        data: What it was trained on.

    Attributes:
        pairs: Exact and predicted changes by the label of the network.
    """

    def __init__(self, data: SeriesData) -> None:
        self.data = data
        self.pairs: dict[str, Pairs] = {}

    def add(
        self, label: str, network: ZooModel, record: Mapping[str, Any], folder: RunFolder
    ) -> dict[str, Any]:
        """Measure one network.

        Args:
            label: Its name.
            network: In eval mode.
            record: The record of its training run.
            folder: The run.

        Returns:
            The measurements of a card, plain values.
        """
        assert isinstance(network, SequenceModel)
        windows = self.data.samples("test")
        self.pairs[label] = changes(network, windows)
        row: dict[str, Any] = {"label": label, **errors(self.pairs[label])}
        for dtype in (torch.float64, torch.float32):
            report = equivariance(network, windows, dtype)
            name = str(dtype).removeprefix("torch.")
            row[f"equivariance_{name}"] = report.error
            row[f"equivariance_{name}_worst"] = report.worst
            row["equivariance_group"] = f"{report.elements} elements of {report.group}"
        speed = frames_per_second(network, windows)
        on_sites = self.data.task.targets[0].support == "site"
        row["frames_per_second"] = speed
        row["sites_per_second"] = speed * (windows.lattice.n_sites if on_sites else 1)
        row["receptive_radius"] = network.receptive_radius
        row["parameters"] = parameter_count(network)
        kept = ("training_seconds", "epochs", "best_epoch")
        return row | {key: record[key] for key in kept if key in record}


def changes(network: SequenceModel, windows: Windows) -> Pairs:
    """Exact and predicted change to the next frame, for the scored frames of all windows."""
    name = network.task.targets[0].name
    exact, predicted = [], []
    with torch.no_grad():
        for start in range(0, len(windows), _TOGETHER):
            batch = windows.__getitems__(range(start, min(start + _TOGETHER, len(windows))))
            last = slice(-windows.scored, None)
            now = batch.fields[name][:, last].double()
            found = network(batch.fields, batch.lattice, windows.scored)[name]
            exact.append((batch.targets[name][:, last].double() - now).flatten())
            predicted.append((found.double() - now).flatten())
    return {"trajectory": (torch.cat(exact).numpy(), torch.cat(predicted).numpy())}


def equivariance(
    network: SequenceModel, windows: Windows, dtype: torch.dtype
) -> EquivarianceReport:
    """Largest error over the symmetry group, of all predictions along a series.

    Every frame of the series goes by the same group element. The series is a true window; of a
    field on many sites, random frames on a smaller torus, for the group has as many elements as
    sites times point operations.
    """
    copied = deepcopy(network).to(dtype)
    field, lattice = network.task.inputs[0], windows.lattice
    length = windows.window
    if field.support == "site" and lattice.n_sites > _EXHAUSTIVE_SITES:
        lattice = _smaller(network, lattice)
        length = min(length, network.required_frames + 3)
        draw = torch.Generator().manual_seed(0)
        scale = copied.input_scaling.scale(field.name)
        values = torch.randn(length, lattice.n_sites, len(scale), generator=draw, dtype=dtype)
        fields = {field.name: values * scale}
    else:
        window = windows.__getitems__([0]).fields
        fields = {name: values[0].to(dtype) for name, values in window.items()}

    def frame_by_frame(fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        series = {name: values.unflatten(0, (-1, length)) for name, values in fields.items()}
        return {name: values.flatten(0, 1) for name, values in copied(series, lattice).items()}

    return equivariance_error(frame_by_frame, network.task, lattice, fields=fields, dtype=dtype)


def _smaller(network: SequenceModel, lattice: Lattice) -> Lattice:
    """A torus of the family with even sides that holds what a site sees."""
    for side in (8, 10, 12):
        small = Lattice(lattice.family, (side,) * lattice.dim)
        try:
            small.require(network.required_shells, network.registry_name)
        except InputError:
            continue
        return small
    return lattice


def frames_per_second(network: SequenceModel, windows: Windows, frames: int = 50) -> float:
    """Frames of all series together in a second of a roll-out of some series on one thread."""
    import time

    batch = windows.__getitems__(range(min(_TOGETHER, len(windows))))
    with suited_threads(0), unbounded(network):
        network.roll_out(batch.fields, batch.lattice, 2)
        begin = time.perf_counter()
        found = network.roll_out(batch.fields, batch.lattice, frames)
        seconds = time.perf_counter() - begin
    return next(iter(found.values())).shape[:2].numel() / seconds


# ---- beyond the test split -----------------------------------------------------------------------


def other_size_obstacle(data: SeriesData) -> str | None:
    """Why transfer cannot be measured, in a sentence; None where it can."""
    if data.task.targets[0].support == "site":
        return None
    return (
        "The series is one number for the whole lattice, whose size is a parameter of the physics: "
        "another size is another series."
    )


def free_run_obstacle(data: SeriesData) -> str | None:
    """Why free runs cannot be measured, in a sentence; None where they can."""
    field = data.task.targets[0]
    if field.support == "site" or field.channels(data.lattice) == 1:
        return None
    return "Free runs are measured of one number or of fields on sites, not of several numbers."


def transfer(network: SequenceModel, data: SeriesData, size: str) -> dict[str, Any]:
    """Errors of the next frame along fresh exact runs on another lattice.

    Args:
        network: In eval mode.
        data: What it was trained on.
        size: Of the other lattice.

    Returns:
        ``transfer_lattice``, ``rmse_transfer`` and what goes with it.

    Raises:
        InputError: The data cannot be made on that lattice, or come from a file.
    """
    from latticezoo.datasets.module import MadeData, evaluation_data

    if not isinstance(data, MadeData):
        raise InputError("another lattice needs data that a recipe makes.")
    fresh: Any = evaluation_data(data, lattice=size, trajectories=2)
    fresh.setup()
    found = errors(changes(network, fresh.samples("test")))
    return {
        **{f"transfer_{name}": value for name, value in found.items()},
        "transfer_lattice": str(fresh.lattice),
        "rmse_transfer": found["rmse_all"],
    }


def free_runs(network: SequenceModel, data: SeriesData, picture: Path) -> dict[str, Any]:
    """Roll-outs that continue true frames of held-out runs, beside what really happened.

    Args:
        network: In eval mode.
        data: What it was trained on.
        picture: The PNG to draw.

    Returns:
        ``rollout`` of a card's ``metrics.json``, plain values.
    """
    on_sites = data.task.targets[0].support == "site"
    with torch.no_grad():
        found = (_on_sites if on_sites else _of_a_number)(network, data, picture)
    return {
        "lattice": str(data.lattice),
        "seed": 0,
        "dynamics": {"name": "roll_out"},
        "time_unit": 1.0,
        "hardware": hardware(),
        **found,
    }


def _of_a_number(network: SequenceModel, data: SeriesData, picture: Path) -> dict[str, Any]:
    """Climate of long roll-outs, without noise and with that which the predictions leave open."""
    results = SeriesResults(data, ROLL_OUTS, FRAMES)
    label = network.registry_name
    results.networks[label] = network
    rows = results.climate_rows(label, network)
    results.draw(picture)
    truth = {**results.truth.to_dict(), **results.truth_errors}
    observables = [
        {
            "name": words if row["label"] == label else f"{words}; with noise",
            "exact": truth[key],
            "exact_error": truth[f"{key}_error"],
            "network": row[key],
            "network_error": row[f"{key}_error"],
        }
        for row in rows
        for key, words in _CLIMATE.items()
        if key in row and np.isfinite([row[key], row[f"{key}_error"]]).all()
    ]
    kept = (
        "total_variation",
        "valid_frames",
        "valid_frames_error",
        "valid_lyapunov",
        "diverged",
        "frames_per_second",
    )
    return {
        "replicas": ROLL_OUTS,
        "steps": FRAMES,
        "initial": {"kind": "held-out", "frames": data.window},
        "time": FRAMES * data.frame_time,
        "climate": {row["label"]: {k: row[k] for k in kept if k in row} for row in rows},
        "observables": observables,
    }


def _on_sites(network: SequenceModel, data: SeriesData, picture: Path) -> dict[str, Any]:
    """Held-out runs to their end, from the first frames that the network needs."""
    name, begin = data.task.targets[0].name, max(network.required_frames, 1)
    true = data.runs("test")[name].to(network.dtype)
    runs, length = true.shape[:2]
    steps = length - begin
    if runs < 2 or steps < 1:
        raise InputError(
            f"the test split has {runs} runs of {length} frames; a run beside them needs 2 or more "
            f"of more than {begin} frames."
        )
    found = network.roll_out({name: true[:, :begin]}, data.lattice, steps)[name]
    measured = {
        "exact": _averages(true[:, begin:], data.lattice),
        "network": _averages(found, data.lattice),
    }
    off = (found - true[:, begin:]).square().mean((2, 3)).sqrt().double()
    size = true[:, begin:].square().mean((2, 3)).sqrt().double()
    times = data.frame_time * np.arange(1, steps + 1)
    draw_observables(picture, times, measured, "time since the last true frame")
    last = {who: {k: v[-1] for k, v in part.items()} for who, part in measured.items()}
    return {
        "replicas": runs,
        "steps": steps,
        "initial": {"kind": "held-out", "frames": begin},
        "time": float(times[-1]),
        "relative_error": (off / size).mean(0).tolist(),
        "observables": [
            {
                "name": key,
                **{
                    f"{who}{what}": float(number)
                    for who, part in last.items()
                    for what, number in (
                        ("", part[key].mean()),
                        ("_error", part[key].std(ddof=1) / np.sqrt(runs)),
                    )
                },
            }
            for key in last["exact"]
        ],
    }


def _averages(runs: Tensor, lattice: Lattice) -> dict[str, np.ndarray]:
    """Averages over the sites of runs ``[K, T, N, 1]``, ``[T, K]`` by name.

    C is ⟨φφ⟩/⟨φ²⟩ with nothing subtracted: on a small lattice one domain is left in the end.
    """
    values = runs.double().transpose(0, 1)
    correlations = torch.stack(
        [correlation_function(frame, lattice, connected=False) for frame in values]
    )
    found = {"mean square of the order": values.square().mean((2, 3))}
    for r in (1, 2, 4):
        if r < correlations.shape[-1]:
            found[f"correlation C({r})"] = correlations[..., r]
    return {key: part.numpy() for key, part in found.items()}
