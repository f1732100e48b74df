"""Equivariant linear maps over a neighbourhood, for any pair of field types on any lattice.

A linear map that commutes with the space group is one matrix per offset,

    y(i) = Σ_k W_k x(i + δ_k),      W_{gk} = ρ_out(g) W_k ρ_in(g)⁻¹   for every g of the site group,

so one matrix per orbit of offsets is free, and it must commute with the operations that leave its
offset alone (orbit–stabilizer). :func:`stencil_basis` solves for all of them;
:class:`EquivariantLinear` is the layer with one weight per basis element and pair of channels.

Speed, one thread of a 2-core x86 server, float32, 64 → 64 channels on 64×64 (4096 sites of the
chain), milliseconds for a forward pass and for a training step:

====================  ====  ===  ==========================  ====================
offsets               taps  box  gather and matrix product   dense convolution
====================  ====  ===  ==========================  ====================
chain, shell 1           3  3                     1.4 / 3.3             1.5 / 5.4
square, shell 1          5  3×3                   2.3 / 5.3             3.0 / 7.8
triangular, shell 1      7  3×3                   2.9 / 7.5             3.0 / 7.8
square, shells 1–2       9  3×3                   4.2 / 9.3             3.1 / 7.4
square, shells 1–3      13  5×5                   5.9 /  18             8.0 /  18
square, shells 1–8      45  7×7                    19 /  68              15 /  33
====================  ====  ===  ==========================  ====================

Rolling the torus once per offset took as long as the gather on 64×64 or longer. Without gradients
the gather goes through the sites in chunks that stay in the cache, in about half the time for the
five taps on 256×256. Hence the rule behind
:attr:`EquivariantLinear.path`. ``benchmarks/stencil_paths.py`` measures it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.filter_cache import FilterCache
from latticezoo.symmetry.irreps import orthonormal_range
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import (
    ExactBuffers,
    check_size,
    family_lattice,
    gather,
    in_frames,
    neighbour_tables,
    offset_permutations,
    resolve_shells,
)

#: A convolution over the bounding box pays when the offsets fill this share of it …
_DENSE_FILLING = 0.6
#: … there are this many of them …
_DENSE_TAPS = 9
#: … and this many input channels.
_DENSE_CHANNELS = 16
#: Values gathered at once; about the size of a second-level cache in float32.
_CHUNK_VALUES = 1 << 19

Path = Literal["auto", "dense", "gather"]


def stencil_basis(
    lattice: Lattice | str, shells: Sequence[Shell] | int, rep_in: str, rep_out: str
) -> np.ndarray:
    """Basis of the equivariant linear maps over a neighbourhood.

    Args:
        lattice: A lattice, or the name of its family.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        rep_in: Representation of the input, such as ``"2xA1+B1"`` or ``"vector"``.
        rep_out: Representation of the output.

    Returns:
        ``[m, K, dim_out, dim_in]``, float64, orthonormal as vectors, ordered by shell; the same in
        every version of the library with the same convention. Offsets as in
        :meth:`Lattice.neighbourhood`. On honeycomb and diamond the maps act in the frame of each
        sublattice, where Cartesian components too transform by the site group.

    Raises:
        InputError: For an unknown lattice or representation, or a bad list of shells.

    Example:
        >>> stencil_basis("square", 1, "A1", "vector").shape  # the lattice gradient
        (1, 5, 2, 1)
    """
    lattice = family_lattice(lattice)
    basis = _stencil_basis(lattice.family, resolve_shells(lattice, shells), rep_in, rep_out)
    return basis.copy()


@lru_cache(maxsize=1024)
def _stencil_basis(family: str, shells: tuple[Shell, ...], rep_in: str, rep_out: str) -> np.ndarray:
    group = family_lattice(family).site_group
    into = group.representation(rep_in).matrices
    out = group.representation(rep_out).matrices
    total = sum(shell.size for shell in shells)
    found, start = [], 0
    for shell in shells:
        images = offset_permutations(group, (shell,))[:, 0]  # where each element sends offset 0
        fixing = np.flatnonzero(images == 0)
        first = _commuting(into[fixing], out[fixing])
        block = np.zeros((len(first), total, out.shape[-1], into.shape[-1]))
        for offset in range(shell.size):
            carrier = int(np.argmax(images == offset))
            block[:, start + offset] = out[carrier] @ first @ into[carrier].T
        found.append(block / math.sqrt(shell.size))
        start += shell.size
    return np.concatenate(found)


def _commuting(into: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Orthonormal basis ``[m, dim_out, dim_in]`` of {W: out(g) W = W into(g) for the given g}."""
    dims = out.shape[-1], into.shape[-1]
    projector = np.einsum("gac,gbd->abcd", out, into).reshape(math.prod(dims), -1) / len(out)
    return orthonormal_range(projector).reshape(-1, *dims)


