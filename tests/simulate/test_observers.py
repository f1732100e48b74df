"""Observers: what they measure, on an exact system and a toy one; resumption with all of them."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from harmonic_lattice import Disturbed, HarmonicLattice

from latticezoo.simulate import initial, observables
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.observers import (
    CorrelationFunction,
    CorrelationLength,
    Energy,
    FunctionObserver,
    KineticTemperature,
    OrderParameter,
    StructureFactor,
    TimeAverage,
)
from latticezoo.simulate.run import Interrupted, Trajectory, simulate
from latticezoo.simulate.systems.holstein import preset
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square

LATTICE = square(6, 4)
ALL = (
    Energy(every=3),
    KineticTemperature(every=2),
    OrderParameter(every=2, source="Q"),
    StructureFactor(every=4, source="Q"),
    CorrelationFunction(every=5, source="Q"),
    CorrelationLength(every=5, source="Q"),
    FunctionObserver(1, "largest", lambda s: s.state.fields["Q"].abs().amax((1, 2))),
    TimeAverage(name="mean_structure", observer=StructureFactor(source="Q"), after=4),
)


def run(field=None, replicas=3, **options):
    return simulate(
        HarmonicLattice(1.0, 0.18) if field is None else field,
        Langevin(0.1, 0.3, 0.2, mass=2.0),
        initial.random(LATTICE, replicas, seed=2),
        20,
        lattice=LATTICE,
        observers=ALL,
        progress=False,
        **options,
    )


def test_samples_are_the_observables_of_the_frames(tmp_path):
    """Every sample equals the pure function applied to the frame of its step; axes tell units."""
    result = run(trajectory=Trajectory(tmp_path / "run.h5", quantities=("fields", "momenta")))
    with open_trajectory(tmp_path / "run.h5") as file:
        Q = torch.from_numpy(file.fields["Q"][...])
        P = torch.from_numpy(file.quantity("momenta")["Q"][...])

    def each(function, *arguments):
        return torch.stack([function(*frame) for frame in zip(*arguments, strict=True)]).numpy()

    order = each(lambda q: observables.staggered_order(q, LATTICE)[:, 0], Q)
    structure = each(lambda q: observables.structure_factor(q, LATTICE), Q)
    correlation = each(
        lambda q: observables.correlation_function(observables.local_order(q, LATTICE), LATTICE), Q
    )
    length = observables.correlation_length(torch.from_numpy(correlation)).numpy()
    found = result.observers
    for name, every, exact in (
        ("energy", 3, each(lambda q: HarmonicLattice(1.0, 0.18).energy({"Q": q}, LATTICE), Q)),
        ("kinetic_temperature", 2, (P**2).mean((2, 3)).numpy() / 2),
        ("order_parameter", 2, order),
        ("structure_factor", 4, structure),
        ("correlation_function", 5, correlation),
        ("correlation_length", 5, length),
    ):
        assert found[name].steps.tolist() == list(range(0, 21, every))
        np.testing.assert_allclose(found[name].values, exact[::every], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found["mean_structure"].values[0], structure[5:].mean(0), rtol=1e-12)
    np.testing.assert_array_equal(found["correlation_function"].axes["distance"], [0, 1, 2])
    axes = found["structure_factor"].axes
    np.testing.assert_allclose(axes["k1"], 2 * np.pi * np.array([0, 1, 2, -3, -2, -1]) / 6)
    np.testing.assert_allclose(axes["k2"], 2 * np.pi * np.array([0, 1, -2, -1]) / 4)
    with open_trajectory(tmp_path / "run.h5") as file:
        for name, series in found.items():
            stored = file.observers[name]
            assert np.array_equal(stored.values, series.values)
            assert stored.axes.keys() == series.axes.keys()


def test_samples_do_not_depend_on_the_batch():
    """Replica 2 measured alone gives the bits it gives in a batch."""
    batch, alone = run(replicas=3).observers, run(replicas=(2,)).observers
    for name in batch:
        assert np.array_equal(batch[name].values[:, 2:], alone[name].values, equal_nan=True), name


def test_samples_after_resuming(tmp_path):
    """All observers, running means included: after a signal and a rerun, the same bits."""
    event = (lambda: os.kill(os.getpid(), signal.SIGTERM),)
    with pytest.raises(Interrupted):
        run(Disturbed(1.0, 0.18, 0.0, 30, *event), checkpoint=tmp_path / "run.ckpt")
    resumed = run(Disturbed(1.0, 0.18), checkpoint=tmp_path / "run.ckpt")
    assert 0 < resumed.steps_done < 20
    for name, series in run().observers.items():
        for part in ("steps", "times", "values"):
            here = getattr(resumed.observers[name], part)
            assert np.array_equal(here, getattr(series, part), equal_nan=True), (name, part)


def test_exact_system():
    """Density read off the forces equals that of the electrons; the batch changes no bit."""
    lattice, system = square(4), preset("holstein_weak")
    dynamics = Langevin(0.1, 0.1, system.damping, mass=system.mass)
    observers = (
        OrderParameter(),
        StructureFactor(),
        CorrelationLength(),
        Energy(),
        FunctionObserver(1, "density", lambda snapshot: snapshot.values("density")),
    )
    start = initial.staggered(lattice, 3, amplitude=2.0, noise=0.5, seed=1)
    batch = simulate(
        system, dynamics, start, 5, lattice=lattice, observers=observers, progress=False
    )
    alone = simulate(
        system, dynamics, start.select([1]), 5, lattice=lattice, observers=observers, progress=False
    )
    for name, series in batch.observers.items():
        assert np.array_equal(series.values[:, 1:2], alone.observers[name].values, equal_nan=True)
    exact = system.observables(batch.state.fields, lattice)
    last = {name: series.values[-1] for name, series in batch.observers.items()}
    np.testing.assert_allclose(last["density"], exact["density"], atol=1e-12)
    np.testing.assert_allclose(last["energy"], exact["energy"], atol=1e-12)
    staggered = observables.staggered_order(exact["density"], lattice)[:, 0]
    np.testing.assert_allclose(last["order_parameter"], staggered, atol=1e-12)
    np.testing.assert_allclose(
        last["structure_factor"][:, 2, 2], last["order_parameter"] ** 2, rtol=1e-12
    )


def test_no_density():
    """An observer that asks for what the run does not have is refused at the start."""
    with pytest.raises(InputError, match="asks for 'density'; this run has the fields Q"):
        simulate(
            HarmonicLattice(),
            Langevin(0.1, 0.1, 0.1),
            initial.random(LATTICE, seed=1),
            1,
            lattice=LATTICE,
            observers=(OrderParameter(),),
            progress=False,
        )
