"""Accuracy against cost: what an error costs in inference and in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latticezoo.training.plots import DASHES, MARKERS, PALETTE, figure, plain_ticks

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

#: Least distance of two labels, as a share of the height of the axes.
_GAP = 0.075


def accuracy_against_cost(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    histories: Mapping[str, Mapping[str, np.ndarray]],
    quantity: str,
    spread: float | None = None,
) -> Path:
    """Held-out error against inference time, and validation error against training time.

    Both on states along trajectories where there are any. On the left every member is a point. On
    the right every trained member is a line: the lowest validation error so far, which is that of
    the weights that would be kept, so that a vertical cut compares errors at equal training time.

    Args:
        path: The PNG.
        rows: Mappings with ``label``, ``rmse``, ``seconds_per_site`` and ``parameters``.
        histories: ``{label: {"seconds": [E], "val/rmse": [E]}}``, and ``"val/rmse_trajectory"``
            where it was measured.
        quantity: Name and unit of the error.
        spread: Standard deviation of the target, drawn as the line of knowing nothing.

    Returns:
        The path.
    """
    panels = 2 if histories else 1
    styles = {row["label"]: index for index, row in enumerate(rows)}
    with figure(path, ncols=panels, figsize=(6.6 * panels, 4.6), sharey=True) as (_, axes):
        left = axes[0, 0]
        labels = []
        for row in rows:
            index = styles[row["label"]]
            x, y = 1e6 * row["seconds_per_site"], row["rmse"]
            colour = PALETTE[index % len(PALETTE)]
            left.plot(x, y, MARKERS[index % len(MARKERS)], color=colour, ms=8)
            labels.append((f"{row['label']} ({_count(row['parameters'])})", x, y, colour))
        left.set(xscale="log", yscale="log", xlabel="inference time, one thread (µs per site)")
        left.set_ylabel(f"held-out RMSE of {quantity}\n(states along trajectories)")
        ends = []
        if histories:
            right = axes[0, 1]
            for label, history in histories.items():
                index = styles[label]
                colour = PALETTE[index % len(PALETTE)]
                errors = history.get("val/rmse_trajectory", history["val/rmse"])
                best = np.fmin.accumulate(errors)
                seconds = np.maximum(history["seconds"], 1e-3)
                right.plot(seconds, best, color=colour, ls=DASHES[index % len(DASHES)])
                marker = MARKERS[index % len(MARKERS)]
                right.plot(seconds[-1], best[-1], marker, color=colour, ms=6)
                ends.append((label, seconds[-1], best[-1], colour))
            right.set(xscale="log", yscale="log", xlabel="training time (s)")
            right.set_ylabel(f"validation RMSE of {quantity}, lowest so far")
            right.tick_params(labelleft=True)
        for ax in axes[0]:
            ax.margins(0.08)
            if spread is not None:
                ax.axhline(spread, color="0.35", lw=1, ls="--")
                ax.annotate(
                    "spread of the target",
                    (0.02, spread),
                    xycoords=("axes fraction", "data"),
                    xytext=(0, 3),
                    textcoords="offset points",
                    fontsize=9,
                    color="0.35",
                )
        plain_ticks(left)
        for ax in axes[0]:
            plain_ticks(ax, "x")
        _label(left, labels)
        if histories:
            _label(axes[0, 1], ends)
    return Path(path)


def _count(number: int) -> str:
    """A number of parameters, such as 10.8 M."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _label(ax: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Write labels beside the axes, in the order of the points, a thin line from each to its point.

    Args:
        ax: Logarithmic in y, limits as they will stay.
        points: Label, x, y and colour.
    """
    low, high = np.log(ax.get_ylim())
    ordered = sorted(points, key=lambda point: point[2])
    heights = spread_out([(np.log(y) - low) / (high - low) for _, _, y, _ in ordered], _GAP)
    for (text, x, y, colour), height in zip(ordered, heights, strict=True):
        ax.annotate(
            text,
            (x, y),
            xytext=(1.02, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9.5,
            color=colour,
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": colour, "alpha": 0.5},
            annotation_clip=False,
        )


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights apart to a least distance, as a whole about where they were.

    Args:
        heights: Ascending.
        gap: The least distance.

    Returns:
        Ascending heights at least ``gap`` apart; groups keep their centre.
    """
    groups: list[list[float]] = []  # the heights wanted by the labels of a group
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _top(groups[-2], gap) + gap - 1e-12:
            groups[-2:] = [[*groups[-2], *groups[-1]]]
    return [_bottom(group, gap) + gap * i for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2
