"""Domain growth on fields with known lengths, exact power laws and a kinetic Ising quench."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latticezoo.simulate import initial, simulate
from latticezoo.simulate.domain_growth import (
    DomainStatistics,
    bootstrap,
    collapse,
    domain_statistics,
    ensemble_correlation,
    geometric_rows,
    half_height,
    power_law,
    running_exponent,
    structure_length,
    unpack,
)
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square


def statistics(fields, cutoff=1.0):
    """Statistics of fields ``[T, R, L, L]``."""
    lattice = square(*fields.shape[-2:])
    flat = torch.from_numpy(fields.reshape(*fields.shape[:2], lattice.n_sites, 1)).double()
    return unpack(np.stack([domain_statistics(row, lattice, cutoff).numpy() for row in flat]))


def ising_quench(size, replicas, sweeps, seed):
    """Kinetic Ising model at T = 0 from a random start, checkerboard Glauber updates.

    Returns the times in sweeps and the fields ``[T, R, L, L]``.
    """
    rng = np.random.default_rng(seed)
    spins = rng.choice(np.array([-1, 1], np.int8), (replicas, size, size))
    colour = np.add.outer(np.arange(size), np.arange(size)) % 2
    kept = [0]
    frames = [spins.copy()]
    for sweep in range(1, sweeps + 1):
        for parity in (0, 1):
            field = sum(np.roll(spins, n, axis) for n in (1, -1) for axis in (1, 2))
            toss = rng.choice(np.array([-1, 1], np.int8), spins.shape)
            spins = np.where(colour == parity, np.sign(2 * field + toss), spins).astype(np.int8)
        if sweep >= 1.15 * kept[-1]:
            kept.append(sweep)
            frames.append(spins.copy())
    return np.array(kept, float), np.stack(frames)


# ---- lengths -----------------------------------------------------------------------------------


def test_lengths_of_plane_waves():
    """φ = cos(kx) and cos(ky): C = (1 + cos kr)/2 falls to ½ at a quarter wave; 1/L = k."""
    x = 2 * np.pi * np.arange(24) / 24
    fields = np.stack([np.cos(2 * x)[:, None] + 0 * x, np.cos(2 * x) + 0 * x[:, None]])[None]
    found = statistics(fields)
    C = ensemble_correlation(found)
    expected = 0.5 * (1 + np.cos(2 * x[:13]))
    assert np.abs(C[0] - expected).max() < 1e-14
    assert half_height(C)[0] == pytest.approx(24 / 8)
    wave = 2 * 2 * np.pi / 24
    assert structure_length(found.moments)[0] == pytest.approx(1 / wave)
    assert structure_length(found.low_moments)[0] == pytest.approx(1 / wave)
    assert found.products[0, :, 0] == pytest.approx([0.5, 0.5])
    assert found.means == pytest.approx(0, abs=1e-15)


def test_length_of_correlated_noise():
    """A Gaussian field of spectrum e^{−k²ξ²}: C = e^{−r²/4ξ²}, L½ = 2ξ√ln 2, 1/L = √π/2ξ."""
    rng, size, xi = np.random.default_rng(1), 96, 3.0
    k = 2 * np.pi * np.fft.fftfreq(size)
    filter_ = np.exp(-0.5 * xi**2 * np.add.outer(k**2, k**2))
    noise = rng.standard_normal((1, 60, size, size))
    fields = np.fft.ifft2(np.fft.fft2(noise) * filter_).real
    found = statistics(fields)
    half = bootstrap(lambda rows: half_height(ensemble_correlation(found, rows))[0], 60)
    first = bootstrap(lambda rows: structure_length(found.moments, rows)[0], 60)
    # Linear interpolation between r = 4 and 5 hides less than 0.02.
    assert half.value == pytest.approx(2 * xi * np.log(2) ** 0.5, abs=4 * half.error + 0.02)
    assert first.value == pytest.approx(2 * xi / np.pi**0.5, abs=4 * first.error)
    assert 0 < half.error < 0.05
    # White noise on top moves the full moment, not the one below the cutoff.
    loud = statistics(fields + 0.3 * fields.std() * rng.standard_normal(fields.shape))
    assert structure_length(loud.moments)[0] < 0.85 * structure_length(found.moments)[0]
    low = structure_length(found.low_moments)[0]
    assert structure_length(loud.low_moments)[0] == pytest.approx(low, rel=0.03)


def test_length_that_does_not_fit_the_box_is_unknown():
    found = statistics(np.ones((1, 2, 8, 8)))
    assert np.isnan(half_height(ensemble_correlation(found))).all()
    assert np.isnan(structure_length(found.moments)).all()
    assert np.abs(ensemble_correlation(found) - 1).max() < 1e-14


def test_observer_streams_the_statistics():
    """In a run it gives the samples of each replica; the density's local order is what it sees."""

    class Springs:
        def forces(self, fields, lattice):
            return {"Q": -fields["Q"]}

    from latticezoo.simulate import Langevin
    from latticezoo.simulate.observables import local_order

    lattice = square(8)
    start = initial.random(lattice, 3, amplitude=1.0, seed=2)
    result = simulate(
        Springs(),
        Langevin(0.1, 0.1, 0.2),
        start,
        20,
        lattice=lattice,
        observers=[DomainStatistics(10, source="Q")],
        progress=False,
    )
    series = result.observers["domains"]
    assert series.values.shape == (3, 3, 5 + 5)
    order = local_order(result.state.fields["Q"], lattice)
    assert np.abs(series.values[-1] - domain_statistics(order, lattice).numpy()).max() < 1e-14
    parts = unpack(series.values)
    assert parts.products.shape == (3, 3, 5)
    assert parts.means[-1] == pytest.approx(order.mean((1, 2)).numpy())


