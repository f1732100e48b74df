"""Features that are direct sums of site-group irreps, such as ``"32xA1+8xB1+8xE"``.

**Layout.** The channels of a feature are ordered by component, and inside a component by copy, so
that copies, the long axis, are contiguous. Irreps with equal numbers of copies stand together.

**Functions on the group.** As many copies of every irrep as it has dimensions make a function on
the site group. An operation permutes its values, so that whatever is done to them one by one is
equivariant: products of functions are all Clebsch–Gordan products of their irreps at once.

**Parities.** Two-element symmetries of a task (particle–hole, time reversal) are carried along as
signs: there is one tensor ``[batch, sites, channels]`` for each parity, and parity ``p`` is odd
under symmetry ``k`` where bit ``k`` of ``p`` is set. Products add parities (exclusive or), linear
maps keep them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.neighbourhoods import family_lattice

_CARTESIAN = ("vector", "pseudovector")

#: Name of an irrep and number of the component inside it.
Component = tuple[str, int]


@dataclass(frozen=True)
class Stack:
    """Equal numbers of copies of some components, layed out component by component.

    Attributes:
        copies: Number n of copies.
        spec: Representation of one copy.
        dim: Number D of its components.
        functions: Whether the components are the values of a function on the group, one for each
            element, in place of its irreps; ``spec`` is then the regular representation.
    """

    copies: int
    spec: str
    dim: int
    functions: bool = False

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.copies * self.dim


@dataclass(frozen=True)
class Layout:
    """Channels made of stacks.

    Attributes:
        family: Lattice family, whose site group the irreps belong to.
        stacks: The stacks, one after the other.
    """

    family: str
    stacks: tuple[Stack, ...]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return sum(stack.channels for stack in self.stacks)


def field_layout(family: str, spec: str) -> Layout:
    """Layout of the values of site fields, whatever their representation.

    Args:
        family: Lattice family.
        spec: Representation, such as ``"2xA1+B1"`` or ``"vector"``.
    """
    dim = family_lattice(family).site_group.representation(spec).dim
    return Layout(family, (Stack(1, spec, dim),))


def function_layout(family: str, copies: int) -> Layout:
    """Layout of functions on the site group: one channel for every element and copy.

    Args:
        family: Lattice family.
        copies: Number of functions.
    """
    group = family_lattice(family).site_group
    return Layout(family, (Stack(copies, regular_spec(group), group.order, functions=True),))


def regular_spec(group: FiniteGroup) -> str:
    """The regular representation as a sum of irreps, such as ``"A1+A2+B1+B2+2xE"``."""
    terms = []
    for name, irrep in group.irreps.items():
        copies = irrep.dim // irrep.commutant_dim
        terms.append(name if copies == 1 else f"{copies}x{name}")
    return "+".join(terms)


@lru_cache
def function_values(group: FiniteGroup) -> np.ndarray:
    r"""Values on the group of functions given by irreps, ``[order, order]``, orthogonal.

    The matrix elements :math:`\sqrt{d/|G|}\, R_{ij}(h)` of the irreps: for every column j the rows
    i are one copy. A function changes by :math:`(g f)(h) = f(g^{-1} h)`, so that an element of the
    group permutes its values, and every map of the values one by one is equivariant. Products of
    functions are Clebsch–Gordan products of their irreps, all of them at once.

    Returns:
        Rows by element, columns in the order of :func:`regular_spec`.
    """
    columns = []
    for irrep in group.irreps.values():
        scale = np.sqrt(irrep.dim / group.order)
        for j in range(0, irrep.dim, irrep.commutant_dim):
            columns += [scale * irrep.matrices[:, i, j] for i in range(irrep.dim)]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Features:
    """A direct sum of irreps at every site.

    Attributes:
        family: Lattice family.
        spec: Copies of irreps, such as ``"32xA1+8xB1+8xE"``; ``"8x"`` stands for as many copies of
            every irrep, ``"4xregular"`` for four copies of the regular representation, in which an
            irrep occurs as often as it has dimensions.

    Raises:
        InputError: For text that is no such sum, or names something other than an irrep.
    """

    family: str
    spec: str

    def __post_init__(self) -> None:
        group, spec = self.group, self.spec.replace(" ", "")
        if spec.endswith("x") and spec[:-1].isdigit():
            spec = "+".join(spec + name for name in group.irreps)
        match = re.fullmatch(r"([1-9]\d*)xregular", spec)
        if match is not None:
            copies = [(n.dim // n.commutant_dim, name) for name, n in group.irreps.items()]
            spec = "+".join(f"{int(match[1]) * n}x{name}" for n, name in copies)
        object.__setattr__(self, "spec", spec)
        for _, name, _ in group.representation(spec).blocks:
            if name in _CARTESIAN:
                raise InputError(
                    f"features are made of irreps of {group.name} ({', '.join(group.irreps)}), "
                    f"not of {name!r} as in {spec!r}."
                )

    @property
    def group(self) -> FiniteGroup:
        """The site group."""
        return family_lattice(self.family).site_group

    @cached_property
    def copies(self) -> dict[str, int]:
        """Copies of each irrep that occurs, in the group's order."""
        counts: dict[str, int] = {}
        for number, name, _ in self.group.representation(self.spec).blocks:
            counts[name] = counts.get(name, 0) + number
        return {name: counts[name] for name in self.group.irreps if name in counts}

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """Components in the order of the layout."""
        return tuple(component for group in self._stacked for component in group)

    @cached_property
    def _stacked(self) -> tuple[tuple[Component, ...], ...]:
        """Components by number of copies."""
        return tuple(
            tuple(
                (name, k)
                for name, copies in self.copies.items()
                if copies == number
                for k in range(self.group.irreps[name].dim)
            )
            for number in dict.fromkeys(self.copies.values())
        )

    @property
    def channels(self) -> int:
        """Number of channels."""
        return sum(self.copies[name] for name, _ in self.components)

    @cached_property
    def layout(self) -> Layout:
        """Where the channels are: irreps with equal numbers of copies form one stack."""
        stacks = []
        for components in self._stacked:
            names = list(dict.fromkeys(name for name, _ in components))
            stacks.append(Stack(self.copies[names[0]], "+".join(names), len(components)))
        return Layout(self.family, tuple(stacks))

    def channels_of(self, component: Component) -> np.ndarray:
        """Numbers of the channels of one component, one for each copy."""
        start = 0
        for other in self.components:
            copies = self.copies[other[0]]
            if other == component:
                return np.arange(start, start + copies)
            start += copies
        raise KeyError(component)


# ---- fields --------------------------------------------------------------------------------------


def parity_of(field: Field, flips: Sequence[str]) -> int:
    """Parity of a field: bit ``k`` is set where it is odd under ``flips[k]``."""
    return sum(1 << k for k, name in enumerate(flips) if name in field.odd)
