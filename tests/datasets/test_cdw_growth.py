"""Series of charge-density-wave order along quenches: recipe, data module, training on them."""

from dataclasses import replace

import pytest
import torch

from latticezoo.datasets.cdw_growth import CDWGrowth, CDWGrowthRuns, growth_task, half_order
from latticezoo.datasets.labelled import LabelledData
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.registry import create_data, create_recipe
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.run import simulate
from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square
from latticezoo.zoo import create_model
from latticezoo.zoo.testing import short_trainer

TINY = {"lattice": "square(4, 6)", "trajectories": 4, "frames": 7, "spacing": 1.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("growth")
    given = {**TINY, "dt": 0.25}
    return make_dataset("cdw_growth", path=folder / "d.h5", workers=1, progress=False, **given)


def test_frames_are_the_order_along_a_simulation(path):
    """Against a simulation from the same start with the same noise, densities solved anew."""
    data = LabelledData.open(path)
    recipe = CDWGrowthRuns(**TINY, dt=0.25)
    system, lattice = recipe.system, recipe.geometry
    assert data.lattice == lattice == square(4, 6)
    rows = data.trajectory == 2
    assert data.time[rows].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    dynamics = Langevin(0.25 * system.tau0, system.temperature, system.damping, system.mass)
    state, frames = recipe.initial_state(2), []
    for _ in range(8):
        state = simulate(system, dynamics, state, 4, lattice=lattice, progress=False).state
        density = system.labels(state.fields, lattice)["density"]
        frames.append(half_order(density, lattice))
    expected = torch.cat(frames)
    torch.testing.assert_close(data.fields["order"][rows], expected[:-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(data.labels["order"][rows], expected[1:], rtol=0, atol=1e-12)


def test_half_the_order_of_a_perfect_wave_is_its_amplitude():
    lattice = square(6)
    density = 0.5 + 0.3 * lattice.stagger[None, :, None]
    expected = torch.full((1, 36, 1), 0.3, dtype=torch.float64)
    torch.testing.assert_close(half_order(density, lattice), expected, rtol=0, atol=1e-15)


def test_the_order_is_a_scalar_and_odd_under_particle_hole():
    """The exact order of displacements that a point operation about a site moves, or flips."""
    system, lattice = create_system("holstein_weak"), square(4)
    Q = torch.randn(1, 16, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def order(given):
        return half_order(system.labels({"Q": given}, lattice)["density"], lattice)

    before = order(Q)
    torch.testing.assert_close(order(-Q), -before, rtol=0, atol=1e-12)
    for point in lattice.operations:
        where = lattice.permutation(point)
        moved, expected = torch.empty_like(Q), torch.empty_like(before)
        moved[:, where], expected[:, where] = Q, before
        torch.testing.assert_close(order(moved), expected, rtol=0, atol=1e-12)


def test_the_task_is_odd_only_where_particle_hole_holds():
    assert CDWGrowthRuns(**TINY).task == growth_task()
    assert CDWGrowthRuns(**TINY, filling=0.4).task == growth_task(odd=False)


def test_it_is_made_again_from_its_options():
    recipe = CDWGrowthRuns(**TINY)
    assert create_recipe("cdw_growth", **recipe.options()) == recipe
    assert replace(recipe, lattice=4).times == recipe.times


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lattice": 5}, "odd"),
        ({"random": 3}, "a series has no random configurations"),
        ({"spacing": 1.1}, "spacing is 1.1; it must be a whole number of time steps"),
        ({"first_time": 0.3}, "first_time is 0.3"),
        ({"last_time": 3.0}, "last_time is 3.0"),
        ({"spacing": -1.0}, "spacing is -1.0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        CDWGrowthRuns(**{**TINY, **options})


def test_an_echo_state_network_trains_on_it_like_any_other(path, tmp_path):
    data = create_data(
        "cdw_growth",
        **TINY,
        path=str(path),
        window=6,
        scored=3,
        val_fraction=0.25,
        test_fraction=0.25,
        options={"dt": 0.25},
    )
    assert isinstance(data, CDWGrowth)
    assert data.frame_time == 1.0
    network = create_model("echo_state", data.task, shells=2, nodes=20, washout=3)
    trainer = short_trainer(tmp_path, max_epochs=10)
    trainer.fit(network, datamodule=data)
    assert trainer.current_epoch == 1
    assert float(trainer.callback_metrics["val/rmse"]) < 1.0
    assert float(network.residual_spread()["order"]) > 0
    assert_next_frame_moves_along(network, data)


def assert_next_frame_moves_along(network, data):
    """Point operations about a site, on what training left."""
    lattice, series = data.lattice, data.runs("test")["order"].float()
    with torch.no_grad():
        before = network({"order": series}, lattice)["order"]
        for point in lattice.operations:
            where = lattice.permutation(point)
            moved, expected = torch.empty_like(series), torch.empty_like(before)
            moved[:, :, where], expected[:, :, where] = series, before
            found = network({"order": moved}, lattice)["order"]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