class EquivariantLinear(ExactBuffers):
    """Linear layer over a neighbourhood that commutes with every operation of the lattice.

    Between each block of the input and each block of the output it has one weight per basis
    element of :func:`stencil_basis` and pair of channels; a bias on the trivial irrep alone. No
    lattice enters the state: the same weights serve every size.

    Weights start normal with variance ``dim_out / fan_in``, ``fan_in`` counting the basis elements
    and channels that reach a block: independent inputs of unit variance give outputs of unit
    variance.

    Args:
        family: Lattice family, such as ``"square"``, or a lattice of it.
        in_spec: Channels of the input, such as ``"8xA1+8xE"``: block after block, inside a block
            copy after copy, inside a copy component after component.
        out_spec: Channels of the output.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        bias: Whether trivial output channels have one.

    Attributes:
        path: ``"dense"`` for a circular convolution over the bounding box of the offsets,
            ``"gather"`` for a gather of the neighbours and one matrix product, which any lattice
            allows, or ``"auto"`` (default): the faster of the two by the measured rule, dense
            for nine offsets or more that fill 60 % of the box, and 16 input channels or more.

    Raises:
        InputError: For a bad description, or when no equivariant map leads from the input to the
            output over these shells.

    Example:
        >>> layer = EquivariantLinear("square", "A1", "8xA1+4xE", shells=2)
        >>> layer(torch.randn(5, 36, 1), square(6)).shape
        torch.Size([5, 36, 16])
    """

    def __init__(
        self,
        family: str | Lattice,
        in_spec: str,
        out_spec: str,
        shells: Sequence[Shell] | int = 1,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        lattice = family_lattice(family)
        group = lattice.site_group
        self.family = lattice.family
        self.in_spec, self.out_spec = in_spec, out_spec
        self.shells = resolve_shells(lattice, shells)
        self.path: Path = "auto"
        self._in_blocks = group.representation(in_spec).blocks
        self._out_blocks = group.representation(out_spec).blocks
        self._width = sum(shell.size for shell in self.shells)
        self._cells = _cell_offsets(lattice, self.shells)
        self._cache = FilterCache()

        self.weights = nn.ParameterDict()
        self._bases: dict[tuple[str, str], str] = {}
        for o, (_, out_name, _) in enumerate(self._out_blocks):
            for i, (_, in_name, _) in enumerate(self._in_blocks):
                basis = _stencil_basis(self.family, self.shells, in_name, out_name)
                if not len(basis):
                    continue
                if (in_name, out_name) not in self._bases:
                    self._bases[in_name, out_name] = f"_basis_{len(self._bases)}"
                    self.register_constant(self._bases[in_name, out_name], basis)
                shape = len(basis), self._in_blocks[i][0], self._out_blocks[o][0]
                self.weights[_key(i, o)] = nn.Parameter(torch.empty(shape))
        if not self.weights:
            raise InputError(
                f"no equivariant linear map leads from {in_spec!r} to {out_spec!r} over "
                f"{len(self.shells)} shells of the {self.family} lattice."
            )
        trivial = sum(number for number, name, _ in self._out_blocks if name == group.trivial)
        self._trivial = group.trivial
        self.bias = nn.Parameter(torch.empty(trivial)) if bias and trivial else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and set the bias to zero."""
        for o, (_, _, dim) in enumerate(self._out_blocks):
            incoming = [
                self.weights[_key(i, o)]
                for i in range(len(self._in_blocks))
                if _key(i, o) in self.weights
            ]
            fan_in = sum(weight.shape[0] * weight.shape[1] for weight in incoming)
            for weight in incoming:
                nn.init.normal_(weight, std=math.sqrt(dim / fan_in))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Family, types and number of offsets."""
        return f"{self.family}, {self.in_spec} -> {self.out_spec}, offsets={self._width}"

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    @property
    def in_channels(self) -> int:
        """Number of input channels."""
        return sum(number * dim for number, _, dim in self._in_blocks)

    @property
    def out_channels(self) -> int:
        """Number of output channels."""
        return sum(number * dim for number, _, dim in self._out_blocks)

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the layer.

        Args:
            values: ``[batch, sites, C_in]``.
            lattice: Any torus of the family that holds the neighbourhood.

        Returns:
            ``[batch, sites, C_out]``.

        Raises:
            InputError: For another family, a wrong number of channels or sites, or a torus on
                which the neighbourhood touches itself.
        """
        self._check(values, lattice)
        check_size(lattice, self.shells, f"an equivariant layer over {len(self.shells)} shells")
        values = in_frames(values, lattice, self._in_blocks)
        path = self._convolve if self._is_dense(lattice) else self._product
        result = path(values, lattice)
        if self.bias is not None:
            result = result + self._bias()
        return in_frames(result, lattice, self._out_blocks)

    def filter(self) -> Tensor:
        """The matrices W_k of all channels, ``[K, C_in, C_out]``."""
        rows = []
        for i, (in_number, in_name, in_dim) in enumerate(self._in_blocks):
            row = []
            for o, (out_number, out_name, out_dim) in enumerate(self._out_blocks):
                shape = self._width, in_number * in_dim, out_number * out_dim
                if _key(i, o) in self.weights:
                    basis = getattr(self, self._bases[in_name, out_name])
                    full = torch.einsum("mkqp,mab->kapbq", basis, self.weights[_key(i, o)])
                    row.append(full.reshape(shape))
                else:
                    row.append(next(iter(self.weights.values())).new_zeros(shape))
            rows.append(torch.cat(row, dim=2))
        return torch.cat(rows, dim=1)

    # ---- the two paths -----------------------------------------------------------------------

    def _is_dense(self, lattice: Lattice) -> bool:
        fits = self._cells is not None and all(
            reach < size for reach, size in zip(self._reach, lattice.shape, strict=True)
        )
        if self.path == "dense" and not fits:
            raise InputError(f"lattice {lattice} allows no convolution; use path 'gather'.")
        if self.path != "auto":
            return self.path == "dense"
        filling = self._width / math.prod(2 * reach + 1 for reach in self._reach)
        large = self._width >= _DENSE_TAPS and self.in_channels >= _DENSE_CHANNELS
        return fits and large and filling >= _DENSE_FILLING

    @property
    def _reach(self) -> tuple[int, ...]:
        if self._cells is None:
            return ()
        return tuple(int(reach) for reach in np.abs(self._cells).max(0))

    def _product(self, values: Tensor, lattice: Lattice) -> Tensor:
        tables = neighbour_tables(lattice, self.shells, values.device)
        matrix = self._cached("rows", lambda: self.filter().flatten(0, 1))
        batch, sites, channels = values.shape
        step = max(_CHUNK_VALUES // (self._width * channels), 256)
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling() or values.is_cuda
        if whole or batch * sites <= 2 * step:
            return gather(values, tables) @ matrix
        result = torch.empty(batch, sites, matrix.shape[1], dtype=values.dtype)
        for number in range(batch):
            for start in range(0, sites, step):
                chosen = tables[0][start : start + step]
                found = values[number].index_select(0, chosen.reshape(-1))
                torch.mm(
                    found.view(len(chosen), -1), matrix, out=result[number, start : start + step]
                )
        return result

    def _convolve(self, values: Tensor, lattice: Lattice) -> Tensor:
        kernel = self._cached("kernel", self._kernel)
        torus = values.unflatten(1, lattice.shape)
        for axis, reach in enumerate(self._reach, start=1):
            if reach:
                size = torus.shape[axis]
                before, after = (
                    torus.narrow(axis, size - reach, reach),
                    torus.narrow(axis, 0, reach),
                )
                torus = torch.cat([before, torus, after], dim=axis)
        convolution = F.conv1d if lattice.dim == 1 else F.conv2d
        result = convolution(torus.movedim(-1, 1), kernel)
        return result.movedim(1, -1).flatten(1, -2)

    def _kernel(self) -> Tensor:
        assert self._cells is not None
        box = [2 * reach + 1 for reach in self._reach]
        place = np.ravel_multi_index(tuple((self._cells + np.array(self._reach)).T), box)
        rows = self.filter()
        dense = rows.new_zeros(math.prod(box), *rows.shape[1:])
        dense = dense.index_copy(0, torch.from_numpy(place).to(rows.device), rows)
        kernel = dense.unflatten(0, box).movedim((-1, -2), (0, 1))
        # Channels last is the layout of the values: the library then copies neither.
        return kernel.contiguous(memory_format=torch.channels_last) if len(box) == 2 else kernel

    def _bias(self) -> Tensor:
        assert self.bias is not None
        parts, used = [], 0
        for number, name, dim in self._out_blocks:
            if name == self._trivial:
                parts.append(self.bias[used : used + number])
                used += number
            else:
                parts.append(self.bias.new_zeros(number * dim))
        return torch.cat(parts)

    # ---- cache and checks --------------------------------------------------------------------

    def _cached(self, name: str, make) -> Tensor:
        return self._cache.get(name, list(self.weights.values()), self.training, make)

    def train(self, mode: bool = True) -> EquivariantLinear:
        """Set training or evaluation mode; forgets the expanded filter."""
        self._cache.clear()
        return super().train(mode)

    def _check(self, values: Tensor, lattice: Lattice) -> None:
        if lattice.family != self.family:
            raise InputError(f"this layer serves the {self.family} lattice, not {lattice}.")
        if values.dim() != 3 or values.shape[1:] != (lattice.n_sites, self.in_channels):
            raise InputError(
                f"this layer on {lattice} needs values of shape "
                f"[batch, {lattice.n_sites}, {self.in_channels}], but they have shape "
                f"{list(values.shape)}."
            )


def _key(i: int, o: int) -> str:
    return f"{i}_to_{o}"


def _cell_offsets(lattice: Lattice, shells: tuple[Shell, ...]) -> np.ndarray | None:
    """Offsets in whole cells ``[K, dim]``, where the lattice has one site per cell."""
    if lattice.sublattices > 1:
        return None
    return np.array([shift for shell in shells for shift in lattice.shifts(shell)])
