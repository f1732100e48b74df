"""Pictures: parity, error histograms, learning curves, correlations, maps, growth.

Every function takes plain arrays, writes one PNG (beside, then renamed) and returns its path. The
backend is Agg: no display is needed. Colours are those of Okabe and Ito, which colour-blind readers
can tell apart; lines differ in dash and marker too, so that a grey print stays readable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from latticezoo.simulate.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    PathLike = str | os.PathLike[str]

#: Okabe and Ito's palette, the yellow left out: it vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), "-")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_KINDS = (("trajectory", "trajectory states"), ("random", "random states"))

_STYLE: dict[str, Any] = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "savefig.dpi": 150,
}


class Band(NamedTuple):
    """A mean over replicas with its standard error, both ``[times, points]`` or ``[times]``."""

    mean: np.ndarray
    error: np.ndarray


@contextmanager
def figure(path: PathLike, **options: Any) -> Iterator[tuple[Figure, np.ndarray]]:
    """Open a figure in the common style and save it when the block ends.

    Args:
        path: The PNG.
        options: As for ``matplotlib.pyplot.subplots``.

    Yields:
        The figure and a 2D array of its axes.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    style: Any = _STYLE
    with mpl.rc_context(style):
        drawn, axes = plt.subplots(squeeze=False, layout="constrained", **options)
        try:
            yield drawn, axes
            with atomic_write(path) as temporary:
                drawn.savefig(temporary, format="png")
        finally:
            plt.close(drawn)


def parity(
    path: PathLike,
    series: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    quantity: str,
) -> Path:
    """Predicted against exact values, one column a model, one row a kind of state.

    Args:
        path: The PNG.
        series: ``{model: {kind: (exact, predicted)}}``, kinds ``"trajectory"`` and ``"random"``.
        quantity: Name and unit of the values, for the axes.

    Returns:
        The path.
    """
    from matplotlib.colors import LogNorm

    kinds = [(k, title) for k, title in _KINDS if any(k in entry for entry in series.values())]
    pooled = [
        np.concatenate([np.ravel(a) for a in pair]) for e in series.values() for pair in e.values()
    ]
    values = np.concatenate(pooled)
    low, high = np.min(values), np.max(values)
    margin = 0.03 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    size = (1.7 + 2.6 * len(series), 0.8 + 2.6 * len(kinds))
    with figure(
        path, nrows=len(kinds), ncols=len(series), figsize=size, sharex=True, sharey=True
    ) as (drawn, axes):
        image = None
        for column, (label, entry) in enumerate(series.items()):
            for row, (kind, title) in enumerate(kinds):
                ax = axes[row, column]
                ax.plot(limits, limits, color="0.35", lw=0.9, ls="--", zorder=3)
                if kind in entry:
                    exact, predicted = (np.ravel(a) for a in entry[kind])
                    image = ax.hexbin(
                        exact,
                        predicted,
                        gridsize=60,
                        extent=(*limits, *limits),
                        mincnt=1,
                        cmap="viridis",
                        norm=LogNorm(vmin=1, vmax=max(10, len(exact) / 50)),
                        linewidths=0,
                    )
                    rmse = np.sqrt(np.mean((predicted - exact) ** 2))
                    ax.text(0.04, 0.95, f"RMSE {rmse:.3g}", transform=ax.transAxes, va="top")
                ax.set(xlim=limits, ylim=limits, aspect="equal")
                if row == 0:
                    ax.set_title(label, fontweight="bold")
                if row == len(kinds) - 1:
                    ax.set_xlabel(f"exact {quantity}")
                if column == 0:
                    ax.set_ylabel(f"predicted {quantity}")
                ax.text(0.97, 0.04, title, transform=ax.transAxes, ha="right", color="0.35")
        if image is not None:
            drawn.colorbar(image, ax=axes, label="sites per cell", shrink=0.8, aspect=30)
    return Path(path)


