"""Optimizer, gradient clipping and learning-rate schedule, the same for every network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from latticezoo.symmetry.errors import InputError, unknown


class BatchLBFGS(LBFGS):
    """L-BFGS on one batch after the other: each step is a minimization with line searches.

    For networks of a few hundred weights and labels without noise, whose batches have nearly the
    same minimum: it takes the curvature into account where Adam needs thousands of steps. Curvature
    is learned anew on every batch (differences of gradients of two batches are none), so a few
    batches with many iterations each serve better than many with few. A budget of time ends after
    a batch.

    Args:
        params: To be trained.
        lr: First trial of a line search, in units of the Newton step.
        weight_decay: Must be 0.
        max_iter: Iterations on a batch.

    Raises:
        InputError: For a weight decay.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, weight_decay: float = 0.0, max_iter: int = 100
    ) -> None:
        if weight_decay:
            raise InputError(f"lbfgs has no weight decay; leave out the {weight_decay} given.")
        super().__init__(
            params, lr=lr, max_iter=max_iter, history_size=60, line_search_fn="strong_wolfe"
        )

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Minimize the loss that the closure evaluates."""
        self.state.clear()
        return super().step(closure)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "lbfgs": BatchLBFGS,
}
SCHEDULES = ("cosine", "plateau", "constant")

#: Defaults of the training options, where a preset does not say otherwise.
TRAINING_DEFAULTS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "schedule": "cosine",
    "warmup": 50,
    "ema": 0.0,
    "gradient_clip": 5.0,
}


def check_options(options: Mapping[str, Any]) -> None:
    """Check the training options.

    Raises:
        InputError: Naming the option, its value and what is accepted.
    """
    if options["optimizer"] not in OPTIMIZERS:
        raise unknown("optimizer", options["optimizer"], OPTIMIZERS)
    if options["schedule"] not in SCHEDULES:
        raise unknown("schedule", options["schedule"], SCHEDULES)
    if not 0 < options["learning_rate"] < math.inf:
        raise InputError(f"learning_rate must be positive, not {options['learning_rate']}.")
    if not 0 <= options["weight_decay"] < math.inf:
        raise InputError(f"weight_decay must be 0 or more, not {options['weight_decay']}.")
    if options["warmup"] < 0:
        raise InputError(f"warmup must be 0 steps or more, not {options['warmup']}.")
    if not 0 <= options["ema"] < 1:
        raise InputError(
            f"ema is a decay per step of at least 0 (off) and below 1, not {options['ema']}."
        )
    if not (options["gradient_clip"] == 0 or 1 <= options["gradient_clip"] < math.inf):
        raise InputError(
            "gradient_clip is a multiple of the usual norm, 0 (off) or at least 1, not "
            f"{options['gradient_clip']}."
        )


class GradientClip:
    """Clips the norm of a gradient to a multiple of its usual value.

    Norms differ by three orders of magnitude between architectures (medians over the first epochs
    on small Holstein data: descriptor_mlp 0.7, gcn 0.8, lattice_enn 1.7, energy_gnn 38) and fall
    by one to two orders during training, so no absolute limit suits all. The optimizers here are
    blind to the scale of gradients, but not to changes of it: Adam's mean square remembers the
    large ones of the first steps for thousands of steps, and learns slowly until then. A multiple
    of 1 therefore keeps nothing but the direction, from the first step on: every gradient is
    scaled to norm 1. lattice_enn on exact 24x24 states of holstein_strong (data make
    holstein_square --preset holstein_strong --lattice 24 --trajectories 12 --seed 10; compare
    --budget 90, batch size 4) reached 0.0041 on held-out quench frames with 1 and 0.0125 with 5.

    Args:
        multiple: Norms above this multiple of the usual one are cut down to it.
        typical: The usual norm: an exponential moving average of clipped norms over about 100
            steps; None before the first.
    """

    def __init__(self, multiple: float, typical: Tensor | None = None) -> None:
        self.multiple = multiple
        self.typical = typical

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip the gradients in place; those that are not finite are left as they are.

        Nothing here waits for the device.
        """
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        if not gradients:
            return
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = norm.isfinite()
        if self.multiple == 1:
            scale = torch.where(finite & (norm > 0), 1 / norm, torch.ones_like(norm))
            torch._foreach_mul_(gradients, scale)
            return
        if self.typical is None:
            self.typical = torch.where(finite, norm, torch.zeros_like(norm))
        typical = self.typical = self.typical.to(norm)
        limit = torch.where(typical > 0, self.multiple * typical, norm)
        kept = torch.minimum(norm, limit)
        scale = torch.where(finite & (norm > limit), limit / norm, torch.ones_like(norm))
        torch._foreach_mul_(gradients, scale)
        seen = torch.where(typical > 0, 0.99 * typical + 0.01 * kept, norm)
        self.typical = torch.where(finite, seen, typical)


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    options: Mapping[str, Any],
    steps: float,
    monitor: str = "val/rmse",
) -> dict[str, Any]:
    """Build what ``configure_optimizers`` returns.

    Args:
        parameters: To be trained.
        options: Checked training options.
        steps: Number of optimizer steps that the trainer plans; infinite when it is bounded by
            time alone, and then the cosine stays at its top (the trainer's clock may lower it).
        monitor: Metric that the schedule ``"plateau"`` watches.

    Returns:
        Optimizer and schedule in Lightning's form.
    """
    optimizer = OPTIMIZERS[options["optimizer"]](
        parameters, lr=options["learning_rate"], weight_decay=options["weight_decay"]
    )
    if options["schedule"] == "plateau":
        # Factor and patience of the authors' code (Holstein sheet, section 9).
        scheduler = ReduceLROnPlateau(optimizer, factor=0.85, patience=5)
        plateau = {"scheduler": scheduler, "monitor": monitor, "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": plateau}
    warmup = min(options["warmup"], steps / 10)
    decays = options["schedule"] == "cosine" and math.isfinite(steps)

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / (warmup + 1))
        return rising * (cosine(step / max(steps, 1)) if decays else 1.0)

    schedule = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": schedule}


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 as progress goes from 0 to 1."""
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
