"""Measurements of sequence models in a comparison: one step, many steps, and the climate."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latticezoo.datasets.series import SeriesData
from latticezoo.simulate import climate
from latticezoo.symmetry.errors import InputError
from latticezoo.training.callbacks import describe_data
from latticezoo.training.evaluate import parameter_count
from latticezoo.training.leaderboard import Column, ordered, print_table, write_csv
from latticezoo.training.roll_out_plots import NOISE, Curves, roll_outs
from latticezoo.training.runs import RunFolder, hardware, versions, write_json
from latticezoo.training.threads import suited_threads
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.sequence_model import SequenceModel, unbounded

#: A roll-out that leaves this many standard deviations has diverged.
DIVERGED = 10.0
#: Frames over which predictions are compared with what happened.
AHEAD = 100
ROLL_OUTS, FRAMES = 50, 1500

COLUMNS = (
    Column("label", "network", "{}"),
    Column("rmse_all", "one step,\nRMSE / usual\nchange", "{:.5f}", "share_all"),
    Column("std_ratio", "spread\n/ exact", "{:.3f}"),
    Column("first_zero", "first zero\nof C\n(frames)", "{:.1f}"),
    Column("first_minimum", "first\nminimum\n(frames)", "{:.1f}"),
    Column("minimum", "C\nthere", "{:.2f}"),
    Column("total_variation", "histogram\ndistance", "{:.3f}"),
    Column("kurtosis", "kurtosis", "{:.2f}"),
    Column("residence", "frames\nbetween\nzeros", "{:.1f}"),
    Column("valid_frames", "valid\n(frames)", "{:.1f}"),
    Column("valid_lyapunov", "valid\n(Lyapunov\ntimes)", "{:.2f}"),
    Column("diverged", "diverged", "{}"),
    Column("parameters", "parameters", "{:,}"),
    Column("training_seconds", "training\n(s)", "{:.0f}"),
    Column("frames_per_second", "roll-out\n(frames/s)", "{:.0f}"),
)


class SeriesResults:
    """Collects the rows of a leaderboard of sequence models.

    One-step errors are those of the test windows. Roll-outs begin with true windows of the test
    runs, spread evenly over them; each network has a row of roll-outs by its predictions alone and
    one with noise of the size that these leave open, since one number of a chaotic system does not
    determine its next value. The climate is compared with that of all true runs: the
    ensemble is known best by all its members.

    Args:
        data: What all members were trained on.
        count: Number of roll-outs.
        frames: Frames of each.

    Attributes:
        rows: One mapping a member, in the order they were added.
        networks: The networks by label.

    Raises:
        InputError: The test runs are too short to begin from and to compare with.
    """

    def __init__(self, data: SeriesData, count: int = ROLL_OUTS, frames: int = FRAMES) -> None:
        self.data = data
        self.field = data.task.targets[0]
        self.name = self.field.name
        self.rows: list[dict[str, Any]] = []
        self.networks: dict[str, ZooModel] = {}
        self.curves: dict[str, Curves] = {}
        every_field = {split: data.runs(split) for split in ("train", "val", "test")}
        runs = {split: fields[self.name] for split, fields in every_field.items()}
        #: Climate is that of one number; of a field on sites only the one-step error is measured.
        self.scalar = self.field.support == "global" and runs["test"].shape[-1] == 1
        self.spread = float(runs["train"].square().mean().sqrt())
        self.change = float(runs["test"].diff(dim=1).square().mean().sqrt())
        if not self.scalar:
            return
        test = runs["test"][..., 0]
        self.ahead = min(AHEAD, frames)
        free = test.shape[1] - data.window - self.ahead
        if free < 0 or count < 1 or frames < 2:
            raise InputError(
                f"{count} roll-outs of {frames} frames need test runs of at least "
                f"{data.window + self.ahead} frames; these have {test.shape[1]}."
            )
        each = -(-count // len(test))
        starts = [round(free * (k + 0.5) / each) for k in range(each)]

        def pieces(series: Tensor, after: int, frames: int) -> Tensor:
            parts = [series[:, s + after : s + after + frames] for s in starts]
            return torch.cat(parts)[:count]

        #: What roll-outs begin with, all fields, and what happened then to the first.
        self.windows = {
            name: pieces(series, 0, data.window) for name, series in every_field["test"].items()
        }
        self.futures = pieces(test, data.window, self.ahead)
        self.frames = frames
        every = torch.cat([values[..., 0] for values in runs.values()])
        self.lags = min(100, every.shape[1] - 1, frames - 1)
        self.truth = climate.Climate.of(every, self.lags)
        self.truth_errors = _named(climate.standard_errors(every, self.lags))
        self.edges = climate.histogram_edges(every)
        self.shares = climate.histogram(every, self.edges)

    def add_baselines(self) -> None:
        """Measure persistence: the next frame is this one."""
        windows = self.data.samples("test")
        batch = windows.__getitems__(range(len(windows)))
        errors = (batch.targets[self.name] - batch.fields[self.name])[:, -windows.scored :]
        rmse = float(errors.double().square().mean().sqrt())
        row: dict[str, Any] = {"label": "persistence", "baseline": True, "parameters": 0}
        row |= {"rmse_all": rmse, "share_all": rmse / self.change}
        if self.scalar:
            still = self.windows[self.name][:, -1:, 0].expand(-1, self.ahead)
            row |= self._valid(climate.prediction_error(still, self.futures, self.spread))
        self.rows.append(row)

    def add(
        self, label: str, network: ZooModel, record: Mapping[str, Any], folder: RunFolder
    ) -> dict[str, Any]:
        """Measure one network.

        Args:
            label: Its name in tables and legends.
            network: In eval mode.
            record: The record of its training run; empty when it was not trained here.
            folder: The run.

        Returns:
            The row.
        """
        assert isinstance(network, SequenceModel)
        row: dict[str, Any] = {"label": label, "baseline": False}
        with torch.no_grad():
            rmse = self._one_step(network)
            row |= {"rmse_all": rmse, "share_all": rmse / self.change}
            free = self.climate_rows(label, network) if self.scalar else []
        # Both predict one step alike, and stand together in a table ordered by that.
        free = [{**entry, "rmse_all": rmse, "share_all": rmse / self.change} for entry in free]
        row |= free[0] if free else {}
        row["parameters"] = parameter_count(network)
        row |= {k: record[k] for k in ("training_seconds", "epochs", "best_epoch") if k in record}
        row["network"] = network.config()
        self.rows += [row, *free[1:]]
        self.networks[label] = network
        return row

    def climate_rows(self, label: str, network: SequenceModel) -> list[dict[str, Any]]:
        """Roll-outs of a number by the predictions alone, and with noise of what they leave open.

        Returns:
            A row of measurements for each of the two.
        """
        return [
            {"label": name, "baseline": False, **self._roll_outs(name, network, noise)}
            for name, noise in ((label, 0.0), (label + NOISE, 1.0))
        ]

    def _one_step(self, network: SequenceModel, size: int = 16) -> float:
        windows, total, count = self.data.samples("test"), 0.0, 0
        for start in range(0, len(windows), size):
            batch = windows.__getitems__(range(start, min(start + size, len(windows))))
            found = network(batch.fields, batch.lattice, windows.scored)[self.name]
            errors = found - batch.targets[self.name][:, -windows.scored :]
            total += float(errors.double().square().sum())
            count += errors.numel()
        return math.sqrt(total / count)

    def _roll_outs(self, label: str, network: SequenceModel, noise: float) -> dict[str, Any]:
        begin = time.perf_counter()
        with suited_threads(0), unbounded(network):
            found = network.roll_out(self.windows, self.data.lattice, self.frames, noise=noise)
        series = found[self.name][..., 0].double()
        seconds = time.perf_counter() - begin
        error = climate.prediction_error(series[:, : self.ahead], self.futures, self.spread)
        row: dict[str, Any] = self._valid(error)
        row["valid_frames_error"] = climate.valid_time_error(
            series[:, : self.ahead], self.futures, self.spread
        )
        row["frames_per_second"] = series.numel() / seconds
        # Written so that NaN, too, is beyond.
        kept = (series.abs() <= DIVERGED * self.spread).all(1)
        row["diverged"] = int((~kept).sum())
        row["roll_outs"] = len(series)
        if not bool(kept.any()):
            return row
        inside = series[kept]
        measured = climate.Climate.of(inside, self.lags)
        shares = climate.histogram(inside, self.edges)
        row |= measured.to_dict()
        if len(inside) > 1:
            row |= _named(climate.standard_errors(inside, self.lags))
        row["std_ratio"] = measured.std / self.truth.std
        row["total_variation"] = climate.total_variation(shares, self.shares)
        self.curves[label] = self._curves(inside, measured.correlation, shares, error)
        return row

    def _valid(self, error: Tensor) -> dict[str, Any]:
        frames = climate.valid_time(error)
        lyapunov = getattr(self.data, "lyapunov_time", None)
        row = {"valid_frames": frames, "error_by_frame": error.tolist()}
        if lyapunov is not None:
            row["valid_lyapunov"] = frames * self.data.frame_time / lyapunov
        return row

    @staticmethod
    def _curves(runs: Tensor, correlation: Tensor, shares: Tensor, error: Tensor | None) -> Curves:
        return Curves(
            runs[0, -400:].numpy(),
            correlation.numpy(),
            shares.numpy(),
            None if error is None else error.numpy(),
        )

    def write(self, out: Path, settings: Mapping[str, Any]) -> list[Path]:
        """Print the leaderboard; save it as CSV, JSON and a picture.

        Args:
            out: The folder.
            settings: What was compared, plain values.

        Returns:
            The files.
        """
        rows = [*self.rows]
        if self.scalar:
            truth = {**self.truth.to_dict(), **self.truth_errors}
            truth |= {"std_ratio": 1.0, "total_variation": 0.0}
            rows.append({"label": "exact", "baseline": True, "rmse_all": 0.0, **truth})
        print_table(rows, self.name, columns=COLUMNS)
        details = {
            **settings,
            "task": self.data.task.to_dict(),
            **describe_data(self.data),
            "split_sizes": self.data.split_sizes,
            "members": ordered(rows),
            "hardware": hardware(),
            "versions": versions(),
        }
        files = [
            write_csv(out / "leaderboard.csv", rows),
            write_json(out / "leaderboard.json", details),
        ]
        if self.curves:
            files.append(self.draw(out / "roll_outs.png"))
        return files

    def draw(self, path: Path) -> Path:
        """The picture of all roll-outs beside the true runs."""
        test = self.data.runs("test")[self.name][..., 0]
        return roll_outs(
            path,
            self._curves(test, self.truth.correlation, self.shares, None),
            self.curves,
            np.asarray(self.edges),
            self.data.frame_time,
            self.name,
            getattr(self.data, "lyapunov_time", None),
        )


def _named(errors: Mapping[str, float]) -> dict[str, float]:
    """Standard errors by the names that tables have for them."""
    return {f"{name}_error": value for name, value in errors.items()}
