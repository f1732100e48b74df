"""Measurements of the members of a comparison, and the files that show them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latticezoo.datasets.module import LatticeData
from latticezoo.training import plots
from latticezoo.training.baselines import MeanBaseline, baselines
from latticezoo.training.callbacks import describe_data
from latticezoo.training.cost_plot import accuracy_against_cost
from latticezoo.training.evaluate import (
    Model,
    Pairs,
    equivariance,
    errors,
    paired,
    pairs,
    parameter_count,
    predict,
    sites_per_second,
)
from latticezoo.training.leaderboard import ordered, print_table, write_csv
from latticezoo.training.runs import RunFolder, hardware, versions, write_json
from latticezoo.training.threads import suited_threads
from latticezoo.zoo.base import ZooModel

#: How values of known targets are written on axes: name and unit.
QUANTITIES = {"density": "n − ½", "force": "force (t per unit of Q)"}


class Results:
    """Collects the rows of a leaderboard.

    Args:
        data: What all members were trained on; its test split is what they are measured on.
        transfer: Exact states of another lattice, or None.

    Attributes:
        rows: One mapping a member, in the order they were added.
        pairs: Exact and predicted values by label.
        networks: The networks by label, baselines left out.
    """

    def __init__(self, data: LatticeData, transfer: LatticeData | None = None) -> None:
        self.data = data
        self.test = data.samples("test")
        self.transfer = transfer
        self.target = data.task.targets[0].name
        self.quantity = QUANTITIES.get(self.target, self.target)
        self.rows: list[dict[str, Any]] = []
        self.pairs: dict[str, Pairs] = {}
        self.histories: dict[str, dict[str, np.ndarray]] = {}
        self.networks: dict[str, ZooModel] = {}

    def best(self) -> str:
        """Label of the network with the smallest held-out error."""
        return next(row["label"] for row in ordered(self.rows) if not row["baseline"])

    def add_baselines(self) -> None:
        """Measure what every network has to beat."""
        for label, model in baselines(self.data.task, self.data.samples("train")).items():
            self.rows.append({"label": label, "baseline": True, **self.measure(label, model)})

    def add(
        self, label: str, network: ZooModel, record: Mapping[str, Any], folder: RunFolder
    ) -> dict[str, Any]:
        """Measure one network.

        Args:
            label: Its name in tables and legends.
            network: In eval mode.
            record: The record of its training run; empty when it was not trained here.
            folder: The run, for the learning curve.

        Returns:
            The row.
        """
        row = {
            "label": label,
            "baseline": False,
            **self.measure(label, network),
            "receptive_radius": network.receptive_radius,
            **{
                key: record[key]
                for key in ("training_seconds", "epochs", "best_epoch")
                if key in record
            },
            "network": network.config(),
        }
        if begun := record.get("identity", {}).get("init"):
            row["init"] = begun
        self.rows.append(row)
        self.networks[label] = network
        if record and folder.metrics.exists():
            table = np.genfromtxt(folder.metrics, delimiter=",", names=True, deletechars="")
            columns = {name: np.atleast_1d(table[name]) for name in table.dtype.names or ()}
            self.histories[label] = {
                name: columns[name]
                for name in ("seconds", "val/rmse", "val/rmse_trajectory")
                if name in columns
            }
            row["training_sites_per_second"] = self._training_speed(columns)
        return row

    def _training_speed(self, columns: Mapping[str, np.ndarray]) -> float:
        """Sites that went through training in a second; those of an ensemble count once."""
        samples = len(self.data.samples("train"))
        steps_per_epoch = -(-samples // self.data.batch_size)
        epochs = columns["step"][-1] / steps_per_epoch
        return float(epochs * samples * self.data.lattice.n_sites / columns["seconds"][-1])

    def measure(self, label: str, model: Model) -> dict[str, Any]:
        """Errors, equivariance, size and speed of any map."""
        with torch.no_grad():
            predictions = predict(model, self.test)
            self.pairs[label] = paired(predictions, self.test, self.target)
            row: dict[str, Any] = errors(self.pairs[label])
            others = [field.name for field in self.data.task.targets[1:]]
            if others:
                row["other_targets"] = {
                    name: errors(paired(predictions, self.test, name)) for name in others
                }
            if self.transfer is not None:
                row |= transfer_errors(model, self.transfer)
            for dtype in (torch.float64, torch.float32):
                report = equivariance(model, self.data.task, self.test, dtype)
                name = str(dtype).removeprefix("torch.")
                row[f"equivariance_{name}"] = report.error
                row[f"equivariance_{name}_worst"] = report.worst
                row["equivariance_group"] = f"{report.elements} elements of {report.group}"
            with suited_threads(0):  # one thread: a number that a busy machine does not blur
                speed = sites_per_second(model, self.test)
        row["parameters"] = parameter_count(model)
        row["sites_per_second"] = speed
        row["seconds_per_site"] = 1 / speed
        row["microseconds_per_site"] = 1e6 / speed
        return row

    def write(self, out: Path, settings: Mapping[str, Any]) -> list[Path]:
        """Print the leaderboard; save it as CSV, JSON and pictures.

        Args:
            out: The folder.
            settings: What was compared, plain values.

        Returns:
            The files.
        """
        other = "" if self.transfer is None else str(self.transfer.lattice)
        print_table(self.rows, self.quantity, other)
        table = write_csv(out / "leaderboard.csv", self.rows)
        details = write_json(
            out / "leaderboard.json",
            {
                **settings,
                "task": self.data.task.to_dict(),
                "target": self.target,
                **describe_data(self.data),
                "split_sizes": self.data.split_sizes,
                "transfer_lattice": other or None,
                "members": ordered(self.rows),
                "hardware": hardware(),
                "versions": versions(),
            },
        )
        return [table, details, *self._pictures(out)]

    def _pictures(self, out: Path) -> list[Path]:
        labels = [row["label"] for row in ordered(self.rows) if row["label"] != MeanBaseline.label]
        shown = {label: self.pairs[label] for label in labels[:6]}
        differences = {
            label: {kind: predicted - exact for kind, (exact, predicted) in entry.items()}
            for label, entry in shown.items()
        }
        spread = self.rows[0].get("spread_trajectory", self.rows[0]["spread_all"])
        trained = [
            {**row, "rmse": row.get("rmse_trajectory", row["rmse_all"])}
            for row in ordered(self.rows)
            if row["label"] != MeanBaseline.label
        ]
        pictures = [
            plots.parity(out / "parity.png", shown, self.quantity),
            plots.error_histogram(out / "errors.png", differences, self.quantity),
            accuracy_against_cost(
                out / "accuracy_cost.png", trained, self.histories, self.quantity, spread
            ),
        ]
        if self.histories:
            pictures.append(
                plots.learning_curve(out / "learning.png", self.histories, self.quantity)
            )
        return pictures


def transfer_errors(model: Model, other: LatticeData) -> dict[str, Any]:
    """Errors on exact states of another lattice than that of the training.

    Args:
        model: ``model(fields, lattice) -> targets``.
        other: All its states are in the test split.

    Returns:
        Those of :func:`~latticezoo.training.evaluate.errors` with ``transfer_`` before their names,
        ``transfer_lattice``, and ``rmse_transfer``, on trajectories where there are any.
    """
    with torch.no_grad():
        found = errors(pairs(model, other.samples("test"), other.task.targets[0].name))
    return {
        **{f"transfer_{name}": value for name, value in found.items()},
        "transfer_lattice": str(other.lattice),
        "rmse_transfer": found.get("rmse_trajectory", found["rmse_all"]),
    }
