"""The descriptor network: the laws of every network, presets, standardization of features."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.testing import Case, ZooModelTests, random_fields, scalar_task, vector_task

SMALL = {"widths": [12, 8], "shells": 3}
JAHN_TELLER = Task(
    "jahn_teller", (Field("Q", point="2xA1+B1"),), (Field("n", point="2xA1"),), "square"
)


def modes_task(odd=False):
    """Forces on the three Jahn–Teller modes Q^A, Q^z and Q^x."""
    flips = ("particle_hole",) if odd else ()
    return Task(
        "jahn_teller_square",
        (Field("Q", point="2xA1+B1", odd=flips),),
        (Field("scaled_force", point="2xA1+B1", odd=flips),),
        "square",
        flips,
        conservative=(("scaled_force", "Q"),),
    )


class TestDescriptorMLP(ZooModelTests):
    model = "descriptor_mlp"
    cases = (
        Case(scalar_task("square", odd=True), (square(7), square(7, 8)), {"widths": [12, 8]}),
        Case(scalar_task("square"), (square(5, 6),), {**SMALL, "level": "full"}),
        Case(JAHN_TELLER, (square(5),), {**SMALL, "activation": "tanh"}),
        Case(scalar_task("chain"), (chain(8),), SMALL),
        Case(scalar_task("triangular"), (triangular(5),), {**SMALL, "shells": 2}),
        Case(scalar_task("honeycomb"), (honeycomb(3),), {**SMALL, "shells": 2}),
    )
    unsuitable = (
        # Other things than scalars come out as derivatives of an energy alone.
        Task("direct", (Field("u", point="vector"),), (Field("v", point="vector"),), "square"),
        Task("spins", (Field("S", internal="1x1e"),), (Field("h"),), "square", internal="SO3"),
        Task("bonds", (Field("t", support="link"),), (Field("n"),), "square"),
    )
    too_small = (square(6), square(12, 6))
    golden = Path(__file__).parent / "golden.json"


class TestLocalEnergies(ZooModelTests):
    """The same features, differentiated: any field type, exactly conservative."""

    model = "descriptor_mlp"
    cases = (
        Case(modes_task(odd=True), (square(5), square(5, 6)), SMALL),
        Case(modes_task(), (square(5),), {**SMALL, "output": "hybrid", "direct": [0]}),
        Case(vector_task("triangular"), (triangular(3),), {**SMALL, "shells": 1, "level": "full"}),
        Case(vector_task("honeycomb"), (honeycomb(3),), {**SMALL, "shells": 2}),
        Case(vector_task("diamond"), (diamond(1),), {**SMALL, "shells": 1}),
        Case(scalar_task("square"), (square(5),), {**SMALL, "output": "energy"}),
    )
    golden = Path(__file__).parent / "golden_energies.json"
    unsuitable = (replace(modes_task(), conservative=()),)
    too_small = (square(4),)


@pytest.mark.parametrize(
    ("preset", "features", "parameters"),
    [
        ("compact", 48, 119_553),  # Holstein sheet, section 6
        ("paper", 45, 10_753_763),
        ("table1", 45, 5_385_217),
    ],
)
def test_presets_have_the_stated_sizes(preset, features, parameters):
    network = create_model("descriptor_mlp", scalar_task("square", odd=True), preset=preset)
    assert network.descriptor.n_features == features
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert network.receptive_radius == pytest.approx(13**0.5)


@pytest.mark.parametrize(
    ("preset", "stands_for", "features", "parameters", "radius"),
    [
        ("compact", "compact_energy", 138, 142_593, 13**0.5),
        ("paper", "paper_energy", 450, 1_163_329, 7),  # Jahn–Teller sheet, sections 4 and 5
        ("paper_hybrid", "paper_hybrid", 450, 2 * 1_163_329, 7),
    ],
)
def test_presets_for_the_jahn_teller_modes(preset, stands_for, features, parameters, radius):
    network = create_model("descriptor_mlp", modes_task(odd=True), preset=preset)
    assert network.config()["options"]["preset"] == stands_for
    assert network.descriptor.n_features == features
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert network.receptive_radius == pytest.approx(2 * radius)
    assert hasattr(network, "energy") == (preset != "paper_hybrid")


def test_the_hybrid_gives_the_breathing_force_without_differentiation():
    network = create_model("descriptor_mlp", modes_task(), **SMALL, output="hybrid", direct=[0])
    lattice = square(5)
    fields = random_fields(network.task, lattice, dtype=torch.float32)
    before = network(fields, lattice)["scaled_force"]
    with torch.no_grad():
        network.direct_network.layers[-1].bias.add_(0.5)
    change = network(fields, lattice)["scaled_force"] - before
    expected = torch.tensor([0.5, 0.0, 0.0]).expand_as(change)
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)
    whole = create_model("descriptor_mlp", modes_task(), **SMALL, output="hybrid")
    assert whole.direct_channels == [0, 1]


def test_features_have_mean_zero_and_spread_one_over_the_training_set():
    task, lattice = scalar_task("square", odd=True), square(8)
    network = create_model("descriptor_mlp", task, **SMALL).double()
    batches = [
        {"fields": {"Q": 3 * random_fields(task, lattice, 4, seed=seed)["Q"]}, "lattice": lattice}
        for seed in range(3)
    ]
    network.calibrate(batches)
    fields = {"Q": torch.cat([batch["fields"]["Q"] for batch in batches])}
    features = network.features(network.images(fields), lattice)
    scaled = ((features - network.feature_mean) / network.feature_scale).flatten(0, 1)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(features.shape[-1]).double())
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(features.shape[-1]).double())


def test_a_feature_that_never_changes_is_no_division_by_zero():
    task, lattice = scalar_task("square"), square(7)
    network = create_model("descriptor_mlp", task)
    fields = {"Q": torch.ones(2, 49, 1)}
    network.calibrate([{"fields": fields, "lattice": lattice}])
    assert bool((network.feature_scale > 0).all())
    assert bool(network(fields, lattice)["force"].isfinite().all())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"level": "papers"}, "did you mean paper"),
        ({"widths": [-1]}, "positive"),
        ({"smooth": -0.1}, "smooth must be a positive number"),
        ({"output": "forces"}, "unknown output 'forces'"),
        ({"output": "energy", "smooth": 0.0}, "smooth is 0, but features that jump"),
        ({"output": "hybrid", "direct": [1]}, "direct names channel 1 of the targets"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model("descriptor_mlp", scalar_task("square"), **options)
