"""Recipes of gauge backgrounds: what is in the samples, and that they are independent."""

import pytest
import torch

from latticezoo.datasets import create_data, create_recipe
from latticezoo.datasets.cache import recipe_hash
from latticezoo.datasets.registry import Unit
from latticezoo.simulate.gauge_sampling import mean_plaquette
from latticezoo.simulate.systems.gauge_fermions import TARGETS
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.gauge import check_links, plaquettes, trace, wilson_line
from latticezoo.symmetry.testing import assert_equivariant

SMALL = {"lattice": 4, "random": 3, "thermal": 5, "sweeps": 3}


@pytest.mark.parametrize("group", ["Z2", "U1", "SU2"])
def test_samples_hold_links_of_the_group_and_exact_labels(tmp_path, group):
    data = create_data(
        "gauge_fermions",
        group=group,
        lattice=4,
        target="bond,energy_per_site",
        random=12,
        thermal=12,
        spectrum=True,
        path=str(tmp_path / "links.h5"),
        workers=1,
        dtype="float64",
        options={"sweeps": 2},
    )
    data.setup()
    batch = next(iter(data.train_dataloader()))
    check_links(batch.fields["U"], data.lattice, group)
    exact = data.system.labels(batch.fields, data.lattice)
    for name in ("bond", "energy_per_site"):
        torch.testing.assert_close(batch.targets[name], exact[name])
    torch.testing.assert_close(batch.energy, exact["energy"])
    assert data.task == data.system.task("square", "bond,energy_per_site")
    assert set(TARGETS[group]) < set(data._data.labels)
    float32 = create_data("gauge_fermions", **{**data.hparams, "dtype": "float32"})
    float32.setup()
    batch = next(iter(float32.train_dataloader()))
    assert batch.fields["U"].dtype == (torch.float32 if group == "Z2" else torch.complex64)


def test_thermal_backgrounds_belong_to_their_beta():
    made = create_recipe("gauge_fermions", group="U1", lattice=8, random=0, thermal=8, betas="1,4")
    links = made.backgrounds(range(8), True)
    means = plaquettes(links, made.geometry).real.mean(1)
    for first, beta in ((0, 1.0), (1, 4.0)):
        assert float(means[first::2].mean()) == pytest.approx(mean_plaquette("U1", beta), abs=0.12)


def test_a_background_depends_on_seed_kind_and_number_alone():
    made = create_recipe("gauge_fermions", group="SU2", **SMALL)
    whole = made.run(Unit("thermal-00000", 4, 0, 4), lambda _: None)
    for number in range(4):  # 0 and 3 have one β and are made together
        alone = made.run(Unit(f"thermal-{number:05d}", 1, number, 1), lambda _: None)
        assert torch.equal(whole.fields["U"][number : number + 1], alone.fields["U"])
    first = made.run(Unit("random-00000", 3, 0, 3), lambda _: None)
    assert not torch.equal(first.fields["U"], whole.fields["U"][:3])
    assert len(whole.groups.unique()) == 4
    other = create_recipe("gauge_fermions", group="SU2", **SMALL, seed=1)
    assert not torch.equal(other.backgrounds([0], False), made.backgrounds([0], False))


@pytest.mark.parametrize("group", ["Z2", "U1", "SU2"])
def test_states_at_negative_beta_are_mirrored_ones(group):
    options = {"group": group, "lattice": "4,6", "random": 0, "thermal": 2, "sweeps": 3}
    there, here = (create_recipe("gauge_fermions", betas=b, **options) for b in ("-2", "2"))
    loops = [
        trace(plaquettes(made.backgrounds([1], True), made.geometry)).real for made in (there, here)
    ]
    torch.testing.assert_close(loops[0], -loops[1])
    check_links(there.backgrounds([1], True), there.geometry, group)
    with pytest.raises(InputError, match="needs an even first side"):
        create_recipe("gauge_fermions", betas="1,-2", **{**options, "lattice": "5,6"})


