"""Compact groups that act on values, not on places: SO(3), U(1), Z2 and SU(2).

All four stand behind one interface, :class:`CompactGroup`: Haar-random elements, composition,
inverse, and the action on values of a named kind (:attr:`Field.internal`). Used globally they are
internal symmetries (spin rotations); with one element per site they are gauge groups, see
:mod:`latticezoo.symmetry.gauge`.

======  ==========================  ============================================================
group   element                     kinds of values
======  ==========================  ============================================================
SO3     ``[..., 3, 3]`` real        irreps string ``"2x0e+1x1o"``, components last
U1      ``[...]`` complex, |g| = 1  whole charge ``q``: g^q on every entry of the last axis;
                                    ``"link"``, ``"loop"``: no component axis
Z2      ``[...]`` real, ±1          charge 0 or 1; ``"link"``, ``"loop"`` as for U1
SU2     ``[..., 2, 2]`` complex     ``"fundamental"`` (2 complex components), ``"adjoint"`` (3 real
                                    components E^a of E = Σ_a E^a σ^a/2), ``"link"`` and ``"loop"``
                                    (``2 × 2`` matrices, two last axes)
======  ==========================  ============================================================

The SO(3) irreps are in e3nn's basis for every l, and l = 1 is Cartesian in the order (x, y, z): a
spin S = (S_x, S_y, S_z) of kind ``"1x1e"`` goes to R S. Elements are proper rotations, so the
parity letters change nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latticezoo.symmetry.compact import CompactGroup, Kind, promote
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.rotations import parse_irreps, quaternion_rotation, wigner_matrix

_MATRIX_KINDS = ("link", "loop")
_KIND_DIMS = {"fundamental": 2, "adjoint": 3, "link": 4, "loop": 4}


@dataclass(frozen=True)
class SO3(CompactGroup):
    """Proper rotations in three dimensions; kinds are irreps strings in e3nn's notation."""

    name: ClassVar[str] = "SO3"
    element_shape: ClassVar[tuple[int, ...]] = (3, 3)
    is_complex: ClassVar[bool] = False
    kinds: ClassVar[str] = "irreps strings such as '1x1e' or '2x0e+1x2e'"

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        return quaternion_rotation(*_unit_quaternions(shape, generator).unbind(-1))

    def component_shape(self, kind: Kind) -> tuple[int | None, ...]:
        return (sum(copies * (2 * degree + 1) for copies, degree in parse_irreps(kind)),)

    def _act(self, element: Tensor, values: Tensor, kind: Kind) -> Tensor:
        element, values = promote(element, values)
        terms = parse_irreps(kind)
        sizes = [copies * (2 * degree + 1) for copies, degree in terms]
        blocks = []
        for block, (copies, degree) in zip(values.split(sizes, dim=-1), terms, strict=True):
            rows = block.unflatten(-1, (copies, 2 * degree + 1))
            blocks.append((rows @ wigner_matrix(degree, element).mT).flatten(-2))
        return torch.cat(blocks, dim=-1)


@dataclass(frozen=True)
class _Abelian(CompactGroup):
    """Elements are numbers; a charge multiplies, links and loops of one site stay."""

    element_shape: ClassVar[tuple[int, ...]] = ()

    def component_shape(self, kind: Kind) -> tuple[int | None, ...]:
        if kind in _MATRIX_KINDS:
            return ()
        if isinstance(kind, int) and not isinstance(kind, bool) and self._has_charge(kind):
            return (None,)
        raise self._unknown_kind(kind)

    def _act(self, element: Tensor, values: Tensor, kind: Kind) -> Tensor:
        if kind in _MATRIX_KINDS:  # g U g* = U, without the rounding
            return values.broadcast_to(torch.broadcast_shapes(element.shape, values.shape))
        assert isinstance(kind, int)
        if kind == 0:
            shape = torch.broadcast_shapes(element.shape, values.shape[:-1])
            return values.broadcast_to(*shape, values.shape[-1])
        base = element.conj() if kind < 0 else element
        return base[..., None] ** abs(kind) * values

    def _needs_complex(self, kind: Kind) -> bool:
        return self.is_complex and kind != 0

    @abstractmethod
    def _has_charge(self, charge: int) -> bool: ...


@dataclass(frozen=True)
class U1(_Abelian):
    """Phases exp(iθ). A negative charge acts with the conjugate."""

    name: ClassVar[str] = "U1"
    is_complex: ClassVar[bool] = True
    kinds: ClassVar[str] = "a whole charge, 'link' or 'loop'"

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        angle = 2 * math.pi * _numbers(torch.rand, shape, generator)
        return torch.polar(torch.ones_like(angle), angle)

    def _deviation(self, values: Tensor) -> Tensor:
        return (values.abs() - 1).abs()

    def _has_charge(self, charge: int) -> bool:
        return True


@dataclass(frozen=True)
class Z2(_Abelian):
    """The signs ±1, held as real numbers."""

    name: ClassVar[str] = "Z2"
    is_complex: ClassVar[bool] = False
    kinds: ClassVar[str] = "a charge of 0 or 1, 'link' or 'loop'"

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        return torch.where(_numbers(torch.rand, shape, generator) < 0.5, 1.0, -1.0).double()

    def _deviation(self, values: Tensor) -> Tensor:
        # Against the nearer of ±1, so that a complex value off the real axis counts too.
        return torch.minimum((values - 1).abs(), (values + 1).abs())

    def _has_charge(self, charge: int) -> bool:
        return charge in (0, 1)


