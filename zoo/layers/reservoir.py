r"""Random recurrent networks that are driven, never trained: reservoirs of echo state networks.

.. math::
    h(t+1) = (1 - a)\, h(t) + a \tanh\big( W h(t) + W_\mathrm{in} u(t) + b \big)

W is sparse and scaled to a spectral radius ρ below one, so that about h = 0 every mode decays, at
least as fast as (1 − a + aρ)^t, and h forgets how it began (Jaeger, "The echo state approach to
analysing and training recurrent neural networks", GMD report 148, 2001; leak a: Lukoševičius, "A
practical guide to applying echo state networks", 2012).
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from scipy.sparse.linalg import ArpackError, eigs
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError

#: Up to this many rows all eigenvalues are computed.
_SMALL = 64


def spectral_radius(matrix: scipy.sparse.spmatrix) -> float:
    """Largest modulus of the eigenvalues of a sparse matrix ``[n, n]``.

    The leading eigenvalues of a random matrix are complex pairs of almost the same modulus, on
    which plain power iteration turns for ever. Arnoldi iteration (ARPACK, implicitly restarted)
    keeps the span of the last iterates and resolves them; should it fail, all eigenvalues are
    computed.
    """
    size = matrix.shape[0]
    if size > _SMALL:
        try:
            # A fixed start: the same matrix gives the same number.
            start = np.cos(np.arange(size, dtype=np.float64))
            found = eigs(matrix, k=4, which="LM", v0=start, tol=1e-10, return_eigenvectors=False)
            return float(np.abs(found).max())
        except ArpackError:
            pass
    return float(np.abs(scipy.linalg.eigvals(matrix.toarray())).max())


def random_recurrence(
    size: int, density: float, radius: float, draw: np.random.Generator
) -> scipy.sparse.csr_matrix:
    """Sparse matrix with normal entries, scaled to a spectral radius.

    Every row has the same number of entries, density · size rounded, so that no node is cut off.

    Args:
        size: Number of nodes n.
        density: Share of entries that are not zero.
        radius: Spectral radius.
        draw: Random numbers.

    Returns:
        ``[n, n]``, float64, columns sorted.

    Raises:
        InputError: When no such matrix has a cycle through which it could remember.
    """
    count = max(1, round(density * size))
    columns = np.sort(draw.permuted(np.tile(np.arange(size), (size, 1)), axis=1)[:, :count], axis=1)
    values = draw.standard_normal((size, count))
    pointers = np.arange(0, size * count + 1, count)
    matrix = scipy.sparse.csr_matrix((values.ravel(), columns.ravel(), pointers), (size, size))
    found = spectral_radius(matrix)
    if not found > 1e-8:
        raise InputError(
            f"a reservoir of {size} nodes with density {density:g} came out without memory; take "
            "more nodes or a larger density."
        )
    matrix.data *= radius / found
    return matrix


class Reservoir(nn.Module):
    """Random recurrent network with fixed weights, all of them buffers of the state dict.

    Args:
        inputs: Number of inputs.
        size: Number of nodes n.
        radius: Spectral radius ρ of the recurrence, between 0 and 1.
        density: Share of recurrent weights that are not zero.
        input_scale: Input weights are uniform in ± this.
        leak: The leak a, above 0 and at most 1; small values make slow nodes.
        bias: Biases are uniform in ± this; with 0 there are none and the map is odd.
        seed: Of all weights.

    Raises:
        InputError: For a number out of range.
    """

    values: Tensor
    columns: Tensor
    pointers: Tensor
    coupling: Tensor
    bias: Tensor

    def __init__(
        self,
        inputs: int,
        size: int,
        *,
        radius: float = 0.9,
        density: float = 0.05,
        input_scale: float = 0.1,
        leak: float = 1.0,
        bias: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_reservoir(size, radius, density, input_scale, leak, bias, seed)
        self.inputs, self.size, self.leak = inputs, size, leak
        draw = np.random.default_rng(seed)
        recurrence = random_recurrence(size, density, radius, draw)
        coupling = input_scale * draw.uniform(-1.0, 1.0, (size, inputs))
        offset = bias * draw.uniform(-1.0, 1.0, size if bias else 0)
        dtype = torch.get_default_dtype()
        self.register_buffer("values", torch.from_numpy(recurrence.data).to(dtype))
        self.register_buffer("columns", torch.from_numpy(recurrence.indices).long())
        self.register_buffer("pointers", torch.from_numpy(recurrence.indptr).long())
        self.register_buffer("coupling", torch.from_numpy(coupling).to(dtype))
        self.register_buffer("bias", torch.from_numpy(offset).to(dtype))

    def extra_repr(self) -> str:
        """Sizes."""
        return f"inputs={self.inputs}, size={self.size}, leak={self.leak:g}"

    def recurrence(self) -> Tensor:
        """W ``[n, n]``, sparse in rows; dense on a GPU, where that is faster."""
        return self._kept().matrix

    def _kept(self) -> _Kept:
        kept = _recurrences.get(self)
        if kept is not None and kept.values is self.values and kept.version == self.values._version:
            return kept
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Sparse CSR.*beta.*")
            # Checked, for the indices may come from a file.
            matrix = torch.sparse_csr_tensor(
                self.pointers,
                self.columns,
                self.values,
                (self.size, self.size),
                check_invariants=True,
            )
        rows = None
        if self.values.is_cpu:
            parts = (self.values, self.columns.int(), self.pointers.int())
            rows = scipy.sparse.csr_matrix(tuple(p.numpy() for p in parts), matrix.shape)
        matrix = matrix.to_dense() if self.values.is_cuda else matrix
        kept = _Kept(self.values, self.values._version, matrix, rows)
        _recurrences[self] = kept
        return kept

    def start(self, rows: int) -> Tensor:
        """Hidden states of silence, ``[rows, n]``."""
        return self.values.new_zeros(self.size, rows).T

    def forward(self, hidden: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run many reservoirs with the same weights.

        Args:
            hidden: Hidden states ``[rows, n]``; best as :meth:`start` or a run gave them, node by
                node in memory, on which the sparse product is up to twice as fast.
            inputs: ``[T, rows, inputs]``.

        Returns:
            The hidden states after each frame ``[T, rows, n]``, and after the last ``[rows, n]``.
        """
        matrix = self.recurrence()
        state = hidden.T.contiguous()
        # All drives at once, [T, n, rows]: one product for a single row, else one a frame.
        if state.shape[1] == 1:
            drives = (inputs @ self.coupling.T).transpose(1, 2)
        else:
            drives = torch.matmul(self.coupling, inputs.transpose(1, 2))
        if len(self.bias):
            drives = drives + self.bias[:, None]
        single = state.shape[1] == 1
        if single:  # for which the product with a vector is faster
            drives, state = drives[..., 0], state[:, 0]
            rows = self._kept().rows
            if rows is not None and not (drives.requires_grad or state.requires_grad):
                table = self._alone(rows, state.numpy(), drives.numpy())
                return table[:, None], table[-1:]
        states = []
        for drive in drives.unbind():
            product = torch.addmv if single else torch.addmm
            new = product(drive, matrix, state).tanh_()
            state = new if self.leak == 1 else torch.lerp(state, new, self.leak)
            states.append(state)
        table = torch.stack(states)
        if single:
            return table[:, None], state[None]
        return table.transpose(1, 2), state.T

    def _alone(self, matrix: Any, state: Any, drives: Any) -> Tensor:
        """One reservoir in numpy, whose calls cost a third less than torch's at this size."""
        table = np.empty_like(drives)
        for new, drive in zip(table, drives, strict=True):
            np.tanh(np.add(matrix @ state, drive, out=new), out=new)
            if self.leak != 1:
                new -= state
                new *= self.leak
                new += state
            state = new
        return torch.from_numpy(table)

    def step(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """One frame: hidden states ``[rows, n]`` and inputs ``[rows, inputs]`` to hidden states."""
        return self(hidden, inputs[None])[1]


class _Kept(NamedTuple):
    """W, and as scipy has it on a CPU; with the values, and their version, that it was made of."""

    values: Tensor
    version: int
    matrix: Tensor
    rows: Any


#: By reservoir; no part of the modules, for sparse tensors cannot be copied along with them.
_recurrences: WeakKeyDictionary[Reservoir, _Kept] = WeakKeyDictionary()


def check_reservoir(
    size: int,
    radius: float,
    density: float,
    input_scale: float,
    leak: float,
    bias: float,
    seed: int,
) -> None:
    """Check the options of a reservoir.

    Raises:
        InputError: Naming the first that is out of range.
    """
    if isinstance(size, bool) or size != int(size) or size < 2:
        raise InputError(f"a reservoir needs at least 2 nodes, not {size}.")
    if not 0 < radius < 1:
        raise InputError(
            f"the spectral radius is {radius:g}; it must be above 0 and below 1, or the reservoir "
            "would not forget how it began."
        )
    if not 0 < density <= 1:
        raise InputError(f"density is {density:g}; it must be above 0 and at most 1.")
    if not 0 < input_scale < math.inf:
        raise InputError(f"input_scale is {input_scale:g}; it must be positive.")
    if not 0 < leak <= 1:
        raise InputError(f"leak is {leak:g}; it must be above 0 and at most 1.")
    if not 0 <= bias < math.inf:
        raise InputError(f"bias is {bias:g}; it must be 0 or positive.")
    if isinstance(seed, bool) or seed != int(seed) or seed < 0:
        raise InputError(f"seed is {seed}; it must be a whole number of at least 0.")