def test_a_mass_brings_the_sublattice_into_the_inputs():
    made = create_recipe("gauge_fermions", mass=0.5, **SMALL)
    data = made.run(made.units()[0], lambda _: None)
    assert torch.equal(data.fields["sublattice"][0, :, 0], made.geometry.stagger)
    with pytest.raises(InputError, match="odd side"):
        create_recipe("gauge_fermions", mass=0.5, **{**SMALL, "lattice": 5})


def test_loops_are_traces_round_rectangles():
    made = create_recipe("wilson_loops", lattice="4,6", random=0, thermal=2, sweeps=2, largest=3)
    data = made.run(made.units()[0], lambda _: None)
    loops = trace(plaquettes(data.fields["U"], made.geometry)).real / 2
    torch.testing.assert_close(data.labels["loop_1"].mean((1, 2)), loops.mean(1))
    torch.testing.assert_close(data.energy, (1 - loops).sum(1))
    # W = A B of a 2 × 1 loop in two plaquettes, which both begin at the site.
    links, lattice = data.fields["U"], made.geometry
    east = wilson_line(links, lattice, (1, 1, 2, -1, -2, -1))
    product = trace(east @ wilson_line(links, lattice, (1, 2, -1, -2))).real / 2
    turned = trace(wilson_line(links, lattice, (1, 2, 2, -1, -2, -2))).real / 2
    assert made.system.targets == ("loop_1", "loop_1x2", "loop_2", "loop_1x3", "loop_2x3", "loop_3")
    wide = data.labels["loop_1x2"].mean((1, 2))
    torch.testing.assert_close(wide, 0.5 * (product + turned).mean(1))
    task = made.system.task("square", ",".join(made.system.targets))
    assert_equivariant(made.system.labels, task, made.geometry, batch=1, n_random=8)
    with pytest.raises(InputError, match="must be smaller than its side 4"):
        create_recipe("wilson_loops", lattice=4)


def test_a_recipe_that_makes_other_labels_than_before_has_another_file(monkeypatch):
    made = create_recipe("wilson_loops", lattice=5)
    now = recipe_hash(made)
    monkeypatch.setattr(type(made), "revision", made.revision - 1)
    assert recipe_hash(made) != now


def test_runs_of_link_spins_keep_their_energy_and_split_by_run(tmp_path):
    options = {"dt": 0.05, "sweeps": 1}
    data = create_data(
        "quantum_link",
        lattice=2,
        target="link_field,energy_per_site",
        random=3,
        trajectories=3,
        frames=3,
        last_time=0.45,
        path=str(tmp_path / "runs.h5"),
        workers=1,
        dtype="float64",
        options=options,
        val_fraction=0.34,
        test_fraction=0.34,
    )
    data.setup()
    whole = data._data
    assert sorted(whole.step[whole.kind == 1].tolist()) == [3, 3, 3, 6, 6, 6, 9, 9, 9]
    assert len(whole.groups.unique()) == 6
    batch = next(iter(data.train_dataloader()))
    exact = data.system.labels(batch.fields, data.lattice)
    for name in ("link_field", "energy_per_site"):
        torch.testing.assert_close(batch.targets[name], exact[name])
    assert float(batch.fields["U"].abs().max()) <= 1 + 1e-6
    with pytest.raises(InputError, match="only 10 steps lie"):
        create_recipe("quantum_link", last_time=0.5, frames=11)
    with pytest.raises(InputError, match="bath_temperature is 0"):
        create_recipe("quantum_link", bath_temperature=0.0)


def test_refusals():
    for options, message in (
        ({"betas": "1,x"}, "give numbers with commas"),
        ({"betas": "1,inf"}, "beta is inf"),
        ({"group": "U2"}, "unknown gauge group 'U2'"),
        ({"random": 0, "thermal": 0}, "both 0"),
        ({"sweeps": 0}, "sweeps is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"lattice": "chain(4)"}, "square lattice"),
    ):
        with pytest.raises(InputError, match=message):
            create_recipe("gauge_fermions", **options)
    with pytest.raises(InputError, match="unknown target of Z2 fermions 'current'"):
        create_data("gauge_fermions", target="current")
