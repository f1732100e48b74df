"""The full symmetry group of a problem on a lattice, as one object.

It is the product of the space group of the torus (translations and point operations), any number
of two-element symmetries (particle–hole, time reversal, charge conjugation), one internal group
that acts alike everywhere, and one gauge group that acts at every site by itself. The finite part
can be iterated, the continuous part sampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain as join
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latticezoo.symmetry.lattices import Lattice

if TYPE_CHECKING:
    from latticezoo.symmetry.internal import CompactGroup


@dataclass(frozen=True, eq=False)
class Element:
    """One symmetry operation; :func:`latticezoo.symmetry.fields.transform` applies it.

    Attributes:
        lattice: The torus it acts on.
        point: Element of ``lattice.point_group``, one of ``lattice.operations``.
        translation: Translation that follows it, as given by ``lattice.translations()``.
        flips: Names of the two-element symmetries that act.
        internal: Element of a global internal group.
        gauge: One gauge-group element for each site, ``[sites, …]``.
        internal_group: The group that ``internal`` belongs to.
        gauge_group: The group that ``gauge`` belongs to.
    """

    lattice: Lattice
    point: int = 0
    translation: tuple[int, ...] | None = None
    flips: frozenset[str] = frozenset()
    internal: Tensor | None = None
    gauge: Tensor | None = None
    internal_group: CompactGroup | None = None
    gauge_group: CompactGroup | None = None

    @cached_property
    def permutation(self) -> Tensor:
        """Site ``i`` goes to ``permutation[i]``, ``[sites]``, int64."""
        return self.lattice.permutation(self.point, self.translation)

    def __str__(self) -> str:
        parts = [self.lattice.point_group.element_names[self.point]]
        if self.translation is not None and any(self.translation):
            parts.append(f"translation {self.translation}")
        parts.extend(sorted(self.flips))
        if self.internal is not None and self.internal_group is not None:
            parts.append(f"{self.internal_group.name} element {_brief(self.internal)}")
        if self.gauge is not None and self.gauge_group is not None:
            parts.append(f"local {self.gauge_group.name} transformation")
        return " · ".join(parts)


@dataclass(frozen=True)
class SymmetryGroup:
    """Translations × point operations × flips × internal group × local gauge group.

    Attributes:
        lattice: The torus.
        flips: Names of the two-element symmetries.
        internal: Name of the global internal group, such as ``"SO3"``, or None.
        gauge: Name of the gauge group, or None.
        point_operations: Elements of ``lattice.point_group``; all that the torus allows unless
            fewer are given.

    Raises:
        InputError: When one of them does not map the torus onto itself.
    """

    lattice: Lattice
    flips: tuple[str, ...] = ()
    internal: str | None = None
    gauge: str | None = None
    point_operations: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.point_operations:
            object.__setattr__(self, "point_operations", self.lattice.operations)
        for point in self.point_operations:
            self.lattice.check_operation(point)

    def __len__(self) -> int:
        """Order of the finite part."""
        return self.lattice.n_translations * len(self.point_operations) * 2 ** len(self.flips)

    def __str__(self) -> str:
        group = self.lattice.point_group.name
        kept = len(self.point_operations)
        if kept < self.lattice.point_group.order:
            group = f"{kept} of {group}"
        parts = [f"{self.lattice.n_translations} translations", group, *self.flips]
        parts += [str(self.internal)] if self.internal else []
        parts += [f"local {self.gauge}"] if self.gauge else []
        return " × ".join(parts)

    @property
    def is_finite(self) -> bool:
        """Whether there is neither an internal nor a gauge group."""
        return self.internal is None and self.gauge is None

    def finite(self) -> Iterator[Element]:
        """Iterate over the finite part, identity first."""
        for flips in _subsets(self.flips):
            for point in self.point_operations:
                for translation in self.lattice.translations():
                    yield Element(self.lattice, point, translation, flips)

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Iterator[Element]:
        """Draw elements of the whole group: uniform in the finite part, Haar-random elsewhere.

        Args:
            count: How many.
            generator: Source of randomness.
            dtype: Real type of the internal and gauge elements.
        """
        from latticezoo.symmetry.internal import internal_group

        internal = internal_group(self.internal) if self.internal else None
        gauge = internal_group(self.gauge) if self.gauge else None
        subsets = list(_subsets(self.flips))
        translations = list(self.lattice.translations())

        def pick(number: int) -> int:
            return int(torch.randint(number, (), generator=generator))

        for _ in range(count):
            yield Element(
                self.lattice,
                self.point_operations[pick(len(self.point_operations))],
                translations[pick(len(translations))],
                subsets[pick(len(subsets))],
                internal.random(generator=generator, dtype=dtype) if internal else None,
                gauge.random(self.lattice.n_sites, generator=generator, dtype=dtype)
                if gauge
                else None,
                internal,
                gauge,
            )


def _subsets(names: tuple[str, ...]) -> Iterator[frozenset[str]]:
    sizes = range(len(names) + 1)
    return map(frozenset, join.from_iterable(combinations(names, size) for size in sizes))


def _brief(element: Tensor) -> str:
    numbers = element.reshape(-1)[:3].tolist()
    return "(" + ", ".join(f"{x:.3g}" for x in numbers) + (", …)" if element.numel() > 3 else ")")
