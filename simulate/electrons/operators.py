"""Sparse Hermitian operators: products with vectors, and the interval that holds the spectrum.

Everything works on torch tensors on any device, for real and complex operators.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from latticezoo.symmetry.errors import InputError

Array = NDArray[np.float64]
Product = Callable[[Tensor], Tensor]

_MARGIN = 1e-3  # of the width, between the spectrum and the ends of the window


@dataclass(frozen=True)
class Window:
    """Interval that holds the spectrum: x = (h − centre)/half_width lies in [−1, 1].

    Raises:
        InputError: Unless lower < upper.
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower < self.upper or not math.isfinite(self.upper - self.lower):
            raise InputError(
                f"the spectral window is [{self.lower}, {self.upper}]; "
                "its lower end must lie below its upper end."
            )

    @property
    def centre(self) -> float:
        """b, the middle."""
        return 0.5 * (self.lower + self.upper)

    @property
    def half_width(self) -> float:
        """a, half the width."""
        return 0.5 * (self.upper - self.lower)

    def energies(self, x: Array) -> Array:
        """Energies at scaled positions in [−1, 1]."""
        return self.centre + self.half_width * x


@dataclass(frozen=True)
class Operator:
    """A Hermitian operator known by its products with vectors.

    Attributes:
        product: Maps a block of vectors ``[N, R]`` to h times them.
        size: N.
        dtype: float64 or complex128.
        device: Where the vectors live.
    """

    product: Product
    size: int
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, h: Operator | Tensor | NDArray[Any] | sparse.sparray) -> Operator:
        """Wrap a Hermitian matrix: a dense or sparse tensor, a numpy array, or a scipy matrix.

        Raises:
            InputError: For a matrix that is not square, or holds NaN.
        """
        if isinstance(h, Operator):
            return h
        matrix = _tensor(h)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"a Hamiltonian has shape [N, N], not {list(matrix.shape)}.")
        # A copy: torch cannot take the real part of the values of a complex CSR tensor.
        values = matrix.values().clone() if matrix.layout != torch.strided else matrix
        if not bool(values.isfinite().all()):
            raise InputError("the Hamiltonian holds NaN or infinite values.")
        return cls(matrix.matmul, matrix.shape[0], matrix.dtype, matrix.device)


def _tensor(h: Any) -> Tensor:
    with warnings.catch_warnings():
        # torch announces the beta state of CSR tensors at the first one.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        if sparse.issparse(h):
            rows = h.tocsr()
            matrix = torch.sparse_csr_tensor(
                torch.from_numpy(rows.indptr.astype(np.int64)),
                torch.from_numpy(rows.indices.astype(np.int64)),
                torch.from_numpy(rows.data),
                h.shape,
                check_invariants=True,
            )
        elif not isinstance(h, Tensor):
            matrix = torch.from_numpy(np.asarray(h))
        elif h.layout == torch.sparse_coo:
            matrix = h.to_sparse_csr()
        else:
            matrix = h
    return matrix.detach().to(torch.complex128 if matrix.is_complex() else torch.float64)


def spectral_window(h: Any, steps: int = 80, seed: int = 0) -> Window:
    """Interval that holds the whole spectrum.

    For a matrix: Gershgorin's circles, a strict bound. For an operator known by products alone:
    the extreme Ritz values of Lanczos' method, widened by the norm of the last residual (Zhou and
    Li, Linear Algebra Appl. 435 (2011) 480), safe in practice.

    Args:
        h: What :class:`Operator` takes.
        steps: Lanczos steps.
        seed: Of the start vector.
    """
    if isinstance(h, Operator):
        ritz, residual = _lanczos(h, steps, seed)
        lower, upper = float(ritz[0]) - residual, float(ritz[-1]) + residual
    else:
        lower, upper = _gershgorin(_tensor(h))
    margin = _MARGIN * max(upper - lower, 1e-3)
    return Window(lower - margin, upper + margin)


def _gershgorin(matrix: Tensor) -> tuple[float, float]:
    if matrix.layout == torch.strided:
        diagonal, sums = matrix.diagonal().real, matrix.abs().sum(1)
    else:
        size = matrix.shape[0]
        counts = matrix.crow_indices().diff()
        rows = torch.repeat_interleave(torch.arange(size, device=matrix.device), counts)
        columns, values = matrix.col_indices(), matrix.values().clone()
        sums = values.real.new_zeros(size).index_add_(0, rows, values.abs())
        on = rows == columns
        diagonal = values.real.new_zeros(size).index_add_(0, rows[on], values.real[on])
    radius = sums - diagonal.abs()
    return float((diagonal - radius).min()), float((diagonal + radius).max())


def _lanczos(operator: Operator, steps: int, seed: int) -> tuple[Array, float]:
    """Ritz values in rising order, and the norm of the last residual."""
    vector = random_vectors(operator, 1, seed)
    basis = vector / vector.norm()
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(min(steps, operator.size)):
        image = operator.product(basis[:, -1:].contiguous())
        alphas.append(float((basis[:, -1].conj() @ image[:, 0]).real))
        for _ in range(2):  # twice is enough: full orthogonality
            image = image - basis @ (basis.mH @ image)
        betas.append(float(image.norm()))
        if betas[-1] < 1e-12 * max(1.0, abs(alphas[0])):
            break
        basis = torch.cat([basis, image / betas[-1]], 1)
    matrix = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    return np.linalg.eigvalsh(matrix), betas[-1]


def check_window(operator: Operator, window: Window, seed: int = 0) -> None:
    """Refuse a window that surely leaves out part of the spectrum: Ritz values lie inside it."""
    ritz, _ = _lanczos(operator, 30, seed)
    slack = 1e-9 * window.half_width
    if ritz[0] < window.lower - slack or ritz[-1] > window.upper + slack:
        raise outside(window, f"at least [{ritz[0]:.6g}, {ritz[-1]:.6g}]")


def outside(window: Window, found: str) -> InputError:
    """The error for a window that leaves out part of the spectrum."""
    return InputError(
        f"the spectrum reaches {found}, beyond the window [{window.lower:.6g}, "
        f"{window.upper:.6g}] of the Chebyshev expansion; give a wider window, or none."
    )


def random_vectors(operator: Operator, count: int, seed: int) -> Tensor:
    """Vectors ``[N, count]`` of independent entries of modulus 1: ±1, or phases for complex h."""
    generator = torch.Generator().manual_seed(seed)
    shape = (operator.size, count)
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    if operator.dtype.is_complex:
        vectors = torch.polar(torch.ones_like(uniform), 2 * math.pi * uniform)
    else:
        vectors = torch.where(uniform < 0.5, -1.0, 1.0).double()
    return vectors.to(operator.device, operator.dtype)
