"""Dynamics of gauge links: link spins of quantum link models, and rotors of Kogut–Susskind type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latticezoo.simulate.dynamics.langevin import Forces
from latticezoo.simulate.dynamics.runge_kutta import rk5_step
from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.state import State
from latticezoo.simulate.systems.ehrenfest_links import EhrenfestLinks
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.internal import SU2
from latticezoo.symmetry.lattices import Lattice

#: Links whose modulus is below this share of the spin length are left out when lengths are kept.
_CAP = 1e-3


@dataclass(frozen=True)
class LinkSpins:
    r"""Link spins that precess about their effective fields: dS/dt = S × B.

    In the fields ``U`` = S^x + iS^y and ``E`` = S^z

    .. math::
        \dot U = i (E B^+ - U B^z), \qquad \dot E = \mathrm{Im}(U^* B^+),

    with B the forces of :class:`~latticezoo.simulate.systems.QuantumLink`, of a network in its
    place (adiabatic), or of :class:`~latticezoo.simulate.systems.ehrenfest_links.EhrenfestLinks`
    (Ehrenfest: then ρ is propagated too). Fifth-order Runge–Kutta, six force calls a step: at the
    same cost the steps are longer than with four of fourth order, and the errors far smaller.

    div E is kept to rounding: the rates of every stage have none, and no later operation changes E.
    B is evaluated at spins of the right length. That of the result, off by O(dt⁶), is put right by
    the modulus of U alone, which moves U by as much over its modulus, but for the nearest of the
    poles, where U vanishes. Learned fields are rougher than exact ones, and a spin may stay about a
    pole for long: left alone within 0.1 of it, lengths came to be off by 9e-5. Steps of 0.1/t are
    too long for them (a learned run with T = 0.02 and g² = 0.7 ended with |E| > S before its
    2000th step), steps of 0.05/t are not.

    Args:
        dt: Time step.
        length: Length of the spins; where it is None each keeps the one it has at the beginning of
            a step.

    Raises:
        InputError: dt or the length is not positive.
    """

    dt: float
    length: float | None = None

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        if self.length is not None:
            check_positive("length", self.length)

    def start(self, state: State) -> State:
        """Check the fields.

        Raises:
            InputError: There is no complex ``U`` or no ``E``, or no forces on both.
        """
        _require(state, forces=("U", "E"))
        return replace(state, momenta={}).with_dt(self.dt)

    def step(self, state: State, forces: Forces) -> State:
        """One step; ``forces`` is called six times, at last at the new fields."""
        begin = dict(state.fields)
        square = begin["U"].abs() ** 2 + begin["E"] ** 2
        if self.length is not None:
            square = torch.full_like(square, self.length**2)

        def on_sphere(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            scale = torch.sqrt(square / (values["U"].abs() ** 2 + values["E"] ** 2))
            return {**values, "U": scale * values["U"], "E": scale * values["E"]}

        def rate(values: dict[str, Tensor]) -> dict[str, Tensor]:
            if values is begin:
                return _precession(begin, state.forces)
            fields = on_sphere(values)
            return _precession(fields, forces(fields))

        new = rk5_step(rate, begin, self.dt)
        modulus = torch.sqrt((square - new["E"] ** 2).clamp(min=0))
        far = modulus > _CAP * square.sqrt()
        size = new["U"].abs()
        kept = torch.where(far, modulus / torch.where(far, size, 1.0), 1.0)
        fields = {**new, "U": kept * new["U"]}
        return replace(state, fields=fields, forces=dict(forces(fields)), step=state.step + 1)


@dataclass(frozen=True)
class LinkRotors:
    r"""Links in U(1) or SU(2) with an electric energy: leapfrog on the group.

    .. math::
        \dot U_l = i g^2 E_l U_l, \qquad \dot E_l^a = F_l^a

    for H = (g²/2) Σ E² + V(U), with E = E^a σ^a/2 at the start of the link (J. Kogut, L. Susskind,
    Phys. Rev. D 11, 395 (1975)). A half kick of E, U ← exp(i dt g² E) U, a half kick: symplectic,
    of second order, and each part keeps Gauss's law. Forces are those on the field ``E``.

    Args:
        dt: Time step.
        g2: g².

    Raises:
        InputError: dt is not positive, or g² negative.
    """

    dt: float
    g2: float

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        check_positive("g2", self.g2, zero=True)

    def start(self, state: State) -> State:
        """Check the fields.

        Raises:
            InputError: There is no complex ``U`` or no ``E``, or no force on ``E``.
        """
        _require(state, forces=("E",))
        return replace(state, momenta={}).with_dt(self.dt)

    def step(self, state: State, forces: Forces) -> State:
        """One step, with one force call."""
        electric = state.fields["E"] + 0.5 * self.dt * state.forces["E"]
        links = _rotated(state.fields["U"], electric, self.dt * self.g2)
        fields = {**state.fields, "U": links, "E": electric}
        found = dict(forces(fields))
        fields["E"] = electric + 0.5 * self.dt * found["E"]
        return replace(state, fields=fields, forces=found, step=state.step + 1)


@dataclass(frozen=True)
class EhrenfestRotors:
    r"""Rotors and fermions out of equilibrium, by parts that are each solved exactly.

    At fixed U the fermions turn by exp(−ih t), and E grows by the time integral of their force,
    known in closed form in the basis of h; at fixed E and ρ the links rotate. Half of the first,
    the second, half of the first (Strang): of second order and reversible; Gauss's law is kept to
    rounding, because the generators of local transformations commute with both parts.

    The field ``rho`` is made by :meth:`EhrenfestLinks.start`.

    Args:
        driver: The model; the run is driven by the same object.
        lattice: The lattice.
        dt: Time step.
        g2: g².

    Raises:
        InputError: dt is not positive, or g² negative.
    """

    driver: EhrenfestLinks
    lattice: Lattice
    dt: float
    g2: float

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        check_positive("g2", self.g2, zero=True)

    def start(self, state: State) -> State:
        """Check the fields.

        Raises:
            InputError: There is no complex ``U``, no ``E`` or no ``rho``.
        """
        _require(state, forces=("E", "rho"))
        return replace(state, momenta={}).with_dt(self.dt)

    def step(self, state: State, forces: Forces) -> State:
        """One step, with two diagonalizations."""
        fields = self._half(dict(state.fields))
        fields["U"] = _rotated(fields["U"], fields["E"], self.dt * self.g2)
        fields = self._half(fields)
        return replace(state, fields=fields, forces=dict(forces(fields)), step=state.step + 1)

    def _half(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        """Half a step at fixed links."""
        driver, lattice, time = self.driver, self.lattice, 0.5 * self.dt
        levels, vectors = torch.linalg.eigh(driver.hamiltonian(fields, lattice))
        inner = vectors.mH @ driver.flat(fields["rho"]) @ vectors
        phase = time * (levels[:, :, None] - levels[:, None, :])
        turn = torch.polar(torch.ones_like(phase), -phase)
        # ∫ e^{−i(ε_m − ε_n)s} ds over the half step, by its value in the middle.
        mean = torch.polar(torch.sinc(phase / (2 * torch.pi)), -phase / 2)
        mean_rho = vectors @ (mean * inner) @ vectors.mH
        rho = vectors @ (turn * inner) @ vectors.mH
        push = driver.link_forces(fields, mean_rho, lattice)["E"]
        return {
            **fields,
            "E": fields["E"] + time * push,
            "rho": driver.shaped(rho, lattice),
        }


def _precession(fields: Mapping[str, Tensor], forces: Mapping[str, Tensor]) -> dict[str, Tensor]:
    links, electric = fields["U"], fields["E"]
    across, along = forces["U"], forces["E"]
    rates = {
        "U": 1j * (electric * across - links * along),
        "E": links.real * across.imag - links.imag * across.real,
    }
    rest = {name: torch.zeros_like(values) for name, values in fields.items() if name not in rates}
    return {**rest, **rates, **({"rho": forces["rho"]} if "rho" in forces else {})}


def _rotated(links: Tensor, electric: Tensor, time: float) -> Tensor:
    """exp(i time E) U."""
    if links.dim() == 3:
        return torch.polar(torch.ones_like(electric), time * electric) * links
    angle = 0.5 * time * electric.norm(dim=-1)
    axis = 2 * SU2.matrix(electric)  # E^a σ^a, which squares to |E|²
    ratio = 0.5 * time * torch.sinc(angle / torch.pi)
    unit = torch.eye(2, dtype=links.dtype, device=links.device)
    turned = (angle.cos()[..., None, None] * unit + 1j * ratio[..., None, None] * axis) @ links
    # Rounding would add up as a random walk: one Newton step for the determinant.
    square = (turned.abs() ** 2).sum((-2, -1), keepdim=True) / 2
    return (1.5 - 0.5 * square) * turned


def _require(state: State, forces: tuple[str, ...]) -> None:
    given = ", ".join(f"{name} {list(v.shape)}" for name, v in state.fields.items())
    links, electric = state.fields.get("U"), state.fields.get("E")
    fits = links is not None and electric is not None and links.is_complex()
    if links is not None and electric is not None and fits:
        wanted = links.shape if links.dim() == 3 else (*links.shape[:3], 3)
        fits = electric.shape == wanted and not electric.is_complex()
    if not fits:
        raise InputError(
            "links move with their electric fields: complex U [replicas, sites, directions, …] and "
            f"real E of the same places; the state has {given}."
        )
    missing = [name for name in forces if name not in state.forces]
    if missing:
        found = ", ".join(state.forces) or "nothing"
        raise InputError(f"these dynamics need a force on {missing[0]!r}; forces act on {found}.")
