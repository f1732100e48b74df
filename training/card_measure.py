"""What a card measures beyond the test split: another lattice size, a run beside the exact one.

A card of an older library, or of a comparison that did not ask for these, is completed by the same
function as a new one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latticezoo.symmetry.errors import InputError
from latticezoo.training.card_check import missing

if TYPE_CHECKING:
    from latticezoo.datasets.module import LatticeData
    from latticezoo.zoo.base import ZooModel

#: Steps and replicas of the run beside the exact one.
STEPS, REPLICAS = 100, 4


def complete(
    metrics: dict[str, Any],
    network: ZooModel,
    data: LatticeData,
    picture: Path,
    *,
    transfer: str | None = None,
    steps: int = STEPS,
    replicas: int = REPLICAS,
    again: bool = False,
) -> None:
    """Measure what is missing of transfer and roll-out.

    Args:
        metrics: The contents of ``metrics.json``; changed in place.
        network: With trained weights.
        data: What it was trained on; only its recipe and its system are used.
        picture: The PNG of the roll-out, drawn when that is measured.
        transfer: Other size of the lattice; :func:`other_size` by default.
        steps: Of the run beside the exact one.
        replicas: Of that run.
        again: Measure what is there already, too.

    Raises:
        InputError: Something else is missing, which is said before anything is measured.
    """
    from latticezoo.datasets.series import SeriesData
    from latticezoo.training import series_card
    from latticezoo.training.rollout import measure_rollout, obstacle, rollout_plan
    from latticezoo.zoo.sequence_model import SequenceModel

    measured = ("(transfer)", "(rollout)")
    lacking = [entry for entry in missing(metrics) if not entry.endswith(measured)]
    if lacking:
        raise InputError(f"no card for {metrics['name']}: not measured: {', '.join(lacking)}.")
    series = data if isinstance(data, SeriesData) else None
    obstacles: dict[str, str] = {}
    if again or "rmse_transfer" not in metrics["measurements"]:
        reason = None if series is None else series_card.other_size_obstacle(series)
        size = transfer or other_size(data)
        if reason is None and size is None:
            reason = "The data come from a file, which holds one size of the lattice."
        if reason is not None:
            obstacles["transfer"] = reason
        else:
            assert size is not None
            metrics["measurements"] |= _transfer(network, data, size)
    if series is None:
        reason = obstacle(data.system, network.task)
    else:
        reason = series_card.free_run_obstacle(series)
    if reason is not None:
        obstacles["rollout"] = reason
    elif again or "rollout" not in metrics:
        if series is not None:
            assert isinstance(network, SequenceModel)
            metrics["rollout"] = series_card.free_runs(network, series, picture)
        else:
            dt = getattr(getattr(data, "recipe", None), "dt", None)
            plan = rollout_plan(data.system, data.lattice, steps, replicas, dt)
            metrics["rollout"] = measure_rollout(network, plan, picture)
    metrics.pop("not_measured", None)
    if obstacles:
        metrics["not_measured"] = obstacles


def _transfer(network: ZooModel, data: LatticeData, size: str) -> dict[str, Any]:
    """Errors on another size of the lattice."""
    from latticezoo.datasets.series import SeriesData
    from latticezoo.training.compare import open_transfer
    from latticezoo.training.results import transfer_errors
    from latticezoo.training.series_card import transfer
    from latticezoo.zoo.sequence_model import SequenceModel

    if isinstance(data, SeriesData):
        assert isinstance(network, SequenceModel)
        return transfer(network, data, size)
    other = open_transfer(data, size)
    assert other is not None
    return transfer_errors(network, other)


def other_size(data: LatticeData) -> str | None:
    """A size of the lattice to measure transfer on: half as large again, smaller for large ones.

    Returns:
        The side, even but for the smallest; None where the data cannot be made on another lattice.
    """
    from latticezoo.datasets.module import MadeData

    if not isinstance(data, MadeData):
        return None
    side = data.lattice.shape[0]
    factor = 1.5 if data.lattice.n_sites <= 400 else 0.6
    return str(max(side + 1 if side < 4 else 4, 2 * round(factor * side / 2)))
