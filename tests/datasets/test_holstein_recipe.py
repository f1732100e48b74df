"""The Holstein recipes: exact labels, the stated distribution, reproducible quenches."""

import numpy as np
import pytest
import torch

from latticezoo.datasets.cache import recipe_hash
from latticezoo.datasets.file import LabelledData
from latticezoo.datasets.holstein import (
    AMPLITUDES,
    BACKGROUNDS,
    HolsteinChain,
    HolsteinSquare,
)
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.quenches import parse_lattice
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.run import simulate
from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain, square

TINY = {"lattice": 4, "random": 8, "trajectories": 2, "frames": 4, "last_time": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("holstein")


@pytest.fixture(scope="module")
def data(folder):
    path = make_dataset(
        "holstein_square", path=folder / "one.h5", workers=1, progress=False, **TINY
    )
    return LabelledData.open(path)


def test_the_number_of_processes_does_not_change_a_bit(data, folder):
    path = make_dataset(
        "holstein_square", path=folder / "two.h5", workers=2, progress=False, **TINY
    )
    assert path.read_bytes() == (folder / "one.h5").read_bytes()


def test_labels_are_those_of_the_exact_system(data):
    system = create_system("holstein_weak")
    exact = system.labels(data.fields, data.lattice)
    for name, values in exact.items():
        assert torch.equal(values, data.labels[name]), name
    assert torch.equal(system.forces(data.fields, data.lattice)["Q"], data.labels["force"])
    Q, excess = data.fields["Q"], data.labels["density"]
    force = 1.5 * excess - 1.005 * Q - 0.18 * data.lattice.neighbour_sum(Q)
    torch.testing.assert_close(data.labels["force"], force, rtol=0, atol=1e-12)
    # What remains of the energy without springs has the slope −g (n − ½).
    elastic = 0.5 * 1.005 * (Q**2).sum((1, 2))
    elastic += 0.5 * 0.18 * (Q * data.lattice.neighbour_sum(Q)).sum((1, 2))
    torch.testing.assert_close(data.labels["electronic_energy"], data.energy - elastic)


def test_the_density_is_the_slope_of_the_electronic_energy(data):
    recipe, step = HolsteinSquare(**TINY), 1e-5
    Q = data.fields["Q"][:1].repeat(2, 1, 1)
    Q[0, 5] += step
    Q[1, 5] -= step
    labels = recipe._labelled(Q, lambda solved: None).labels
    up, down = labels["electronic_energy"].tolist()
    slope = -(up - down) / (2 * step)
    assert slope == pytest.approx(1.5 * float(data.labels["density"][0, 5, 0]), abs=1e-7)


def test_samples_come_in_order_with_their_kind(data):
    assert data.kind.tolist() == [0] * 8 + [1] * 8
    assert data.trajectory.tolist() == [-1] * 8 + [0] * 4 + [1] * 4
    assert data.frame.tolist() == [*range(8), *range(4), *range(4)]
    assert data.step[8:12].tolist() == [10, 14, 21, 30]
    assert data.time[8:12].tolist() == pytest.approx([1.0, 1.4, 2.1, 3.0])


def test_a_quench_is_what_the_simulator_gives(data):
    recipe = HolsteinSquare(**TINY)
    system = recipe.system
    dynamics = Langevin(0.1 * system.tau0, system.temperature, system.damping, system.mass)
    result = simulate(
        system, dynamics, recipe.initial_state(1), 30, lattice=data.lattice, progress=False
    )
    assert torch.equal(result.state.fields["Q"][0], data.fields["Q"][-1])
    assert float(recipe.initial_state(1).fields["Q"].abs().max()) <= system.Q0


def test_no_simulation_with_the_same_seed_repeats_the_training_data(data):
    from latticezoo.simulate import initial

    recipe = HolsteinSquare(**TINY)
    other = initial.random(data.lattice, (0,), amplitude=recipe.system.Q0, seed=recipe.seed)
    assert not torch.equal(other.fields["Q"], recipe.initial_state(0).fields["Q"])


def test_random_configurations_have_the_stated_distribution():
    recipe = HolsteinSquare(lattice=8, random=400)
    sample = np.stack([recipe.configuration(n)[:, 0] for n in range(400)]) / recipe.system.Q0
    stagger = square(8).stagger.numpy()
    plain, ordered = sample[0::2], sample[1::2]  # every second lies on a background
    largest = np.abs(plain).max(1)
    low, high = AMPLITUDES
    # A is uniform in (low, high); the largest of 64 uniform numbers is near A.
    assert low * 0.8 < largest.min() < low + 0.1
    assert high - 0.15 < largest.max() <= high
    assert largest.mean() == pytest.approx((low + high) / 2, abs=0.08)
    assert np.abs((plain * stagger).mean(1)).max() < 0.6
    strength = (ordered * stagger).mean(1)
    assert np.abs(strength).mean() == pytest.approx(sum(BACKGROUNDS) / 2, abs=0.1)
    assert 0.4 < (strength > 0).mean() < 0.6
    residue = ordered - strength[:, None] * stagger
    assert np.abs(residue.mean(1)).max() < 0.6


def test_random_configurations_do_not_depend_on_their_number_or_block():
    few, many = HolsteinSquare(**TINY), HolsteinSquare(**{**TINY, "random": 100})
    assert np.array_equal(few.configuration(3), many.configuration(3))
    assert not np.array_equal(few.configuration(3), few.configuration(5))


def test_units_cover_the_samples_once():
    for options in ({}, {"random": 0}, {"trajectories": 0}, {"random": 37, "lattice": 24}):
        recipe = HolsteinSquare(**options)
        random = [unit for unit in recipe.units() if unit.name.startswith("random")]
        numbers = [n for unit in random for n in range(unit.first, unit.first + unit.count)]
        assert numbers == list(range(recipe.random))
        assert recipe.samples == recipe.random + recipe.trajectories * recipe.frames
        assert len({unit.name for unit in recipe.units()}) == len(recipe.units())


def test_frames_lie_on_a_rising_geometric_grid():
    steps = HolsteinSquare().frame_steps()
    assert steps[0] == 10
    assert steps[-1] == 400
    assert len(steps) == 20
    ratios = np.array(steps[1:]) / np.array(steps[:-1])
    assert (ratios > 1).all()
    assert np.allclose(ratios[8:], (400 / 10) ** (1 / 19), rtol=0.05)
    # Frames crowd at first where the grid is finer than a step.
    assert HolsteinSquare(first_time=0.0, frames=20, last_time=2.0).frame_steps() == [*range(1, 21)]
    assert HolsteinSquare(frames=1).frame_steps() == [400]


def test_the_chain_and_set_b():
    recipe = HolsteinChain()
    assert recipe.geometry == chain(64)
    assert recipe.task.name == "holstein_chain"
    strong = HolsteinSquare(preset="holstein_strong", lattice=6, trajectories=1)
    assert (strong.start, strong.first_time) == ("hot", 5.0)
    state = strong.initial_state(0)
    # The authors' hot start: variances 5/kappa and, for velocities, 5/m.
    assert float(state.fields["Q"].var()) == pytest.approx(5 / 0.18, rel=0.5)
    assert float((state.momenta["Q"] / 5.0).var()) == pytest.approx(5 / 5.0, rel=0.5)
    unit = HolsteinChain(lattice=8, random=2, trajectories=0).units()[0]
    block = HolsteinChain(lattice=8, random=2, trajectories=0).run(unit, lambda solved: None)
    assert block.fields["Q"].shape == (2, 8, 1)


def test_the_hash_tells_options_apart():
    variants = [{}, {"temperature": 0.2}, {"g": 1.6}, {"seed": 1}, {"lattice": 14}, {"frames": 5}]
    assert len({recipe_hash(HolsteinSquare(**options)) for options in variants}) == len(variants)
    assert recipe_hash(HolsteinSquare(lattice="square(12)")) == recipe_hash(HolsteinSquare())


def test_odd_sides_have_no_particle_hole_symmetry():
    recipe = HolsteinSquare(lattice="5,6", staggered_fraction=0.0)
    assert recipe.task.flips == ()
    assert HolsteinSquare().task.flips == ("particle_hole",)
    assert HolsteinSquare(filling=0.4).task.flips == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lattice": 5}, r"square\(5, 5\) has an odd period"),
        ({"lattice": "4,5"}, r"square\(4, 5\) has an odd period"),
        ({"lattice": 2}, "square"),
        ({"lattice": 0}, "size is 0"),
        ({"lattice": -4}, "size is -4"),
        ({"lattice": "chain(8)"}, "is for the square lattice"),
        ({"lattice": "hexagonal(4)"}, "unknown lattice 'hexagonal'"),
        ({"lattice": 4.5}, "lattice is 4.5"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"kappa": 0.3}, r"needs k > 4 \|kappa\|"),
        ({"k": -1.0}, "k is -1.0"),
        ({"preset": "holstein_week"}, "did you mean holstein_weak"),
        ({"random": -1}, "random is -1"),
        ({"trajectories": -2}, "trajectories is -2"),
        ({"frames": 0}, "frames is 0"),
        ({"random": 0, "trajectories": 0}, "both 0"),
        ({"frames": 500}, "frames is 500, but only 391 steps"),
        ({"first_time": 50.0}, "first_time is 50.0"),
        ({"last_time": float("nan")}, "last_time is nan"),
        ({"dt": 0.0}, "dt is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1 << 63}, r"below 2\^63"),
        ({"staggered_fraction": 1.5}, "staggered_fraction is 1.5"),
        ({"start": "cold"}, "unknown start of a quench 'cold'"),
        ({"start_amplitude": -1.0}, "start_amplitude is -1.0"),
        ({"start": "hot", "kappa": 0.0}, "needs kappa > 0"),
    ],
)
def test_bad_options_are_refused_at_once_in_one_sentence(options, words):
    with pytest.raises(InputError, match=words) as caught:
        HolsteinSquare(**options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", "?"))


def test_lattices_are_read_in_every_form():
    for given in (12, "12", " 12", "12,12", "12x12", "square(12)", "square(12, 12)", square(12)):
        assert parse_lattice(given, "square") == square(12)
    assert parse_lattice("4x6", "square") == square(4, 6)
    with pytest.raises(InputError):
        parse_lattice("", "square")
