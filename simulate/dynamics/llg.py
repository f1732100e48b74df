"""Landau–Lifshitz–Gilbert dynamics of unit spins, with thermal noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latticezoo.simulate.dynamics.langevin import Forces
from latticezoo.simulate.dynamics.schedule import (
    Ramp,
    check_positive,
    check_temperature,
    temperature_at,
)
from latticezoo.simulate.noise import normal_like
from latticezoo.simulate.state import State
from latticezoo.simulate.unit_vectors import check_unit_length
from latticezoo.symmetry.errors import InputError, unknown

#: The field that moves.
FIELD = "S"
SCHEMES = ("midpoint", "heun")
FORMS = ("landau_lifshitz", "gilbert")
#: Sites treated at a time on one CPU thread. Some forty operations touch every site; in blocks of
#: this size what they read and write stays in the cache: 30 ns a site instead of 150 on 1024².
BLOCK = 32768

#: The three Cartesian components, each ``[sites]``.
Vectors = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LLG:
    r"""Spins of length 1 that precess about their effective fields and are damped towards them.

    The field ``S`` ``[R, N, 3]`` moves, its forces are the effective fields
    :math:`H = -\partial E / \partial S`. There are two forms, both with the noise field η in the
    sense of Stratonovich:

    .. math::
        \text{landau\_lifshitz:} \quad
            \dot S &= \gamma\, S \times (H + \eta) - \alpha |\gamma|\, S \times (S \times H) \\
        \text{gilbert:} \quad (1 + \alpha^2)\, \dot S &= \gamma\, S \times (H + \eta)
            - \alpha |\gamma|\, S \times (S \times (H + \eta))

    The second is :math:`\dot S = \gamma\, S \times (H + \eta) - \alpha\, \mathrm{sgn}(\gamma)\, S
    \times \dot S` solved for the derivative. Damping lowers the energy for either sign of γ; the
    sign says which way round the precession goes. Positive, :math:`\dot S = S \times H`, is the
    equation of motion of an angular momentum, :math:`\{S^a, S^b\} = \epsilon_{abc} S^c`; negative
    is that of an electron's magnetic moment, which micromagnetics writes
    :math:`-|\gamma|\, m \times B`.

    **Noise.** In both forms :math:`\langle \eta^a_i(t) \eta^b_j(t') \rangle = (2 \alpha T /
    |\gamma|)\, \delta_{ij} \delta_{ab}\, \delta(t - t')`, so that exp(−E/T) is stationary. A noise
    field of strength 2D in the precession makes spins diffuse on the sphere with γ²D, noise in
    both terms with (1 + α²) γ²D; the drift down the energy is α|γ|, and in equilibrium it is 1/T
    times the diffusion. So D = αT/|γ| for the first form, whose noise stands in the precession
    alone; in the second form drift is α|γ|/(1 + α²) and diffusion γ²D/(1 + α²), which gives the
    same D (W. F. Brown, Phys. Rev. 130, 1677 (1963); García-Palacios and Lázaro, Phys. Rev. B 58,
    14937 (1998)).

    **Schemes**, of second order without noise, with two field evaluations a step: at a predicted
    state and at the new state, which the next step begins with.

    * ``midpoint``: the semi-implicit scheme of Mentink et al., J. Phys.: Condens. Matter 22,
      176001 (2010), Eqs. 18–19. With :math:`\dot S = S \times A(S)`, predictor and corrector solve
      :math:`S' = S + h\, \tfrac12 (S + S') \times A`, a rotation, in closed form, the predictor
      with A at the beginning, the corrector with A at the predicted midpoint. Fields are evaluated
      at the midpoint normalized to length 1, where alone the energy of a spin system is defined;
      the shift is of second order in h, as the error of the scheme. Rotations keep |S| but for
      rounding, which adds up as a random walk, in float32 to 1e-5 within some 1e5 steps; one Newton
      step for the length, which changes nothing but rounding, keeps it at the last bit.
    * ``heun``: the predictor–corrector scheme with both states normalized.

    Thermal averages are of first order in h for both: measured at B/T = 2, the mean cosine of a
    spin to its field, .5373, comes out too large by 0.15 to 0.5 αTh, by scheme and form.

    Args:
        dt: Time step h, in units of 1/(|γ| × the unit of energy). h times the largest field should
            stay below some tenths.
        temperature: Temperature of the bath in units of t, or a :class:`Ramp`; 0 for no noise.
        damping: α ≥ 0; without damping there is no noise either, whatever the temperature.
        gamma: Gyromagnetic ratio γ ≠ 0, its sign the sense of precession.
        scheme: ``midpoint`` or ``heun``.
        form: ``landau_lifshitz`` or ``gilbert``: what α means.
        seed: Seed of the noise; None takes the seed of the state.

    Raises:
        InputError: A parameter lies outside its range.
    """

    dt: float
    temperature: float | Ramp
    damping: float
    gamma: float = 1.0
    scheme: str = "midpoint"
    form: str = "landau_lifshitz"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        if not isinstance(self.temperature, Ramp):
            check_temperature(self.temperature)
        check_positive("damping", self.damping, zero=True)
        if not math.isfinite(self.gamma) or self.gamma == 0:
            raise InputError(f"gamma is {self.gamma!r}; it must be a finite number other than 0.")
        if self.scheme not in SCHEMES:
            raise unknown("scheme of the LLG dynamics", self.scheme, SCHEMES)
        if self.form not in FORMS:
            raise unknown("form of the LLG equation", self.form, FORMS)

    def start(self, state: State) -> State:
        """Drop momenta, which spins do not have, and check that the spins are unit vectors.

        Raises:
            InputError: There is no field ``S`` of three components and length 1, or no force on
                it, or a force on another field.
        """
        spins = state.fields.get(FIELD)
        if spins is None or spins.shape[-1] != 3:
            given = ", ".join(f"{name} {list(v.shape)}" for name, v in state.fields.items())
            raise InputError(
                f"LLG dynamics moves spins, a field 'S' of shape [replicas, sites, 3]; the state "
                f"has {given}."
            )
        if list(state.forces) != [FIELD]:
            found = ", ".join(state.forces) or "nothing"
            raise InputError(
                f"LLG dynamics moves the field 'S' alone, but the forces act on {found}."
            )
        check_unit_length(spins)
        return replace(state, momenta={}).with_dt(self.dt)

    def step(self, state: State, forces: Forces) -> State:
        """One step.

        Args:
            state: Spins ``S`` ``[R, N, 3]`` and the effective fields at them.
            forces: Gives the effective fields at other spins; called twice.

        Returns:
            The state one step later, with its fields.
        """
        spins, field = state.fields[FIELD], state.forces[FIELD]
        noise = self._noise(state)
        known = [spins, field] if noise is None else [spins, field, noise]
        middle = sitewise(self._predict, *known)
        known[1] = forces({**state.fields, FIELD: middle})[FIELD]
        if self.scheme == "heun":
            known.append(field)
        new = sitewise(self._correct, middle, *known)
        fields = {**state.fields, FIELD: new}
        return replace(state, fields=fields, forces=dict(forces(fields)), step=state.step + 1)

    # ---- inner parts: Cartesian components, site by site ----------------------------------------

    def _noise(self, state: State) -> Tensor | None:
        """η averaged over the step, like the spins; None without noise."""
        temperature = temperature_at(self.temperature, state.step)
        spread = math.sqrt(2 * self.damping * temperature / (abs(self.gamma) * self.dt))
        if spread == 0:
            return None
        seed = state.seed if self.seed is None else self.seed
        spins = state.fields[FIELD]
        return spread * normal_like(spins, seed, state.replicas, state.step, f"dynamics/{FIELD}")

    def _axis(self, spins: Vectors, field: Vectors, noise: Vectors | None) -> Vectors:
        """(h/2) A, where dS/dt = S × A."""
        rate = 0.5 * self.dt * self.gamma
        damping = 0.5 * self.dt * self.damping * abs(self.gamma)
        driving = field if noise is None else _sum(field, noise)
        if self.form == "gilbert":
            scale = 1 / (1 + self.damping**2)
            rate, damping, field = scale * rate, scale * damping, driving
        axis = _scaled(rate, driving)
        if damping == 0:
            return axis
        return _difference(axis, _scaled(damping, cross(spins, field)))

    def _predict(self, spins: Vectors, field: Vectors, noise: Vectors | None = None) -> Vectors:
        """Where the fields are evaluated: at the predicted midpoint, or, of Heun, the end."""
        axis = self._axis(spins, field, noise)
        if self.scheme == "heun":
            return _unit(_sum(spins, _scaled(2.0, cross(spins, axis))))
        # The middle of S and its image under the rotation, up to a positive factor.
        turn, scale = _turn(spins, axis)
        return _unit(_sum(spins, _scaled(0.5 * scale, turn)))

    def _correct(
        self,
        middle: Vectors,
        spins: Vectors,
        field: Vectors,
        *others: Vectors,
    ) -> Vectors:
        """The new spins."""
        if self.scheme == "heun":
            *noises, first = others
            noise = noises[0] if noises else None
            early = cross(spins, self._axis(spins, first, noise))
            late = cross(middle, self._axis(middle, field, noise))
            return _unit(_sum(spins, _sum(early, late)))
        turn, scale = _turn(spins, self._axis(middle, field, others[0] if others else None))
        turned = _sum(spins, _scaled(scale, turn))
        return _scaled(1.5 - 0.5 * dot(turned, turned), turned)


def sitewise(function: Callable[..., Vectors], *arrays: Tensor) -> Tensor:
    """Apply a function of Cartesian components to arrays ``[…, 3]``, block by block of sites.

    Elementary operations on components alone, no fused forms and no reductions over short axes:
    a site's result has the same bits in every batch and block.
    """
    shape = arrays[0].shape
    flat = [array.reshape(-1, 3) for array in arrays]
    result = torch.empty_like(flat[0])
    count = len(result)
    block = BLOCK * torch.get_num_threads() if result.device.type == "cpu" else max(count, 1)
    for start in range(0, count, block):
        end = start + block
        found = function(*(array[start:end].unbind(-1) for array in flat))
        torch.stack(found, -1, out=result[start:end])
    return result.reshape(shape)


def cross(a: Vectors, b: Vectors) -> Vectors:
    """a × b."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def dot(a: Vectors, b: Vectors) -> Tensor:
    """a · b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _turn(spins: Vectors, axis: Vectors) -> tuple[Vectors, Tensor]:
    """S' − S = scale · turn, where S' = S + (S + S') × a: a rotation about −a by 2 arctan |a|.

    In this form, a small difference on top of S, rounding is that of S alone.
    """
    sideways = cross(spins, axis)
    return _sum(sideways, cross(sideways, axis)), 2 / (1 + dot(axis, axis))


def _sum(a: Vectors, b: Vectors) -> Vectors:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _difference(a: Vectors, b: Vectors) -> Vectors:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


def _scaled(scale: float | Tensor, a: Vectors) -> Vectors:
    return (scale * a[0], scale * a[1], scale * a[2])


def _unit(a: Vectors) -> Vectors:
    length = dot(a, a).sqrt()
    return (a[0] / length, a[1] / length, a[2] / length)
