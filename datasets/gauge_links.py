"""Recipes of gauge backgrounds: Haar-random links, and links of the pure gauge theory at some β.

Every background is independent of all others: a thermal one is the last of ``sweeps`` sweeps of
heat bath and over-relaxation that began at its own start, exact for Z2 (see
:mod:`latticezoo.simulate.gauge_sampling`), random for the other groups. The plaquette forgets its
start in few sweeps, so that a split by background is a split of independent samples.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latticezoo.datasets.frames import exact_source, stream_seed
from latticezoo.datasets.labelled import RANDOM, LabelledData, Source
from latticezoo.datasets.registry import Recipe, Unit, check_count, recipe
from latticezoo.datasets.torus import parse_lattice
from latticezoo.simulate.gauge_sampling import GaugeSampler
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.simulate.systems.wilson_loops import WilsonLoops
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: The label with one value for each of 64 energies, which would be most of a file.
SPECTRUM = "local_density_of_states"


@dataclass(frozen=True, kw_only=True)
class Backgrounds(Recipe):
    """Gauge backgrounds on the square torus.

    Args:
        group: ``Z2``, ``U1`` or ``SU2``.
        lattice: Linear size, or a lattice such as ``square(12, 16)``.
        random: Number of backgrounds with independent Haar-random links.
        thermal: Number of backgrounds from the pure gauge theory, as many at each β.
        betas: Values of β, with commas between. A negative one favours plaquettes of −1, as
            half-filled fermions do: its states are those at |β| with the vertical links of every
            second column reversed in sign, which turns W into −W.
        sweeps: Sweeps that lead to a thermal background.
        seed: Seed of everything that is random.

    Raises:
        InputError: An option is outside its range.
    """

    group: str = "Z2"
    lattice: int | str = 12
    random: int = 200
    thermal: int = 200
    betas: str = "0.5,1,2"
    sweeps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lattice", str(parse_lattice(self.lattice, "square")))
        for name in ("random", "thermal", "seed"):
            check_count(name, getattr(self, name))
        check_count("sweeps", self.sweeps, least=1)
        if self.seed >= 1 << 63:
            raise InputError(f"seed is {self.seed}; it must be below 2^63.")
        if not self.random and not self.thermal:
            raise InputError("random and thermal are both 0; a dataset needs one of them.")
        self.samplers()  # raises for an unknown group or a β that is none
        GaugeSampler.check(self.geometry)
        if any(beta < 0 for beta in self._betas()) and self.geometry.shape[0] % 2:
            raise InputError(
                f"betas are {self.betas!r} on {self.geometry}; a negative one needs an even first "
                "side."
            )

    @property
    @abstractmethod
    def system(self) -> GaugeFermions | WilsonLoops:
        """The exact system."""

    @abstractmethod
    def labels(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        """Labels of some backgrounds, and their energies."""

    @property
    def geometry(self) -> Lattice:
        """The lattice."""
        return Lattice.parse(str(self.lattice))

    @property
    def task(self) -> Task:
        """The default task of the system; the labels serve others too."""
        return self.system.task("square")

    def source(self) -> Source:
        """System, parameters and options."""
        return exact_source(self, self.system, self.seed)

    def types(self) -> dict[str, Field]:
        """Type of every label."""
        return {**self.system.label_types(), "energy": Field("energy", support="global")}

    def sampler(self, beta: float) -> GaugeSampler:
        """The sampler at one β."""
        return GaugeSampler(self.group, beta, seed=stream_seed(self.seed))

    def samplers(self) -> list[GaugeSampler]:
        """One sampler for each |β|; random links are those at β = 0."""
        return [self.sampler(abs(beta)) for beta in self._betas()]

    def _betas(self) -> list[float]:
        try:
            return [float(text) for text in self.betas.split(",")]
        except ValueError:
            raise InputError(
                f"betas are {self.betas!r}; give numbers with commas between, such as '0.5,1,2'."
            ) from None

    def units(self) -> tuple[Unit, ...]:
        """Blocks of random backgrounds, then of thermal ones."""
        size = 20 if self.geometry.n_sites <= 400 else 5
        made = []
        for kind, total in (("random", self.random), ("thermal", self.thermal)):
            for start in range(0, total, size):
                count = min(size, total - start)
                made.append(Unit(f"{kind}-{start:05d}", count, start, count))
        return tuple(made)

    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make and label one block."""
        numbers = range(unit.first, unit.first + unit.count)
        thermal = unit.name.startswith("thermal")
        links = self.backgrounds(numbers, thermal)
        fields = {"U": links}
        if any(field.name == "sublattice" for field in self.task.inputs):
            signs = self.geometry.stagger[None, :, None]
            fields["sublattice"] = signs.expand(unit.count, -1, 1).clone()
        labels = self.labels(fields)
        report(unit.count)
        first = self.random if thermal else 0
        return LabelledData(
            task=self.task,
            lattice=self.geometry,
            fields=fields,
            labels=labels,
            types=self.types(),
            source=self.source(),
            kind=torch.full((unit.count,), RANDOM),
            frame=torch.tensor(numbers) + first,
        )

    def backgrounds(self, numbers: Sequence[int], thermal: bool) -> Tensor:
        """Links ``[B, N, D, …]``, each background a function of seed, kind and number alone.

        Those of one β go through the sampler together, which on 8 × 8 SU(2) links takes a fifth of
        the time that they take one after the other.
        """
        if not thermal:
            return self.sampler(0.0).start(self.geometry, tuple(numbers))
        betas, samplers = self._betas(), self.samplers()
        found: dict[int, Tensor] = {}
        for place, (beta, sampler) in enumerate(zip(betas, samplers, strict=True)):
            mine = [number for number in numbers if number % len(betas) == place]
            if not mine:
                continue
            own = [self.random + number for number in mine]
            start = sampler.start(self.geometry, own)
            links = sampler.run(start, self.geometry, self.sweeps, own).links
            if beta < 0:
                columns = links.unflatten(1, self.geometry.shape)
                columns[:, 1::2, :, 1] *= -1
            found |= dict(zip(mine, links, strict=True))
        return torch.stack([found[number] for number in numbers])

    @property
    def size(self) -> int:
        """Rough size of the dataset in bytes."""
        numbers = {"Z2": 2, "U1": 4, "SU2": 16}[self.group]
        return 8 * self.samples * self.geometry.n_sites * (numbers + 2 * len(self.types()))


