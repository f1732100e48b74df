"""Keep an expanded filter for as long as the weights it was made from stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_fixed: ContextVar[bool] = ContextVar("fixed", default=False)


@contextmanager
def fixed_weights(fixed: bool = True) -> Iterator[None]:
    """Within it filters take no part in derivatives: for those by the input alone, as forces are.

    Args:
        fixed: Whether it shall have that effect.
    """
    token = _fixed.set(fixed)
    try:
        yield
    finally:
        _fixed.reset(token)


class FilterCache:
    """Dense filters of one layer, made from its free weights.

    In evaluation mode a filter is made once. Changes of weights in place and replaced weights are
    noticed; a change through ``.data``, which torch does not count, is noticed after
    :meth:`clear` only, which a layer calls in ``train()``.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Tensor]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def get(
        self, name: str, weights: Sequence[Tensor], training: bool, make: Callable[[], Tensor]
    ) -> Tensor:
        """A filter, from the cache when that is allowed.

        Args:
            name: Which of the layer's filters.
            weights: What it is made from.
            training: Whether the layer is in training mode.
            make: Makes it.
        """
        fixed = _fixed.get()
        differentiated = (
            torch.is_grad_enabled() and not fixed and any(w.requires_grad for w in weights)
        )
        if training or differentiated or torch.compiler.is_compiling():
            return make()
        if not all(isinstance(w, nn.Parameter) and not w.is_inference() for w in weights):
            return make()  # replaced for one call by torch.func, or without a count of changes
        key = (
            torch.is_inference_mode_enabled(),
            *((w.data_ptr(), w._version, w.device, w.dtype) for w in weights),
        )
        if name not in self._kept or self._kept[name][0] != key:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not fixed):
                self._kept[name] = (key, make())
        return self._kept[name][1]

    def __getstate__(self) -> dict[str, object]:
        return {"_kept": {}}
