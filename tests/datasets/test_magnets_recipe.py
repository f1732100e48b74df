"""Data of itinerant magnets: exact labels, what is drawn, symmetry, refusals."""

import pytest
import torch

from latticezoo.datasets.labelled import LabelledData
from latticezoo.datasets.magnets import SETTINGS, ItinerantMagnet
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.module import evaluation_data
from latticezoo.datasets.registry import create_data, list_recipes
from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.run import simulate
from latticezoo.simulate.systems import create_system, from_parameters
from latticezoo.simulate.systems.sd_magnet import PRESETS
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.testing import assert_equivariant

TINY = {"lattice": 4, "random": 4, "trajectories": 2, "frames": 3, "last_time": 5.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("magnets") / "one.h5"
    made = make_dataset("sd_magnet", path=path, workers=1, progress=False, disturbed=1, **TINY)
    return LabelledData.open(made)


def test_labels_are_those_of_the_exact_system(data):
    system = create_system("sd_tetrahedral")
    assert from_parameters({"system": data.source.system, **data.source.parameters}) == system
    exact = system.labels(data.fields, data.lattice)
    assert set(data.labels) == set(exact)
    for name, values in exact.items():
        torch.testing.assert_close(values, data.labels[name], rtol=0, atol=1e-13)
    S, H = data.fields["S"], data.labels["perpendicular_field"]
    assert S.shape == (10, 16, 3)
    assert float((S.norm(dim=-1) - 1).abs().max()) < 1e-14
    assert float((S * H).sum(-1).abs().max()) < 1e-14
    # No torque on the whole without an external field.
    assert float(torch.linalg.cross(S, H).sum(1).abs().max()) < 1e-12


def test_the_file_states_the_symmetry_that_the_labels_have(data):
    assert data.task.internal == "SO3"
    assert data.task.flips == ("time_reversal",)
    assert data.task.tangent == (("perpendicular_field", "S"),)
    system = create_system("sd_tetrahedral")
    assert_equivariant(
        system.labels, data.task, data.lattice, fields={"S": data.fields["S"][:1]}, tolerance=1e-10
    )


def test_a_trajectory_is_what_the_simulator_gives(data):
    recipe = ItinerantMagnet(disturbed=1, **TINY)
    start = recipe.initial_state(1)
    dynamics = LLG(1.0, 0.0, 0.5)
    result = simulate(recipe.system, dynamics, start, 5, lattice=data.lattice, progress=False)
    torch.testing.assert_close(result.state.fields["S"][0], data.fields["S"][9], rtol=0, atol=1e-12)
    energy = data.labels["energy"]
    assert bool((energy[4:7].diff() < 0).all())  # damping lowers the energy
    assert bool((energy[7:].diff() < 0).all())


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_half_of_the_random_states_are_disturbed_order(preset):
    assert set(SETTINGS) == set(PRESETS)
    recipe = ItinerantMagnet(preset=preset, lattice=12, random=8, trajectories=0)
    states = torch.cat([recipe.configuration(number) for number in range(8)])
    assert float((states.norm(dim=-1) - 1).abs().max()) < 1e-14
    peaks = torch.fft.fft2(states.unflatten(1, (12, 12)), dim=(1, 2)).abs().square().sum(-1)
    share = peaks.flatten(1).amax(1) / peaks.flatten(1).sum(1)
    assert float(share[1::2].mean()) > 2 * float(share[0::2].mean())
    assert float(share[0::2].max()) < 0.08
    again = ItinerantMagnet(preset=preset, lattice=12, random=5, trajectories=0)
    assert torch.equal(again.configuration(3), states[3:4])


def test_twists_are_those_of_the_system():
    size = {"lattice": 12, "trajectories": 0}
    recipe = ItinerantMagnet(preset="sd_skyrmion", twists=2, temperature=0.1, **size)
    assert (recipe.system.twists, recipe.system.temperature) == (2, 0.1)
    one = ItinerantMagnet(preset="sd_skyrmion", **size)
    assert recipe.seconds_per_solve() == 4 * one.seconds_per_solve()


def test_the_data_module_serves_batches(tmp_path):
    assert "sd_magnet" in list_recipes()
    data = create_data(
        "sd_magnet",
        path=str(tmp_path / "m.h5"),
        workers=1,
        batch_size=2,
        preset="sd_square",
        **TINY,
    )
    data.prepare_data()
    data.setup()
    assert data.task.family == "square"
    batch = next(iter(data.train_dataloader()))
    assert batch["fields"]["S"].shape == (2, 16, 3)
    assert batch["targets"]["perpendicular_field"].dtype == torch.float32
    assert data.system == create_system("sd_square", backend="lapack")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"preset": "sd_tetrahedal"}, "sd_tetrahedral"),
        ({"disturbed": 3, "trajectories": 2}, "more than the 2 trajectories"),
        ({"ordered_share": 1.5}, "between 0 and 1"),
        ({"damping": 0.0}, "damping is 0.0"),
        ({"bath_temperature": -1.0}, "temperature is -1.0"),
        ({"lattice": "square(4, 4)"}, "triangular"),
        ({"lattice": 2}, "too small"),
        ({"frames": 100, "last_time": 5.0}, "frames is 100"),
        ({"first_time": 9.0, "last_time": 5.0}, "first_time is 9.0"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        ItinerantMagnet(**{**TINY, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("disturbed", "wanted"), [(0, 0), (6, 2), (2, 1), (1, 0)])
def test_evaluation_keeps_the_share_of_disturbed_order(disturbed, wanted):
    data = create_data("sd_magnet", lattice=4, random=5, trajectories=8, disturbed=disturbed)
    fresh = evaluation_data(data, lattice=6, random=2, trajectories=3)
    assert fresh.recipe.trajectories == 3
    assert fresh.recipe.disturbed == wanted
