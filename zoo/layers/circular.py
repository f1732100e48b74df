"""Circular convolutions of values on a torus, closed under differentiation.

A stencil on a lattice with one site a cell is a circular cross-correlation

.. math:: y(i) = \\sum_k W_k\\, x(i + \\delta_k)

over a small box of offsets. Values stay in the layout of the fields, channels last, which the
convolutions of torch take without a copy. Forward pass, derivative by the values and derivative by
the weights are maps of the same two kinds, so that any number of derivatives costs dense
convolutions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def wrapped(values: Tensor, reach: tuple[int, int]) -> Tensor:
    """Values continued around the torus to all sides, ``[batch, L1 + 2 r1, L2 + 2 r2, C]``.

    A copy, which may be overwritten. Not to be differentiated.
    """
    (batch, length, breadth, channels), (rows, columns) = values.shape, reach
    found = values.new_empty(batch, length + 2 * rows, breadth + 2 * columns, channels)
    inner = found.narrow(2, columns, breadth)
    inner.narrow(1, rows, length).copy_(values)
    if rows:
        inner.narrow(1, 0, rows).copy_(values.narrow(1, length - rows, rows))
        inner.narrow(1, length + rows, rows).copy_(values.narrow(1, 0, rows))
    _continue_columns(found, columns)
    return found


def _continue_columns(padded: Tensor, columns: int) -> None:
    """Fill the margins of the second axis from what is between them."""
    if columns:
        size = padded.shape[2]
        padded.narrow(2, 0, columns).copy_(padded.narrow(2, size - 2 * columns, columns))
        padded.narrow(2, size - columns, columns).copy_(padded.narrow(2, columns, columns))


def _reach(kernel: Tensor) -> tuple[int, int]:
    return kernel.shape[2] // 2, kernel.shape[3] // 2


def _turned(kernel: Tensor) -> Tensor:
    """The kernel of the adjoint map."""
    turned = kernel.transpose(0, 1).flip((2, 3))
    return turned.contiguous(memory_format=torch.channels_last)


def correlate(padded: Tensor, kernel: Tensor) -> Tensor:
    """Cross-correlation of wrapped values with a kernel, ``[batch, L1, L2, C_out]``."""
    return F.conv2d(padded.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)


class _Convolution(torch.autograd.Function):
    """Values and kernel to values."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, kernel: Tensor) -> Tensor:
        return correlate(wrapped(values, _reach(kernel)), kernel)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        values, kernel = ctx.saved_tensors
        grad = grad.contiguous()
        by_values = by_kernel = None
        if ctx.needs_input_grad[0]:
            by_values = _Convolution.apply(grad, _turned(kernel))
        if ctx.needs_input_grad[1]:
            by_kernel = _Kernel.apply(values, grad, _reach(kernel))
        return by_values, by_kernel

    @staticmethod
    def jvp(ctx: Any, by_values: Tensor | None, by_kernel: Tensor | None) -> Tensor:
        values, kernel = ctx.saved_tensors
        total = None
        if by_values is not None:
            total = _Convolution.apply(by_values, kernel)
        if by_kernel is not None:
            part = _Convolution.apply(values, by_kernel)
            total = part if total is None else total + part
        assert total is not None
        return total


class _Kernel(torch.autograd.Function):
    """The derivative of :class:`_Convolution` by its kernel, bilinear in values and gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, grad: Tensor, reach: tuple[int, int]) -> Tensor:
        box = 2 * reach[0] + 1, 2 * reach[1] + 1
        shape = grad.shape[-1], values.shape[-1], *box
        kernel = torch.empty(shape, dtype=values.dtype, device=values.device)
        return torch.ops.aten.convolution_backward(
            grad.permute(0, 3, 1, 2),
            wrapped(values, reach).permute(0, 3, 1, 2),
            kernel.to(memory_format=torch.channels_last),
            None,
            (1, 1),
            (0, 0),
            (1, 1),
            False,
            (0, 0),
            1,
            (False, True, False),
        )[1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.reach = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, given = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        by_values = by_given = None
        if ctx.needs_input_grad[0]:
            by_values = _Convolution.apply(given, _turned(grad))
        if ctx.needs_input_grad[1]:
            by_given = _Convolution.apply(values, grad)
        return by_values, by_given, None

    @staticmethod
    def jvp(ctx: Any, by_values: Tensor | None, by_given: Tensor | None, _: None) -> Tensor:
        values, given = ctx.saved_tensors
        total = None
        if by_values is not None:
            total = _Kernel.apply(by_values, given, ctx.reach)
        if by_given is not None:
            part = _Kernel.apply(values, by_given, ctx.reach)
            total = part if total is None else total + part
        assert total is not None
        return total


def circular_convolution(values: Tensor, kernel: Tensor) -> Tensor:
    """Circular cross-correlation, differentiable any number of times.

    Args:
        values: ``[batch, L1, L2, C_in]``.
        kernel: ``[C_out, C_in, k1, k2]`` of odd sizes no larger than the torus, best in torch's
            channels-last format.

    Returns:
        ``[batch, L1, L2, C_out]``.
    """
    return _Convolution.apply(values, kernel)


# ---- without gradients ---------------------------------------------------------------------------


def shifted_columns(values: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Neighbours of every site by slices of the wrapped torus, ``[batch, L1, L2, K · C]``."""
    return torch.cat(list(_slices(values, offsets)), dim=-1)


def shifted_sum(values: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Sums ``y(i) = Σ_k x_k(i + δ_k)`` of values ``[batch, L1, L2, K · C]``."""
    width = values.shape[-1] // len(offsets)
    total: Tensor | None = None
    for k, part in enumerate(_slices(values, offsets)):
        chosen = part[..., k * width : (k + 1) * width]
        total = chosen.clone() if total is None else total.add_(chosen)
    assert total is not None
    return total


def _slices(values: Tensor, offsets: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    rows, columns = (max(abs(shift[axis]) for shift in offsets) for axis in (0, 1))
    padded = wrapped(values, (rows, columns))
    height, breadth = values.shape[1:3]
    for first, second in offsets:
        top, left = rows + first, columns + second
        yield padded[:, top : top + height, left : left + breadth]


def bands(
    values: Sequence[Tensor], reach: tuple[int, int], height: int
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Go through a torus band by band; a band may be overwritten before the next is asked for.

    Args:
        values: ``[L1, L2, C]`` each, contiguous.
        reach: What each band is wrapped by.
        height: Rows of a band, about.

    Yields:
        The rows, and wrapped copies of them, ``[1, rows + 2 r1, L2 + 2 r2, C]``.
    """
    rows, columns = reach
    length, breadth = values[0].shape[:2]
    count = max(1, length // max(height, rows, 1))
    edges = [length * k // count for k in range(count + 1)]
    first = [value[:rows].clone() for value in values]
    above = [value[length - rows :].clone() for value in values]
    for start, stop in pairwise(edges):
        found = []
        for value, before, wrap in zip(values, above, first, strict=True):
            size = 1, stop - start + 2 * rows, breadth + 2 * columns, value.shape[-1]
            band = value.new_empty(size)
            inner = band[0].narrow(1, columns, breadth)
            inner[:rows] = before
            inner[rows : rows + stop - start] = value[start:stop]
            inner[rows + stop - start :] = wrap if stop == length else value[stop : stop + rows]
            _continue_columns(band, columns)
            found.append(band)
        above = [value[stop - rows : stop].clone() for value in values]
        yield slice(start, stop), found
