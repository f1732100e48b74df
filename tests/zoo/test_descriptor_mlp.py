"""The descriptor network: the laws of every network, presets, standardization of features."""

from pathlib import Path

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.testing import Case, ZooModelTests, random_fields, scalar_task, vector_task

SMALL = {"widths": [12, 8], "shells": 3}
JAHN_TELLER = Task(
    "jahn_teller", (Field("Q", point="2xA1+B1"),), (Field("n", point="2xA1"),), "square"
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
        vector_task("square"),  # vectors may go in, but not come out
        Task("spins", (Field("S", internal="1x1e"),), (Field("h"),), "square", internal="SO3"),
        Task("bonds", (Field("t", support="link"),), (Field("n"),), "square"),
    )
    too_small = (square(6), square(12, 6))
    golden = Path(__file__).parent / "golden.json"


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
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model("descriptor_mlp", scalar_task("square"), **options)
