"""Products of a Hamiltonian with vectors on a lattice of sites with two spin states, matrix-free.

H = hopping by shells + a Hermitian 2×2 block on every site. Vectors are real arrays
``[N, B, 4, R]``: sites, configurations, (Re ↑, Im ↑, Re ↓, Im ↓), vectors. A product gathers rows
of ``4·B·R`` numbers that lie side by side, along the shells, and applies the site blocks as real
4×4 matrices. No matrix of size N is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latticezoo.simulate.electrons.operators import Operator, Window
from latticezoo.simulate.electrons.shell_hopping import ShellHopping

#: Bytes of the part of a block of vectors that a CPU does at once.
_SLAB = 8e5


class Product:
    """Products of x = (h − b)/a with vectors ``[N + H, B, 4, R]``.

    The H rows behind the sites are copies of sites beyond a twisted boundary, phases included.
    """

    def __init__(self, hopping: ShellHopping, blocks: Tensor, window: Window) -> None:
        tables, device = hopping.tables(), blocks.device
        self.sites, self.scale = hopping.lattice.n_sites, 1 / window.half_width
        # The largest weight in front: the others are given as shares of it.
        order = sorted(range(len(tables.weights)), key=lambda s: -abs(tables.weights[s]))
        self.neighbours = [torch.from_numpy(tables.neighbours[s]).to(device) for s in order]
        self.weights = [tables.weights[s] for s in order]
        self.source = torch.from_numpy(tables.source).to(device)
        phases = torch.from_numpy(tables.phases).to(device)[:, None, None, None]
        self.cosines, self.sines = phases.real.contiguous(), phases.imag.contiguous()
        up = blocks[..., 0, 0].real - window.centre
        down = blocks[..., 1, 1].real - window.centre
        real, imag = blocks[..., 0, 1].real, blocks[..., 0, 1].imag
        zero = torch.zeros_like(up)
        rows = (
            *(up, zero, real, -imag),
            *(zero, up, imag, real),
            *(real, imag, down, zero),
            *(-imag, real, zero, down),
        )
        # [B, N, 16] to [N · B, 4, 4]
        self.onsite = torch.stack(rows, -1).transpose(0, 1).reshape(-1, 4, 4) * self.scale

    def buffer(self, vectors: Tensor) -> Tensor:
        """The vectors ``[N, B, 4, R]`` with the copies behind them."""
        if not len(self.source):
            return vectors.contiguous()
        rows = vectors.new_empty(self.sites + len(self.source), *vectors.shape[1:])
        rows[: self.sites] = vectors
        self._copy(rows)
        return rows

    def _copy(self, rows: Tensor) -> None:
        if not len(self.source):
            return
        copied = rows[self.source]
        real, imag = copied[:, :, 0::2], copied[:, :, 1::2]
        beyond = rows[self.sites :]
        torch.sub(self.cosines * real, self.sines * imag, out=beyond[:, :, 0::2])
        torch.add(self.sines * real, self.cosines * imag, out=beyond[:, :, 1::2])

    def __call__(self, vectors: Tensor, old: Tensor | None = None) -> Tensor:
        """x·v; or 2x·v − old, which takes the memory of ``old``."""
        factor = 1.0 if old is None else 2.0
        result = torch.empty_like(vectors) if old is None else old
        rows = vectors.view(len(vectors), -1)
        step = self._slab(vectors)
        for start in range(0, self.sites, step):
            here = slice(start, min(start + step, self.sites))
            image = self._image(vectors, rows, here, factor)
            if old is None:
                result[here] = image
            else:
                torch.sub(image, old[here], out=result[here])
        self._copy(result)
        return result

    def _slab(self, vectors: Tensor) -> int:
        """Sites that are done together: all of them, or what stays in the cache of a CPU.

        Intermediate arrays of some megabytes would also come from fresh memory each time, which
        costs three times the arithmetic.
        """
        if vectors.device.type != "cpu":
            return self.sites
        return max(1, int(_SLAB / (8 * vectors[0].numel())))

    def _image(self, vectors: Tensor, rows: Tensor, here: slice, factor: float) -> Tensor:
        """``factor`` · x·v on some sites."""
        _, batch, parts, count = vectors.shape
        shape = (-1, parts, count)
        onsite = self.onsite[here.start * batch : here.stop * batch]
        own = vectors[here].view(shape)
        if not self.neighbours:
            image = torch.bmm(onsite, own).mul_(factor)
        else:
            gathered = _gather(self.neighbours[0][here], rows)
            for table, weight in zip(self.neighbours[1:], self.weights[1:], strict=True):
                gathered.add_(_gather(table[here], rows), alpha=weight / self.weights[0])
            image = gathered.view(shape)
            image.baddbmm_(onsite, own, beta=factor * self.scale * self.weights[0], alpha=factor)
        return image.view(-1, batch, parts, count)


def _gather(table: Tensor, rows: Tensor) -> Tensor:
    """Σ of the rows named in each line of a table, ``[N, columns]``, in one pass."""
    return torch.nn.functional.embedding_bag(table, rows, mode="sum")


def spin_operator(hopping: ShellHopping, blocks: Tensor) -> Operator:
    """h of one configuration as products; state (i, spin) is row 2i + spin.

    Args:
        hopping: The hopping.
        blocks: Hermitian ``[N, 2, 2]``.
    """
    product = Product(hopping, blocks[None].to(torch.complex128), Window(-1.0, 1.0))
    sites = hopping.lattice.n_sites

    def apply(block: Tensor) -> Tensor:
        split = torch.view_as_real(block.reshape(sites, 2, -1)).movedim(-1, 2)  # [N, 2, 2, R]
        vectors = product.buffer(split.reshape(sites, 1, 4, -1))
        image = product(vectors)[:sites].reshape(sites, 2, 2, -1).movedim(2, -1)
        return torch.view_as_complex(image.contiguous()).reshape(2 * sites, -1)

    return Operator(apply, 2 * sites, torch.complex128, blocks.device)
