"""The Jahn–Teller recipe and data module: exact labels, distribution, tasks, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from latticezoo.datasets.cache import recipe_hash
from latticezoo.datasets.jahn_teller import AMPLITUDES, BACKGROUNDS, JahnTellerSquare
from latticezoo.datasets.jahn_teller_module import JahnTeller
from latticezoo.datasets.labelled import LabelledData
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.module import evaluation_data
from latticezoo.datasets.registry import create_data, list_data, list_recipes
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.run import simulate
from latticezoo.simulate.systems import create_system, from_parameters
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square
from latticezoo.symmetry.testing import assert_equivariant

TINY = {
    "lattice": 4,
    "random": 6,
    "trajectories": 3,
    "frames": 3,
    "last_time": 2.0,
    "first_time": 0.5,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jahn_teller")


@pytest.fixture(scope="module")
def data(folder):
    path = folder / "one.h5"
    made = make_dataset("jahn_teller_square", path=path, workers=1, progress=False, **TINY)
    return LabelledData.open(made)


def test_labels_are_those_of_the_exact_system(data):
    system = create_system("jahn_teller_half_filled")
    exact = system.labels(data.fields, data.lattice)
    assert set(data.labels) == {*exact, "electronic_energy"}
    for name, values in exact.items():
        assert torch.equal(values, data.labels[name]), name
    forces = system.forces(data.fields, data.lattice)["Q"] / 1.25
    assert (forces - data.labels["scaled_force"]).abs().max() < 1e-14
    # f^A = ⟨n⟩ − n0 − βK Q^A/λ, f^E = ⟨τ⟩ − K Q^E/λ
    stiffness = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64) / system.Q0
    expected = data.labels["orbital"] - stiffness * data.fields["Q"]
    assert (data.labels["scaled_force"] - expected).abs().max() < 1e-14
    elastic = system.elastic_energy(data.fields, data.lattice)
    assert torch.equal(data.labels["electronic_energy"], data.energy - elastic)
    assert data.fields["Q"].shape == (15, 16, 3)


def test_the_file_says_how_its_labels_transform(data):
    """All labels of the file, not the target alone, have the types that it states."""
    system = from_parameters({"system": data.source.system, **data.source.parameters})
    assert system == create_system("jahn_teller_half_filled")
    labels = ("scaled_force", "orbital")
    assert all(data.types[name].point == "2xA1+B1" for name in labels)
    assert all(data.types[name].odd == ("particle_hole",) for name in labels)
    task = replace(data.task, targets=tuple(data.types[name] for name in labels))
    assert_equivariant(system.labels, task, data.lattice, fields={"Q": data.fields["Q"][:2]})


def test_a_quench_is_what_the_simulator_gives(data):
    recipe = JahnTellerSquare(**TINY)
    system = recipe.system
    dynamics = Langevin(0.05 * system.tau0, system.temperature, system.damping, system.mass)
    start = recipe.initial_state(1)
    result = simulate(system, dynamics, start, 40, lattice=data.lattice, progress=False)
    assert torch.equal(result.state.fields["Q"][0], data.fields["Q"][11])
    assert data.trajectory.tolist() == [-1] * 6 + [0] * 3 + [1] * 3 + [2] * 3
    assert data.step[6:9].tolist() == [10, 20, 40]
    top = start.fields["Q"].abs().amax((0, 1)) / system.Q0
    assert (top <= torch.tensor([0.5, 1.0, 1.0])).all()
    assert (top > torch.tensor([0.4, 0.8, 0.8])).all()


def test_random_configurations_have_the_stated_distribution():
    recipe = JahnTellerSquare(lattice=8, random=200)
    sample = np.stack([recipe.configuration(n) for n in range(200)]) / recipe.system.Q0
    stagger = square(8).stagger.numpy()
    plain, ordered = sample[0::2], sample[1::2]  # every second lies on a background
    low, high = AMPLITUDES
    largest = np.abs(plain).max(1)
    for mode, weight in enumerate((0.5, 1.0, 1.0)):
        assert weight * low * 0.8 < largest[:, mode].min() < weight * (low + 0.1)
        assert weight * (high - 0.15) < largest[:, mode].max() <= weight * high
    strength = (ordered * stagger[:, None]).mean(1)
    assert np.abs(strength[:, :2]).max() < 0.3
    assert np.abs(strength[:, 2]).mean() == pytest.approx(sum(BACKGROUNDS) / 2, abs=0.05)
    assert 0.35 < (strength[:, 2] > 0).mean() < 0.65
    again = JahnTellerSquare(lattice=8, random=7, trajectories=0)
    assert np.array_equal(again.configuration(5), recipe.configuration(5))


def test_options_reach_the_system_and_the_hash():
    recipe = JahnTellerSquare(
        preset="jahn_teller_doped", temperature=0.05, beta=1.5, g=1.0, lattice="4,8"
    )
    system = recipe.system
    assert (system.filling, system.temperature, system.beta, system.g) == (0.49, 0.05, 1.5, 1.0)
    assert recipe.geometry == square(4, 8)
    assert recipe.task.flips == ()
    odd = JahnTellerSquare(lattice="4,5", staggered_fraction=0.0)
    assert odd.task.flips == ()
    variants = [{}, {"beta": 1.5}, {"filling": 0.45}, {"seed": 1}, {"preset": "jahn_teller_doped"}]
    hashes = {recipe_hash(JahnTellerSquare(**options)) for options in variants}
    assert len(hashes) == len(variants)
    assert "jahn_teller_square" in list_recipes()


def test_the_data_module(folder, data):
    options = {**TINY, "path": str(folder / "one.h5"), "batch_size": 2}
    module = create_data("jahn_teller", **options, dtype="float64")
    assert isinstance(module, JahnTeller)
    assert "jahn_teller" in list_data()
    assert module.task == create_system("jahn_teller_half_filled").task()
    assert module.lattice == square(4)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert batch["fields"]["Q"].shape == batch["targets"]["scaled_force"].shape == (2, 16, 3)
    assert sum(sum(sizes.values()) for sizes in module.split_sizes.values()) == len(data)
    statistics = module.statistics()["targets"]["scaled_force"]
    assert statistics["std"].shape == (3,)
    # Another target and the doped task come from the same options.
    orbital = JahnTeller(**options, target="orbital", odd_symmetry=False)
    assert orbital.task.flips == ()
    orbital.setup()
    assert torch.equal(orbital.data.targets["orbital"], data.labels["orbital"])
    assert JahnTeller(preset="jahn_teller_doped").task.flips == ()
    fresh = evaluation_data(module, random=1, trajectories=1)
    assert isinstance(fresh, JahnTeller)
    assert fresh.recipe.seed != module.recipe.seed
    assert JahnTeller(options={"dt": 0.1, "beta": 1.0}).system.beta == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "jahn_teller_halffilled"}, "did you mean jahn_teller_half_filled"),
        ({"preset": "holstein_weak"}, "unknown Jahn–Teller preset 'holstein_weak'"),
        ({"lattice": 5}, r"square\(5, 5\) has an odd period"),
        ({"lattice": "chain(8)"}, "is for the square lattice"),
        ({"lattice": 2}, "too small for nearest-neighbour hopping"),
        ({"beta": 0.0}, "beta is 0.0; it must be positive"),
        ({"filling": 1.0}, "filling is 1.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"random": 0, "trajectories": 0}, "both 0"),
        ({"frames": 2000}, "frames is 2000, but only"),
        ({"start_amplitude": 0.0}, "start_amplitude is 0.0"),
    ],
)
def test_bad_options_are_refused_at_once_in_one_sentence(options, words):
    with pytest.raises(InputError, match=words) as caught:
        JahnTellerSquare(**options)
    assert "\n" not in str(caught.value)


def test_bad_options_of_the_data_module():
    with pytest.raises(InputError, match="did you mean scaled_force"):
        JahnTeller(target="scaled_forces")
    with pytest.raises(InputError, match="did you mean trajectories"):
        create_data("jahn_teller", trajectorys=3)
    with pytest.raises(InputError, match="did you mean jahn_teller"):
        create_data("jahn_tellers")
