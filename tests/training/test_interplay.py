"""What one floor keeps must not be changed by another: networks after the exact solver has run."""

import torch

from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.lattices import square
from latticezoo.symmetry.testing import assert_equivariant
from latticezoo.zoo import create_model


def test_the_exact_solver_leaves_the_lattices_tables_alone():
    lattice, system = square(8), create_system("holstein_weak")
    before = [lattice.neighbours(shell).clone() for shell in (1, 2, 3)]
    system.forces({"Q": torch.zeros(1, 64, 1, dtype=torch.float64)}, lattice)
    for shell, table in zip((1, 2, 3), before, strict=True):
        assert torch.equal(lattice.neighbours(shell), table)


def test_a_network_is_equivariant_after_the_exact_solver_has_run():
    lattice, system = square(8), create_system("holstein_weak")
    system.forces({"Q": torch.zeros(1, 64, 1, dtype=torch.float64)}, lattice)
    task = system.task("square")
    assert_equivariant(create_model("descriptor_mlp", task).double(), task, lattice)