@recipe("gauge_fermions")
@dataclass(frozen=True, kw_only=True)
class FermionsOnLinks(Backgrounds):
    """Fermions on gauge links: see :class:`~latticezoo.simulate.systems.GaugeFermions`.

    Energies are in units of t. Options as :class:`Backgrounds`, and:

    Args:
        temperature: Temperature of the fermions.
        mass: Staggered mass m; then the inputs hold the field ``sublattice``.
        chemical_potential: μ.
        antiperiodic: Whether fermions change sign around both sides.
        spectrum: Whether to keep the local density of states, 64 numbers a site.

    Raises:
        InputError: An option is outside its range.
    """

    temperature: float = 0.02
    mass: float = 0.0
    chemical_potential: float = 0.0
    antiperiodic: bool = False
    spectrum: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.system.sublattice({"U": torch.ones(1)}, self.geometry)  # raises for odd sides

    @property
    def system(self) -> GaugeFermions:
        """The exact system."""
        return GaugeFermions(
            self.group,
            temperature=self.temperature,
            mass=self.mass,
            chemical_potential=self.chemical_potential,
            antiperiodic=(self.antiperiodic, self.antiperiodic),
        )

    def labels(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        """All labels, by one diagonalization each."""
        without_costs = self.temperature == 0
        names = tuple(
            name
            for name in self.system.label_types()
            if (self.spectrum or name != SPECTRUM) and not (without_costs and name == "flip_cost")
        )
        return self.system.labels(fields, self.geometry, names)

    def seconds_per_solve(self) -> float:
        """Rough time of one diagonalization on one core."""
        states = self.geometry.n_sites * self.system.colours
        return 2e-3 + (1.5e-10 if self.group == "Z2" else 8e-10) * states**3


@recipe("wilson_loops")
@dataclass(frozen=True, kw_only=True)
class LoopsOfLinks(Backgrounds):
    """Traced rectangular loops: see :class:`~latticezoo.simulate.systems.WilsonLoops`.

    Options as :class:`Backgrounds`, and:

    Args:
        largest: Loops of 1 × 1 to this size.

    Raises:
        InputError: An option is outside its range, or a loop would close around the torus.
    """

    revision: ClassVar[int] = 2

    group: str = "SU2"
    betas: str = "1,2,4"
    largest: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        side = min(self.geometry.shape)
        if self.system.largest >= side:
            raise InputError(
                f"largest is {self.largest}, but loops on {self.geometry} must be smaller than "
                f"its side {side}."
            )

    @property
    def system(self) -> WilsonLoops:
        """The exact system."""
        return WilsonLoops(self.group, self.largest)

    def labels(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        """All loops."""
        return self.system.labels(fields, self.geometry)

    def seconds_per_solve(self) -> float:
        """Rough time of one background: its sweeps."""
        return 1e-3 + self.sweeps * (1e-3 + 3e-6 * self.geometry.n_sites)
