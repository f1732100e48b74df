"""The graph network: the laws of every network, and the sizes of its presets."""

import itertools
from pathlib import Path

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.layers import graph
from latticezoo.zoo.testing import Case, ZooModelTests, random_fields, scalar_task, vector_task

TINY = {"widths": [7, 7, 7]}
TWO_IN_TWO_OUT = Task(
    "two",
    (Field("Q", point="2xA1", odd=("particle_hole",)), Field("m", odd=("time_reversal",))),
    (Field("n"), Field("h", odd=("time_reversal", "particle_hole"))),
    "square",
    flips=("time_reversal", "particle_hole"),
)


class TestGCN(ZooModelTests):
    model = "gcn"
    cases = (
        Case(scalar_task("square", odd=True), (square(4), square(3, 5)), TINY),
        Case(scalar_task("square"), (square(3, 4),), {"widths": [4, 6, 3], "residual": False}),
        Case(TWO_IN_TWO_OUT, (square(4, 3),), {**TINY, "aggregation": "sum"}),
        Case(scalar_task("chain"), (chain(6),), {**TINY, "activation": "relu"}),
        Case(scalar_task("triangular"), (triangular(3), triangular(3, 4)), TINY),
        Case(scalar_task("honeycomb"), (honeycomb(3), honeycomb(2, 3)), TINY),
        Case(scalar_task("diamond"), (diamond(2),), TINY),
    )
    unsuitable = (
        vector_task("square"),
        Task("spins", (Field("S", internal="1x1e"),), (Field("h"),), "square", internal="SO3"),
        Task("bonds", (Field("Q"),), (Field("t", support="link"),), "square"),
        Task("charged", (Field("phi", internal=1),), (Field("n"),), "square", internal="U1"),
    )
    too_small = (square(2), square(6, 2))
    golden = Path(__file__).parent / "golden.json"


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("paper", 10_753_793),  # Table 2 of the GNN force-field paper
        ("compact", 42_001),
    ],
)
def test_presets_have_the_stated_sizes(preset, parameters):
    network = create_model("gcn", scalar_task("square", odd=True), preset=preset)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert network.receptive_radius == 8


def test_the_paper_preset_has_the_layers_of_table_2():
    network = create_model("gcn", scalar_task("square"), preset="paper")
    sizes = [(layer.in_channels, layer.out_channels) for layer in network.network.layers]
    widths = [1, 128, 512, 1024, 2048, 1024, 512, 128, 1]
    assert sizes == list(itertools.pairwise(widths))
    counts = [sum(w.numel() for w in layer.parameters()) for layer in network.network.layers]
    assert counts == [384, 131_584, 1_049_600, 4_196_352, 4_195_328, 1_049_088, 131_200, 257]


def test_initial_weights_count_five_inputs_for_the_plain_sum():
    torch.manual_seed(0)
    layer = graph.NeighbourLinear(400, 300, "sum", gain=2**0.5, neighbours=4)
    for weight in (layer.weight_self, layer.weight_neighbours):
        assert float(weight.std()) == pytest.approx((2 / (5 * 400)) ** 0.5, rel=0.01)
    # Independent neighbours then keep the mean square of a ReLU layer's input.
    values, lattice = torch.randn(1, 1600, 400), square(40)
    out = torch.relu(layer(values, lattice))
    assert float(out.square().mean()) == pytest.approx(1.0, rel=0.05)


def test_values_keep_their_size_over_eight_layers_with_the_mean():
    torch.manual_seed(0)
    options = {"widths": [96] * 8, "residual": False, "activation": "relu"}
    network = create_model("gcn", scalar_task("square"), **options)
    values, lattice, sizes = torch.randn(1, 400, 1), square(20), []
    with torch.no_grad():
        for layer in network.network.layers[:-1]:
            values = torch.relu(layer(values, lattice))
            sizes.append(float(values.square().mean().sqrt()))
    assert 0.2 < sizes[-1] / sizes[0] < 5


def test_sum_and_mean_differ_by_the_factor_on_the_neighbour_matrix():
    task, lattice = scalar_task("square"), square(4)
    mean = create_model("gcn", task, **TINY).double()
    total = create_model("gcn", task, **TINY, aggregation="sum").double()
    state = {
        name: value / 4 if name.endswith("weight_neighbours") else value
        for name, value in mean.state_dict().items()
    }
    total.load_state_dict(state)
    fields = random_fields(task, lattice)
    torch.testing.assert_close(total(fields, lattice), mean(fields, lattice))


@pytest.mark.parametrize(
    "lattice", [chain(5), square(4, 3), triangular(3, 4), honeycomb(2, 3), diamond(2)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbour_sums_agree_with_an_explicit_gather(lattice, dtype):
    values = torch.randn(3, lattice.n_sites, 5, dtype=dtype)
    expected = values[:, lattice.neighbours(1)].sum(2)
    torch.testing.assert_close(graph.neighbour_sum(values, lattice), expected)


@pytest.mark.parametrize("lattice", [square(2, 3), honeycomb(1, 2)], ids=str)
def test_neighbour_sums_are_differentiable_twice(lattice):
    values = torch.randn(2, lattice.n_sites, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: graph.neighbour_sum(x, lattice), (values,))
    assert torch.autograd.gradgradcheck(lambda x: graph.neighbour_sum(x, lattice) ** 3, (values,))


def test_inference_by_tiles_gives_what_one_piece_gives(monkeypatch):
    task, lattice = scalar_task("square", odd=True), square(11, 7)
    for options in ({"widths": [9, 9, 9]}, {"widths": [5, 12, 6], "residual": False}):
        network = create_model("gcn", task, **options)
        fields = random_fields(task, lattice, batch=3, dtype=torch.float32)
        expected = network(fields, lattice)["force"].detach()
        for tile in (10, 64, 10_000):
            monkeypatch.setattr(graph, "TILE", tile)
            with torch.no_grad():
                found = network(fields, lattice)["force"]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_forward_mode_derivatives_agree_with_reverse_mode():
    task, lattice = scalar_task("square", odd=True), square(3)
    network = create_model("gcn", task, **TINY).double()
    values = random_fields(task, lattice, batch=1)["Q"]

    def force(field):
        return network({"Q": field}, lattice)["force"]

    forward = torch.autograd.functional.jacobian(force, values, strategy="reverse-mode")
    tangent = torch.randn_like(values)
    _, found = torch.func.jvp(force, (values,), (tangent,))
    torch.testing.assert_close(found.flatten(), forward.view(9, 9) @ tangent.flatten())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"widths": [4, 5]}, "equal widths"),
        ({"widths": [0]}, "positive"),
        ({"activation": "rellu"}, "did you mean relu"),
        ({"aggregation": "median"}, "unknown aggregation 'median'"),
        ({"preset": "papers"}, "did you mean paper"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, not -1.0"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"ema": 1.0}, "below 1"),
        ({"hidden": 3}, "unknown option of gcn 'hidden'"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model("gcn", scalar_task("square"), **options)
