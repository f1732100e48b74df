"""What descriptors and equivariant stencils share: gathering neighbours in the frame of a site.

Seen from the frame of its sublattice (:attr:`Lattice.frames`) every site of a lattice has the same
surroundings, and a point operation acts there as one element of the site group on all sites at
once. So one table of coefficients, made for sublattice 0, serves them all. Irreps are stored in
that frame already; Cartesian components are stored in the global one and change sign on the
sublattices whose frame is inverted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.lattices import Lattice, Shell

_TOLERANCE = 1e-6
_CARTESIAN = ("vector", "pseudovector")

#: Number of copies, name and dimension, as in ``Representation.blocks``.
Block = tuple[int, str, int]


def family_lattice(lattice: Lattice | str) -> Lattice:
    """The lattice itself, or the one-cell torus of a family given by name, for its groups."""
    if isinstance(lattice, Lattice):
        return lattice
    return Lattice(lattice, (1,) * Lattice.dimension(lattice))


def resolve_shells(lattice: Lattice, shells: Sequence[Shell] | int) -> tuple[Shell, ...]:
    """Shells as a tuple; a number stands for the site itself and that many shells around it.

    Raises:
        InputError: For an empty list, a shell given twice, or a shell of another lattice.
    """
    chosen = lattice.shells(count=shells) if isinstance(shells, int) else tuple(shells)
    if not chosen:
        raise InputError("the list of shells is empty, but at least one shell is needed.")
    if len({shell.index for shell in chosen}) < len(chosen):
        given = [shell.index for shell in chosen]
        raise InputError(f"the shells {given} name one shell twice; give every shell once.")
    for shell in chosen:
        if shell.family != lattice.family:
            raise InputError(f"a shell of the {shell.family} lattice does not fit {lattice}.")
    return chosen


def offset_permutations(group: FiniteGroup, shells: Sequence[Shell]) -> np.ndarray:
    """How a site group permutes the offsets of a neighbourhood.

    Args:
        group: The site group or a subgroup of it.
        shells: The neighbourhood.

    Returns:
        ``[order, K]``: element ``g`` sends offset ``k`` to offset ``result[g, k]``, counted
        through all shells.

    Raises:
        InputError: When the neighbourhood is not closed under the group.
    """
    parts, start = [], 0
    for shell in shells:
        turned = np.einsum("gij,kj->gki", group.matrices, shell.vectors)
        distance = np.abs(turned[:, :, None] - shell.vectors[None, None]).max(-1)
        missing = np.argwhere(distance.min(-1) > _TOLERANCE)
        if len(missing):
            element, offset = missing[0]
            raise InputError(
                f"{group.name} does not map shell {shell.index} onto itself: "
                f"{group.element_names[element]} takes its offset {_place(shell.vectors[offset])} "
                f"to {_place(turned[element, offset])}, which is not in it; a neighbourhood must "
                "hold all images of its offsets."
            )
        parts.append(distance.argmin(-1) + start)
        start += shell.size
    return np.concatenate(parts, axis=1)


def _place(vector: np.ndarray) -> str:
    return "(" + ", ".join(f"{value + 0.0:.4g}" for value in vector) + ")"


# ---- gathering -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def check_size(lattice: Lattice, shells: tuple[Shell, ...], what: str) -> None:
    """Check once that a torus holds a neighbourhood.

    Raises:
        InputError: When the torus is too small for it.
    """
    lattice.require(shells, what)


@lru_cache(maxsize=16)
def neighbour_tables(
    lattice: Lattice, shells: tuple[Shell, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Site indices of a neighbourhood and of the neighbourhoods a site belongs to.

    Args:
        lattice: The torus.
        shells: The neighbourhood.
        device: Where the tables shall be.

    Returns:
        Two tables ``[sites, K]``: ``forward[i, k]`` is the neighbour of ``i`` at offset ``k``;
        ``backward[j, k]`` is the site whose neighbour at offset ``k`` is ``j``.
    """
    # Made for later use too: tensors made in inference mode could not take part in training.
    with torch.inference_mode(False):
        forward = lattice.neighbourhood(shells)
        # Every offset moves all sites at once: a column is a permutation of the sites.
        sites = torch.arange(lattice.n_sites)[:, None].expand_as(forward)
        backward = torch.empty_like(forward).scatter_(0, forward, sites)
        return forward.to(device), backward.to(device)


