"""Recipe for the Jahn–Teller model: random configurations and frames of exact quenches.

Random configurations: Q^x and Q^z uniform in [−A, A], Q^A in [−A/2, A/2] about its rest position,
with A drawn from 0.2–1 g/k for each configuration. Half of them lie on a C-type background
±B(−1)^(x+y) of Q^x, with B drawn from 0–0.6 g/k. Quenches start from A = 1; these and the rest are
as in :mod:`~latticezoo.datasets.quenches`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from latticezoo.datasets.quenches import QuenchRecipe
from latticezoo.datasets.registry import recipe
from latticezoo.simulate.systems import jahn_teller

#: Amplitudes A in units of g/k, up to that of the disorder at the start of a quench.
AMPLITUDES = (0.2, 1.0)
#: Strength B of the background in units of g/k; in the ordered state Q^x is ±0.38.
BACKGROUNDS = (0.0, 0.6)


@recipe("jahn_teller_square")
@dataclass(frozen=True, kw_only=True)
class JahnTellerSquare(QuenchRecipe):
    """Jahn–Teller model on the square lattice: random configurations and exact quenches.

    Options as :class:`~latticezoo.datasets.quenches.QuenchRecipe`, and:

    Args:
        preset: Parameter set: ``jahn_teller_half_filled`` (f = 0.5) or ``jahn_teller_doped``
            (f = 0.49).
        g: Electron–lattice coupling λ instead of the preset's.
        k: Spring constant K of the Jahn–Teller modes instead of the preset's.
        beta: Ratio of the spring constants of breathing and Jahn–Teller modes instead of the
            preset's.
        filling: Share N_e/2N of the orbitals that is filled instead of the preset's.
        start_amplitude: Amplitude of the random start of Q^x and Q^z; that of Q^A is half of it.

    Raises:
        InputError: An option is outside its range.
    """

    preset: str = "jahn_teller_half_filled"
    beta: float | None = None
    dt: float = 0.05

    model: ClassVar[str] = "Jahn–Teller"
    presets = jahn_teller.PRESETS
    family: ClassVar[str] = "square"
    targets: ClassVar[tuple[str, ...]] = jahn_teller.TARGETS
    overrides: ClassVar[tuple[str, ...]] = (*QuenchRecipe.overrides, "beta")
    amplitudes: ClassVar[tuple[float, float]] = AMPLITUDES
    backgrounds: ClassVar[tuple[float, float]] = BACKGROUNDS
    ordered_mode: ClassVar[int] = jahn_teller.QX

    @cached_property
    def system(self) -> jahn_teller.JahnTeller:
        """The exact system: the preset with what is given instead."""
        made = super().system
        assert isinstance(made, jahn_teller.JahnTeller)
        return made
