"""Averaging over a group makes any map exactly symmetric, and leaves symmetric ones alone."""

import pytest
import torch
from torch import nn

from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.neighbourhoods import in_frames
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant, equivariance_error
from latticezoo.zoo import create_model
from latticezoo.zoo.group_average import symmetrize
from latticezoo.zoo.testing import random_fields, scalar_task, vector_task


class PatchNetwork(nn.Module):
    """An ordinary perceptron on a neighbourhood; it knows translations and nothing else."""

    def __init__(self, task, shells=1):
        super().__init__()
        self.task = task
        self.shells = shells
        lattice = scalar_lattice(task.family)
        self.into = sum(field.channels(lattice) for field in task.inputs)
        self.out = [field.channels(lattice) for field in task.targets]
        taps = sum(shell.size for shell in lattice.shells(count=shells))
        self.net = nn.Sequential(
            nn.Linear(taps * self.into, 9), nn.SiLU(), nn.Linear(9, sum(self.out))
        ).double()
        self.blocks = lattice.site_group.representation(
            "+".join(field.point for field in task.inputs)
        ).blocks
        self.back = lattice.site_group.representation(
            "+".join(field.point for field in task.targets)
        ).blocks

    def forward(self, fields, lattice):
        joined = torch.cat([fields[field.name] for field in self.task.inputs], dim=-1)
        joined = in_frames(joined, lattice, self.blocks)
        around = joined[:, lattice.neighbourhood(lattice.shells(count=self.shells))].flatten(2)
        found = in_frames(self.net(around), lattice, self.back).split(self.out, dim=-1)
        return {field.name: part for field, part in zip(self.task.targets, found, strict=True)}


def scalar_lattice(family):
    from latticezoo.symmetry.neighbourhoods import family_lattice

    return family_lattice(family)


def mixed(family, irrep):
    return Task(
        "mixed",
        (Field("d", point=irrep, odd=("p",)), Field("s")),
        (Field("n", odd=("p",)), Field("v", point="vector")),
        family,
        ("p",),
    )


CASES = [
    (scalar_task("square", odd=True), square(4)),
    (scalar_task("square", odd=True), square(3, 5)),
    (mixed("square", "E"), square(3)),
    (mixed("triangular", "E2"), triangular(3, 4)),
    (mixed("honeycomb", "A2+E"), honeycomb(3)),
    (vector_task("diamond"), diamond(1)),
    (scalar_task("chain", odd=True), chain(5)),
]


@pytest.mark.parametrize(("task", "lattice"), CASES, ids=[f"{t.name}-{lat}" for t, lat in CASES])
def test_the_average_is_equivariant_under_everything(task, lattice):
    torch.manual_seed(0)
    model = PatchNetwork(task)
    assert equivariance_error(model, task, lattice).error > 1e-3
    report = assert_equivariant(symmetrize(model), task, lattice)
    assert report.exhaustive


def test_averaging_over_a_subgroup_gives_that_subgroup_alone():
    torch.manual_seed(0)
    task, lattice = scalar_task("square", odd=True), square(4)
    average = symmetrize(PatchNetwork(task), "C4", flips=())
    rotations = average.operations(lattice)
    assert len(rotations) == 4
    kept = SymmetryGroup(lattice, point_operations=rotations)
    assert_equivariant(average, task, lattice, group=kept)
    for more in (SymmetryGroup(lattice), SymmetryGroup(lattice, task.flips, None, None, rotations)):
        assert equivariance_error(average, task, lattice, group=more).error > 1e-3


@pytest.mark.parametrize(
    ("name", "task", "lattice"),
    [
        ("energy_gnn", scalar_task("diamond", odd=True), diamond(1)),
    ],
)
def test_a_symmetric_network_is_left_alone(name, task, lattice):
    options = {"energy_gnn": {"widths": [4]}}
    network = create_model(name, task, **options[name], **_small(name)).double()
    average = symmetrize(network)
    fields = random_fields(task, lattice)
    torch.testing.assert_close(
        average(fields, lattice)["force"], network(fields, lattice)["force"], rtol=0, atol=1e-12
    )
    forces = average.forces(fields, lattice)
    assert not next(iter(forces.values())).requires_grad
    assert hasattr(average, "energy") == hasattr(network, "energy")
    if hasattr(network, "energy"):
        torch.testing.assert_close(average.energy(fields, lattice), network.energy(fields, lattice))


def _small(name):
    if name == "energy_gnn":
        return {}
    return {"blocks": 1, "shells": 1, "embedding_shells": 1, "readout_shells": 1}


def test_the_average_trains_the_map_inside():
    task, lattice = vector_task("square"), square(3)
    average = symmetrize(PatchNetwork(task))
    average(random_fields(task, lattice), lattice)["force"].square().mean().backward()
    for weight in average.parameters():
        assert bool((weight.grad != 0).any())


def test_any_callable_will_do():
    """A shift to one side becomes the mean over the four neighbours."""
    task, lattice = scalar_task("square"), square(4)
    average = symmetrize(
        lambda f, where: {"force": f["Q"].unflatten(1, where.shape).roll(1, 1).flatten(1, 2)},
        task=task,
    )
    assert_equivariant(average, task, lattice)
    fields = random_fields(task, lattice)
    torch.testing.assert_close(
        average(fields, lattice)["force"], lattice.neighbour_mean(fields["Q"])
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group": "D6"}, "no element of D4"),
        ({"group": "Td"}, "acts in 3 dimensions"),
        ({"group": "D5"}, "unknown point group 'D5'"),
        ({"flips": ("time_reversal",)}, "unknown two-element symmetry"),
    ],
)
def test_wrong_groups_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        symmetrize(PatchNetwork(scalar_task("square", odd=True)), **options)


def test_a_map_without_a_task_needs_one():
    with pytest.raises(InputError, match="needs one"):
        symmetrize(lambda fields, lattice: fields)