class _Gather(torch.autograd.Function):
    """Columns of neighbours, with a backward pass that gathers too.

    The stock backward pass of an index adds with atomics on a GPU, in an order that changes from
    run to run, and is several times slower for few channels.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        sites, width = forward.shape
        found = values.index_select(1, forward.reshape(-1))
        return found.view(len(values), sites, width * values.shape[-1])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad):
        return _Collect.apply(grad, *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Gather.apply(tangent, *ctx.saved_tensors)


class _Collect(torch.autograd.Function):
    """The adjoint of :class:`_Gather`; each is the other's derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(columns: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        sites, width = forward.shape
        split = columns.reshape(len(columns), sites * width, -1)
        total = split.index_select(1, backward[:, 0] * width)
        for k in range(1, width):
            total += split.index_select(1, backward[:, k] * width + k)
        return total

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad):
        return _Gather.apply(grad, *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Collect.apply(tangent, *ctx.saved_tensors)


def gather(values: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Values on a neighbourhood about every site, differentiable any number of times.

    Args:
        values: ``[batch, sites, C]``.
        tables: As given by :func:`neighbour_tables`.

    Returns:
        ``[batch, sites, K · C]``, the offset slower than the channel.
    """
    return _Gather.apply(values, *tables)


def gathered_sum(columns: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Sums ``y(i) = Σ_k x_k(i + δ_k)``, differentiable any number of times.

    The neighbours of a product are the product of the neighbours: where a linear map leaves fewer
    channels, apply it first, one for each offset, and add up with this.

    Args:
        columns: ``[batch, sites, K · C]``, the offset slower than the channel.
        tables: As given by :func:`neighbour_tables`.

    Returns:
        ``[batch, sites, C]``.
    """
    return _Collect.apply(columns, tables[1], tables[0])


# ---- frames --------------------------------------------------------------------------------------


def in_frames(values: Tensor, lattice: Lattice, blocks: tuple[Block, ...]) -> Tensor:
    """Turn Cartesian components from the global frame into each sublattice's own, or back.

    Frames are the identity or the inversion, so this is a sign and its own inverse. Irrep
    components are stored in the frame already and are left alone.

    Args:
        values: ``[batch, sites, C]``.
        lattice: The torus.
        blocks: Blocks of the channels' representation: number of copies, name, dimension.

    Returns:
        ``[batch, sites, C]``.
    """
    signs = _frame_signs(lattice.family, blocks)
    if signs is None:
        return values
    factor = torch.from_numpy(signs).to(values.device, values.dtype)
    return (values.unflatten(1, (lattice.n_cells, -1)) * factor).flatten(1, 2)


@lru_cache
def _frame_signs(family: str, blocks: tuple[Block, ...]) -> np.ndarray | None:
    lattice = family_lattice(family)
    columns = []
    for multiplicity, name, dim in blocks:
        signs = np.ones((lattice.sublattices, dim))
        if name in _CARTESIAN:
            frames = lattice.point_group.representation(name).matrices[list(lattice.frames)]
            signs = np.diagonal(frames, axis1=1, axis2=2)
            if not np.allclose(np.abs(frames), np.eye(dim)):
                raise NotImplementedError(f"frames of {family} are not ± the identity")
        columns.extend([signs] * multiplicity)
    signs = np.concatenate(columns, axis=1)
    return None if (signs == 1).all() else signs


# ---- constants of modules ------------------------------------------------------------------------


class ExactBuffers(nn.Module):
    """Module with constant tensors that keep full precision through changes of type.

    A buffer that was rounded to float32 stays rounded after ``.double()``, and a symmetry that
    rests on numbers such as √3/2 would then hold to 1e-8 only. Here the float64 original is kept,
    and every change of type starts from it. The buffers are not saved: they follow from the
    arguments of the module.
    """

    def __init__(self) -> None:
        super().__init__()
        self._originals: dict[str, Tensor] = {}

    def register_constant(self, name: str, array: np.ndarray) -> None:
        """Register a non-persistent floating-point buffer from a float64 array."""
        original = torch.tensor(np.asarray(array), dtype=torch.float64)
        self._originals[name] = original
        self.register_buffer(name, original.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for name, original in self._originals.items():
            buffer = getattr(self, name)
            if not buffer.is_meta:
                setattr(self, name, original.to(buffer.device, buffer.dtype))
        return self
