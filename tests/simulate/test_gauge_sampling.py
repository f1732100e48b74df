"""Samplers of pure gauge theory against exact averages."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from latticezoo.simulate.gauge_algebras import ALGEBRAS, first_components
from latticezoo.simulate.gauge_sampling import GaugeSampler, _classes, mean_plaquette
from latticezoo.simulate.noise import generator
from latticezoo.simulate.statistics import blocked_error
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.gauge import check_links, plaquettes, polyakov_loop, staples, trace
from latticezoo.symmetry.lattices import square, triangular

GROUPS = ("Z2", "U1", "SU2")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
@pytest.mark.parametrize(
    ("lattice", "replicas", "sweeps"), [(square(3, 4), 64, 60), (square(8), 16, 60)]
)
def test_mean_plaquettes_are_exact(group, beta, lattice, replicas, sweeps):
    sampler = GaugeSampler(group, beta, seed=5)
    links = sampler.start(lattice, range(replicas))
    links = sampler.run(links, lattice, 30).links
    found = sampler.run(links, lattice, sweeps, first=30)
    # Z2 at large β moves slowly: a replica is one block there.
    error = blocked_error(found.plaquettes, sweeps if group == "Z2" else None)
    exact = mean_plaquette(group, beta, lattice.n_sites)
    assert error < 0.01 * exact
    assert abs(found.plaquettes.mean() - exact) <= 4 * max(error, 1e-4)
    check_links(found.links, lattice, group)
    again = trace(plaquettes(found.links, lattice)).real.mean(1)
    size = 2 if group == "SU2" else 1
    np.testing.assert_allclose(again.numpy() / size, found.plaquettes[-1], atol=1e-12)


def test_plaquettes_of_the_infinite_lattice():
    for group, beta, value in (
        ("Z2", 2.0, 0.964028),
        ("U1", 2.0, 0.697775),
        ("SU2", 2.0, 0.433127),
        ("U1", 1.0, 0.4464),
        ("SU2", 4.0, 0.6580),
    ):
        assert mean_plaquette(group, beta) == pytest.approx(value, abs=1e-4 if beta != 2 else 1e-6)
        assert mean_plaquette(group, beta, 10000) == pytest.approx(value, abs=1e-4)


def test_z2_sums_over_all_configurations_of_the_smallest_torus():
    lattice = square(2, 2)
    signs = 1.0 - 2.0 * ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).double()
    loops = plaquettes(signs.reshape(256, 4, 2), lattice)
    for beta in (0.3, 1.0):
        weights = torch.exp(beta * loops.sum(1))
        exact = float((weights * loops.mean(1)).sum() / weights.sum())
        assert mean_plaquette("Z2", beta, 4) == pytest.approx(exact, abs=1e-12)


def test_one_plaquette_of_u1_and_su2_by_quadrature():
    # The derivative of ln Σ c^V at V = 1 is that of one free plaquette with periodic holonomies.
    for group, beta in (("U1", 1.3), ("SU2", 2.5)):
        power = 0 if group == "U1" else 2

        def weight(x, power=power, beta=beta):
            return math.sin(x) ** power * math.exp(beta * math.cos(x))

        norm = integrate.quad(weight, 0, math.pi)[0]
        mean = integrate.quad(lambda x: math.cos(x) * weight(x), 0, math.pi)[0] / norm
        assert mean_plaquette(group, beta) == pytest.approx(mean, abs=1e-10)


def test_z2_starts_are_independent_draws_from_the_exact_distribution():
    lattice, beta = square(3, 4), 0.4
    links = GaugeSampler("Z2", beta, seed=1).start(lattice, range(4000))
    means = plaquettes(links, lattice).mean(1)
    error = float(means.std()) / math.sqrt(len(means))
    assert abs(float(means.mean()) - mean_plaquette("Z2", beta, 12)) < 4 * error
    for direction in (1, 2):
        loops = polyakov_loop(links, lattice, direction)[:, 0]
        assert abs(float(loops.mean())) < 4 / math.sqrt(len(loops))
    assert abs(float(links.mean())) < 4 / math.sqrt(links.numel())


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.69, 1.71, 8.0])
def test_the_first_component_of_su2_has_its_distribution(alpha):
    drawn = first_components(np.full((4, 20000), alpha), [generator(2, r) for r in range(4)])

    def moment(power):
        return integrate.quad(
            lambda a: a**power * math.sqrt(1 - a * a) * math.exp(alpha * (a - 1)), -1, 1
        )[0]

    for power in (1, 2):
        exact = moment(power) / moment(0)
        spread = math.sqrt(moment(2 * power) / moment(0) - exact**2)
        assert abs((drawn**power).mean() - exact) < 4 * spread / math.sqrt(drawn.size)


@pytest.mark.parametrize("group", GROUPS)
def test_a_replica_depends_on_its_number_and_sweep_alone(group):
    lattice = square(4, 5)
    sampler = GaugeSampler(group, 1.5, seed=9)
    start = sampler.start(lattice, (0, 1, 2))
    whole = sampler.run(start, lattice, 6)
    alone = sampler.run(start[1:2], lattice, 6, replicas=(1,))
    assert torch.equal(whole.links[1:2], alone.links)
    assert torch.equal(start[2:], sampler.start(lattice, (2,)))
    half = sampler.run(start, lattice, 2)
    rest = sampler.run(half.links, lattice, 4, first=2)
    assert torch.equal(rest.links, whole.links)


@pytest.mark.parametrize("group", ["U1", "SU2"])
def test_overrelaxation_keeps_the_action_and_turns_links(group):
    lattice = square(4, 3)
    links = GaugeSampler(group, 1.0, seed=3).start(lattice, range(2))
    algebra = ALGEBRAS[group]
    both = algebra.unpack(links.numpy(), lattice)
    for along, rows, around in _classes(algebra, *both):
        along[..., rows] = algebra.reflected(along[..., rows], around)
    moved = torch.from_numpy(algebra.pack(both))
    before, after = (trace(plaquettes(u, lattice)).real.sum(1) for u in (links, moved))
    torch.testing.assert_close(before, after)
    assert float((moved - links).abs().mean()) > 0.3


def test_staples_of_the_sampler_are_those_of_the_geometry():
    lattice = square(3, 4)
    links = GaugeSampler("SU2", 1.0, seed=3).start(lattice, range(2))
    algebra = ALGEBRAS["SU2"]
    both = algebra.unpack(links.numpy(), lattice)
    found = [np.empty_like(part) for part in both]
    for number, (_, rows, around) in enumerate(_classes(algebra, *both)):
        target = found[0] if number < 2 else found[1].swapaxes(-1, -2)
        target[..., rows] = around
    torch.testing.assert_close(torch.from_numpy(algebra.pack(found)), staples(links, lattice))


def test_refusals():
    lattice = square(4)
    with pytest.raises(InputError, match="unknown gauge group 'U2'"):
        GaugeSampler("U2", 1.0)
    with pytest.raises(InputError, match="beta is -1"):
        GaugeSampler("Z2", -1.0)
    with pytest.raises(InputError, match="sides of at least 2"):
        GaugeSampler("Z2", 1.0).start(triangular(4), (0,))
    with pytest.raises(InputError, match="not in the group U1"):
        GaugeSampler("U1", 1.0).run(2 * GaugeSampler("U1", 1.0).start(lattice, (0,)), lattice, 1)
