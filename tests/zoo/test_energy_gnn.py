"""The energy graph network: the shared suite, its equations, and what it must refuse."""

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.testing import Case, ZooModelTests, random_fields, scalar_task, vector_task

TINY = {"widths": [6, 5]}


def two_fields(family):
    """Two displacements, each with its force, and a third field that is only looked at."""
    return Task(
        "two_fields",
        (Field("Q"), Field("disorder"), Field("P", point="2xA1")),
        (Field("force_P", point="2xA1"), Field("force_Q")),
        family,
        conservative=(("force_P", "P"), ("force_Q", "Q")),
    )


class TestEnergyGNN(ZooModelTests):
    model = "energy_gnn"
    cases = (
        Case(scalar_task("square", odd=True), (square(4), square(3, 5)), TINY),
        Case(scalar_task("triangular"), (triangular(4), triangular(3, 5)), TINY),
        Case(scalar_task("honeycomb"), (honeycomb(3), honeycomb(2, 4)), TINY),
        Case(scalar_task("diamond", odd=True), (diamond(1),), {"widths": [6]}),
        Case(two_fields("chain"), (chain(7),), {**TINY, "normalization": "layer"}),
    )
    unsuitable = (
        vector_task("square"),
        Task("direct", (Field("Q"),), (Field("n"),), "square"),
        Task(
            "half",
            (Field("Q"),),
            (Field("force"), Field("n")),
            "square",
            conservative=(("force", "Q"),),
        ),
    )
    too_small = (square(2),)


def expected_parameters(widths):
    """4 c c' + 3 c'² + 5 c' per block, and the readout."""
    total, c = 0, 1
    for out in widths:
        total += 4 * c * out + 3 * out**2 + 5 * out
        c = out
    return total + 2 * c**2 + 2 * c + 3 * c


def test_number_of_parameters():
    task = scalar_task("square", odd=True)
    paper = create_model("energy_gnn", task, preset="paper")
    assert sum(p.numel() for p in paper.parameters()) == expected_parameters([512, 1024, 512])
    assert paper.options["activation"] == "relu"


def test_a_block_is_the_papers_equations():
    network = create_model(
        "energy_gnn", scalar_task("square"), **TINY, normalization="layer"
    ).double()
    lattice, block = square(4), network.network.blocks[1]
    values = torch.randn(1, 16, 6, dtype=torch.float64)
    phi_self, phi_nn = torch.nn.functional.silu(block.message.inner(values)).split(5, dim=-1)
    around = phi_nn[:, lattice.neighbours(1)].mean(2)
    message = phi_self @ block.message.outer_self.weight.T
    message = message + around @ block.message.outer_neighbours.weight.T
    update = block.update(torch.cat([values, message], -1))
    expected = block.residual(values) + block.norm(torch.nn.functional.silu(update))
    torch.testing.assert_close(block(values, lattice), expected)


def test_energy_is_even_and_extensive():
    network = create_model("energy_gnn", scalar_task("square", odd=True), **TINY).double()
    fields, lattice = random_fields(network.task, square(4)), square(4)
    energy = network.energy(fields, lattice)
    assert energy.shape == (2,)
    torch.testing.assert_close(network.energy({"Q": -fields["Q"]}, lattice), energy)
    doubled = {"Q": fields["Q"].repeat(1, 2, 1)}
    torch.testing.assert_close(network.energy(doubled, square(8, 4)), 2 * energy)


def test_forces_are_the_same_in_inference_mode_and_differentiable_twice():
    network = create_model("energy_gnn", scalar_task("square"), **TINY).double()
    lattice = square(3)
    fields = random_fields(network.task, lattice, batch=1)
    expected = network(fields, lattice)["force"]
    with torch.inference_mode():
        inside = random_fields(network.task, lattice, batch=1)
        found = network(inside, lattice)["force"]
    torch.testing.assert_close(found, expected.detach())
    hessian = torch.autograd.functional.jacobian(
        lambda q: network({"Q": q}, lattice)["force"], fields["Q"]
    ).view(9, 9)
    torch.testing.assert_close(hessian, hessian.T)
    assert float(hessian.abs().max()) > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"widths": []}, "widths of energy_gnn must be positive numbers"),
        ({"aggregation": "max"}, "unknown aggregation 'max'"),
        ({"normalization": "batch"}, "unknown normalization 'batch'"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model("energy_gnn", scalar_task("square"), **options)
