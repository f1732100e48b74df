"""Every registered network is exactly symmetric: a new one is tried here without a line."""

import importlib.util

import pytest
import torch

from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import square
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import TOLERANCES, equivariance_error
from latticezoo.zoo import create_model, list_models, model_class
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.exactness import TASKS, carried, measure, smallest_lattice, train_a_little
from latticezoo.zoo.registry import MEMBERS
from latticezoo.zoo.sequence_model import SequenceModel

#: Small forms for speed; a network without one is tried as it is by default.
SMALL = {
    "descriptor_mlp": {"shells": 1, "widths": [8, 8], "bond_radius": 1.5, "pair_radius": 1.5},
    "energy_gnn": {"widths": [8], "shells": 1, "range_shells": 1},
    "gcn": {"widths": [8, 8], "shells": 1, "range_shells": 1},
    "lattice_enn": {"width": 8, "blocks": 1, "shells": 1}
    | {"embedding_shells": 1, "readout_shells": 1, "range_shells": 1},
    "gauge_gnn": {"channels": 4, "layers": 2, "products": 4, "hidden": 4},
    "link_cnn": {"channels": 8, "blocks": 1},
    "spin_cnn": {"channels": 8, "blocks": 1},
    "steerable_cnn": {"copies": 1, "layers": 1},
    "tight_binding": {"order": 4, "reach": 1},
    "wilson_gnn": {"width": 8, "odd_width": 4, "blocks": 2},
}
NEEDS = {"steerable_cnn": "escnn"}
#: Those that learn the symmetry instead of having it, and say so.
LEARNED = {"link_cnn", "spin_cnn"}
SPINS = {task.name for task in TASKS if task.internal}
LINKS = {task.name for task in TASKS if task.gauge}
#: Networks on gauge links, and what they carry.
ON_LINKS = {"gauge_gnn": LINKS, "link_cnn": LINKS, "wilson_gnn": LINKS - {"square SU2 links"}}
#: What a network says it cannot carry; everything else it must carry exactly.
REFUSED = {
    *(("gcn", task.name) for task in TASKS if task.inputs[0].point != "A1"),
    *(("spin_cnn", task.name) for task in TASKS if not task.internal),
    *(
        ("tight_binding", task.name)
        for task in TASKS
        if task.internal or task.family in ("diamond", "honeycomb")
    ),
    *(("steerable_cnn", task.name) for task in TASKS if task.family != "square" or task.internal),
    *(
        (name, task.name)
        for name in MEMBERS
        if name not in ON_LINKS
        for task in TASKS
        if task.gauge
    ),
    *((name, task.name) for name in ON_LINKS for task in TASKS if task.name not in ON_LINKS[name]),
}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("name", sorted({*MEMBERS} - LEARNED))
def test_every_network_respects_every_group_element(name, task):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    options = SMALL.get(name, {})
    # No task here is a series; the tests of sequence models hold them to the same laws.
    if (name, task.name) in REFUSED or issubclass(model_class(name), SequenceModel):
        with pytest.raises(InputError, match=f"cannot serve the task {task.name!r}"):
            create_model(name, task, **options)
        return
    found = measure(name, task, steps=3, **options)
    rotations = 16 if task.internal or task.gauge else 0
    assert found.elements == len(task.symmetry(found.lattice)) + rotations
    for (dtype, trained), report in found.errors.items():
        assert report.exhaustive == (not rotations)
        assert report.error <= TOLERANCES[getattr(torch, dtype)], (dtype, trained, str(report))


def test_networks_that_learn_the_symmetry_are_named_and_found_out():
    """Their error is that of a network without symmetry, but translations are exact."""
    assert {name for name in MEMBERS if not model_class(name).equivariant} == LEARNED
    for name in LEARNED:
        for task in carried(name, **SMALL[name]):
            found = measure(name, task, steps=3, **SMALL[name])
            assert all(report.error > 0.01 for report in found.errors.values()), str(found)
            network = create_model(name, task, **SMALL[name]).double()
            translations = SymmetryGroup(found.lattice, point_operations=(0,))
            report = equivariance_error(network, task, found.lattice, group=translations)
            assert report.error <= TOLERANCES[torch.float64], str(report)


def test_what_the_networks_carry():
    """The equivariant network carries everything, the graph convolution scalars and spins."""
    names = {task.name for task in TASKS} - LINKS
    for model in ("lattice_enn", "energy_gnn", "descriptor_mlp"):
        assert {task.name for task in carried(model, **SMALL[model])} == names
    scalars = {name for name in names if name.endswith("scalar")}
    assert {task.name for task in carried("gcn", **SMALL["gcn"])} == scalars | SPINS
    assert {task.name for task in carried("spin_cnn", **SMALL["spin_cnn"])} == SPINS
    for model, carries in ON_LINKS.items():
        assert {task.name for task in carried(model, **SMALL[model])} == carries
    assert set(MEMBERS) <= set(list_models())


class Broken(ZooModel):
    """Reads the neighbour to the right alone."""

    receptive_radius = 1.0

    def __init__(self, task, **training):
        super().__init__(task, **training)
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def predict(self, fields, lattice):
        """Not equivariant under rotations."""
        return {"force": self.weight * fields["Q"][:, lattice.neighbours(1)[:, 0]]}


def test_a_network_without_the_symmetry_is_found_out(monkeypatch):
    task = Task("scalar", (Field("Q"),), (Field("force"),), "square")
    monkeypatch.setattr("latticezoo.zoo.exactness.create_model", lambda name, task: Broken(task))
    found = measure("broken", task, square(3))
    assert found.elements == 9 * 8
    for report in found.errors.values():
        assert report.error > 0.1


def test_training_changes_weights_and_statistics():
    network = create_model("lattice_enn", TASKS[1], **SMALL["lattice_enn"]).double()
    before = [weight.detach().clone() for weight in network.parameters()]
    lattice = smallest_lattice(network)
    assert lattice == square(3)
    train_a_little(network, lattice, 2)
    assert bool(network.statistics_set)
    after = list(network.parameters())
    assert all(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
