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

It takes seconds to import and is optional, so it is imported by :func:`load_escnn` alone.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.groups import FiniteGroup

#: Nonlinearities that commute with the permutations of a regular representation, by escnn's name.
ACTIVATIONS = {"elu": "p_elu", "relu": "p_relu", "tanh": "p_tanh", "sigmoid": "p_sigmoid"}
_PLAIN = {"elu": F.elu, "relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
_IN_PLACE = {
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


def load_escnn() -> Any:
    """The modules ``escnn.gspaces``, ``escnn.nn`` and ``escnn.group``, as attributes of ``escnn``.

    Raises:
        InputError: When it is not installed, with what to do.
    """
    try:
        with warnings.catch_warnings():
            # py3nj is missing, which only spherical harmonics need; torch.jit is deprecated.
            warnings.simplefilter("ignore")
            import escnn.group
            import escnn.gspaces
            import escnn.nn
    except ImportError as error:
        raise InputError(
            "steerable_cnn needs the library escnn, which cannot be imported "
            f"({str(error).splitlines()[0]}): call pip install 'lattice-zoo[escnn]' and then "
            "pip install --no-deps escnn==1.0.11, with Python 3.12 or older."
        ) from error
    return escnn


class _Space(NamedTuple):
    """escnn's D4 on the plane, matched with ours."""

    gspace: Any
    elements: tuple[Any, ...]  # theirs, in the order of ours


@lru_cache(maxsize=1)
def _space() -> _Space:
    from latticezoo.symmetry.point_groups import D

    gspace = load_escnn().gspaces.flipRot2dOnR2(4)
    theirs = {element: gspace.basespace_action(element) for element in gspace.fibergroup.elements}
    # Our x is the row and our y the column of the image; to escnn the column is x, and y is minus
    # the row. That is one quarter turn of the frame.
    frame = np.array([[0.0, 1.0], [-1.0, 0.0]])
    elements = []
    for matrix in D(4).matrices:
        turned = frame @ matrix @ frame.T
        (match,) = [e for e, other in theirs.items() if np.abs(other - turned).max() < 1e-6]
        elements.append(match)
    return _Space(gspace, tuple(elements))


def field_type(group: FiniteGroup, spec: str) -> Any:
    """escnn's type of a field whose values are in our convention.

    Args:
        group: D4, the site group of the square lattice.
        spec: Representation, such as ``"2xA1+B1"`` or ``"vector"``.
    """
    blocks = group.representation(spec).blocks
    parts = [_irreducible(group, name) for count, name, _ in blocks for _ in range(count)]
    return load_escnn().nn.FieldType(_space().gspace, parts)


def regular_type(copies: int) -> Any:
    """The type of several copies of the regular representation, eight channels each."""
    gspace = _space().gspace
    return load_escnn().nn.FieldType(gspace, [gspace.regular_repr] * copies)


@lru_cache
def _irreducible(group: FiniteGroup, name: str) -> Any:
    """An irrep, or the vector, as escnn's irrep in another basis."""
    space, ours = _space(), group.representation(name).matrices
    for irrep in space.gspace.fibergroup.irreps():
        their = np.stack([irrep(element) for element in space.elements])
        seed = np.random.default_rng(0).normal(size=(ours.shape[-1], irrep.size))
        basis = np.einsum("gij,jk,glk->il", ours, seed, their)
        size = np.linalg.norm(basis) / np.sqrt(len(basis))
        if size > 1e-6:  # otherwise nothing intertwines the two, by Schur's lemma
            return load_escnn().group.Representation(
                space.gspace.fibergroup, name, [irrep.id], np.round(basis / size, 12)
            )
    raise ValueError(f"{name!r} is no irrep of {group.name}")


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
        self.conv = (
            load_escnn()
            .nn.R2Conv(
                source,
                target,
                kernel,
                padding=kernel // 2,
                padding_mode="circular",
                bias=constant,
                recompute=True,
                **choice,
            )
            .train()
        )
        self._originals = self._exact_constants(group, source, target, kernel)
        for module in self.conv.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=False)
        self._restore()

    def _exact_constants(
        self, group: FiniteGroup, source: Any, target: Any, kernel: int
    ) -> dict[str, Tensor]:
        """All floating-point buffers that escnn's layer needs, equivariant to double precision."""
        expansion = self.conv.basisexpansion
        originals = {}
        table = _turned_pixels(group, kernel)
        for pair in expansion._representations_pairs:
            name = f"block_expansion_{expansion._escape_pair(pair)}"
            block = expansion.get_submodule(name)
            found = _sample(block, expansion.points)
            into, out = (
                _matrices([next(r for r in kind.representations if r.name == part)])
                for kind, part in zip((source, target), pair, strict=True)
            )
            # K(d) = ρ_out(g)ᵀ K(g d) ρ_in(g), in the mean over the group.
            exact = np.einsum("gji,bjkgp,gkl->bilp", out, found[..., table], into) / group.order
            _check_change(exact, block.sampled_basis, name)
            originals[f"_basisexpansion.{name}.sampled_basis"] = exact
        if self.conv.bias is not None:
            rows = self.conv.bias_expansion
            exact = _matrices(target.representations).mean(0) @ rows.double().numpy()
            _check_change(exact, rows, "bias_expansion")
            originals["bias_expansion"] = exact
        return {name: torch.from_numpy(exact) for name, exact in originals.items()}

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


def _matrices(representations: Sequence[Any]) -> np.ndarray:
    """Matrices of a sum of our representations, ``[8, C, C]``; all entries are 0, 1 or −1."""
    elements = _space().elements
    size, start = sum(part.size for part in representations), 0
    total = np.zeros((len(elements), size, size))
    for part in representations:
        stop = start + part.size
        total[:, start:stop, start:stop] = np.rint([part(element) for element in elements])
        start = stop
    return total


def _sample(block: Any, points: np.ndarray) -> np.ndarray:
    """The filters of a block of escnn's basis, ``[basis, out, in, pixels]``, double precision."""
    from escnn.nn.modules.basismanager.basisexpansion_singleblock import normalize_basis

    basis = copy.deepcopy(block.basis).double()
    found = basis.sample(torch.from_numpy(points).double()).permute(1, 2, 3, 0)
    sizes = torch.tensor([element["shape"][0] for element in block.basis], dtype=found.dtype)
    return normalize_basis(found, sizes)[block._mask].numpy()


def _check_change(exact: np.ndarray, found: Tensor, name: str) -> None:
    if np.abs(exact - found.double().numpy()).max() > _SAMPLING_ERROR:
        raise RuntimeError(f"escnn's {name} is not equivariant in our convention")


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
        weights = [weight.detach() for weight in self.parameters()]
        if self._exported is not None:
            known, plain = self._exported
            if all(map(_same, known, weights)):
                return plain
        # Made for later use too: tensors made in inference mode could not take part in autograd.
        with torch.inference_mode(False), torch.no_grad():
            plain = [layer.export() for layer in [*self.layers, self.readout]]  # type: ignore[operator]
            self._exported = [weight.clone() for weight in weights], plain
        return plain


def _same(first: Tensor, second: Tensor) -> bool:
    return (
        first.dtype == second.dtype and first.device == second.device and torch.equal(first, second)
    )
