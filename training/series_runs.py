"""Simulations without forces: a sequence model goes on where fresh exact runs end.

  latticezoo simulate roll_out.yaml --model runs/my-run --steps 1500 --replicas 8

The setting ``data`` names the series, with options of its data module. Each replica begins with the
first frames of an exact run of its own, made with another seed than the data a network was trained
on. The noise that the model's predictions leave open is added with ``dynamics.noise: 1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError, unknown

if TYPE_CHECKING:
    from latticezoo.datasets.module import MadeData
    from latticezoo.simulate.observers import Observer, Snapshot
    from latticezoo.simulate.run import Result
    from latticezoo.zoo.sequence_model import SequenceModel

_SETTINGS: dict[str, type] = {
    "data": dict,
    "model": str,
    "dynamics": dict,
    "steps": int,
    "replicas": int,
    "seed": int,
    "sample_every": int,
    "frame_every": int,
    "checkpoint": dict,
    "device": str,
}
_DEFAULTS: dict[str, Any] = {
    "dynamics": {},
    "steps": 1000,
    "replicas": 1,
    "seed": 0,
    "sample_every": 1,
    "frame_every": 10,
    "device": "cpu",
}
#: Replicas that are drawn, and the longest lag of their correlation.
_SHOWN, _LAGS = 4, 100


@dataclass(frozen=True)
class SeriesPlan:
    """Roll-outs of a sequence model, checked.

    Attributes:
        model: Pretrained name, card, checkpoint or run folder.
        network: The model.
        data: Makes the exact runs to begin with.
        noise: Noise of a step, in units of what the predictions leave open.
        steps: Frames to go on for.
        replicas: Number of roll-outs.
        seed: Of the noise.
        sample_every: Frames between samples of the observables.
        frame_every: Frames between those kept in the trajectory.
        checkpoint: How often to save.
        device: Where to compute.
    """

    model: str
    network: SequenceModel
    data: MadeData
    noise: float
    steps: int
    replicas: int
    seed: int
    sample_every: int
    frame_every: int
    checkpoint: dict[str, Any]
    device: str

    @classmethod
    def make(cls, given: Mapping[str, Any]) -> SeriesPlan:
        """Check settings and fill in defaults.

        Raises:
            InputError: For an unknown key, a value out of range, data that are no series made by a
                recipe, or a model of another task.
        """
        from latticezoo.datasets.module import MadeData, evaluation_data
        from latticezoo.datasets.series import SeriesData
        from latticezoo.simulate.dynamics.roll_out import RollOut
        from latticezoo.training.names import open_data
        from latticezoo.training.settings import merge, section
        from latticezoo.zoo.loading import load_network
        from latticezoo.zoo.sequence_model import SequenceModel

        values = merge(_DEFAULTS, section(given, "the settings of a roll-out", _SETTINGS))
        dynamics = section(values["dynamics"], "dynamics", {"name": str, "noise": float})
        if dynamics.get("name", "roll_out") != "roll_out":
            raise unknown("dynamics of a series", dynamics["name"], ["roll_out"])
        RollOut(1.0, dynamics.get("noise", 0.0))  # raises before any run is made
        for name in ("steps", "replicas", "sample_every", "frame_every"):
            if values[name] < 1:
                raise InputError(f"{name} is {values[name]}; it must be at least 1.")
        if values["seed"] < 0:
            raise InputError(f"seed is {values['seed']}; it must be 0 or more.")
        if "model" not in values:
            raise InputError("no model for the roll-out; give --model with a network.")
        options = dict(values["data"])
        data = open_data(options.pop("name", "none"), options)
        network = load_network(values["model"])
        if not (isinstance(data, SeriesData) and isinstance(data, MadeData)):
            raise InputError("a roll-out needs data of a time series, such as chaotic_holstein.")
        if not isinstance(network, SequenceModel) or network.task != data.task:
            own, theirs = (
                f"{task.name!r} ({', '.join(field.name for field in task.inputs)})"
                for task in (network.task, data.task)
            )
            raise InputError(
                f"{values['model']} serves the task {own}, but the series are of {theirs}; "
                "both must go on with the same fields."
            )
        data.lattice.require(network.required_shells, network.registry_name)
        window = max(data.window, network.required_frames)
        fresh = evaluation_data(
            data,
            trajectories=values["replicas"],
            frames=data.skip + window + 1,
            window=window,
        )
        return cls(
            model=values["model"],
            network=network.to(values["device"]),
            data=fresh,
            noise=dynamics.get("noise", 0.0),
            checkpoint=section(
                values.get("checkpoint"),
                "checkpoint",
                {"every_steps": int, "every_seconds": float},
            ),
            **{
                name: values[name]
                for name in ("steps", "replicas", "seed", "sample_every", "frame_every", "device")
            },
        )

    @property
    def name(self) -> str:
        """Name of the series."""
        return self.network.task.targets[0].name

    @cached_property
    def past(self) -> dict[str, Tensor]:
        """True frames to begin with, ``[R, T, …]`` by name."""
        runs: Any = self.data
        dtype = self.network.dtype
        return {
            name: values[:, :-1].to(self.device, dtype)
            for name, values in runs.runs("test").items()
        }

    def run(self, out: Path) -> list[Path]:
        """Simulate into a folder, or go on there, and write summary and picture.

        Raises:
            InputError: When the folder holds another simulation, or a roll-out runs away.
        """
        from latticezoo.simulate.dynamics.roll_out import RollOut
        from latticezoo.simulate.run import Checkpoint, Trajectory, simulate
        from latticezoo.training.runs import write_json

        data: Any = self.data
        dynamics = RollOut(data.frame_time, self.noise)
        if self.noise:
            self.network.residual_spread()  # raises before the folder is made
        start = RollOut.washed_in(self.network, self.past, data.lattice, seed=self.seed)
        every = {"every_steps": None, "every_seconds": 60.0, **self.checkpoint}
        result = simulate(
            self.network,
            dynamics,
            start,
            self.steps,
            lattice=data.lattice,
            observers=self.observers(),
            trajectory=Trajectory(out / "trajectory.h5", every=self.frame_every),
            checkpoint=Checkpoint(out / "checkpoint.h5", **every),
        )
        summary = write_json(out / "summary.json", self.summary(result))
        picture = self.draw(out / "roll_out.png", result)
        return [out / "trajectory.h5", summary, picture]

    # ---- what is measured ----------------------------------------------------------------------

    @property
    def on_sites(self) -> bool:
        """Whether the series is a field on sites."""
        return self.network.task.targets[0].support == "site"

    def observers(self) -> list[Observer]:
        """The numbers themselves, or averages of a field over its sites."""
        from latticezoo.simulate.observables import correlation_function
        from latticezoo.simulate.observers import FunctionObserver

        def values(snapshot: Snapshot) -> Tensor:
            return snapshot.state.fields[self.name]

        def mean_square(snapshot: Snapshot) -> Tensor:
            return values(snapshot).square().mean((1, 2))

        def correlation(snapshot: Snapshot) -> Tensor:
            return correlation_function(values(snapshot).double(), snapshot.lattice)

        every = self.sample_every
        if not self.on_sites:
            return [FunctionObserver(every, self.name, values)]
        return [
            FunctionObserver(every, "mean_square", mean_square),
            FunctionObserver(every, "correlation_function", correlation),
        ]

    def series(self, result: Result) -> Tensor:
        """Samples of a number, ``[R, T]``; the start, which is no prediction, left out."""
        return torch.from_numpy(np.asarray(result.observers[self.name].values)[1:, :, 0]).T

    def summary(self, result: Result) -> dict[str, Any]:
        """What the run was and what came out, plain values."""
        from latticezoo.simulate.climate import Climate
        from latticezoo.training.callbacks import describe_data
        from latticezoo.training.names import data_record
        from latticezoo.training.runs import hardware, versions

        data: Any = self.data
        found: dict[str, Any] = {}
        if self.on_sites:
            square = np.asarray(result.observers["mean_square"].values)[-1]
            found["final"] = {"mean_square": square.tolist()}
        elif result.observers[self.name].values.shape[-1] == 1:
            series = self.series(result)
            if series.shape[1] > 2:
                found["climate"] = Climate.of(series, min(_LAGS, series.shape[1] - 1)).to_dict()
        return {
            **describe_data(data),
            "model": self.model,
            "data": data_record(data),
            "dynamics": {"name": "roll_out", "noise": self.noise, "dt": data.frame_time},
            "true_frames": next(iter(self.past.values())).shape[1],
            "steps": self.steps,
            "replicas": self.replicas,
            "seed": self.seed,
            "time": float(result.state.time),
            **found,
            "hardware": hardware(),
            "versions": versions(),
        }

    def draw(self, path: Path, result: Result) -> Path:
        """The first replicas after their true past, or averages over the sites against time."""
        from latticezoo.training.plots import PALETTE, figure
        from latticezoo.training.rollout import draw_observables

        data: Any = self.data
        times = np.asarray(result.observers[self.observers()[0].label].times)
        if self.on_sites:
            samples = result.observers["correlation_function"].values
            averages = {"mean square": np.asarray(result.observers["mean_square"].values)}
            averages |= {f"C({r})": np.asarray(samples)[..., r] for r in (1, 2, 4)}
            if self.replicas > 1:
                draw_observables(path, times, {"network": averages}, "time")
                return path
        shown = min(_SHOWN, self.replicas)
        with figure(path, figsize=(9.0, 1.2 + 1.4 * shown), nrows=shown, sharex=True) as (_, axes):
            for row, ax in enumerate(axes[:, 0]):
                if self.on_sites:
                    ax.plot(times, averages["mean square"][:, row], color=PALETTE[1])
                    ax.set(ylabel="mean square")
                    continue
                true = self.past[self.name][row].cpu().numpy()
                before = data.frame_time * np.arange(1 - len(true), 1)
                ax.plot(before, true, color="black", lw=1.0, label="exact")
                values = np.asarray(result.observers[self.name].values)[:, row]
                ax.plot(times, values, color=PALETTE[1], lw=1.0, label="network")
                ax.set(ylabel=self.name)
            if not self.on_sites:
                axes[0, 0].legend(loc="upper right", ncols=2)
            axes[-1, 0].set(xlabel="time")
        return path