@dataclass(frozen=True)
class SU2(CompactGroup):
    """Special unitary 2 × 2 matrices.

    An element is U = w − i(xσ¹ + yσ² + zσ³) with a unit quaternion (w, x, y, z): it turns adjoint
    vectors by the rotation of that quaternion.
    """

    name: ClassVar[str] = "SU2"
    element_shape: ClassVar[tuple[int, ...]] = (2, 2)
    is_complex: ClassVar[bool] = True
    kinds: ClassVar[str] = "'fundamental', 'adjoint', 'link' or 'loop'"

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        w, x, y, z = _unit_quaternions(shape, generator).unbind(-1)
        entries = [torch.complex(w, -z), torch.complex(-y, -x), torch.complex(y, -x)]
        return torch.stack([*entries, torch.complex(w, z)], dim=-1).unflatten(-1, (2, 2))

    def component_shape(self, kind: Kind) -> tuple[int | None, ...]:
        shapes = {"fundamental": (2,), "adjoint": (3,), "link": (2, 2), "loop": (2, 2)}
        if not isinstance(kind, str) or kind not in shapes:
            raise self._unknown_kind(kind)
        return shapes[kind]

    def _needs_complex(self, kind: Kind) -> bool:
        return kind != "adjoint"

    def _act(self, element: Tensor, values: Tensor, kind: Kind) -> Tensor:
        if kind in _MATRIX_KINDS:
            return self.transport(element, values, element)
        matrix = self.rotation(element) if kind == "adjoint" else element
        matrix, values = promote(matrix, values)
        return (matrix @ values[..., None])[..., 0]

    @staticmethod
    def rotation(element: Tensor) -> Tensor:
        """The rotation R of adjoint components: U σ^b U† = Σ_a σ^a R_ab.

        Args:
            element: ``[..., 2, 2]``.

        Returns:
            ``[..., 3, 3]``, real. The map is two to one: U and −U give the same rotation.
        """
        column = element[..., 0]
        return quaternion_rotation(
            column[..., 0].real, -column[..., 1].imag, column[..., 1].real, -column[..., 0].imag
        )

    @staticmethod
    def matrix(components: Tensor) -> Tensor:
        """The matrix Σ_a E^a σ^a/2 of adjoint components.

        Args:
            components: ``[..., 3]``, real.

        Returns:
            ``[..., 2, 2]``, complex, Hermitian and traceless.
        """
        x, y, z = (components / 2).unbind(-1)
        none = torch.zeros_like(z)
        entries = [torch.complex(z, none), torch.complex(x, -y), torch.complex(x, y)]
        return torch.stack([*entries, torch.complex(-z, none)], dim=-1).unflatten(-1, (2, 2))

    @staticmethod
    def components(matrix: Tensor) -> Tensor:
        """Adjoint components Re Tr(σ^a M) of the traceless Hermitian part of a matrix.

        Args:
            matrix: ``[..., 2, 2]``, complex.

        Returns:
            ``[..., 3]``, real; inverse of :meth:`matrix`.
        """
        upper, lower = matrix[..., 0, 1], matrix[..., 1, 0]
        diagonal = (matrix[..., 0, 0] - matrix[..., 1, 1]).real
        return torch.stack([(upper + lower).real, (lower - upper).imag, diagonal], dim=-1)


_GROUPS: dict[str, Callable[[], CompactGroup]] = {"SO3": SO3, "U1": U1, "Z2": Z2, "SU2": SU2}


def internal_group(name: str | CompactGroup) -> CompactGroup:
    """The compact group of a name: ``SO3``, ``U1``, ``Z2`` or ``SU2``.

    Raises:
        InputError: For another name.
    """
    if isinstance(name, CompactGroup):
        return name
    if name not in _GROUPS:
        raise unknown("internal group", name, _GROUPS)
    return _GROUPS[name]()


def kind_dim(kind: Kind) -> int:
    """Number of components of a kind of values.

    Args:
        kind: None or a charge (one component), ``"fundamental"`` (2), ``"adjoint"`` (3),
            ``"link"`` or ``"loop"`` (4, the entries of an SU(2) matrix; Abelian ones are single
            numbers without a component axis), or an irreps string (Σ copies · (2l + 1)).

    Raises:
        InputError: For anything else.
    """
    if kind is None or (isinstance(kind, int) and not isinstance(kind, bool)):
        return 1
    if kind in _KIND_DIMS:
        return _KIND_DIMS[kind]
    try:
        return sum(copies * (2 * degree + 1) for copies, degree in parse_irreps(kind))
    except InputError:
        raise InputError(
            f"unknown kind of values {kind!r}; it is a whole charge, 'fundamental', 'adjoint', "
            "'link', 'loop', or an irreps string such as '1x1e'."
        ) from None


def _numbers(
    source: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    device = generator.device if generator is not None else torch.device("cpu")
    return source(shape, generator=generator, dtype=torch.float64, device=device)


def _unit_quaternions(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Uniform on the three-sphere, which is the Haar measure of SU(2); ``[*shape, 4]``."""
    normals = _numbers(torch.randn, (*shape, 4), generator)
    return normals / normals.norm(dim=-1, keepdim=True)
