"""Slabs of one lattice in several processes: the trajectory of one process."""

import math

import pytest
import torch
from harmonic_lattice import HarmonicLattice
from torch import distributed as dist
from torch import multiprocessing

from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.brownian import Brownian
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.noise import normal_like
from latticezoo.simulate.run import simulate
from latticezoo.simulate.slabs import Slab, rows_within, run_slabs
from latticezoo.simulate.systems.holstein import preset
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, chain, diamond, honeycomb, square, triangular

STEPS = 6


def learned(name, lattice, **options):
    """A network with random weights in the place of the electrons."""
    from latticezoo.zoo.registry import create_model

    torch.manual_seed(0)
    system = preset("holstein_weak")
    network = create_model(name, system.task(lattice.family), **options)
    return system.learned(network.double().eval())


def gcn(lattice):
    """A network that sees three bonds."""
    return learned("gcn", lattice, widths=[8, 8])


def cases():
    """Name, force field, dynamics, lattice and how far the force sees, None for what it says."""
    langevin = Langevin(0.1, temperature=0.2, damping=0.3)
    harmonic = HarmonicLattice(1.0, 0.1, 0.3)
    return [
        ("gcn", gcn(square(12, 6)), langevin, square(12, 6), None),
        ("energy_gnn", learned("energy_gnn", square(24, 5)), langevin, square(24, 5), None),
        ("overdamped", gcn(chain(12)), Brownian(0.05, temperature=0.2), chain(12), None),
        ("honeycomb", harmonic, langevin, honeycomb(6, 4), 1.0),
        ("diamond", harmonic, langevin, diamond(6, 3, 3), 1.0),
    ]


def start(lattice):
    return initial.random(lattice, 2, amplitude=1.0, seed=3)


def run_rank(rank, ranks, folder):
    """What each process does: all cases, in two legs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", world_size=ranks, rank=rank)
    found = {}
    for name, field, dynamics, lattice, radius in cases():
        state = start(lattice)
        for steps in (2, STEPS - 2):
            state = run_slabs(field, dynamics, state, steps, lattice=lattice, radius=radius)
        found[name] = (state.step, state.sites, dict(state.fields), dict(state.momenta))
    _, field, dynamics, lattice, _ = cases()[0]
    short = run_slabs(field, dynamics, start(lattice), STEPS, lattice=lattice, radius=2.0)
    found["short-sighted"] = (short.step, short.sites, dict(short.fields), dict(short.momenta))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_with_slabs_give_the_trajectory_of_one_process(tmp_path, ranks):
    multiprocessing.spawn(run_rank, (ranks, str(tmp_path)), nprocs=ranks)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    for name, field, dynamics, lattice, _ in cases():
        whole = simulate(field, dynamics, start(lattice), STEPS, lattice=lattice).state
        for table in found:
            step, sites, fields, momenta = table[name]
            assert step == STEPS
            assert sites is None
            for there, here in ((fields, whole.fields), (momenta, whole.momenta)):
                assert there.keys() == here.keys()
                for key, values in there.items():
                    torch.testing.assert_close(values, here[key], rtol=0, atol=1e-12)
    # A halo one row too narrow is seen: the agreement above is the halo's doing.
    reference = found[0]["gcn"][2]["Q"]
    assert (found[0]["short-sighted"][2]["Q"] - reference).abs().max() > 1e-9


def test_sites_of_a_slab_feel_the_noise_that_they_feel_in_the_whole():
    whole = normal_like(torch.zeros(2, 12, 3), 5, (0, 4), 7)
    part = normal_like(torch.zeros(2, 4, 3), 5, (0, 4), 7, sites=(6, 12))
    assert torch.equal(part, whole[:, 6:10])


@pytest.mark.parametrize(
    "lattice",
    [chain(8), square(8), triangular(8), honeycomb(6), diamond(4)],
    ids=lambda lattice: lattice.family,
)
@pytest.mark.parametrize("radius", [0.5, 1.0, math.sqrt(3), 2.0, 3.3])
def test_the_halo_holds_all_sites_within_the_radius(lattice, radius):
    """By distances: of sites in the first row of cells, to all cells of a large patch."""
    rows = rows_within(lattice, radius)
    reach = 5
    side = 2 * reach + 1
    patch = Lattice(lattice.family, (side,) * lattice.dim)
    cells = torch.cartesian_prod(*[torch.arange(side)] * lattice.dim).reshape(-1, lattice.dim)
    row = cells[:, 0].repeat_interleave(lattice.sublattices) - reach
    centre = patch.n_cells // 2 * lattice.sublattices
    here = patch.positions[centre : centre + lattice.sublattices]
    near = (torch.cdist(patch.positions, here) <= radius + 1e-9).any(1)
    assert int(row[near].abs().max()) == rows


@pytest.fixture
def alone(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/store", world_size=1, rank=0)
    yield
    dist.destroy_process_group()


def test_one_process_gives_the_bits_of_an_ordinary_run(alone):
    _, field, dynamics, lattice, _ = cases()[0]
    state = run_slabs(field, dynamics, start(lattice), STEPS, lattice=lattice)
    whole = simulate(field, dynamics, start(lattice), STEPS, lattice=lattice).state
    assert torch.equal(state.fields["Q"], whole.fields["Q"])
    assert torch.equal(state.momenta["Q"], whole.momenta["Q"])


def test_what_cannot_be_cut_is_refused(alone):
    lattice = square(12, 6)
    field, langevin = gcn(lattice), Langevin(0.1, 0.1, 0.2)
    with pytest.raises(InputError, match=r"square\(12, 6\) cannot be cut into 5 equal slabs"):
        Slab(lattice, 2, 0, 5)
    with pytest.raises(InputError, match="hold 3 rows each, fewer than the 4"):
        Slab(lattice, 4, 0, 4)
    with pytest.raises(InputError, match="not LLG"):
        run_slabs(field, LLG(0.1, 0.1, 0.1), start(lattice), 1, lattice=lattice)
    with pytest.raises(InputError, match="HarmonicLattice does not say how far it sees"):
        run_slabs(HarmonicLattice(), langevin, start(lattice), 1, lattice=lattice)
    with pytest.raises(InputError, match="has 72 sites, but square\\(12, 12\\) has 144"):
        run_slabs(field, langevin, start(lattice), 1, lattice=square(12))
    for radius in (None, 3.0):
        with pytest.raises(InputError, match="gcn keeps the number of particles"):
            run_slabs(
                learned("gcn", lattice, widths=[8], conserve=True),
                langevin,
                start(lattice),
                1,
                lattice=lattice,
                radius=radius,
            )


def test_slabs_need_a_process_group():
    with pytest.raises(InputError, match="init_process_group"):
        Slab.of(square(12), 2.0)
