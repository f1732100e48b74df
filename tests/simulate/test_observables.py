"""Observables against direct sums, perfect patterns and symmetry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latticezoo.simulate.observables import (
    along_axes,
    correlation_function,
    correlation_length,
    correlation_map,
    kinetic_temperature,
    local_order,
    radial_average,
    staggered_order,
    structure_factor,
    wave_vectors,
)
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain, honeycomb, square, triangular

lattices = st.sampled_from([chain(7), chain(8), square(4), square(3, 6), triangular(5, 4)])


def random_values(lattice, batch=2, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, lattice.n_sites, channels)
    return torch.randn(shape, dtype=torch.float64, generator=generator) + 0.3


# ---- charge-density waves ----------------------------------------------------------------------


@pytest.mark.parametrize("lattice", [square(6), square(4, 8), chain(10)], ids=str)
def test_perfect_wave(lattice):
    """n = ½ ± δ: φ = 2δ everywhere, staggered order δ, S(π, π) = δ²; the other wave has −δ."""
    delta = 0.4
    density = 0.5 + delta * lattice.stagger[None, :, None] * torch.tensor([1, -1])[:, None, None]
    order = local_order(density, lattice)
    assert (order[0] - 2 * delta).abs().max() < 1e-15
    assert (order[1] + 2 * delta).abs().max() < 1e-15
    assert torch.equal(local_order(density - 0.5, lattice).round(decimals=14), order)
    assert staggered_order(density, lattice)[:, 0].tolist() == pytest.approx([delta, -delta])
    table = structure_factor(density, lattice)
    corner = tuple(size // 2 for size in lattice.shape)
    assert wave_vectors(lattice)[corner].abs().tolist() == pytest.approx([math.pi] * lattice.dim)
    assert table[(slice(None), *corner)].tolist() == pytest.approx([delta**2] * 2)
    assert table.flatten(1)[:, 0].tolist() == pytest.approx([0.25] * 2)
    assert table.sum() == pytest.approx(2 * (delta**2 + 0.25))


def test_local_order_by_hand():
    lattice = square(4)
    density = random_values(lattice)
    i = 5  # (1, 1), even sublattice: neighbours (2,1), (0,1), (1,2), (1,0)
    expected = density[:, i] - density[:, [9, 1, 6, 4]].mean(1)
    assert (local_order(density, lattice)[:, i] - expected).abs().max() < 1e-15
    expected = -(density[:, 6] - density[:, [10, 2, 7, 5]].mean(1))
    assert (local_order(density, lattice)[:, 6] - expected).abs().max() < 1e-15


# ---- structure factor --------------------------------------------------------------------------


@settings(max_examples=15)
@given(lattice=lattices, channels=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_structure_factor_is_the_direct_sum(lattice, channels, seed):
    values = random_values(lattice, 2, channels, seed)
    cells = torch.cartesian_prod(*[torch.arange(n) for n in lattice.shape])
    cells = cells.reshape(-1, lattice.dim).double()
    phases = torch.exp(1j * (wave_vectors(lattice).reshape(-1, lattice.dim) @ cells.T))
    amplitudes = torch.einsum("ki,bic->bkc", phases, values + 0j) / lattice.n_sites
    expected = amplitudes.abs().square().sum(-1).reshape(2, *lattice.shape)
    table = structure_factor(values, lattice)
    assert (table - expected).abs().max() < 1e-13
    # Parseval: the sum over k is the mean square.
    mean_square = values.square().sum(-1).mean(1)
    assert (table.flatten(1).sum(1) - mean_square).abs().max() < 1e-13


# ---- correlation functions ---------------------------------------------------------------------


def direct_correlations(values, lattice):
    """Means over r0 of φ(r0) φ(r0 + r), by rolling."""
    torus = values.reshape(len(values), *lattice.shape, -1)
    dims = tuple(range(1, 1 + lattice.dim))
    rows = [
        (torus * torch.roll(torus, tuple(-int(n) for n in shift), dims)).sum(-1).flatten(1).mean(1)
        for shift in torch.cartesian_prod(*[torch.arange(n) for n in lattice.shape]).reshape(
            -1, lattice.dim
        )
    ]
    return torch.stack(rows, 1).reshape(len(values), *lattice.shape)


@settings(max_examples=15)
@given(lattice=lattices, channels=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_correlation_map_is_the_direct_average(lattice, channels, seed):
    values = random_values(lattice, 3, channels, seed)
    products = direct_correlations(values, lattice)
    mean = values.mean(1).square().sum(-1)
    square_mean = values.square().sum(-1).mean(1)
    column = (-1,) + (1,) * lattice.dim
    expected = (products - mean.reshape(column)) / (square_mean - mean).reshape(column)
    found = correlation_map(values, lattice)
    assert (found - expected).abs().max() < 1e-12
    assert found.flatten(1)[:, 0].tolist() == pytest.approx([1, 1, 1])
    # The mean over all displacements of the connected function is zero.
    assert found.flatten(1).mean(1).abs().max() < 1e-13
    bare = correlation_map(values, lattice, connected=False)
    assert (bare - products / square_mean.reshape(column)).abs().max() < 1e-12
    # Over trajectories, each average is taken before they are combined.
    mean = values.mean((0, 1)).square().sum()
    expected = (products.mean(0) - mean) / (square_mean.mean() - mean)
    averaged = correlation_map(values, lattice, average_replicas=True)
    assert averaged.shape == (1, *lattice.shape)
    assert (averaged[0] - expected).abs().max() < 1e-12


def test_stripes_along_the_axes():
    """φ = cos(2πx/L): the average of cos(2πr/L) along x and of 1 along y."""
    lattice = square(12, 8)
    x = lattice.positions[:, 0]
    values = torch.cos(2 * math.pi * x / 12)[None, :, None]
    found = correlation_function(values, lattice)
    r = torch.arange(5, dtype=torch.float64)
    assert found.shape == (1, 5)
    assert (found[0] - 0.5 * (1 + torch.cos(2 * math.pi * r / 12))).abs().max() < 1e-14


def test_directions_of_the_triangular_lattice():
    """All three bond directions count: a wave that runs along two has C = 1 on the third."""
    lattice = triangular(12)
    k = 2 * math.pi / 12
    cells = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    # Phase steps k, k and 0 along a1, a2 and a2 − a1.
    values = torch.cos(k * cells.sum(1).double())[None, :, None]
    found = correlation_function(values, lattice)
    r = torch.arange(7, dtype=torch.float64)
    assert (found[0] - (2 * torch.cos(k * r) + 1) / 3).abs().max() < 1e-13


@pytest.mark.parametrize("lattice", [square(5), square(4, 6), triangular(6), chain(9)], ids=str)
def test_correlation_functions_do_not_see_symmetry_operations(lattice):
    values = random_values(lattice, 2)
    reference = correlation_function(values, lattice)
    if len(set(lattice.shape)) > 1:  # unequal sides: the axes are not alike, inversions are
        assert len(lattice.operations) == 4
    radial = radial_average(correlation_map(values, lattice), lattice)[1]
    for point in lattice.operations:
        moved = torch.empty_like(values)
        moved[:, lattice.permutation(point)] = values
        assert (correlation_function(moved, lattice) - reference).abs().max() < 1e-13
        table = correlation_map(moved, lattice)
        assert (radial_average(table, lattice)[1] - radial).abs().max() < 1e-13


def test_radial_average_of_the_square_lattice():
    lattice = square(6)
    table = torch.arange(36, dtype=torch.float64).reshape(1, 6, 6)
    distances, means = radial_average(table, lattice)
    squares = distances.square()
    assert squares.tolist() == pytest.approx([0, 1, 2, 4, 5, 8, 9, 10, 13, 18])
    # r = 1: (1, 0), (5, 0), (0, 1), (0, 5); r = √18: (3, 3) alone.
    assert means[0, 1].item() == pytest.approx((6 + 30 + 1 + 5) / 4)
    assert means[0, -1].item() == 21
    on_axis = along_axes(table, lattice)
    assert on_axis[0, 1] == means[0, 1]


def test_no_correlations_without_fluctuations():
    lattice = square(4)
    constant = 0.7 * torch.ones(1, 16, 1, dtype=torch.float64)
    assert correlation_map(constant, lattice).isnan().all()
    assert correlation_map(constant, lattice, connected=False).sub(1).abs().max() < 1e-14


# ---- correlation length ------------------------------------------------------------------------


def test_correlation_length_interpolates_to_half_maximum():
    line = torch.tensor([[1.0, 0.8, 0.6, 0.2, 0.7], [1.0, 0.5, 0.1, 0.0, 0.0]])
    assert correlation_length(line).tolist() == pytest.approx([2.25, 1.0])
    assert correlation_length(line, level=0.7)[0].item() == pytest.approx(1.5)
    never = torch.tensor([1.0, 0.9, 0.8])
    assert correlation_length(never).item() == math.inf
    assert correlation_length(torch.tensor([[math.nan, math.nan], [1.0, 0.0]]))[1] == 0.5
    assert correlation_length(torch.tensor([math.nan, math.nan])).isnan()
    with pytest.raises(InputError, match=r"level of a correlation length is 1\.5"):
        correlation_length(line, 1.5)


def test_correlation_length_of_a_wave_on_the_chain():
    """cos(2πr/L) falls to one half at r = L/6."""
    lattice = chain(60)
    values = torch.cos(2 * math.pi * lattice.positions / 60)[None]
    length = correlation_length(correlation_function(values, lattice))
    assert length.item() == pytest.approx(10, abs=1e-10)


# ---- momenta, refusals -------------------------------------------------------------------------


def test_kinetic_temperature():
    momenta = torch.tensor([[[1.0], [3.0]], [[0.0], [2.0]]])
    assert kinetic_temperature(momenta, 2.0).tolist() == [2.5, 1.0]
    with pytest.raises(InputError, match="mass is 0"):
        kinetic_temperature(momenta, 0)


def test_what_a_lattice_cannot_hold_is_named():
    with pytest.raises(InputError, match="odd period"):
        local_order(torch.zeros(1, 15, 1), square(3, 5))
    with pytest.raises(InputError, match="no two sublattices"):
        staggered_order(torch.zeros(1, 16, 1), triangular(4))
    with pytest.raises(InputError, match="one site per cell"):
        structure_factor(torch.zeros(1, 18, 1), honeycomb(3))
    with pytest.raises(InputError, match=r"shape \[1, 15\]"):
        structure_factor(torch.zeros(1, 15), square(4))
