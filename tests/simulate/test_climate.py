"""Climate statistics on series whose climate is known in closed form."""

import math

import pytest
import torch

from latticezoo.simulate import climate
from latticezoo.symmetry.errors import InputError

TIMES = torch.arange(2000, dtype=torch.float64)


def waves(omega=0.1, runs=64):
    """Cosines of amplitude √2 with phases evenly over the circle: ⟨d²⟩ = 1, C = cos ωk."""
    phases = 2 * math.pi * torch.arange(runs, dtype=torch.float64)[:, None] / runs
    return math.sqrt(2) * torch.cos(omega * TIMES + phases)


def test_correlation_of_a_wave():
    found = climate.autocorrelation(waves(), 60)
    assert torch.allclose(found, torch.cos(0.1 * TIMES[:61]), atol=1e-12)
    assert climate.first_zero(found) == pytest.approx(math.pi / 0.2, abs=2e-3)
    lag, value = climate.first_minimum(found)
    assert lag == pytest.approx(math.pi / 0.1, abs=0.02)
    assert value == pytest.approx(-1, abs=1e-3)


def test_a_series_that_never_turns_has_no_zero():
    flat = climate.autocorrelation(torch.ones(2, 30), 10)
    assert math.isnan(climate.first_zero(flat))
    assert all(math.isnan(entry) for entry in climate.first_minimum(flat))


def test_moments_and_residence_of_a_wave():
    found = climate.Climate.of(waves(), 60)
    assert found.std == pytest.approx(1, abs=1e-12)
    assert found.kurtosis == pytest.approx(1.5, abs=1e-12)
    assert found.increment_std == pytest.approx(2 * math.sin(0.05), abs=1e-12)
    assert found.residence == pytest.approx(math.pi / 0.1, abs=0.01)


def test_spectrum_holds_the_mean_square_and_peaks_at_the_frequency():
    frequencies, power = climate.power_spectrum(waves(0.5), 2.0, 400)
    assert float(torch.trapezoid(power, frequencies)) == pytest.approx(1, abs=0.01)
    assert float(frequencies[power.argmax()]) == pytest.approx(0.25, abs=0.01)


def test_total_variation_of_known_histograms():
    edges = torch.linspace(-4, 4, 81, dtype=torch.float64)
    values = torch.linspace(-1, 1, 20001, dtype=torch.float64)[None]
    shares = climate.histogram(values, edges)
    assert float(shares.sum()) == pytest.approx(1)
    shifted = climate.histogram(values + 0.5, edges)
    assert climate.total_variation(shares, shares) == 0
    assert climate.total_variation(shares, shifted) == pytest.approx(0.25, abs=1e-3)
    assert climate.total_variation(shares, climate.histogram(values + 9, edges)) == 1


def test_valid_time_of_a_straight_error():
    error = 0.04 * torch.arange(1, 30)
    assert climate.valid_time(error) == pytest.approx(12.5)
    assert climate.valid_time(0 * error) == math.inf
    broken = error.clone()
    broken[4:] = math.nan
    assert climate.valid_time(broken) == 4
    assert torch.allclose(
        climate.prediction_error(torch.ones(3, 5), torch.zeros(3, 5), 2.0),
        torch.full((5,), 0.5, dtype=torch.float64),
    )


def test_bad_series_are_named():
    broken = torch.zeros(3, 20)
    broken[1, 5] = math.nan
    with pytest.raises(InputError, match="run 1 is not finite at frame 5"):
        climate.kurtosis(broken)
    with pytest.raises(InputError, match=r"over 20 frames.*have 20"):
        climate.autocorrelation(torch.ones(2, 20), 20)
    with pytest.raises(InputError, match="runs, frames"):
        climate.kurtosis(torch.ones(4))


def test_standard_errors_follow_the_runs():
    """Waves of one frequency and different sizes: only what depends on the size has an error."""
    sizes = torch.linspace(0.5, 1.5, 64, dtype=torch.float64)[torch.randperm(64)]
    series = sizes[:, None] * waves()[:, :600]
    found = climate.standard_errors(series, 60, resamples=200)
    squares = sizes.square()
    expected = float(squares.std() / 8 / (2 * squares.mean().sqrt()))
    assert found["std"] == pytest.approx(expected, rel=0.2)
    assert found["first_zero"] < 0.02
    assert found["residence"] < 0.02
    again = climate.standard_errors(series, 60, resamples=200)
    assert again == pytest.approx(found, rel=1e-6)
    with pytest.raises(InputError, match="over 1 run"):
        climate.standard_errors(series[:1], 60)


def test_the_error_of_a_valid_time_follows_the_runs():
    """Errors that grow in time by a rate of each run: t = limit / root of the mean square rate."""
    rates = torch.linspace(0.01, 0.03, 40, dtype=torch.float64)
    true = torch.zeros(40, 100, dtype=torch.float64)
    predicted = rates[:, None] * torch.arange(1, 101, dtype=torch.float64)
    squares = rates.square()
    time = climate.valid_time(climate.prediction_error(predicted, true, 1.0))
    assert time == pytest.approx(0.5 / float(squares.mean().sqrt()), rel=1e-9)
    # δt / t is half the relative error of the mean square rate.
    expected = time / 2 * float(squares.std() / 40**0.5 / squares.mean())
    found = climate.valid_time_error(predicted, true, 1.0, resamples=400)
    assert found == pytest.approx(expected, rel=0.15)
    assert climate.valid_time_error(true, true, 1.0) == math.inf
