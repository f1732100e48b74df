"""Convolutions of the library escnn on the square lattice, exact for our fields and types.

`escnn <https://github.com/QUVA-Lab/escnn>`_ (Cesa, Lang and Weiler, ICLR 2022) parametrizes kernels
that commute with rotations and mirrors of the plane and samples them on pixels. Here it is used as
it comes, its layers and its expansion of the weights into filters, but for what it would get wrong:

* Its basis is sampled in single precision. It is sampled again in double precision and projected
  onto the exactly equivariant filters of our convention; changes of type start from there.
* Its layers share one copy of a basis, so that ``.double()`` on one changes all of them. Every
  layer has its own here.
* Filters, bases and index tables do not enter the state dict: the weights determine the network.
* Exported layers forget that their padding is periodic. They are told again.

It is imported by :func:`~latticezoo.zoo.layers.steerable_types.load_escnn` alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.zoo.layers.steerable_types import field_type, load_escnn, matrices, regular_type

#: Nonlinearities that commute with the permutations of a regular representation, by escnn's name.
ACTIVATIONS = {"elu": "p_elu", "relu": "p_relu", "tanh": "p_tanh", "sigmoid": "p_sigmoid"}
_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.elu(x, inplace=True),
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
}

#: Which filters there are: those of escnn's frequency cut-off, or all that are equivariant.
FILTERS = ("band_limited", "all")

#: Radii of the pixels of a kernel, and highest angular frequency that their shells can tell apart.
_SHELLS = {
    1: [(0.0, 0)],
    3: [(0.0, 0), (1.0, 2), (2**0.5, 2)],
    5: [(0.0, 0), (1.0, 2), (2**0.5, 2), (2.0, 2), (5**0.5, 4), (8**0.5, 2)],
}
KERNELS = tuple(_SHELLS)
#: Largest part that the projection may change: single precision, not another convention.
_SAMPLING_ERROR = 1e-5


class SteerableConv(nn.Module):
    """One convolution of escnn with periodic padding, exact in double precision.

    Args:
        group: D4.
        source: escnn's type of the input.
        target: escnn's type of the output.
        kernel: Side of the filter: 1, 3 or 5.
        filters: ``"band_limited"``, escnn's own choice of angular frequencies, which leaves out a
            third of the equivariant 3×3 filters; or ``"all"``.
        constant: Whether a constant is added where the type allows.
    """

    def __init__(
        self,
        group: FiniteGroup,
        source: Any,
        target: Any,
        kernel: int,
        filters: str,
        constant: bool = True,
    ) -> None:
        super().__init__()
        choice: dict[str, Any] = {}
        if filters == "all":
            shells = dict(_SHELLS[kernel])
            choice = {
                "rings": list(shells),
                "sigma": [0.01] * len(shells),
                "frequencies_cutoff": lambda radius: shells[
                    min(shells, key=lambda r: abs(r - radius))
                ],
            }
        self.conv = load_escnn().nn.R2Conv(
            source,
            target,
            kernel,
            padding=kernel // 2,
            padding_mode="circular",
            bias=constant,
            **choice,
        )
        originals = {}
        expansion = self.conv.basisexpansion
        for pair in expansion._representations_pairs:
            name = f"block_expansion_{expansion._escape_pair(pair)}"
            shared = expansion.get_submodule(name)
            # The analytical basis is only read, and may be shared.
            own = copy.deepcopy(shared, {id(shared.basis): shared.basis})
            expansion.register_module(name, own)
            key = (*pair, kernel, filters)
            if key not in _exact_blocks:
                into, out = (
                    next(r for r in kind.representations if r.name == part)
                    for kind, part in zip((source, target), pair, strict=True)
                )
                _exact_blocks[key] = _exact_block(own, group, into, out, expansion.points)
            originals[f"_basisexpansion.{name}.sampled_basis"] = _exact_blocks[key]
        if self.conv.bias is not None:
            rows = self.conv.bias_expansion.double().numpy()
            exact = matrices(target.representations).mean(0) @ rows
            originals["bias_expansion"] = _checked(exact, rows)
        self._originals = originals
        for module in self.conv.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=False)
        self.conv.train()  # drops the copies of the expanded filters
        self._restore()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self._restore()
        return self

    def _restore(self) -> None:
        """Take constants from the originals, in the type of the weights."""
        weights = self.conv.weights
        for name, original in self._originals.items():
            path, _, last = name.rpartition(".")
            if not weights.is_meta:
                setattr(
                    self.conv.get_submodule(path), last, original.to(weights.device, weights.dtype)
                )

    def train(self, mode: bool = True) -> SteerableConv:
        """Set the mode; escnn's layer stays in train mode, where it keeps no copy of filters."""
        self.training = mode
        return self

    def forward(self, values: Any) -> Any:
        """escnn's layer: filters are made from the weights at every call."""
        return self.conv(values)

    def export(self) -> nn.Module:
        """A plain convolution with the present weights."""
        plain = self.conv.export()
        self.conv.train()  # drops the filters that the export has left behind
        plain.padding_mode = "circular"
        return plain.requires_grad_(False)


#: Bases by names of the representations, side of the kernel and choice of filters.
_exact_blocks: dict[tuple[str, str, int, str], Tensor] = {}


