"""The networks on spins beside lattice_enn: the shared suite, closed forms, refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import equivariance_error
from latticezoo.zoo import create_model
from latticezoo.zoo.group_average import symmetrize
from latticezoo.zoo.testing import Batches, Case, ZooModelTests, perturb, short_trainer

SPIN = Field("S", internal="1x1e", odd=("time_reversal",))
FIELD = Field("field", internal="1x1e", odd=("time_reversal",))
DESCRIPTOR = {"bond_radius": 1.5, "pair_radius": 1.5, "widths": [8, 6], "smooth": 0.2}
GRAPH = {"widths": [6, 6], "shells": 1, "range_shells": 2}
CNN = {"channels": 4, "blocks": 1}
SMALL = {"descriptor_mlp": DESCRIPTOR, "gcn": GRAPH, "energy_gnn": GRAPH, "spin_cnn": CNN}
GOLDEN = Path(__file__).parent / "golden_spins.json"
CONSERVATIVE = ("descriptor_mlp", "energy_gnn")


def spins(family):
    """Unit vectors and the perpendicular fields on them."""
    return Task(
        f"spins_{family}",
        (SPIN,),
        (FIELD,),
        family,
        ("time_reversal",),
        internal="SO3",
        conservative=(("field", "S"),),
        tangent=(("field", "S"),),
    )


OTHERS = (
    replace(spins("square"), tangent=()),
    Task("pair", (Field("S", internal="2x1e"),), (FIELD,), "square", internal="SO3"),
    replace(spins("square"), inputs=(replace(SPIN, odd=()),)),
)


class TestDescriptor(ZooModelTests):
    model = "descriptor_mlp"
    cases = (
        Case(spins("triangular"), (triangular(4),), DESCRIPTOR),
        Case(spins("square"), (square(5), square(3, 4)), {**DESCRIPTOR, "pair_radius": 1.0}),
        Case(spins("honeycomb"), (honeycomb(3),), {**DESCRIPTOR, "bond_radius": 1.8}),
    )
    unsuitable = OTHERS
    too_small = (triangular(2), triangular(6, 2))
    golden = GOLDEN


class TestGraph(ZooModelTests):
    model = "gcn"
    cases = (
        Case(spins("triangular"), (triangular(4),), GRAPH),
        Case(spins("square"), (square(3, 4), square(3)), {**GRAPH, "aggregation": "sum"}),
        Case(spins("honeycomb"), (honeycomb(3),), {**GRAPH, "residual": False, "shells": 2}),
    )
    unsuitable = OTHERS
    too_small = (triangular(2), triangular(6, 2))
    golden = GOLDEN


class TestEnergyGraph(ZooModelTests):
    model = "energy_gnn"
    cases = (
        Case(spins("triangular"), (triangular(4),), GRAPH),
        Case(spins("square"), (square(3, 4), square(3)), {**GRAPH, "normalization": "layer"}),
        Case(spins("honeycomb"), (honeycomb(3),), {**GRAPH, "widths": [6], "shells": 3}),
    )
    unsuitable = (*OTHERS, replace(spins("square"), conservative=()))
    too_small = (triangular(2), triangular(6, 2))
    golden = GOLDEN


class TestConvolutions(ZooModelTests):
    model = "spin_cnn"
    cases = (
        Case(spins("triangular"), (triangular(5), triangular(5, 6)), {**CNN, "hexagonal": True}),
        Case(spins("square"), (square(5), square(7, 5)), CNN),
    )
    unsuitable = (*OTHERS, spins("honeycomb"))
    too_small = (triangular(4), triangular(6, 4))
    golden = GOLDEN


def unit_spins(lattice, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, lattice.n_sites, 3, dtype=torch.float64, generator=generator)
    return F.normalize(values, dim=-1)


def build(name, family="triangular", **options):
    torch.manual_seed(0)
    return perturb(create_model(name, spins(family), **SMALL[name], **options).double()).eval()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_fields_are_perpendicular_to_the_spins(name):
    lattice = triangular(5)
    S = unit_spins(lattice)
    found = build(name)({"S": S}, lattice)["field"]
    assert float((found * S).sum(-1).abs().max()) < 1e-13
    assert float(found.abs().mean()) > 1e-3


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_torques_of_an_energy_add_up_to_zero(name):
    """Σ S × H = 0 follows from the invariance of the energy under rotations of all spins."""
    lattice = triangular(5)
    S = unit_spins(lattice)
    network = build(name)
    torque = torch.linalg.cross(S, network({"S": S}, lattice)["field"])
    assert float(torque.sum(1).abs().max()) < 1e-12 < 1e-3 < float(torque.abs().max())
    # And the energy does not depend on which way time goes.
    energy = network.energy({"S": S}, lattice)
    torch.testing.assert_close(network.energy({"S": -S}, lattice), energy, rtol=1e-12, atol=0)


def pair_fields(S, lattice, couplings):
    sums = [S[:, lattice.neighbours(shell + 1)].sum(2) for shell in range(len(couplings))]
    found = sum(J * total for J, total in zip(couplings, sums, strict=True))
    return found - (found * S).sum(-1, keepdim=True) * S


def test_a_graph_without_change_is_pair_exchange():
    """w = 0 leaves J_s: exactly the direct field, and the derivative of the energy."""
    lattice, couplings = triangular(5), [0.7, -0.4]
    S = unit_spins(lattice)
    for name in ("gcn", "energy_gnn"):
        torch.manual_seed(0)
        network = create_model(name, spins("triangular"), **GRAPH).double().eval()
        with torch.no_grad():
            network.network.change.zero_()
            network.network.exchange.copy_(torch.tensor(couplings))
        found = network({"S": S}, lattice)["field"]
        torch.testing.assert_close(found, pair_fields(S, lattice, couplings))


def test_the_descriptor_holds_pair_exchange_in_its_linear_part():
    lattice, options = triangular(5), {**DESCRIPTOR, "bond_radius": 1.8, "pair_radius": 0.0}
    network = create_model("descriptor_mlp", spins("triangular"), **options).double().eval()
    torch.nn.init.zeros_(network.network.layers[-1].weight)
    names = network.descriptor.feature_names
    with torch.no_grad():  # the first two features: sums over a shell, over the root of six
        assert [name.endswith("value") for name in names[:3]] == [True, True, False]
        network.exchange.weight[0, :2] = torch.tensor([0.7, -0.4])
    S = unit_spins(lattice)
    # Every pair is seen from both its ends, E = Σ_i Σ_j w b_ij / √6.
    couplings = [-2 * 0.7 / 6**0.5, 2 * 0.4 / 6**0.5]
    found = network({"S": S}, lattice)["field"]
    torch.testing.assert_close(found, pair_fields(S, lattice, couplings))


@pytest.mark.parametrize(
    ("name", "preset", "parameters"),
    [
        ("descriptor_mlp", "compact", 18_914),
        ("descriptor_mlp", "paper", 6_504_577 + (2575 - 1806) * 2048 + 2575),
        ("gcn", "compact", 11_547),
        ("energy_gnn", "compact", 11_547),
        ("spin_cnn", "compact", 107_491),
        ("spin_cnn", "paper", 829_635),  # itinerant-magnet sheet, section 5a
    ],
)
def test_presets_have_the_stated_sizes(name, preset, parameters):
    network = create_model(name, spins("triangular"), preset=preset)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


def test_lattice_enn_on_spins_is_conservative_or_direct():
    presets = ("compact", "direct_spins")
    kinds = [create_model("lattice_enn", spins("triangular"), preset=name) for name in presets]
    assert [hasattr(network, "energy") for network in kinds] == [True, False]
    layers = [{**network.options, "output": None, "conserve": None} for network in kinds]
    assert layers[0] == layers[1]


def test_the_narrow_paper_network_has_210019_parameters():
    network = create_model("spin_cnn", spins("triangular"), preset="paper", channels=32)
    assert sum(weight.numel() for weight in network.parameters()) == 210_019
    assert network.receptive_radius == pytest.approx(20 * 3**0.5)  # 41 sites across


# ---- the network that learns the symmetry --------------------------------------------------------


def test_plain_convolutions_break_every_symmetry_but_translations():
    network, task, lattice = build("spin_cnn"), spins("triangular"), triangular(5)
    for group in (
        replace(task.symmetry(lattice), flips=(), point_operations=(0,)),  # rotations of spins
        replace(task.symmetry(lattice), flips=(), internal=None),
        replace(task.symmetry(lattice), internal=None, point_operations=(0,)),
    ):
        report = equivariance_error(network, task, lattice, group=group)
        assert report.error > 0.05, str(report)
    # The finite part can be averaged over.
    finite = replace(task.symmetry(lattice), internal=None)
    report = equivariance_error(symmetrize(network), task, lattice, group=finite)
    assert report.error < 1e-12, str(report)


def example(lattice, batch=3):
    S = unit_spins(lattice, batch)
    targets = {"field": pair_fields(S, lattice, [0.7, -0.4])}
    return {"fields": {"S": S}, "targets": targets, "lattice": lattice, "kind": torch.zeros(batch)}


def test_augmentation_turns_inputs_and_targets_alike():
    """Of an equivariant map, turned examples are examples too."""
    lattice = triangular(5)
    batch = example(lattice)
    network = build("spin_cnn")
    torch.manual_seed(7)
    turned = network.augmented(batch)
    S = turned["fields"]["S"]
    assert float((S - batch["fields"]["S"]).abs().amax((1, 2)).min()) > 0.1
    torch.testing.assert_close(turned["targets"]["field"], pair_fields(S, lattice, [0.7, -0.4]))
    torch.testing.assert_close(S.norm(dim=-1), torch.ones(3, 25, dtype=torch.float64))
    assert turned["kind"] is batch["kind"]
    assert turned["lattice"] is lattice
    # Samples are turned each by an element of their own, and a seed repeats them.
    R = [torch.linalg.lstsq(a, b).solution for a, b in zip(batch["fields"]["S"], S, strict=True)]
    assert float((R[0] - R[1]).abs().max()) > 0.1
    torch.manual_seed(7)
    assert torch.equal(network.augmented(batch)["fields"]["S"], S)
    assert build("spin_cnn", augment=False).augmented(batch) is batch


@pytest.mark.parametrize("ensemble", [1, 2])
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*many workers.*")
def test_training_sees_turned_examples_and_validation_does_not(tmp_path, monkeypatch, ensemble):
    lattice, seen = triangular(5), []
    torch.manual_seed(0)
    network = create_model("spin_cnn", spins("triangular"), **CNN, ensemble=ensemble)
    members = [network] if ensemble == 1 else list(network.members)
    predict = type(members[0]).predict

    def spy(self, fields, lattice):
        seen.append((self.training, fields["S"].detach() * self.input_scaling.scale("S")))
        return predict(self, fields, lattice)

    monkeypatch.setattr(type(members[0]), "predict", spy)
    batch = example(lattice)
    for key in ("fields", "targets"):
        batch[key] = {name: values.float() for name, values in batch[key].items()}
    trainer = short_trainer(tmp_path, max_steps=2)
    trainer.fit(network, Batches([batch]), Batches([batch]))
    original = batch["fields"]["S"]
    assert {training for training, _ in seen} == {True, False}
    for training, S in seen:
        assert torch.allclose(S, original, atol=1e-5) != training


def test_hexagonal_filters_see_nineteen_sites():
    for hexagonal, sites in ((True, 19), (False, 25)):
        network = build("spin_cnn", hexagonal=hexagonal)
        assert network.inner.weight.shape[-1] == sites
        values = torch.zeros(1, 7, 7, 4, dtype=torch.float64)
        values[0, 3, 3] = 1.0
        lattice = triangular(7)
        found = (network.inner(values) - network.inner.bias).abs().amax(-1).flatten() > 1e-12
        assert int(found.sum()) == sites
        if hexagonal:
            near = lattice.neighbourhood(lattice.shells(cutoff=2.0))[3 * 7 + 3]
            assert bool(found[near].all())


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("descriptor_mlp", {"bond_radius": 0.5}, "bond_radius must be a distance of at least 1"),
        ("descriptor_mlp", {"pair_distance": -1.0}, "pair_distance must be a distance of at least"),
        ("descriptor_mlp", {"smooth": 0.0}, "smooth is 0, but features that jump"),
        ("descriptor_mlp", {"output": "direct"}, "'field' has internal type '1x1e'"),
        ("descriptor_mlp", {"output": "hybrid"}, "no channel of its targets is invariant"),
        ("gcn", {"shells": 0}, "shells must be 1 or more, not 0"),
        ("energy_gnn", {"range_shells": 0}, "range_shells must be 1 or more, not 0"),
        ("spin_cnn", {"channels": 0}, "channels must be 1 or more, not 0"),
        ("spin_cnn", {"blocks": 0}, "blocks must be 1 or more, not 0"),
        ("spin_cnn", {"hexagonal": True}, "hexagonal filters belong to the triangular lattice"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(name, options, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        create_model(name, spins("square"), **{**SMALL[name], **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["descriptor_mlp", "gcn", "energy_gnn"])
def test_compact_networks_say_which_torus_they_need(name):
    network = create_model(name, spins("triangular"))
    lattice = triangular(10)
    with pytest.raises(InputError, match=r"triangular\(10, 10\) is too small .* at least 11 cells"):
        network({"S": unit_spins(lattice, 1)}, lattice)
