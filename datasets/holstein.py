"""Recipes for the Holstein model: random configurations and frames of exact quenches.

Random configurations: Q_i uniform in [−A, A], with A drawn from 0.3–1.8 g/k for each configuration.
Half of them lie on a staggered background ±B(−1)^(x+y), with B drawn from 0–1.8 g/k. Quenches and
the rest are as in :mod:`~latticezoo.datasets.quenches`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from latticezoo.datasets.quenches import QuenchRecipe
from latticezoo.datasets.registry import recipe
from latticezoo.simulate import initial
from latticezoo.simulate.state import State
from latticezoo.simulate.systems import holstein
from latticezoo.symmetry.errors import InputError, unknown

#: Amplitudes A of random configurations, in units of g/k (the physics sheet's proposal).
AMPLITUDES = (0.3, 1.8)
#: Strength B of the staggered background, in units of g/k; the ordered state has about 1.6–1.8.
BACKGROUNDS = (0.0, 1.8)
#: Temperature of the hot start in units of t [authors' code of set B].
HOT = 5.0
STARTS = ("random", "hot")


@dataclass(frozen=True, kw_only=True)
class HolsteinRecipe(QuenchRecipe):
    """Holstein model: random configurations and frames of exact quenches.

    Options as :class:`~latticezoo.datasets.quenches.QuenchRecipe`, and:

    Args:
        preset: Parameter set: ``holstein_weak`` (set A) or ``holstein_strong`` (set B).
        kappa: Coupling of neighbouring displacements instead of the preset's.
        filling: Electrons per site instead of one half.
        first_time: Time of the first frame; 1 after a random start, 5 after a hot one. The
            network never sees what lies before: after the hot start of set B displacements lie
            far outside the physical range at first and would dominate the scale of the inputs.
        start: ``random``: Q uniform in ±start_amplitude, at rest; ``hot``: Gaussian with variance
            5/kappa, and momenta at temperature 5, as the authors of set B do. By default ``hot``
            for ``holstein_strong`` and ``random`` otherwise.

    Raises:
        InputError: An option is outside its range.
    """

    preset: str = "holstein_weak"
    kappa: float | None = None
    start: str | None = None

    model: ClassVar[str] = "Holstein"
    presets = holstein.PRESETS
    targets: ClassVar[tuple[str, ...]] = holstein.TARGETS
    overrides: ClassVar[tuple[str, ...]] = (*QuenchRecipe.overrides, "kappa")
    amplitudes: ClassVar[tuple[float, float]] = AMPLITUDES
    backgrounds: ClassVar[tuple[float, float]] = BACKGROUNDS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trajectories and self.start == "hot" and self.system.kappa <= 0:
            raise InputError(
                f"start is 'hot' with kappa {self.system.kappa}; its variance 5/kappa needs "
                "kappa > 0."
            )

    def _fill_in(self) -> None:
        if self.start is None:
            hot = self.preset == "holstein_strong"
            object.__setattr__(self, "start", "hot" if hot else "random")
        if self.start not in STARTS:
            raise unknown("start of a quench", self.start, STARTS)
        if self.first_time is None:
            object.__setattr__(self, "first_time", 5.0 if self.start == "hot" else 1.0)

    @cached_property
    def system(self) -> holstein.Holstein:
        """The exact system: the preset with what is given instead."""
        made = super().system
        assert isinstance(made, holstein.Holstein)
        return made

    def initial_state(self, number: int) -> State:
        """Start of one quench: a function of seed and number."""
        if self.start == "random":
            return super().initial_state(number)
        return initial.thermal(
            self.geometry,
            (number,),
            temperature=HOT,
            stiffness=self.system.kappa,
            mass=self.system.mass,
            seed=self.stream_seed,
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
