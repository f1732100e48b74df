"""The uncertainty of an ensemble's forces: what is recorded, and along interrupted runs too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latticezoo.simulate import (
    Checkpoint,
    ForceSpread,
    Langevin,
    Trajectory,
    create_system,
    initial,
    open_trajectory,
    simulate,
)
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square
from latticezoo.zoo import create_model

LATTICE = square(6)


def learned(name="holstein_strong", target="density", **options):
    system = create_system(name)
    torch.manual_seed(3)
    network = create_model("gcn", system.task(target=target), widths=[4, 4], **options)
    return system.learned(network.double().eval())


@pytest.mark.parametrize("target", ["density", "force"])
def test_the_spread_is_that_of_the_total_forces(target):
    """What is known exactly is the same in all members: nothing of it is uncertain."""
    field = learned(target=target, ensemble=3)
    Q = initial.random(LATTICE, 2, amplitude=1.5, seed=4).fields["Q"]
    forces = torch.stack(
        [field.system.learned(m).forces({"Q": Q}, LATTICE)["Q"] for m in field.model.members]
    )
    found = field.force_spread({"Q": Q}, LATTICE)["Q"]
    assert torch.allclose(found, forces.std(0), atol=1e-13)
    assert torch.allclose(field.forces({"Q": Q}, LATTICE)["Q"], forces.mean(0), atol=1e-13)
    if target == "density":  # F = g (n − ½) + …
        spread = field.model.spread({"Q": Q}, LATTICE)["density"]
        assert torch.allclose(found, field.system.g * spread, atol=1e-13)


def run(field, steps=6, **options):
    return simulate(
        field,
        Langevin(0.1, 0.1, 0.1),
        initial.random(LATTICE, 2, amplitude=1.0, seed=1),
        steps,
        lattice=LATTICE,
        observers=[ForceSpread(every=2)],
        progress=False,
        **options,
    )


def test_it_is_recorded_along_a_run(tmp_path):
    field = learned(ensemble=2)
    result = run(field, trajectory=Trajectory(tmp_path / "run.h5", every=2))
    samples = result.observers["force_spread"].values
    with open_trajectory(tmp_path / "run.h5") as file:
        frames = torch.as_tensor(file.fields["Q"][...])
        for frame, sample in zip(frames, samples, strict=True):
            spread = field.force_spread({"Q": frame}, LATTICE)["Q"][..., 0]
            np.testing.assert_allclose(sample[:, 0], spread.square().mean(1).sqrt(), atol=1e-13)
            np.testing.assert_allclose(sample[:, 1], spread.amax(1), atol=1e-13)
    halves = Checkpoint(tmp_path / "c.h5", every_steps=3)
    run(field, steps=3, checkpoint=halves)
    resumed = run(field, steps=6, checkpoint=halves)
    np.testing.assert_array_equal(resumed.observers["force_spread"].values, samples)


@pytest.mark.parametrize("field", [create_system("holstein_weak"), learned()], ids=["exact", "one"])
def test_force_fields_without_an_uncertainty_say_so(field):
    assert not hasattr(field, "force_spread")
    with pytest.raises(InputError, match="only an ensemble of networks does"):
        run(field)
