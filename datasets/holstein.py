"""Recipes for the Holstein model: random configurations and frames of exact quenches.

Random configurations: Q_i uniform in [−A, A], with A drawn from 0.3–1.8 g/k for each configuration.
Half of them lie on a staggered background ±B(−1)^(x+y), with B drawn from 0–1.8 g/k: without it,
states near the charge-density wave are missing.

Quenches: each trajectory starts at rest from disorder of its own and follows exact Langevin
dynamics (BAOAB) at the temperature of the electrons. Domains form within some 10 tau0 and then
change ever more slowly, so frames lie on a geometric grid in time, from ``first_time`` to
``last_time``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from latticezoo.datasets.labelled import RANDOM, TRAJECTORY, LabelledData, Source
from latticezoo.datasets.registry import Recipe, Unit, check_count, recipe
from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.electrons.fermi import RESOLUTION
from latticezoo.simulate.noise import generator
from latticezoo.simulate.state import State
from latticezoo.simulate.systems import create_system, holstein
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: Amplitudes A of random configurations, in units of g/k (the physics sheet's proposal).
AMPLITUDES = (0.3, 1.8)
#: Strength B of the staggered background, in units of g/k; the ordered state has about 1.6–1.8.
BACKGROUNDS = (0.0, 1.8)
#: Temperature of the hot start in units of t [authors' code of set B].
HOT = 5.0
STARTS = ("random", "hot")
_OVERRIDES = ("temperature", "g", "k", "kappa", "filling", "mass", "damping")


@dataclass(frozen=True, kw_only=True)
class HolsteinRecipe(Recipe):
    """Holstein model: random configurations and frames of exact quenches.

    Amplitudes are in units of g/k, times in units of tau0 = √(m/k), energies in units of t.

    Args:
        lattice: Linear size, or a lattice such as ``square(12, 16)``; even sides.
        preset: Parameter set: ``holstein_weak`` (set A) or ``holstein_strong`` (set B).
        temperature: Temperature of electrons and bath instead of the preset's.
        g: Electron–lattice coupling instead of the preset's.
        k: Spring constant instead of the preset's.
        kappa: Coupling of neighbouring displacements instead of the preset's.
        filling: Electrons per site instead of one half.
        mass: Mass instead of the preset's.
        damping: Friction coefficient instead of the preset's.
        random: Number of random configurations.
        staggered_fraction: Share of them on a staggered background.
        trajectories: Number of quenches.
        frames: Samples taken from each quench, on a geometric grid in time.
        first_time: Time of the first frame; 1 after a random start, 5 after a hot one. The
            network never sees what lies before: after the hot start of set B displacements lie
            far outside the physical range at first and would dominate the scale of the inputs.
        last_time: Time of the last frame, the end of the quench.
        dt: Time step.
        start: ``random``: Q uniform in ±start_amplitude, at rest; ``hot``: Gaussian with variance
            5/kappa, and momenta at temperature 5, as the authors of set B do. By default ``hot``
            for ``holstein_strong`` and ``random`` otherwise.
        start_amplitude: Amplitude of the random start.
        seed: Seed of everything that is random.

    Raises:
        InputError: An option is outside its range.
    """

    lattice: int | str = 12
    preset: str = "holstein_weak"
    temperature: float | None = None
    g: float | None = None
    k: float | None = None
    kappa: float | None = None
    filling: float | None = None
    mass: float | None = None
    damping: float | None = None
    random: int = 100
    staggered_fraction: float = 0.5
    trajectories: int = 10
    frames: int = 20
    first_time: float | None = None
    last_time: float = 40.0
    dt: float = 0.1
    start: str | None = None
    start_amplitude: float = 1.0
    seed: int = 0

    family: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "lattice", str(parse_lattice(self.lattice, self.family)))
        if self.preset not in holstein.PRESETS:
            raise unknown("Holstein preset", self.preset, holstein.PRESETS)
        if self.start is None:
            hot = self.preset == "holstein_strong"
            object.__setattr__(self, "start", "hot" if hot else "random")
        if self.start not in STARTS:
            raise unknown("start of a quench", self.start, STARTS)
        if self.first_time is None:
            object.__setattr__(self, "first_time", 5.0 if self.start == "hot" else 1.0)
        for name in ("random", "trajectories", "seed"):
            check_count(name, getattr(self, name))
        check_count("frames", self.frames, least=1)
        if self.seed >= 1 << 63:
            raise InputError(f"seed is {self.seed}; it must be below 2^63.")
        if not self.random and not self.trajectories:
            raise InputError("random and trajectories are both 0; a dataset needs one of them.")
        self._check_numbers()
        self.system.hamiltonian(self.geometry)  # raises on a torus that is too small
        self.system.task(self.family)  # raises on an unstable lattice
        if self.random and self.staggered_fraction:
            self.geometry.stagger  # noqa: B018  raises for odd sides
        if self.trajectories:
            self.frame_steps()  # raises when there are too few steps
        if self.trajectories and self.start == "hot" and self.system.kappa <= 0:
            raise InputError(
                f"start is 'hot' with kappa {self.system.kappa}; its variance 5/kappa needs "
                "kappa > 0."
            )

    def _check_numbers(self) -> None:
        for name in ("dt", "last_time", "start_amplitude"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; it must be positive.")
        if not 0 <= self.staggered_fraction <= 1:
            raise InputError(
                f"staggered_fraction is {self.staggered_fraction}; it must lie between 0 and 1."
            )
        if not 0 <= self._first < self.last_time:
            raise InputError(
                f"first_time is {self.first_time}; it must lie between 0 and last_time, "
                f"{self.last_time}."
            )

    @property
    def _first(self) -> float:
        assert self.first_time is not None
        return self.first_time

    # ---- what is made --------------------------------------------------------------------------

    @property
    def geometry(self) -> Lattice:
        """The lattice."""
        return Lattice.parse(str(self.lattice))

    @cached_property
    def system(self) -> holstein.Holstein:
        """The exact system: the preset with what is given instead."""
        given = {name: getattr(self, name) for name in _OVERRIDES}
        changes = {name: value for name, value in given.items() if value is not None}
        # LAPACK on any machine: the bits of a label must not depend on where it is made.
        made = create_system(self.preset, backend="lapack", **changes)
        assert isinstance(made, holstein.Holstein)
        return made

    @property
    def task(self) -> Task:
        """Q to n − ½; see :func:`holstein_task`."""
        return holstein_task(self.system, self.geometry)

    def source(self) -> Source:
        """System, parameters and options."""
        import scipy

        return Source(
            system=self.system.name,
            parameters=self.system.parameters,
            recipe=self.name,
            options=self.options(),
            seed=self.seed,
            # A direct solver: rounding is its only error; levels closer than this count as one.
            solver_tolerance=RESOLUTION,
            created_with={
                "numpy": np.__version__,
                "scipy": scipy.__version__,
                "torch": torch.__version__,
            },
        )

    def units(self) -> tuple[Unit, ...]:
        """Blocks of random configurations, then one unit a quench."""
        size = 20 if self.geometry.n_sites <= 400 else 5
        starts = range(0, self.random, size)
        counts = [min(size, self.random - start) for start in starts]
        blocks = [
            Unit(f"random-{start:05d}", count, start, count)
            for start, count in zip(starts, counts, strict=True)
        ]
        quenches = []
        if self.trajectories:
            cost = self.frame_steps()[-1] + 1 + self.frames
            quenches = [
                Unit(f"trajectory-{number:05d}", cost, number, self.frames)
                for number in range(self.trajectories)
            ]
        return (*blocks, *quenches)

    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make one block or one quench."""
        if unit.name.startswith("random"):
            return self._random_block(unit, report)
        return self._quench(unit, report)

    # ---- random configurations -----------------------------------------------------------------

    def _random_block(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        numbers = range(unit.first, unit.first + unit.count)
        fields = np.stack([self.configuration(number) for number in numbers])
        return self._labelled(
            torch.from_numpy(fields),
            report,
            kind=torch.full((unit.count,), RANDOM),
            frame=torch.tensor(numbers),
        )

    def configuration(self, number: int) -> np.ndarray:
        """Displacements ``[N, 1]`` of one random configuration: a function of seed and number."""
        draw = generator(self._stream_seed, number, stream="random configuration")
        low, high = AMPLITUDES
        amplitude = low + (high - low) * draw.random()
        values = amplitude * (2 * draw.random((self.geometry.n_sites, 1)) - 1)
        # Number i lies on a background when the running share passes a whole number there.
        share = self.staggered_fraction
        if math.floor((number + 1) * share) > math.floor(number * share):
            low, high = BACKGROUNDS
            strength = low + (high - low) * draw.random()
            sign = 1.0 if draw.random() < 0.5 else -1.0
            values += sign * strength * self.geometry.stagger.numpy()[:, None]
        return self.system.Q0 * values

    # ---- quenches ------------------------------------------------------------------------------

    def frame_steps(self) -> list[int]:
        """Steps at which frames are taken: a geometric grid, rising, rounded to whole steps.

        Raises:
            InputError: There are more frames than steps.
        """
        first, last = max(self._first, self.dt) / self.dt, self.last_time / self.dt
        if self.frames == 1:
            return [round(last)]
        grid = np.rint(np.geomspace(first, last, self.frames)).astype(int).tolist()
        for k in range(1, self.frames):
            grid[k] = max(grid[k], grid[k - 1] + 1)
        if grid[-1] > round(last):
            raise InputError(
                f"frames is {self.frames}, but only {round(last - first) + 1} steps lie between "
                f"first_time {self.first_time} and last_time {self.last_time} at dt {self.dt}."
            )
        return grid

    def initial_state(self, number: int) -> State:
        """Start of one quench: a function of seed and number."""
        system, lattice, seed = self.system, self.geometry, self._stream_seed
        if self.start == "random":
            amplitude = self.start_amplitude * system.Q0
            return initial.random(lattice, (number,), amplitude=amplitude, seed=seed)
        return initial.thermal(
            lattice,
            (number,),
            temperature=HOT,
            stiffness=system.kappa,
            mass=system.mass,
            seed=seed,
        )

    def _quench(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        system, lattice = self.system, self.geometry

        def forces(fields: Any) -> dict[str, torch.Tensor]:
            report(1)
            return system.forces(fields, lattice)

        dynamics = Langevin(self.dt * system.tau0, system.temperature, system.damping, system.mass)
        state = self.initial_state(unit.first)
        state = dynamics.start(replace(state, forces=forces(state.fields)))
        steps, frames = self.frame_steps(), []
        for step in range(1, steps[-1] + 1):
            state = dynamics.step(state, forces)
            if step in steps:
                frames.append(state.fields["Q"])
        return self._labelled(
            torch.cat(frames),
            report,
            kind=torch.full((self.frames,), TRAJECTORY),
            trajectory=torch.full((self.frames,), unit.first),
            frame=torch.arange(self.frames),
            step=torch.tensor(steps),
            time=torch.tensor(steps, dtype=torch.float64) * self.dt,
        )

    # ---- both ----------------------------------------------------------------------------------

    @property
    def _stream_seed(self) -> int:
        """Seed of the streams. Not the user's own, under which later simulations will run.

        A simulation with the seed of the data would start from the very states, and feel the very
        noise, that a network was trained on.
        """
        digest = hashlib.blake2b(f"dataset {self.seed}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    def _labelled(
        self, Q: torch.Tensor, report: Callable[[int], None], **columns: Any
    ) -> LabelledData:
        lattice, fields = self.geometry, {"Q": Q}
        labels = self.system.labels(fields, lattice)
        report(len(Q))
        # What the electrons add to the energy: A, or Ω at fixed μ, and the constant (g/2) Σ Q.
        elastic = self.system.elastic_energy(fields, lattice)
        labels["electronic_energy"] = labels["energy"] - elastic
        flips = self.task.flips
        types = {
            "force": Field("force", odd=flips),
            "energy": Field("energy", support="global"),
            "electronic_energy": Field("electronic_energy", support="global"),
        }
        return LabelledData(
            task=self.task,
            lattice=lattice,
            fields=fields,
            labels=labels,
            types=types,
            source=self.source(),
            **columns,
        )


@recipe("holstein_square")
@dataclass(frozen=True, kw_only=True)
class HolsteinSquare(HolsteinRecipe):
    """Holstein model on the square lattice; options as :class:`HolsteinRecipe`."""

    family: ClassVar[str] = "square"


@recipe("holstein_chain")
@dataclass(frozen=True, kw_only=True)
class HolsteinChain(HolsteinRecipe):
    """Holstein model on the chain; options as :class:`HolsteinRecipe`, 64 sites by default."""

    lattice: int | str = 64

    family: ClassVar[str] = "chain"


def parse_lattice(given: int | str | Lattice, family: str) -> Lattice:
    """A lattice of a family from one size, sizes such as ``"12,16"``, or a lattice's text.

    Raises:
        InputError: It is none, or of another family.
    """
    if isinstance(given, bool) or not isinstance(given, int | str | Lattice):
        raise InputError(f"lattice is {given!r}; give a size, or text such as '{family}(12)'.")
    text = str(given).strip()
    sizes = text.replace("x", ",") if text[:1].isdigit() else ""
    if isinstance(given, int) and given < 1:
        raise InputError(f"the lattice size is {given}; it must be at least 1.")
    lattice = Lattice.parse(f"{family}({sizes})" if sizes else text)
    if lattice.family != family:
        raise InputError(f"lattice is {lattice}, but the recipe is for the {family} lattice.")
    return lattice


def holstein_task(
    system: holstein.Holstein,
    lattice: Lattice,
    target: str = "density",
    odd_symmetry: bool = True,
) -> Task:
    """The Holstein task on a lattice.

    Args:
        system: The parameters.
        lattice: The lattice.
        target: ``density`` (n − ½) or ``force`` (total).
        odd_symmetry: State the particle–hole symmetry F(−Q) = −F(Q) where it holds: at half
            filling on even sides.

    Raises:
        InputError: For an unknown target.
    """
    task = system.task(lattice.family, target)
    if odd_symmetry and not any(size % 2 for size in lattice.shape):
        return task
    return replace(
        task,
        flips=(),
        inputs=tuple(replace(field, odd=()) for field in task.inputs),
        targets=tuple(replace(field, odd=()) for field in task.targets),
    )
