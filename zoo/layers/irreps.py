"""Features that are direct sums of site-group irreps, such as ``"32xA1+8xB1+8xE"``.

**Layout.** The channels of a feature are ordered by component, and inside a component by copy, so
that copies, the long axis, are contiguous. Components are ordered by *selection sector*: products
of two components reach components of one sector only. On the square lattice the sectors are
(A1, B1), (A2, B2), (X) and (Y), X and Y being the components of E: they are told apart by the signs
under the two axis mirrors. Whoever multiplies components therefore has small dense blocks to deal
with instead of a large sparse one.

**Parities.** Two-element symmetries of a task (particle–hole, time reversal) are carried along as
signs: values are ``[parities, batch, sites, channels]``, and parity ``p`` is odd under symmetry
``k`` where bit ``k`` of ``p`` is set. Products add parities (exclusive or), linear maps keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.neighbourhoods import family_lattice

_TOLERANCE = 1e-9
_CARTESIAN = ("vector", "pseudovector")

#: Name of an irrep and number of the component inside it.
Component = tuple[str, int]


@dataclass(frozen=True)
class Stack:
    """Equal numbers of copies of some components, layed out component by component.

    Attributes:
        copies: Number n of copies.
        spec: Representation of one copy.
        order: Position in ``spec`` of each component, ``[D]``.
    """

    copies: int
    spec: str
    order: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Number D of components."""
        return len(self.order)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.copies * self.dim


@dataclass(frozen=True)
class Layout:
    """Channels made of stacks.

    Attributes:
        family: Lattice family, whose site group the irreps belong to.
        stacks: The stacks.
        permutation: For each channel its position when the stacks stand one after the other; None
            when they do.
    """

    family: str
    stacks: tuple[Stack, ...]
    permutation: tuple[int, ...] | None = None

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
    return Layout(family, (Stack(1, spec, tuple(range(dim))),))


@dataclass(frozen=True)
class Features:
    """A direct sum of irreps at every site.

    Attributes:
        family: Lattice family.
        spec: Copies of irreps, such as ``"32xA1+8xB1+8xE"``; ``"8x"`` stands for as many copies of
            every irrep.

    Raises:
        InputError: For text that is no such sum, or names something other than an irrep.
    """

    family: str
    spec: str

    def __post_init__(self) -> None:
        group, spec = self.group, self.spec.replace(" ", "")
        if spec.endswith("x") and spec[:-1].isdigit():
            spec = "+".join(spec + name for name in group.irreps)
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
        """Components in the order of the layout: by sector, then in the group's order."""
        return tuple(c for sector in self.sectors for c in sector)

    @cached_property
    def sectors(self) -> tuple[tuple[Component, ...], ...]:
        """Components by selection sector; sectors that do not occur are left out."""
        found = tuple(
            tuple(c for c in sector if c[0] in self.copies)
            for sector in selection_sectors(self.group)
        )
        return tuple(sector for sector in found if sector)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return sum(self.copies[name] for name, _ in self.components)

    @cached_property
    def layout(self) -> Layout:
        """Where the channels are.

        Irreps with equal numbers of copies form one stack. With several stacks the channels of a
        sector still stand together: sector, stack, component, copy.
        """
        stacks, order = [], []
        for number in dict.fromkeys(self.copies.values()):
            names = [name for name, copies in self.copies.items() if copies == number]
            spec = [(name, k) for name in names for k in range(self.group.irreps[name].dim)]
            chosen = [c for c in self.components if c[0] in names]
            stacks.append(
                Stack(number, "+".join(names), tuple(spec.index(component) for component in chosen))
            )
            order.append(chosen)
        if len(stacks) == 1:
            return Layout(self.family, tuple(stacks))
        starts = np.cumsum([0, *(stack.channels for stack in stacks)])
        permutation: list[int] = []
        for sector in self.sectors:
            for stack, chosen, start in zip(stacks, order, starts, strict=False):
                for place, component in enumerate(chosen):
                    if component in sector:
                        first = int(start) + place * stack.copies
                        permutation += range(first, first + stack.copies)
        return Layout(self.family, tuple(stacks), tuple(permutation))

    def channels_of(self, component: Component) -> np.ndarray:
        """Numbers of the channels of one component, one for each copy."""
        places: dict[Component, np.ndarray] = {}
        start = 0
        for stack in self.layout.stacks:
            spec = self.group.representation(stack.spec).blocks
            names = [(name, k) for _, name, dim in spec for k in range(dim)]
            for place in stack.order:
                places[names[place]] = np.arange(start, start + stack.copies)
                start += stack.copies
        found = places[component]
        if self.layout.permutation is None:
            return found
        return np.argsort(self.layout.permutation)[found]


