"""Climate of a chaotic scalar series: what stays true after the trajectory itself is lost.

All functions take series ``[K, T]`` of K runs (a tensor of any floating-point type; they compute in
float64) of an order parameter whose ensemble mean is zero by symmetry, so that no mean is
subtracted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError

#: Error, as a share of the spread, above which a prediction is no longer valid.
VALID = 0.5


def autocorrelation(series: Tensor, lags: int) -> Tensor:
    r"""C(k) = ⟨d(t) d(t+k)⟩ / ⟨d²⟩ for k = 0, …, ``lags``, ``[lags + 1]``.

    The average is over runs and times; the normalization is that of the same frames, so that
    |C| ≤ 1.

    Raises:
        InputError: The series are too short, or not finite.
    """
    values = _checked(series)
    if lags >= values.shape[1]:
        raise InputError(
            f"a correlation over {lags} frames was asked for, but the series have "
            f"{values.shape[1]}; ask for fewer."
        )
    found = []
    for lag in range(lags + 1):
        early, late = values[:, : values.shape[1] - lag], values[:, lag:]
        norm = (early.square().mean() * late.square().mean()).sqrt()
        found.append((early * late).mean() / norm)
    return torch.stack(found)


def first_zero(correlation: Tensor) -> float:
    """Lag at which C first changes sign, between frames by a straight line; NaN if never."""
    below = torch.nonzero(correlation <= 0).flatten()
    if not len(below):
        return float("nan")
    k = int(below[0])
    before, after = float(correlation[k - 1]), float(correlation[k])
    return k - 1 + before / (before - after)


def first_minimum(correlation: Tensor, smooth: int = 2) -> tuple[float, float]:
    """Lag and value of the lowest C between its first zero and the next one.

    The lag is that of a parabola through the neighbourhood of the lowest value, for near its
    minimum C is flat against the scatter.

    Args:
        correlation: C by lag.
        smooth: Half-width of that neighbourhood, in fifths of the lag of the first zero.

    Returns:
        Lag and value; NaN where C has no zero.
    """
    zero = first_zero(correlation)
    if zero != zero:
        return float("nan"), float("nan")
    start = int(zero) + 1
    above = torch.nonzero(correlation[start:] > 0).flatten()
    end = start + int(above[0]) if len(above) else len(correlation)
    lowest = start + int(correlation[start:end].argmin())
    width = max(1, round(smooth * zero / 10))
    near = torch.arange(max(start, lowest - width), min(end, lowest + width + 1))
    if len(near) < 3:
        return float(lowest), float(correlation[lowest])
    x = (near - lowest).double()
    basis = torch.stack([x.square(), x, torch.ones_like(x)], 1)
    a, b, c = torch.linalg.lstsq(basis, correlation[near].double()[:, None]).solution.flatten()
    if a <= 0:
        return float(lowest), float(correlation[lowest])
    shift = float(-b / (2 * a))
    return lowest + shift, float(c - b * b / (4 * a))


def histogram(series: Tensor, edges: Tensor) -> Tensor:
    """Share of the values in each bin, with all beyond the edges in the outer ones, ``[bins]``."""
    values = _checked(series).flatten()
    inside = values.clamp(float(edges[0]), float(edges[-1]))
    counts = torch.histc(inside, len(edges) - 1, float(edges[0]), float(edges[-1]))
    return counts / counts.sum()


def histogram_edges(series: Tensor, bins: int = 40) -> Tensor:
    """Equal bins over ±4 standard deviations, ``[bins + 1]``."""
    reach = 4 * float(_checked(series).square().mean().sqrt())
    return torch.linspace(-reach, reach, bins + 1, dtype=torch.float64)


def total_variation(one: Tensor, other: Tensor) -> float:
    """Half the sum of the differences between two histograms: 0 for equal, 1 for disjoint."""
    return 0.5 * float((one - other).abs().sum())


def power_spectrum(series: Tensor, frame_time: float, length: int = 256) -> tuple[Tensor, Tensor]:
    """Power spectrum by Welch's method: Hann windows that overlap by half.

    Args:
        series: ``[K, T]``.
        frame_time: Time between frames.
        length: Frames of a window, cut to those that there are.

    Returns:
        Angular frequencies and the power per unit of angular frequency, whose integral is the mean
        square of the series.
    """
    values = _checked(series)
    length = min(length, values.shape[1])
    window = torch.hann_window(length, dtype=torch.float64)
    parts = values.unfold(1, length, max(1, length // 2)) * window
    power = torch.fft.rfft(parts).abs().square().mean((0, 1))
    frequencies = 2 * torch.pi * torch.fft.rfftfreq(length, frame_time, dtype=torch.float64)
    power *= frame_time / (torch.pi * window.square().sum())
    power[0] /= 2
    if length % 2 == 0:
        power[-1] /= 2
    return frequencies, power


def residence_times(series: Tensor) -> Tensor:
    """Frames between changes of sign, all runs together; pieces cut off by an end are left out."""
    found = []
    for run in _checked(series):
        changes = torch.nonzero(torch.signbit(run[1:]) != torch.signbit(run[:-1])).flatten()
        found.append(changes.diff())
    return torch.cat(found)


def kurtosis(series: Tensor) -> float:
    """⟨d⁴⟩ / ⟨d²⟩²: 3 for Gaussian values, 1 for ±1."""
    values = _checked(series)
    return float(values.pow(4).mean() / values.square().mean().square())


def prediction_error(predicted: Tensor, true: Tensor, spread: float) -> Tensor:
    """Root-mean-square error over the runs by frame, as a share of the spread, ``[T]``."""
    error = (predicted.double() - true.double()).square().mean(0).sqrt()
    return error / spread


def valid_time(error: Tensor, limit: float = VALID) -> float:
    """Frames until the error first exceeds the limit, between frames by a straight line.

    The first entry of ``error`` belongs to the first predicted frame; the error before it is 0.
    NaN counts as beyond any limit. Infinite if the limit is never reached.
    """
    errors = torch.cat([error.new_zeros(1), error.double()])
    beyond = torch.nonzero(~(errors <= limit)).flatten()
    if not len(beyond):
        return float("inf")
    k = int(beyond[0])
    before, after = float(errors[k - 1]), float(errors[k])
    if after != after or after == float("inf"):
        return float(k - 1)
    return k - 1 + (limit - before) / (after - before)


def valid_time_error(
    predicted: Tensor, true: Tensor, spread: float, resamples: int = 200, seed: int = 0
) -> float:
    """Standard error of :func:`valid_time` by resampling the runs; infinite where a set has none.

    Args:
        predicted: ``[K, T]``.
        true: ``[K, T]``.
        spread: As :func:`prediction_error`.
        resamples: Number of drawn sets.
        seed: Of what is drawn.
    """
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(resamples):
        rows = torch.randint(len(true), (len(true),), generator=draw)
        found.append(valid_time(prediction_error(predicted[rows], true[rows], spread)))
    times = torch.tensor(found, dtype=torch.float64)
    return float(times.std()) if bool(times.isfinite().all()) else float("inf")


@dataclass(frozen=True)
class Climate:
    """Numbers that describe a set of runs, times in frames.

    Attributes:
        std: Root of ⟨d²⟩.
        increment_std: Root-mean-square change from one frame to the next.
        kurtosis: ⟨d⁴⟩ / ⟨d²⟩².
        first_zero: Lag of the first zero of C.
        first_minimum: Lag of the first minimum of C.
        minimum: Value of C there.
        residence: Mean number of frames between changes of sign.
        correlation: C by lag.
    """

    std: float
    increment_std: float
    kurtosis: float
    first_zero: float
    first_minimum: float
    minimum: float
    residence: float
    correlation: Tensor

    @classmethod
    def of(cls, series: Tensor, lags: int = 100) -> Climate:
        """Measure series ``[K, T]``.

        Raises:
            InputError: The series are shorter than the lags, or not finite.
        """
        values = _checked(series)
        correlation = autocorrelation(values, lags)
        lag, value = first_minimum(correlation)
        stays = residence_times(values).double()
        return cls(
            float(values.square().mean().sqrt()),
            float(values.diff(dim=1).square().mean().sqrt()),
            kurtosis(values),
            first_zero(correlation),
            lag,
            value,
            float(stays.mean()) if len(stays) else float("nan"),
            correlation,
        )

    def to_dict(self) -> dict[str, float | list[float]]:
        """Plain values."""
        return {**asdict(self), "correlation": self.correlation.tolist()}


#: What of a climate has an error.
NUMBERS = (
    "std",
    "increment_std",
    "kurtosis",
    "first_zero",
    "first_minimum",
    "minimum",
    "residence",
)


def standard_errors(
    series: Tensor, lags: int = 100, resamples: int = 50, seed: int = 0
) -> dict[str, float]:
    """Standard errors of the numbers of a climate by resampling whole runs.

    Frames of one run hang together for long, so runs are what is drawn, with replacement.

    Args:
        series: ``[K, T]``.
        lags: As :meth:`Climate.of`.
        resamples: Number of drawn sets.
        seed: Of what is drawn.

    Returns:
        By the names of :data:`NUMBERS`; NaN where a number exists in fewer than two of the sets.

    Raises:
        InputError: As :meth:`Climate.of`; or there are fewer than two runs.
    """
    values = _checked(series)
    runs = len(values)
    if runs < 2:
        raise InputError(f"a standard error over {runs} run was asked for; it needs 2 or more.")
    draw = torch.Generator().manual_seed(seed)
    drawn = [
        Climate.of(values[torch.randint(runs, (runs,), generator=draw)], lags)
        for _ in range(resamples)
    ]
    errors = {}
    for name in NUMBERS:
        found = torch.tensor([getattr(one, name) for one in drawn], dtype=torch.float64)
        found = found[found.isfinite()]
        errors[name] = float(found.std()) if len(found) > 1 else float("nan")
    return errors


def _checked(series: Tensor) -> Tensor:
    values = series.double()
    if values.ndim != 2:
        raise InputError(
            f"the series have shape {list(series.shape)}; climate statistics need [runs, frames]."
        )
    if not bool(values.isfinite().all()):
        run, frame = (~values.isfinite()).nonzero()[0].tolist()
        raise InputError(
            f"the series of run {run} is not finite at frame {frame}; climate statistics need "
            "finite values."
        )
    return values
