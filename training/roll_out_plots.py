"""Pictures of roll-outs beside true runs: samples, correlation, histogram, error by time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latticezoo.training.plots import PALETTE, figure

#: Ends the label of roll-outs with noise of the size that predictions leave open.
NOISE = ", noise"


@dataclass(frozen=True)
class Curves:
    """What is drawn of one network, or of the true runs.

    Attributes:
        sample: A piece of one run, ``[frames]``.
        correlation: C by lag.
        shares: Histogram of the values.
        error: Share of the spread by frame since the true past ended; None for the true runs.
    """

    sample: np.ndarray
    correlation: np.ndarray
    shares: np.ndarray
    error: np.ndarray | None = None


def roll_outs(
    path: str | os.PathLike[str],
    true: Curves,
    networks: Mapping[str, Curves],
    edges: np.ndarray,
    frame_time: float,
    quantity: str,
    lyapunov_time: float | None = None,
) -> Path:
    """Four panels: samples one above the other, correlation, histogram, error.

    Of labels that end in ``, noise`` the line is solid, of others dashed, in one colour a network.

    Args:
        path: The PNG.
        true: The true runs.
        networks: Curves by label.
        edges: Edges of the bins of the histograms.
        frame_time: Time between frames, ħ/t.
        quantity: Name of the series.
        lyapunov_time: Marked in the panel of the error, ħ/t.

    Returns:
        The path.
    """
    with figure(path, nrows=2, ncols=2, figsize=(10.5, 7.8)) as (drawn, axes):
        samples, correlation, histogram, error = axes.flat
        reach = 2.2 * float(np.abs(true.sample).max())
        centres = (edges[1:] + edges[:-1]) / 2
        # A network and its roll-outs with noise share a colour; the noisy line is the solid one.
        bases = list(dict.fromkeys(label.removesuffix(NOISE) for label in networks))
        for row, (label, curves) in enumerate({"exact": true, **networks}.items()):
            base = label.removesuffix(NOISE)
            style: dict[str, Any] = {"color": "black", "ls": "-", "label": label}
            if row:
                style["color"] = PALETTE[bases.index(base) % (len(PALETTE) - 1)]
                style["ls"] = "-" if label.endswith(NOISE) else "--"
            solid = {**style, "ls": "-", "lw": 1.0}
            times = frame_time * np.arange(len(curves.sample))
            samples.plot(times, curves.sample - row * reach, **solid)
            correlation.plot(
                frame_time * np.arange(len(curves.correlation)), curves.correlation, **style
            )
            histogram.plot(centres, curves.shares / np.diff(edges), **style)
            if curves.error is not None:
                error.plot(frame_time * np.arange(1, len(curves.error) + 1), curves.error, **style)
        samples.set(xlabel="time (ħ/t)", ylabel=f"{quantity}, shifted", yticks=[])
        correlation.set(xlabel="time (ħ/t)", ylabel="C", ylim=(-1.05, 1.05))
        correlation.axhline(0, color="grey", lw=0.8)
        highest = 2 * float((true.shares / np.diff(edges)).max())
        histogram.set(xlabel=quantity, ylabel="probability density", ylim=(0, highest))
        error.set(
            xlabel="time since the last true frame (ħ/t)",
            ylabel="RMS error / spread",
            ylim=(0, 1.6),
        )
        error.axhline(0.5, color="grey", lw=0.8)
        if lyapunov_time is not None:
            error.axvline(lyapunov_time, color="grey", lw=0.8, ls=":")
        lines, labels = correlation.get_legend_handles_labels()
        drawn.legend(lines, labels, loc="outside upper center", fontsize=8, ncols=6)
    return Path(path)
