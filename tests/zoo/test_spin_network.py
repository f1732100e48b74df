"""Networks on spins: exact under rotations of all spins, the lattice, and time reversal."""

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, perpendicular
from latticezoo.symmetry.lattices import honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant
from latticezoo.zoo import create_model
from latticezoo.zoo.exactness import TASKS, measure
from latticezoo.zoo.layers.spin_network import Product
from latticezoo.zoo.testing import Case, ZooModelTests

SPIN = Field("S", internal="1x1e", odd=("time_reversal",))
FIELD = Field("field", internal="1x1e", odd=("time_reversal",))
TINY = {
    "output": "direct",
    "width": 12,
    "blocks": 1,
    "shells": 1,
    "embedding_shells": 1,
    "readout_shells": 1,
    "range_shells": 0,
}
ENERGY = {**TINY, "output": "energy"}


def spins(family, tangent=True):
    """Unit vectors and the perpendicular fields on them."""
    return Task(
        "spins",
        (SPIN,),
        (FIELD,),
        family,
        ("time_reversal",),
        internal="SO3",
        conservative=(("field", "S"),),
        tangent=(("field", "S"),) if tangent else (),
    )


def mixed(family):
    """Spins and displacements go in; a chirality, a quadrupole and a force come out."""
    return Task(
        "mixed",
        (SPIN, Field("u", point="vector")),
        (
            Field("chirality", point="A2", odd=("time_reversal",)),
            Field("quadrupole", internal="1x2e"),
            Field("force", point="vector"),
        ),
        family,
        ("time_reversal",),
        internal="SO3",
    )


class TestSpins(ZooModelTests):
    model = "lattice_enn"
    cases = (
        Case(spins("square"), (square(3), square(3, 4)), TINY),
        Case(spins("triangular"), (triangular(3),), {**TINY, "largest_l": 2}),
        Case(spins("triangular"), (triangular(5),), ENERGY),
        Case(spins("square"), (square(5),), {**ENERGY, "range_shells": 3}),
        Case(spins("honeycomb", tangent=False), (honeycomb(2),), TINY),
        Case(mixed("triangular"), (triangular(3),), {**TINY, "largest_l": 2}),
    )
    too_small = (square(2),)
    unsuitable = (
        Task("pair", (Field("S", internal="2x1e"),), (SPIN,), "square", internal="SO3"),
        Task("octupole", (Field("S", internal="1x3e"),), (SPIN,), "square", internal="SO3"),
    )


def test_fields_are_perpendicular_to_the_spins():
    torch.manual_seed(0)
    lattice = triangular(4)
    S = torch.nn.functional.normalize(torch.randn(2, 16, 3, dtype=torch.float64), dim=-1)
    for options in (TINY, ENERGY):
        network = create_model("lattice_enn", spins("triangular"), **options).double()
        found = network({"S": S}, lattice)["field"]
        assert float((found * S).sum(-1).abs().max()) < 1e-14
        assert float(found.abs().mean()) > 1e-5


def test_learned_torques_of_an_energy_add_up_to_zero():
    """Σ S × H = 0 follows from the invariance of the energy under rotations of all spins."""
    torch.manual_seed(0)
    lattice = square(4)
    S = torch.nn.functional.normalize(torch.randn(2, 16, 3, dtype=torch.float64), dim=-1)
    network = create_model("lattice_enn", spins("square"), **ENERGY).double()
    torque = torch.linalg.cross(S, network({"S": S}, lattice)["field"])
    assert float(torque.sum(1).abs().max()) < 1e-14 < 1e-6 < float(torque.abs().max())