def error_histogram(
    path: PathLike, errors: Mapping[str, Mapping[str, np.ndarray]], quantity: str
) -> Path:
    """Distribution of the error per site, one panel a kind of state, one line a model.

    Args:
        path: The PNG.
        errors: ``{model: {kind: predicted - exact}}``.
        quantity: Name and unit of the error.

    Returns:
        The path.
    """
    kinds = [(k, title) for k, title in _KINDS if any(k in entry for entry in errors.values())]
    with figure(path, ncols=len(kinds), figsize=(0.6 + 4.6 * len(kinds), 4.4), sharey=True) as (
        _,
        axes,
    ):
        for column, (kind, title) in enumerate(kinds):
            ax = axes[0, column]
            shown = {label: np.ravel(e[kind]) for label, e in errors.items() if kind in e}
            # The window is set by the bulk of the better half: a poor baseline must not hide them.
            spreads = sorted(np.percentile(np.abs(e), 99.5) for e in shown.values())
            window = 2.0 * spreads[(len(spreads) - 1) // 2] or 1.0
            fewest = min(len(e) for e in shown.values())
            edges = np.linspace(-window, window, 2 + int(np.clip(5 * fewest ** (1 / 3), 15, 120)))
            centres = 0.5 * (edges[1:] + edges[:-1])
            for index, (label, values) in enumerate(shown.items()):
                density, _ = np.histogram(values, edges)
                density = density / (len(values) * (edges[1] - edges[0]))
                outside = np.mean(np.abs(values) > window)
                note = f" ({100 * outside:.0f} % outside)" if outside >= 0.01 else ""
                ax.plot(
                    centres,
                    np.where(density > 0, density, np.nan),
                    color=PALETTE[index % len(PALETTE)],
                    ls=DASHES[index % len(DASHES)],
                    label=label + note,
                )
            ax.axvline(0, color="0.35", lw=0.8)
            ax.set(yscale="log", xlabel=f"error of {quantity}", xlim=(-window, window))
            ax.set_title(title, pad=8)
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        axes[0, 0].set_ylabel("probability density")
    return Path(path)


def correlation(
    path: PathLike,
    distances: np.ndarray,
    times: Sequence[float],
    curves: Mapping[str, Band],
    n_replicas: int,
    time_unit: str = "τ₀",
) -> Path:
    """Correlation function against distance at several times, with the ensemble's error bands.

    Args:
        path: The PNG.
        distances: ``[R]`` in lattice constants.
        times: One panel each.
        curves: ``{label: Band}`` with arrays ``[times, R]``; the first is drawn as the reference.
        n_replicas: How many replicas the bands average over.
        time_unit: Unit of the times.

    Returns:
        The path.
    """
    with figure(path, ncols=len(times), figsize=(1.0 + 3.3 * len(times), 3.6), sharey=True) as (
        _,
        axes,
    ):
        for column, time in enumerate(times):
            ax = axes[0, column]
            ax.axhline(0, color="0.35", lw=0.8)
            for index, (label, band) in enumerate(curves.items()):
                mean, error = np.asarray(band.mean)[column], np.asarray(band.error)[column]
                colour = PALETTE[index % len(PALETTE)]
                ax.fill_between(
                    distances, mean - error, mean + error, color=colour, alpha=0.22, lw=0
                )
                ax.plot(
                    distances,
                    mean,
                    color=colour,
                    ls=DASHES[index % len(DASHES)],
                    marker=MARKERS[index % len(MARKERS)],
                    label=label,
                )
            ax.set(xlabel="distance r (lattice constants)", title=f"t = {time:g} {time_unit}")
        axes[0, 0].set_ylabel("correlation C(r, t)")
        axes[0, 0].legend(
            loc="upper right", title=f"{n_replicas} replicas, bands ±1 s.e.", title_fontsize=9
        )
    return Path(path)


def order_parameter_maps(
    path: PathLike,
    maps: Mapping[str, np.ndarray],
    times: Sequence[float],
    quantity: str = "order parameter φ",
    time_unit: str = "τ₀",
) -> Path:
    """Maps of a site field at several times, one row a source (exact, learned).

    Args:
        path: The PNG.
        maps: ``{label: [times, L1, L2]}``.
        times: One column each.
        quantity: Name of the values, for the colour bar.
        time_unit: Unit of the times.

    Returns:
        The path.
    """
    limit = max(float(np.nanpercentile(np.abs(m), 99.5)) for m in maps.values()) or 1.0
    size = (1.6 + 2.3 * len(times), 0.8 + 2.3 * len(maps))
    with figure(
        path, nrows=len(maps), ncols=len(times), figsize=size, sharex=True, sharey=True
    ) as (
        drawn,
        axes,
    ):
        for row, (label, values) in enumerate(maps.items()):
            for column, time in enumerate(times):
                ax: Axes = axes[row, column]
                image = ax.imshow(
                    np.asarray(values[column]).T,
                    origin="lower",
                    cmap="RdBu_r",
                    vmin=-limit,
                    vmax=limit,
                    interpolation="nearest",
                )
                ax.grid(False)
                ax.locator_params(integer=True, nbins=6)
                for side in ("top", "right"):
                    ax.spines[side].set_visible(True)
                if row == 0:
                    ax.set_title(f"t = {time:g} {time_unit}")
                if row == len(maps) - 1:
                    ax.set_xlabel("x (sites)")
                if column == 0:
                    ax.set_ylabel(f"{label}\ny (sites)")
        drawn.colorbar(image, ax=axes, label=quantity, shrink=0.85, aspect=30)
    return Path(path)


def growth(
    path: PathLike, times: np.ndarray, curves: Mapping[str, Band], time_unit: str = "τ₀"
) -> Path:
    """Correlation length against time on logarithmic axes, with the slope ½ of Allen and Cahn.

    Args:
        path: The PNG.
        times: ``[T]``; non-positive ones are left out.
        curves: ``{label: Band}`` with arrays ``[T]``.
        time_unit: Unit of the times.

    Returns:
        The path.
    """
    times = np.asarray(times, dtype=float)
    keep = times > 0
    with figure(path, figsize=(5.4, 4.0)) as (_, axes):
        ax = axes[0, 0]
        for index, (label, band) in enumerate(curves.items()):
            mean, error = np.asarray(band.mean)[keep], np.asarray(band.error)[keep]
            colour = PALETTE[index % len(PALETTE)]
            ax.fill_between(times[keep], mean - error, mean + error, color=colour, alpha=0.22, lw=0)
            ax.plot(times[keep], mean, color=colour, ls=DASHES[index % len(DASHES)], label=label)
        first = next(iter(curves.values()))
        reference = np.asarray(first.mean, dtype=float)[keep]
        finite = np.isfinite(reference)
        if finite.sum() >= 2:
            start, stop = times[keep][finite][[0, -1]]
            guide = np.geomspace(max(start, stop / 30), stop, 20)
            middle = float(np.exp(np.nanmean(np.log(reference[finite]))))
            scale = 0.55 * middle / np.sqrt(np.sqrt(guide[0] * guide[-1]))
            ax.plot(guide, scale * np.sqrt(guide), color="0.45", lw=1, ls=":", label="slope ½")
        ax.set(
            xscale="log",
            yscale="log",
            xlabel=f"time t ({time_unit})",
            ylabel="correlation length L (lattice constants)",
        )
        plain_ticks(ax)
        ax.legend(loc="best")
    return Path(path)


def learning_curve(
    path: PathLike, history: Mapping[str, Mapping[str, np.ndarray]], quantity: str
) -> Path:
    """Validation error against training time, one line a model.

    Args:
        path: The PNG.
        history: ``{model: {"seconds": [E], "val/rmse": [E]}}``.
        quantity: Name and unit of the error.

    Returns:
        The path.
    """
    with figure(path, figsize=(5.6, 3.9)) as (_, axes):
        ax = axes[0, 0]
        for index, (label, curve) in enumerate(history.items()):
            ax.plot(
                curve["seconds"],
                curve["val/rmse"],
                color=PALETTE[index % len(PALETTE)],
                ls=DASHES[index % len(DASHES)],
                label=label,
            )
        ax.set(yscale="log", xlabel="training time (s)", ylabel=f"validation RMSE of {quantity}")
        plain_ticks(ax)
        ax.legend(loc="best")
    return Path(path)


def plain_ticks(ax: Axes, which: Literal["x", "y"] = "y") -> None:
    """Write 2, 5, 10 on a short logarithmic axis, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis = ax.yaxis if which == "y" else ax.xaxis
    low, high = sorted(axis.get_view_interval())
    if high / low < 1000:
        steps = (1.0, 2.0, 3.0, 5.0) if high / low < 20 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