# ---- errors and fits ---------------------------------------------------------------------------


def test_bootstrap_gives_the_error_of_a_mean():
    values = np.random.default_rng(3).normal(2.0, 0.5, 400)
    found = bootstrap(lambda rows: values[rows].mean(), 400)
    assert found.value == values.mean()
    assert found.error == pytest.approx(0.5 / 20, rel=0.1)
    assert found.resamples.shape == (400,)
    again = bootstrap(lambda rows: values[rows].mean(), 400)
    assert (again.resamples == found.resamples).all()
    assert np.isnan(bootstrap(lambda rows: values[rows].mean(), 1).error)
    with pytest.raises(InputError, match="0 replicas"):
        bootstrap(lambda rows: 0.0, 0)


def test_bootstrap_of_lengths_that_are_sometimes_unknown():
    values = np.array([1.0, np.nan, 1.2, 1.1, 0.9, 1.0, 1.1, 1.0])
    found = bootstrap(lambda rows: values[rows[0]], 8)
    assert np.isfinite(found.error)
    assert np.isnan(bootstrap(lambda rows: np.nan, 8).error)


@pytest.mark.parametrize("exponent", [1 / 3, 0.5])
def test_exact_power_law(exponent):
    times = np.arange(0, 2001, 5.0)
    lengths = 1.7 * times**exponent
    fit = power_law(times, lengths, (20, 2000))
    assert fit.exponent == pytest.approx(exponent, abs=1e-12)
    assert fit.prefactor == pytest.approx(1.7)
    local = running_exponent(times, lengths, np.array([5.0, 20.0, 300.0, 1000.0, 1500.0]))
    assert local[1:4] == pytest.approx(exponent)
    assert np.isnan(local[[0, 4]]).all()
    assert np.isnan(power_law(times, lengths, (3000, 4000)).exponent)


def test_late_samples_do_not_outweigh_early_ones():
    """L² = L0² + t, exponent 0 early and ½ late: a fit evenly over ln t counts both."""
    times = np.arange(1.0, 10001.0)
    lengths = np.sqrt(100 + times)
    even = power_law(times, lengths, (1, 10000)).exponent
    crowded = np.polyfit(np.log(times), np.log(lengths), 1)[0]
    assert 0.15 < even < crowded - 0.15
    rows = geometric_rows(times, per_octave=2)
    assert rows[0] == 0
    assert rows[-1] == 9999
    assert 20 <= len(rows) <= 28


def test_collapse():
    """One function of r/L collapses; a second length scale does not."""
    distances, lengths = np.arange(65.0), np.array([3.0, 6.0, 12.0])
    x = distances / lengths[:, None]
    same = np.exp(-np.log(2) * x)
    found = collapse(same, lengths)
    assert found.residual < 2e-3  # linear interpolation at L = 3
    assert found.x[-1] == 3.0
    assert found.curves.shape == (3, 61)
    other = same.copy()
    other[2] = np.exp(-np.log(2) * x[2] ** 2)
    broken = collapse(other, lengths)
    assert broken.residual > 0.05
    assert broken.largest > 0.1
    assert collapse(same, lengths, reach=10).x[-1] == pytest.approx(64 / 12)
    with pytest.raises(InputError, match="two or more times"):
        collapse(same, np.array([3.0, np.nan, 2.0]))


def test_kinetic_ising_quench_grows_as_the_square_root_of_time():
    """T = 0 Glauber dynamics: L ~ t^½ (Allen–Cahn), and C(r, t) collapses."""
    times, fields = ising_quench(192, 6, 160, seed=5)
    found = statistics(fields)
    window = (10.0, 160.0)

    def exponent(rows):
        return power_law(times, half_height(ensemble_correlation(found, rows)), window).exponent

    fit = bootstrap(exponent, 6, samples=100)
    assert fit.error < 0.04
    assert fit.value == pytest.approx(0.5, abs=max(0.03, 3 * fit.error))
    lengths = half_height(ensemble_correlation(found))
    late = np.flatnonzero(times >= 10)[::4]
    assert lengths[late[-1]] > 8
    scaled = collapse(ensemble_correlation(found)[late], lengths[late])
    assert scaled.residual < 0.02
    early = collapse(ensemble_correlation(found)[[0, late[-1]]], lengths[[0, late[-1]]])
    assert early.residual > 2 * scaled.residual
