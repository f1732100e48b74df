"""The energy graph network: the shared suite, its equations, and what it must refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.layers.bond_energies import BondEmbedding, bonds, partners
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
        Task("spins", (Field("S", internal="1x1e"),), (Field("h"),), "square", internal="SO3"),
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


def modes(flips=()):
    """The Jahn–Teller modes 2xA1 + B1, and their forces."""
    return Task(
        "modes",
        (Field("Q", point="2xA1+B1", odd=flips),),
        (Field("force", point="2xA1+B1", odd=flips),),
        "square",
        flips,
        conservative=(("force", "Q"),),
    )


def mixed(family):
    """A doublet with a force, beside a scalar and a vector that are only looked at."""
    return Task(
        "mixed",
        (Field("s"), Field("d", point="E2+B1"), Field("v", point="vector")),
        (Field("force", point="E2+B1"),),
        family,
        conservative=(("force", "d"),),
    )


class TestDirectedBonds(ZooModelTests):
    """Fields of other types go as features on directed bonds."""

    model = "energy_gnn"
    cases = (
        Case(modes(("particle_hole",)), (square(4), square(3, 5)), TINY),
        Case(modes(), (square(3),), {**TINY, "aggregation": "sum", "normalization": "layer"}),
        Case(vector_task("square"), (square(4), square(3, 5)), TINY),
        Case(vector_task("triangular"), (triangular(4), triangular(3, 5)), TINY),
        Case(mixed("triangular"), (triangular(3),), TINY),
        Case(vector_task("honeycomb"), (honeycomb(3), honeycomb(2, 4)), TINY),
        Case(vector_task("diamond"), (diamond(1),), {"widths": [6]}),
    )
    too_small = (square(2),)
    golden = Path(__file__).parent / "golden_energies.json"


@pytest.mark.parametrize(
    ("lattice", "stabilizer", "classes"),
    [
        (chain(5), 1, 2),
        (square(4), 2, 3),
        (triangular(4), 2, 4),
        (honeycomb(3), 2, 2),
        (diamond(1), 6, 2),
    ],
    ids=str,
)
def test_bonds_of_every_lattice(lattice, stabilizer, classes):
    """The site group carries bond 0 onto all others, and a bond leads there and back."""
    table, z = bonds(lattice.family), lattice.neighbours(1).shape[1]
    assert table.elements.shape == (z, stabilizer)
    assert lattice.site_group.order == z * stabilizer
    assert int(table.classes.max()) + 1 == classes
    assert (np.diagonal(table.classes) == 0).all()
    there, back = partners(lattice, torch.device("cpu"))
    assert torch.equal(there[back[:, 0]][:, 0], torch.arange(lattice.n_sites * z))
    ends = lattice.neighbours(1).reshape(-1)[there[:, 0]]
    assert torch.equal(ends, torch.arange(lattice.n_sites).repeat_interleave(z))


def test_a_b1_field_changes_sign_between_bonds_along_x_and_y():
    embedding = BondEmbedding("square", (Field("Q", point="2xA1+B1"),), 4, "silu").double()
    assert embedding._turns.shape == (4, 1, 3, 3)
    signs = embedding._turns[:, 0].diagonal(dim1=1, dim2=2)
    along = torch.tensor(square(3).shells(count=1)[1].vectors)[:, 0].abs() > 0.5
    expected = torch.stack([torch.ones(4), torch.ones(4), torch.where(along, 1.0, -1.0)], -1)
    torch.testing.assert_close(signs, expected.double())


def test_directed_bonds_see_what_scalar_messages_cannot():
    """The energy tells a straight pair of neighbours of a site from a bent one."""
    network = create_model("energy_gnn", vector_task("square"), widths=[4, 4]).double()
    lattice, energies = square(7), []
    centre = 24
    for second in (centre - 1, centre + 7):  # opposite to, and at a right angle with, the first
        u = torch.zeros(1, 49, 2, dtype=torch.float64)
        u[0, centre + 1, 0] = u[0, second, 0 if second == centre - 1 else 1] = 1.0
        energies.append(float(network.energy({"u": u}, lattice).detach()))
    assert abs(energies[0] - energies[1]) > 1e-6


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
