"""Time series for sequence models: windows of trajectories, split by trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from latticezoo.datasets.batches import Batch
from latticezoo.datasets.labelled import TRAJECTORY, LabelledData
from latticezoo.datasets.module import LatticeData
from latticezoo.datasets.registry import check_count
from latticezoo.datasets.split import SPLITS, split_by_group
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.lattices import Lattice

Series = dict[str, Tensor]


class Windows(Dataset[Batch]):
    """All windows of some series; the targets are the same frames one later.

    Windows of one series begin ``scored`` frames apart and the last one ends with the series, so
    that each frame but those of the first window is exactly once among the last ``scored``
    targets.

    Args:
        series: By name, ``[K, T, …]``.
        lattice: Where they live.
        window: Frames of a window.
        scored: Last frames of a window by which networks are judged.
        dtype: Floating-point type of the batches.
    """

    def __init__(
        self,
        series: Mapping[str, Tensor],
        lattice: Lattice,
        window: int,
        scored: int,
        dtype: torch.dtype,
    ) -> None:
        self.series = {name: values.to(dtype) for name, values in series.items()}
        self.lattice, self.window, self.scored = lattice, window, scored
        first = next(iter(self.series.values()))
        starts = range((first.shape[1] - 1 - window) % scored, first.shape[1] - window, scored)
        self.places = torch.cartesian_prod(torch.arange(len(first)), torch.tensor([*starts]))
        self.kind = torch.full((len(self.places),), TRAJECTORY)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        run, start = self.places[torch.as_tensor(indices)].T
        frames = start[:, None] + torch.arange(self.window + 1)
        values = {name: series[run[:, None], frames] for name, series in self.series.items()}
        batch = Batch(
            {name: part[:, :-1] for name, part in values.items()},
            {name: part[:, 1:] for name, part in values.items()},
            self.kind[: len(run)],
            scored=self.scored,
        )
        batch.lattice = self.lattice
        return batch

    @property
    def fields(self) -> Series:
        """The windows as one table, ``[S, window, …]`` by name."""
        return self.__getitems__(range(len(self))).fields

    @property
    def targets(self) -> Series:
        """The same one frame later."""
        return self.__getitems__(range(len(self))).targets


class SeriesData(LatticeData):
    """Base of the data modules of time series: windows of trajectories whose frames are even.

    A subclass gives ``task`` (the same fields as inputs and targets), ``lattice``, ``system`` and
    ``file``, and sets the options by :meth:`cut`. Batches hold ``[B, window, …]``.

    Attributes:
        window: Frames of a window.
        scored: Its last frames, by which networks are judged, with the past before them in view.
        skip: First frames of each trajectory left out.
    """

    window: int
    scored: int
    skip: int

    def cut(self, window: int, scored: int, skip: int) -> None:
        """Say how the trajectories are cut into windows.

        Raises:
            InputError: A number is out of range.
        """
        check_count("window", window, least=1)
        check_count("scored", scored, least=1)
        check_count("skip", skip)
        if scored > window:
            raise InputError(f"scored is {scored} frames; a window has only {window}.")
        self.window, self.scored, self.skip = window, scored, skip
        self._runs: dict[str, Series] = {}
        self._windows: dict[str, Windows] = {}

    def _open(self) -> LabelledData:
        data = LabelledData.open(self.file())
        wanted = [field.name for field in self.task.inputs]
        for name in wanted:
            if name not in data.fields:
                raise unknown("field of these data", name, data.fields)
        # What follows each frame is read off the series itself, whatever else the file labels.
        fields = {name: data.fields[name] for name in wanted}
        return replace(data, task=self.task, fields=fields, labels=fields)

    def setup(self, stage: str | None = None) -> None:
        """Open the file, cut it into series, split them. Does nothing the second time."""
        if self._data is not None:
            return
        data = self._open()
        series, numbers = _by_trajectory(data, self.skip)
        frames = next(iter(series.values())).shape[1]
        if self.window >= frames:
            after = f" after the first {self.skip}" if self.skip else ""
            raise InputError(
                f"window is {self.window} frames, but the series have {frames}{after}; "
                f"it must be at most {frames - 1}."
            )
        chosen = split_by_group(
            numbers,
            torch.full_like(numbers, TRAJECTORY),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.seed,
        )
        self._runs = {
            split: {name: values[rows] for name, values in series.items()}
            for split, rows in chosen.items()
        }
        self._windows = {
            split: Windows(runs, data.lattice, self.window, self.scored, self.dtype)
            for split, runs in self._runs.items()
        }
        self._splits = {
            split: torch.nonzero(torch.isin(data.trajectory, numbers[rows])).flatten()
            for split, rows in chosen.items()
        }
        self._data = data

    def samples(self, split: str) -> Any:
        """The windows of a split.

        Raises:
            InputError: The split is unknown.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        self.setup()
        return self._windows[split]

    def runs(self, split: str) -> Series:
        """The whole series of a split without the skipped frames, ``[K, T, …]``, float64."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        self.setup()
        return self._runs[split]

    def statistics(self) -> dict[str, dict[str, dict[str, Tensor]]]:
        """Mean and standard deviation of the training series; the targets are the same numbers."""
        moments = {}
        for name, values in self.runs("train").items():
            if not len(values):
                raise InputError("these data have no training split, so no training statistics.")
            flat = values.reshape(-1, values.shape[-1])
            moments[name] = {"mean": flat.mean(0), "std": flat.std(0, correction=0)}
        return {"inputs": moments, "targets": moments}

    @property
    def frame_time(self) -> float:
        """Time between two frames."""
        data = self.data
        first = torch.nonzero(data.trajectory == data.trajectory[0]).flatten()[:2]
        return float(data.time[first].diff())


def _by_trajectory(data: LabelledData, skip: int) -> tuple[Series, Tensor]:
    """Series ``[K, T, …]`` by name and their trajectory numbers ``[K]``.

    Raises:
        InputError: There are samples of no trajectory alone, frames are uneven in time, or the
            trajectories differ in length.
    """
    numbers = data.trajectory[data.trajectory >= 0].unique()
    if not len(numbers):
        raise InputError("the data hold no trajectories, so no time series.")
    rows = []
    for number in numbers.tolist():
        found = torch.nonzero(data.trajectory == number).flatten()
        found = found[data.frame[found].argsort()]
        steps = data.step[found].diff()
        if len(steps) and not bool((steps == steps[0]).all()):
            raise InputError(
                f"the frames of trajectory {number} are not evenly spaced in time; a time series "
                "needs frames at equal distances."
            )
        rows.append(found[skip:])
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise InputError(
            f"the trajectories have between {min(lengths)} and {max(lengths)} frames; time series "
            "need equal lengths."
        )
    if 0 in lengths:
        raise InputError(f"skip is {skip}, so that no frame is left of any trajectory.")
    index = torch.stack(rows)
    return {name: values[index] for name, values in data.fields.items()}, numbers