# ---- products ------------------------------------------------------------------------------------


@lru_cache
def selection_sectors(group: FiniteGroup) -> tuple[tuple[Component, ...], ...]:
    """Components of all irreps by selection sector.

    Two components are in one sector when some product of components has a part along both of them
    in the Clebsch–Gordan coefficients, or when a chain of such products joins them. The sector of
    the trivial irrep comes first.
    """
    components = [(name, k) for name, irrep in group.irreps.items() for k in range(irrep.dim)]
    sector = {component: number for number, component in enumerate(components)}
    reached: dict[tuple[Component, Component], Component] = {}
    for a, b, c in ((a, b, c) for a in group.irreps for b in group.irreps for c in group.irreps):
        for copy in group.clebsch_gordan(a, b, c):
            for k, i, j in np.argwhere(np.abs(copy) > _TOLERANCE).tolist():
                other = reached.setdefault(((a, i), (b, j)), (c, k))
                old, new = sector[c, k], sector[other]
                sector = {key: new if value == old else value for key, value in sector.items()}
    found: dict[int, list[Component]] = {}
    for component in components:
        found.setdefault(sector[component], []).append(component)
    return tuple(tuple(members) for members in found.values())


@dataclass(frozen=True, eq=False)
class Route:
    """One way to make copies of an irrep from pairs of components.

    Attributes:
        irrep: The irrep that comes out.
        parity: Its parity.
        terms: ``(first, second, component, coefficient)``: numbers of the two components among all
            ``[parity, component]``, the first not larger than the second, and the component of the
            result.
    """

    irrep: str
    parity: int
    terms: tuple[tuple[int, int, int, float], ...]


def square_routes(features: Features, parities: int, targets: Sequence[str]) -> tuple[Route, ...]:
    """All independent products of a feature with itself, copy by copy.

    Args:
        features: The type of one parity.
        parities: Number of parities, all of this type.
        targets: Irreps to be made.

    Returns:
        The routes: for two different irreps or parities every Clebsch–Gordan copy, for an irrep
        with itself the symmetric ones, normalized so that independent components of unit variance
        give a result of unit variance.
    """
    group, place = features.group, {c: i for i, c in enumerate(features.components)}
    width = len(place)
    kinds = [(parity, name) for parity in range(parities) for name in features.copies]
    routes = []
    for number, (p, a) in enumerate(kinds):
        for q, b in kinds[number:]:
            for c in targets:
                for copy in _independent(group.clebsch_gordan(a, b, c), (p, a) == (q, b)):
                    terms = []
                    for k, i, j in np.argwhere(np.abs(copy) > _TOLERANCE).tolist():
                        pair = sorted((p * width + place[a, i], q * width + place[b, j]))
                        terms.append((pair[0], pair[1], k, float(copy[k, i, j])))
                    routes.append(Route(c, p ^ q, tuple(terms)))
    return tuple(routes)


def _independent(copies: np.ndarray, same: bool) -> list[np.ndarray]:
    """Clebsch–Gordan copies; of an irrep with itself the symmetric ones, on pairs i ≤ j."""
    if not same:
        return list(copies)
    found: list[np.ndarray] = []
    for copy in (copies + copies.transpose(0, 1, 3, 2)) / 2:
        rest = copy.copy()
        for known in found:
            rest -= np.vdot(known, rest) / np.vdot(known, known) * known
        if np.linalg.norm(rest) > _TOLERANCE:
            found.append(rest / np.linalg.norm(rest) * np.sqrt(len(rest)))
    # x_i x_j and x_j x_i are one number; and a square has twice the variance of a product.
    factor = np.where(np.eye(copies.shape[-1], dtype=bool), np.sqrt(0.5), np.sqrt(2.0))
    return [np.triu(copy) * factor for copy in found]


# ---- fields --------------------------------------------------------------------------------------


def parity_of(field: Field, flips: Sequence[str]) -> int:
    """Parity of a field: bit ``k`` is set where it is odd under ``flips[k]``."""
    return sum(1 << k for k, name in enumerate(flips) if name in field.odd)
