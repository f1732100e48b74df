"""The interface of a compact group: Haar-random elements, products, action on values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError

Kind = str | int | None

_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8}


@dataclass(frozen=True)
class CompactGroup(ABC):
    """A compact group and its action on values; the concrete ones are equal by name.

    Element arrays and value arrays broadcast against each other in their leading axes, as torch
    does: one global rotation ``[3, 3]`` acts on ``[batch, sites, 3]``, local ones
    ``[sites, 3, 3]`` on the same. Precision promotes as torch does.
    """

    name: ClassVar[str]
    element_shape: ClassVar[tuple[int, ...]]
    is_complex: ClassVar[bool]
    kinds: ClassVar[str]  # what :meth:`act` takes, in words

    # ---- elements ------------------------------------------------------------------------------

    def random(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Independent elements drawn from the Haar measure.

        They are drawn in float64 on the generator's device, then rounded and moved: a seed means
        the same elements in every precision and on every device.

        Args:
            *shape: Leading axes; none gives one element.
            generator: Source of the random numbers; torch's global one by default.
            dtype: float32 or float64 (or their complex partners), torch's default by default;
                complex elements get the matching complex type.
            device: Where to put them; the generator's device by default.

        Returns:
            ``[*shape, *element_shape]``.

        Raises:
            InputError: For any other dtype.
        """
        element_type = self._dtype(dtype)
        drawn = self._draw(shape, generator)
        return drawn.to(device=device or drawn.device, dtype=element_type)

    def identity(
        self,
        *shape: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The unit element, repeated over ``shape``; arguments as in :meth:`random`."""
        element_type = self._dtype(dtype)
        if not self.element_shape:
            return torch.ones(shape, dtype=element_type, device=device)
        unit = torch.eye(self.element_shape[-1], dtype=element_type, device=device)
        return unit.expand(*shape, *self.element_shape).clone()

    def compose(self, a: Tensor, b: Tensor) -> Tensor:
        """The product ``a b``: first ``b`` acts, then ``a``."""
        a, b = promote(a, b)
        return a @ b if self.element_shape else a * b

    def inverse(self, a: Tensor) -> Tensor:
        """The inverse, which is the adjoint ``a†``."""
        return (a.mH if self.element_shape else a.conj()).resolve_conj()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Frobenius norm of ``a − b``, real, over the leading axes."""
        difference = (a - b).abs()
        return difference.norm(dim=(-2, -1)) if self.element_shape else difference

    def violation(self, values: Tensor) -> float:
        """Largest deviation of the values from the group; infinite when one is not finite.

        For matrices the larger of ``max |U U† − 1|`` and ``|det U − 1|``, for phases
        ``||g| − 1|``, for signs the distance to the nearer of ±1.

        Raises:
            InputError: When the last axes are not those of an element.
        """
        self._check_element(values)
        if values.numel() == 0:
            return 0.0
        worst = float(self._deviation(values).max())
        return worst if math.isfinite(worst) else math.inf

    def require(self, values: Tensor, what: str = "values", tolerance: float | None = None) -> None:
        """Check that the values are elements of the group.

        Args:
            values: Candidates.
            what: Their name, for the message.
            tolerance: Largest accepted violation; 1e-4 in float32, 1e-8 in float64 by default.

        Raises:
            InputError: With the size of the violation.
        """
        allowed = _TOLERANCES[_real_dtype(values.dtype)] if tolerance is None else tolerance
        if not (worst := self.violation(values)) <= allowed:
            raise InputError(
                f"{what} are not in the group {self.name}: the largest deviation is {worst:.3g}, "
                f"but at most {allowed:.3g} is accepted."
            )

    # ---- action on values ----------------------------------------------------------------------

    def act(self, element: Tensor, values: Tensor, kind: Kind) -> Tensor:
        """Act with an element on values of a kind: see the table of the ``internal`` module.

        ``"link"`` takes one element for both ends, as for a global transformation; with one
        element per site use :meth:`transport`.

        Args:
            element: ``[..., *element_shape]``.
            values: ``[..., components]``; broadcasts against the element in the leading axes.
            kind: How the values transform; None (invariant) returns them as they are.

        Returns:
            ``[..., components]``.

        Raises:
            InputError: For a kind that this group does not know, or values that do not fit it.
        """
        if kind is None:
            return values
        self._check_element(element)
        self._check_values(element, values, kind)
        return self._act(element, values, kind)

    def transport(self, g_from: Tensor, links: Tensor, g_to: Tensor) -> Tensor:
        """Transform links between two sites: ``g_from U g_to†``.

        Args:
            g_from: Elements at the sites where the links start.
            links: Links, laid out like elements.
            g_to: Elements at the sites where they end.

        Returns:
            Transformed links.
        """
        return self.compose(self.compose(g_from, links), self.inverse(g_to))

    # ---- what a group supplies -----------------------------------------------------------------

    @abstractmethod
    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """Haar-random elements in double precision."""

    @abstractmethod
    def component_shape(self, kind: Kind) -> tuple[int | None, ...]:
        """Component axes of a kind, last in its values; None stands for any number of channels.

        Raises:
            InputError: For a kind that this group does not know.
        """

    @abstractmethod
    def _act(self, element: Tensor, values: Tensor, kind: Kind) -> Tensor: ...

    def _needs_complex(self, kind: Kind) -> bool:
        return self.is_complex

    def _deviation(self, values: Tensor) -> Tensor:
        """Deviation of every element; this one is for matrices."""
        unit = torch.eye(values.shape[-1], dtype=values.dtype, device=values.device)
        defect = (values @ values.mH - unit).abs().amax(dim=(-2, -1))
        return torch.maximum(defect, (torch.linalg.det(values) - 1).abs())

    def _dtype(self, dtype: torch.dtype | None) -> torch.dtype:
        real = _real_dtype(dtype or torch.get_default_dtype())
        return real.to_complex() if self.is_complex else real

    def _unknown_kind(self, kind: Kind) -> InputError:
        return InputError(
            f"unknown kind of values {kind!r} for {self.name}; it takes {self.kinds}."
        )

    def _check_element(self, element: Tensor) -> None:
        axes = len(self.element_shape)
        if axes and tuple(element.shape[-axes:]) != self.element_shape:
            raise InputError(
                f"elements of {self.name} need last axes {list(self.element_shape)}, "
                f"not an array of shape {list(element.shape)}."
            )

    def _check_values(self, element: Tensor, values: Tensor, kind: Kind) -> None:
        shape = self.component_shape(kind)
        axes = len(shape)
        given = tuple(values.shape[max(values.dim() - axes, 0) :])
        fits = len(given) == axes and all(n in (None, m) for n, m in zip(shape, given, strict=True))
        if not fits:
            wanted = ", ".join("channels" if size is None else str(size) for size in shape)
            raise InputError(
                f"values of kind {kind!r} under {self.name} need last axes [{wanted}], "
                f"but they have shape {list(values.shape)}."
            )
        if self._needs_complex(kind) and not values.is_complex():
            raise InputError(
                f"values of kind {kind!r} under {self.name} must be complex, not {values.dtype}."
            )
        try:
            torch.broadcast_shapes(
                element.shape[: element.dim() - len(self.element_shape)],
                values.shape[: values.dim() - axes],
            )
        except RuntimeError:
            raise InputError(
                f"elements of {self.name} with shape {list(element.shape)} do not fit values of "
                f"kind {kind!r} with shape {list(values.shape)}."
            ) from None


def promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common type."""
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return tuple(tensor.to(dtype) for tensor in tensors)


def _real_dtype(dtype: torch.dtype) -> torch.dtype:
    real = dtype.to_real() if dtype.is_complex else dtype
    if real not in _TOLERANCES:
        raise InputError(f"group elements are of precision float32 or float64, not {dtype}.")
    return real