def test_the_linear_map_holds_pair_exchange():
    """With all else at zero the output is that of shells of exchange constants."""
    torch.manual_seed(0)
    task = spins("triangular", tangent=False)
    network = create_model("lattice_enn", task, **TINY | {"range_shells": 3}).double().eval()
    for projection in network.network.projections.values():
        torch.nn.init.zeros_(projection.weight)
    lattice = triangular(6)
    S = torch.randn(1, 36, 3, dtype=torch.float64)
    unit = torch.zeros_like(S)
    unit[0, 0] = 1.0
    column = network({"S": unit}, lattice)["field"][0, :, 0]
    assert int((column.abs() > 1e-12).sum()) == 1 + 6 + 6 + 6
    sums = [S[0, lattice.neighbours(shell)].sum(1) for shell in (1, 2, 3)]
    couplings = [column[lattice.neighbours(shell)[0, 0]] for shell in (1, 2, 3)]
    wanted = column[0] * S[0] + sum(c * s for c, s in zip(couplings, sums, strict=True))
    torch.testing.assert_close(network({"S": S}, lattice)["field"][0], wanted)


@pytest.mark.parametrize("output", ["energy", "direct"])
def test_training_begins_with_the_pair_exchange_of_the_data(output):
    """Fields of an exchange over two shells are learned before the first step."""
    torch.manual_seed(0)
    task, lattice = spins("triangular"), triangular(6)
    options = {**TINY, "output": output, "range_shells": 3}
    network = create_model("lattice_enn", task, **options).double().eval()
    S = torch.nn.functional.normalize(torch.randn(8, 36, 3, dtype=torch.float64), dim=-1)
    sums = [S[:, lattice.neighbours(shell)].sum(2) for shell in (1, 2)]
    fields = perpendicular(0.7 * sums[0] - 0.2 * sums[1], S)
    statistics = {
        "inputs": {"S": {"mean": [0.0] * 3, "std": [0.5] * 3}},
        "targets": {"field": {"mean": [0.0] * 3, "std": [1.4] * 3}},
    }
    network.set_statistics(statistics)
    network.calibrate(
        [
            {"fields": {"S": S[part]}, "targets": {"field": fields[part]}, "lattice": lattice}
            for part in (slice(0, 4), slice(4, 8))
        ]
    )
    for projection in network.network.projections.values():  # what is learned beside it
        torch.nn.init.zeros_(projection.weight)
    found = network({"S": S}, lattice)["field"]
    torch.testing.assert_close(found, fields, rtol=1e-5, atol=1e-5)
    if output == "energy":
        pairs = -0.5 * (S * (0.7 * sums[0] - 0.2 * sums[1])).sum((1, 2))
        energies = network.energy({"S": S}, lattice)
        torch.testing.assert_close(energies - energies[0], pairs - pairs[0], rtol=1e-5, atol=1e-5)


def test_trained_products_do_not_blow_up_rounding():
    """Six blocks of products: unbounded ones reached 4e-5 after five steps of training."""
    task = next(task for task in TASKS if task.name == "square spins")
    found = measure("lattice_enn", task, dtypes=(torch.float32,))
    assert found.errors[("float32", True)].error < 5e-6


@pytest.mark.parametrize("path", [(1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 2, 2), (2, 2, 0)])
def test_products_of_random_numbers_have_unit_variance(path):
    generator = torch.Generator().manual_seed(1)
    first, second, result = path
    left = torch.randn(1, 2 * first + 1, 1, 20000, generator=generator, dtype=torch.float64)
    right = torch.randn(1, 2 * second + 1, 1, 20000, generator=generator, dtype=torch.float64)
    found = Product(*path).double()(left, right)
    assert found.shape == (1, 2 * result + 1, 1, 20000)
    assert float(found.square().mean()) == pytest.approx(1, rel=0.05)


def test_a_projection_that_forgets_the_spins_is_caught():
    """The check sees rotations: a network that treats the components as scalars fails it."""
    task = spins("square", tangent=False)
    plain = Task("plain", (Field("S", point="3xA1"),), (Field("field", point="3xA1"),), "square")
    network = create_model("lattice_enn", plain, width=8, blocks=1).double().eval()
    with pytest.raises(AssertionError, match="SO3"):
        assert_equivariant(network, task, square(5))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"largest_l": 3}, "largest_l must be 1 or 2"),
        ({"range_shells": -1}, "range_shells must be 0 or more"),
        ({"body": "products"}, "without internal type"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model("lattice_enn", spins("square"), **options)