def _exact_block(
    block: Any, group: FiniteGroup, source: Any, target: Any, points: np.ndarray
) -> Tensor:
    """Filters of a block of escnn's basis, ``[basis, out, in, pixels]``, to double precision."""
    from escnn.nn.modules.basismanager.basisexpansion_singleblock import normalize_basis

    basis = copy.deepcopy(block.basis).double()
    sampled = basis.sample(torch.from_numpy(points).double()).permute(1, 2, 3, 0)
    sizes = torch.tensor([element["shape"][0] for element in block.basis], dtype=sampled.dtype)
    found = normalize_basis(sampled, sizes)[block._mask].numpy()
    # K(d) = ρ_out(g)ᵀ K(g d) ρ_in(g), in the mean over the group.
    turned = found[..., _turned_pixels(group, round(len(points) ** 0.5))]
    into, out = matrices([source]), matrices([target])
    exact = np.einsum("gji,bjkgp,gkl->bilp", out, turned, into, optimize=True) / group.order
    return _checked(exact, found)


def _checked(exact: np.ndarray, found: np.ndarray) -> Tensor:
    """Exact numbers, if they differ from what was found by no more than rounding."""
    if np.abs(exact - found).max() > _SAMPLING_ERROR:
        raise RuntimeError("escnn's filters are not equivariant in our convention")
    return torch.from_numpy(exact)


def _turned_pixels(group: FiniteGroup, kernel: int) -> np.ndarray:
    """``[8, pixels]``: the pixel to which an element sends a pixel of a kernel."""
    side = np.arange(kernel) - kernel // 2
    offsets = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    turned = np.rint(np.einsum("gij,pj->gpi", group.matrices, offsets)).astype(int) + kernel // 2
    return turned[..., 0] * kernel + turned[..., 1]


class SteerableNetwork(nn.Module):
    r"""Convolutions between regular representations of D4 with pointwise nonlinearities.

    :math:`h_0 = \sigma(C_0 x)`, then :math:`h_{l} = \sigma(C_l h_{l-1})`, or
    :math:`h_{l-1} + \sigma(C_l h_{l-1})` when residual, and a linear readout.

    Args:
        group: D4.
        source: Representation of the input, such as ``"2xA1+B1"``.
        target: Representation of the output.
        copies: Copies of the regular representation in every layer.
        layers: Number of layers, the first included, the readout not.
        first_kernel: Side of the first filter.
        kernel: Side of all others.
        nonlinearity: Name of σ.
        filters: See :class:`SteerableConv`.
        residual: Whether the layers after the first add to their input.
        constant: Whether the readout adds a constant where the type allows.

    Shapes:
        - input ``[batch, C, Lx, Ly]``
        - output ``[batch, C', Lx, Ly]``

    Raises:
        InputError: When escnn cannot be imported, or a name or a size is unknown.
    """

    def __init__(
        self,
        group: FiniteGroup,
        source: str,
        target: str,
        *,
        copies: int,
        layers: int,
        first_kernel: int,
        kernel: int,
        nonlinearity: str,
        filters: str,
        residual: bool,
        constant: bool,
    ) -> None:
        super().__init__()
        for what, name, known in (
            ("activation", nonlinearity, ACTIVATIONS),
            ("choice of filters", filters, FILTERS),
        ):
            if name not in known:
                raise unknown(what, name, known)
        for side in (first_kernel, kernel):
            if side not in KERNELS:
                raise InputError(f"a kernel of steerable_cnn has side 1, 3 or 5, not {side}.")
        theirs = load_escnn().nn
        self._source, hidden = field_type(group, source), regular_type(copies)
        self.layers = nn.ModuleList(
            SteerableConv(
                group,
                hidden if number else self._source,
                hidden,
                kernel if number else first_kernel,
                filters,
            )
            for number in range(layers)
        )
        self.readout = SteerableConv(
            group, hidden, field_type(group, target), kernel, filters, constant
        )
        self.nonlinearity = theirs.PointwiseNonLinearity(hidden, ACTIVATIONS[nonlinearity])
        self._name, self._residual = nonlinearity, residual
        self._exported: tuple[list[Tensor], list[nn.Module]] | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Apply escnn's layers; shapes as above."""
        hidden = self._source(values)
        for number, layer in enumerate(self.layers):
            update = self.nonlinearity(layer(hidden))
            hidden = hidden + update if self._residual and number else update
        return self.readout(hidden).tensor

    def infer(self, values: Tensor) -> Tensor:
        """The same numbers by exported, plain convolutions: no derivative by the weights."""
        *layers, readout = self._plain()
        # What autograd may need of a layer must not be overwritten.
        keep = values.requires_grad and torch.is_grad_enabled()
        act = (_PLAIN if keep else _IN_PLACE)[self._name]
        hidden = values
        for number, layer in enumerate(layers):
            update = act(layer(hidden))
            if self._residual and number:
                update = update + hidden if keep else update.add_(hidden)
            hidden = update
        return readout(hidden)

    def _plain(self) -> list[nn.Module]:
        """Exported layers, made anew whenever a weight is not what it was.

        Weights are compared by value: some ways to change them (moving averages, ``.data``) leave
        no other trace. They are few, for every one of them makes many entries of a filter.
        """
        from torch.fx.experimental.proxy_tensor import get_proxy_mode

        weights = [weight.detach() for weight in self.parameters()]
        if self._exported is not None:
            known, plain = self._exported
            # A trace knows no values; the call before it has made the layers.
            if get_proxy_mode() is not None or all(map(_same, known, weights)):
                return plain
        # Made for later use too: tensors made in inference mode could not take part in autograd.
        with torch.inference_mode(False), torch.no_grad():
            plain = [layer.export() for layer in [*self.layers, self.readout]]
            self._exported = [weight.clone() for weight in weights], plain
        return plain


def _same(first: Tensor, second: Tensor) -> bool:
    return (
        first.dtype == second.dtype and first.device == second.device and torch.equal(first, second)
    )
