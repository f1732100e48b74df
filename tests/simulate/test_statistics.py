"""Correlation times and errors of correlated series against processes in closed form."""

import math

import numpy as np
import pytest

from latticezoo.simulate.statistics import (
    autocorrelation,
    blocked_error,
    decay_time,
    integrated_time,
)
from latticezoo.symmetry.errors import InputError


@pytest.fixture(scope="module")
def autoregressive():
    """x' = ρ x + noise at ρ = 0.8: Γ(t) = ρ^t, τ = ½ (1 + ρ)/(1 − ρ) = 4.5."""
    rng, rho = np.random.default_rng(0), 0.8
    series = np.zeros((4000, 8))
    for step in range(1, len(series)):
        series[step] = rho * series[step - 1] + rng.standard_normal(8)
    return series[200:]


def test_autocorrelation(autoregressive):
    assert autocorrelation(autoregressive)[:4] == pytest.approx(0.8 ** np.arange(4), abs=0.05)
    assert autocorrelation(np.ones((5, 2))).tolist() == [1, 0, 0, 0, 0]
    few = np.random.default_rng(1).standard_normal((6, 3))
    centred = few - few.mean()
    plain = [(centred[: 6 - t] * centred[t:]).sum() / (6 - t) for t in range(6)]
    assert autocorrelation(few) == pytest.approx(np.array(plain) / plain[0], abs=1e-14)


def test_integrated_time(autoregressive):
    assert integrated_time(autoregressive) == pytest.approx(4.5, rel=0.1)
    noise = np.random.default_rng(2).standard_normal((2000, 3))
    assert integrated_time(noise) == pytest.approx(0.5, abs=0.1)
    # ½ + ρ + … + ρ^n, and an oscillation of period 8, whose half and whole periods add up to zero.
    partial = 0.5 + sum(0.8**t for t in (1, 2, 3))
    assert integrated_time(autoregressive, until=3) == pytest.approx(partial, abs=0.05)
    wave = np.cos(np.pi / 4 * np.arange(4000))
    assert integrated_time(wave, until=7) == pytest.approx(-0.5, abs=0.01)
    assert integrated_time(wave, until=8) == pytest.approx(0.5, abs=0.01)


def test_decay_time(autoregressive):
    assert decay_time(autoregressive) == pytest.approx(-1 / math.log(0.8), rel=0.1)
    assert decay_time(autoregressive, 0.8) == pytest.approx(1, abs=0.03)
    before, after = (math.cos(t * math.pi / 20) for t in (6, 7))  # one half is between them
    wave = np.cos(np.pi / 20 * np.arange(40000))
    expected = 6 + (before - 0.5) / (before - after)
    assert decay_time(wave, 0.5) == pytest.approx(expected, abs=0.002)
    rows = np.array([[0.0, 1.0]] * 9)  # never change, but differ: Γ stays 1
    assert decay_time(rows) == math.inf


def test_blocked_error(autoregressive):
    exact = math.sqrt(2 * 4.5 / (1 - 0.8**2) / autoregressive.size)
    assert blocked_error(autoregressive) == pytest.approx(exact, rel=0.15)


def test_refusals():
    with pytest.raises(InputError, match="at least 2 samples"):
        autocorrelation(np.ones(1))
    with pytest.raises(InputError, match="fewer than two blocks"):
        blocked_error(np.ones((4, 1)), 3)
    with pytest.raises(InputError, match="until is 4; 4 samples have correlations at 0 to 3"):
        integrated_time(np.ones((4, 1)), until=4)
    with pytest.raises(InputError, match=r"level is 1\.0"):
        decay_time(np.ones((4, 1)), 1.0)
