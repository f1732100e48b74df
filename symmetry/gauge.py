"""Lattice gauge geometry: links, local transformations, transport, loops.

One implementation serves Z2, U(1) and SU(2): Abelian links multiply entry by entry, matrix links by
matrix product. Conventions (square lattice, direction 1 = x along the first index, 2 = y):

* The link ``U_{i,μ}`` runs from site i to i + μ; traversed backwards it is its adjoint.
* A local transformation takes ψ_i to ``g_i ψ_i`` and ``U_{i,μ}`` to ``g_i U_{i,μ} g_{i+μ}†``.
* A path is a sequence of signed directions, ``(1, 2, -1, -2)`` for the plaquette. It is laid from
  every site at once; its line is the product of the links in the order of the walk, so that it
  carries values from its end to its start.

=============  ==================================  =============================
array          Z2 (real), U(1) (complex)           SU(2) (complex)
=============  ==================================  =============================
links          ``[batch, sites, directions]``      ``[batch, sites, directions, 2, 2]``
lines, loops   ``[batch, sites]``                  ``[batch, sites, 2, 2]``
elements       ``[sites]`` or ``[batch, sites]``   ``[…, sites, 2, 2]``
=============  ==================================  =============================

The geometry never assumes that a link is unitary: it uses the adjoint, not the inverse, as quantum
link models need, where U = S⁺ has any modulus. :func:`check_links` tells whether links lie in a
group. No function loops over sites; a straight run of n links costs about 2 log₂ n products.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latticezoo.symmetry.compact import CompactGroup, Kind
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.internal import SU2, U1, Z2, internal_group
from latticezoo.symmetry.lattices import Lattice


def gauge_group(links: Tensor) -> CompactGroup:
    """The group that the layout of links stands for: Z2 if real, U1 if complex, SU2 if matrices."""
    if links.dim() == 5:
        return SU2()
    return U1() if links.is_complex() else Z2()


def check_links(links: Tensor, lattice: Lattice, group: str | CompactGroup | None = None) -> None:
    """Check the layout of links and, when a group is named, that they lie in it.

    Args:
        links: Candidates.
        lattice: Where they live.
        group: ``Z2``, ``U1`` or ``SU2``; None checks the layout alone.

    Raises:
        InputError: With the shape, or with the size of the largest deviation from the group.
    """
    scalar = (lattice.n_sites, lattice.directions)
    shape = tuple(links.shape)
    if len(shape) not in (3, 5) or shape[1:] not in (scalar, (*scalar, 2, 2)):
        n, d = scalar
        raise InputError(
            f"links on {lattice} need shape [batch, {n}, {d}] (Z2, U1) or "
            f"[batch, {n}, {d}, 2, 2] (SU2), not {list(shape)}."
        )
    if len(shape) == 5 and not links.is_complex():
        raise InputError(f"links of SU2 must be complex, not {links.dtype}.")
    if group is None:
        return
    group, found = internal_group(group), gauge_group(links)
    if group != found:
        raise InputError(
            f"links of shape {list(shape)} and type {links.dtype} are laid out for "
            f"{found.name}, not for {group.name}."
        )
    group.require(links, "links")


# ---- local transformations -------------------------------------------------------------------


def transform_links(links: Tensor, elements: Tensor, lattice: Lattice) -> Tensor:
    """Transform links locally: ``U_{i,μ} → g_i U_{i,μ} g_{i+μ}†``.

    Args:
        links: See the table of this module.
        elements: One group element per site.
        lattice: Where they live.

    Returns:
        Links of the same shape.

    Raises:
        InputError: For links or elements of the wrong layout, or elements outside the group.
    """
    check_links(links, lattice)
    group = gauge_group(links)
    elements = _elements(elements, group, lattice, links.shape[0])
    ends = [_shift(elements, lattice, vector) for vector in lattice.link_vectors.tolist()]
    return group.transport(elements.unsqueeze(2), links, torch.stack(ends, dim=2))


def transform_sites(
    values: Tensor, elements: Tensor, lattice: Lattice, kind: Kind, group: str | CompactGroup
) -> Tensor:
    """Transform site values locally: ``ψ_i → g_i ψ_i`` in the representation of their kind.

    Loops based at a site are of kind ``"loop"``; electric fields at the start of a link of kind
    ``"adjoint"``.

    Args:
        values: ``[batch, sites, …, components]``, any axes in between.
        elements: One group element per site.
        lattice: Where they live.
        kind: As for :meth:`CompactGroup.act`.
        group: The group or its name.

    Returns:
        Values of the same shape.

    Raises:
        InputError: For a wrong layout, an unknown kind, or elements outside the group.
    """
    group = internal_group(group)
    _check_sites(values, lattice)
    elements = _elements(elements, group, lattice, values.shape[0])
    return _act_at_sites(group, elements, values, lattice, kind)


# ---- lines and loops -------------------------------------------------------------------------


def wilson_line(links: Tensor, lattice: Lattice, path: Sequence[int]) -> Tensor:
    """Ordered product of the links along a path, from every site at once.

    ``W_i = U_{i,μ₁} U_{i+μ₁,μ₂} …``, which goes to ``g_i W_i g_end†``.

    Args:
        links: See the table of this module.
        lattice: Where they live.
        path: Signed directions, such as ``(1, 1, -2)``: twice along +x, once along −y. The empty
            path gives units.

    Returns:
        Lines at their starting sites.

    Raises:
        InputError: For links of the wrong layout, or a step that the lattice does not have.
    """
    check_links(links, lattice)
    vectors = _steps(lattice, path)
    offset = [0] * lattice.dim
    line: Tensor | None = None
    for step, repeats in itertools.groupby(path):
        length = len(list(repeats))
        run = _shift(_straight_line(links, lattice, step, length), lattice, offset)
        line = run if line is None else _multiply(line, run)
        offset = [at + length * move for at, move in zip(offset, vectors[step], strict=True)]
    if line is None:
        return torch.zeros_like(links[:, :, 0]) + gauge_group(links).identity(
            dtype=links.dtype, device=links.device
        )
    return line.resolve_conj()


def wilson_loop(links: Tensor, lattice: Lattice, path: Sequence[int]) -> Tensor:
    """Untraced Wilson loop of a closed path, based at every site: goes to ``g_i W_i g_i†``.

    A path round the torus counts as closed.

    Args:
        links: See the table of this module.
        lattice: Where they live.
        path: Signed directions; :func:`rectangle` makes the usual ones.

    Returns:
        Loops at their base sites. :func:`trace` makes them invariant.

    Raises:
        InputError: When the path is not closed; also as :func:`wilson_line`.
    """
    end = _end(lattice, path)
    if any(move % size for move, size in zip(end, lattice.shape, strict=True)):
        raise InputError(
            f"the path {tuple(path)} is not closed on {lattice}: it ends {tuple(end)} cells away."
        )
    return wilson_line(links, lattice, path)


def rectangle(width: int, height: int) -> tuple[int, ...]:
    """Path round a rectangle in the plane of directions 1 and 2, counter-clockwise.

    Args:
        width: Links along x.
        height: Links along y.

    Raises:
        InputError: For a negative size.
    """
    if width < 0 or height < 0:
        raise InputError(f"a rectangle needs sizes of 0 or more, not {width} × {height}.")
    return (1,) * width + (2,) * height + (-1,) * width + (-2,) * height


def plaquettes(links: Tensor, lattice: Lattice) -> Tensor:
    """Smallest loops of the square lattice, counter-clockwise from their lower left site.

    ``W_i = U_{i,x} U_{i+x,y} U_{i+y,x}† U_{i,y}†``.

    Returns:
        Loops at their lower left sites, see the table of this module.

    Raises:
        InputError: On another lattice, or for links of the wrong layout.
    """
    _require_square(lattice, "plaquettes")
    return wilson_loop(links, lattice, rectangle(1, 1))


def staples(links: Tensor, lattice: Lattice, separate: bool = False) -> Tensor:
    """The two ways round that close every link of the square lattice into a plaquette.

    The staple A of the link U from i to j runs from j back to i, so U A is a plaquette based at i,
    and A goes to ``g_j A g_i†``. In the order of the axis of ``separate``: on the side of the
    other direction's positive end (for a link along x, above it), then on the negative side.
    The plaquettes that contain the link enter an action −β Σ Re Tr W as −β Re Tr(U ΣA).

    Args:
        links: See the table of this module.
        lattice: A square lattice.
        separate: Keep the two staples apart on an axis after the directions, instead of summing.

    Returns:
        ``[batch, sites, directions, …]`` or ``[batch, sites, directions, 2, …]``.

    Raises:
        InputError: On another lattice, or for links of the wrong layout.
    """
    _require_square(lattice, "staples")
    both = []
    for along, across in ((1, 2), (2, 1)):
        end = lattice.link_vectors[along - 1].tolist()
        ways = [
            _shift(wilson_line(links, lattice, (side, -along, -side)), lattice, end)
            for side in (across, -across)
        ]
        both.append(torch.stack(ways, dim=2))
    found = torch.stack(both, dim=2)
    return found if separate else found.sum(3)


def polyakov_loop(links: Tensor, lattice: Lattice, direction: int) -> Tensor:
    """Product of the links once round the torus along a direction, based at every site.

    Args:
        links: See the table of this module.
        lattice: Where they live.
        direction: 1 for x, 2 for y; negative for the way back.

    Returns:
        Untraced loops. Along their own line the traced ones are equal.

    Raises:
        InputError: For a direction that the lattice does not have, or a wrong layout.
    """
    vector = _steps(lattice, (direction,))[direction]
    turns = [size // math.gcd(size, move) for size, move in zip(lattice.shape, vector, strict=True)]
    return wilson_loop(links, lattice, (direction,) * math.lcm(*turns))


def trace(loops: Tensor) -> Tensor:
    """Trace of loops, not divided by the size of the matrix; an Abelian loop is its own trace.

    Args:
        loops: ``[batch, sites]`` or ``[batch, sites, 2, 2]``; with a directions axis too.

    Returns:
        ``[batch, sites]``; invariant under local transformations where the loops are closed.
    """
    return loops if loops.dim() < 4 else loops.diagonal(dim1=-2, dim2=-1).sum(-1)


def parallel_transport(
    values: Tensor, links: Tensor, lattice: Lattice, path: Sequence[int], kind: Kind
) -> Tensor:
    """Carry site values along a path to its start: ``ψ'_i = W_i ψ_{end(i)}``.

    ``W`` is the line from i to the end of the path, in the representation of the kind, so that ψ'
    transforms as ψ does: f(gU, gψ) = g f(U, ψ).

    Args:
        values: ``[batch, sites, …, components]``, any axes in between.
        links: See the table of this module.
        lattice: Where they live.
        path: Signed directions.
        kind: As for :meth:`CompactGroup.act`: a charge, ``"fundamental"``, ``"adjoint"`` or
            ``"loop"``.

    Returns:
        Values of the same shape.

    Raises:
        InputError: For a wrong layout, an unknown kind or step.
    """
    _check_sites(values, lattice)
    line = wilson_line(links, lattice, path)
    there = _shift(values, lattice, _end(lattice, path))
    return _act_at_sites(gauge_group(links), line, there, lattice, kind)


# ---- parts -----------------------------------------------------------------------------------


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    return a @ b if a.dim() == 4 else a * b


def _adjoint(line: Tensor) -> Tensor:
    return line.mH if line.dim() == 4 else line.conj()


def _shift(values: Tensor, lattice: Lattice, cells: Sequence[int]) -> Tensor:
    """Bring to every site the value that lies ``cells`` away; ``[batch, sites, …]``."""
    if all(move % size == 0 for move, size in zip(cells, lattice.shape, strict=True)):
        return values
    torus = values.reshape(values.shape[0], *lattice.shape, *values.shape[2:])
    moved = torch.roll(torus, [-move for move in cells], tuple(range(1, 1 + lattice.dim)))
    return moved.reshape(values.shape)


def _straight_line(links: Tensor, lattice: Lattice, step: int, length: int) -> Tensor:
    """Line of ``length`` equal steps, by doubling: lines of 1, 2, 4, … links are joined."""
    vector = lattice.link_vectors[abs(step) - 1].tolist()

    def ahead(values: Tensor, count: int) -> Tensor:
        return _shift(values, lattice, [count * move for move in vector])

    block, size = links[:, :, abs(step) - 1], 1
    line: Tensor | None = None
    reached = 0
    while True:
        if length & size:
            line = block if line is None else _multiply(line, ahead(block, reached))
            reached += size
        if reached == length:
            break
        block, size = _multiply(block, ahead(block, size)), 2 * size
    assert line is not None
    return line if step > 0 else _adjoint(ahead(line, -length))


def _steps(lattice: Lattice, path: Sequence[int]) -> dict[int, list[int]]:
    """Cells covered by each signed direction, after a check of the path."""
    vectors = lattice.link_vectors.tolist()
    known = {mu + 1: vector for mu, vector in enumerate(vectors)}
    known |= {-step: [-move for move in vector] for step, vector in known.items()}
    for step in path:
        if step not in known:
            choices = ", ".join(f"±{mu + 1}" for mu in range(len(vectors)))
            raise InputError(f"unknown step {step!r} of a path on {lattice}; known: {choices}.")
    return known


def _end(lattice: Lattice, path: Sequence[int]) -> list[int]:
    """Cells from the start of a path to its end."""
    vectors = _steps(lattice, path)
    return [sum(vectors[step][axis] for step in path) for axis in range(lattice.dim)]


def _elements(elements: Tensor, group: CompactGroup, lattice: Lattice, batch: int) -> Tensor:
    """One element per site as ``[batch or 1, sites, …]``, checked to lie in the group."""
    axes = len(group.element_shape)
    leading = elements.shape[: elements.dim() - axes]
    if (
        len(leading) not in (1, 2)
        or leading[-1] != lattice.n_sites
        or (len(leading) == 2 and leading[0] not in (1, batch))
        or tuple(elements.shape[len(leading) :]) != group.element_shape
    ):
        tail = "".join(f", {size}" for size in group.element_shape)
        raise InputError(
            f"a local {group.name} transformation of {lattice} needs elements of shape "
            f"[{lattice.n_sites}{tail}] or [{batch}, {lattice.n_sites}{tail}], "
            f"not {list(elements.shape)}."
        )
    group.require(elements, "elements")
    return elements if len(leading) == 2 else elements.unsqueeze(0)


def _check_sites(values: Tensor, lattice: Lattice) -> None:
    if values.dim() < 2 or values.shape[1] != lattice.n_sites:
        raise InputError(
            f"site values on {lattice} need shape [batch, {lattice.n_sites}, …], "
            f"not {list(values.shape)}."
        )


def _act_at_sites(
    group: CompactGroup, elements: Tensor, values: Tensor, lattice: Lattice, kind: Kind
) -> Tensor:
    """Act at every site, the axes between site and components being copies."""
    if kind is None:
        return values
    if kind == "link":
        raise InputError("values of kind 'link' transform at both ends; use transform_links.")
    copies = values.dim() - 2 - len(group.component_shape(kind))
    if copies < 0:
        raise InputError(
            f"site values of kind {kind!r} under {group.name} need component axes after "
            f"[batch, {lattice.n_sites}], but they have shape {list(values.shape)}."
        )
    for _ in range(copies):
        elements = elements.unsqueeze(2)
    return group.act(elements, values, kind)


def _require_square(lattice: Lattice, what: str) -> None:
    if lattice.family != "square":
        raise InputError(f"{what} live on the square lattice, not on {lattice}.")
