"""Exported programs do what the networks do, without this library."""

import json
import subprocess
import sys

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice, square
from latticezoo.symmetry.tasks import Conservation, Task
from latticezoo.zoo import create_model, list_pretrained, load_pretrained
from latticezoo.zoo.conservation import solve
from latticezoo.zoo.export import export_network
from latticezoo.zoo.testing import perturb, random_fields, scalar_task

#: Loads a program with PyTorch alone, and makes sure that it is alone.
ALONE = """
import sys, torch
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("latticezoo", "e3nn", "escnn", "pytorch_lightning"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
program = torch.export.load(sys.argv[1]).module()
given = torch.load(sys.argv[2], weights_only=True)
torch.save(dict(program(*given)), sys.argv[3])
assert not [name for name in sys.modules if name.startswith("latticezoo")]
"""


def run_alone(folder, values):
    torch.save(values, folder / "given.pt")
    files = [str(folder / name) for name in ("network.pt2", "given.pt", "found.pt")]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True, cwd=folder)
    return torch.load(folder / "found.pt", weights_only=True)


def check_alone(network, lattice, folder, batch=1):
    """Export, run in a process that has no library, compare on inputs that were not traced."""
    path = export_network(network, lattice, folder / "network.pt2", batch)
    fields = random_fields(network.task, lattice, batch, network.dtype, seed=7)
    found = run_alone(folder, [fields[field.name] for field in network.task.inputs])
    with torch.no_grad():
        wanted = network(fields, lattice)
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        size = float(values.abs().max())
        assert float((found[name] - values).abs().max()) < 1e-4 * size
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    return path


def conserving_task():
    return Task(
        "conserving",
        (Field("Q"),),
        (Field("density"),),
        "square",
        conserved=Conservation("density", "Q", 0.0, 0.3, 0.0, 0.2),
    )


@pytest.mark.parametrize(
    ("name", "task", "options"),
    [
        ("gcn", scalar_task("square", odd=True), {"widths": [4, 4]}),
        ("energy_gnn", scalar_task("square"), {"widths": [4, 4]}),
    ],
)
def test_a_program_runs_without_the_library(name, task, options, tmp_path):
    network = perturb(create_model(name, task, **options)).eval()
    path = check_alone(network, square(5, 6), tmp_path, batch=2)
    extra = {"latticezoo.json": ""}
    torch.export.load(path, extra_files=extra)
    described = json.loads(extra["latticezoo.json"])
    assert (described["model"], described["lattice"]) == (name, "square(5, 6)")
    assert described["batch"] == 2


def test_all_attempts_for_all_samples_give_the_same_solution():
    """The search of an export, which does not look at numbers, is the search."""
    rule, lattice = conserving_task().conserved, square(6)
    values = torch.randn(7, lattice.n_sites, 1, generator=torch.Generator().manual_seed(0))
    values = (values + torch.linspace(-1, 1, 7)[:, None, None]).double()

    def evaluate(fields):
        return {"density": 0.4 * torch.tanh(fields["Q"])}

    one, other = (solve(evaluate, {"Q": values}, rule, unrolled=how) for how in (False, True))
    assert torch.equal(one.potential, other.potential)
    assert torch.equal(one.outputs["density"], other.outputs["density"])
    assert float(one.potential.abs().max()) > 0.1


@pytest.mark.slow  # nine evaluations in one graph
def test_a_conserving_network_is_exported_with_its_search(tmp_path):
    network = create_model("gcn", conserving_task(), widths=[4], conserve=True)
    network = perturb(network).eval()
    check_alone(network, square(5), tmp_path)


def test_what_cannot_be_exported_is_refused(tmp_path):
    network = create_model("gcn", scalar_task("square"), widths=[4])
    with pytest.raises(InputError, match=r"must end in \.pt2"):
        export_network(network, square(6), tmp_path / "network.pt")
    with pytest.raises(InputError, match="runs on square lattices"):
        export_network(network, Lattice.parse("chain(6)"), tmp_path / "network.pt2")
    with pytest.raises(InputError, match="at least 1"):
        export_network(network, square(6), tmp_path / "network.pt2", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", list_pretrained())
def test_every_card_is_exported(name, tmp_path):
    network = load_pretrained(name)
    family = network.task.family
    check_alone(network, Lattice(family, (12,) * Lattice.dimension(family)), tmp_path)
