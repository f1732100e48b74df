"""Echo state networks: a fixed random reservoir with memory, and a linear read-out of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.layers.reservoir import Reservoir
from latticezoo.zoo.layers.scalars import check_scalar
from latticezoo.zoo.layers.surroundings import Surroundings
from latticezoo.zoo.read_out_model import ReadOutModel
from latticezoo.zoo.registry import register
from latticezoo.zoo.sequence_model import Memory

#: Reservoirs times frames that are in memory at once.
_BLOCK = 2048


#: Options for site fields where those for numbers do not serve: short memory, for a field knows its
#: future better than a number does, and a gentle drive, for the sake of free runs.
_SITES: dict[str, Any] = {
    "radius": 0.1,
    "leak": 1.0,
    "washout": 7,
    "input_scale": 0.1,
    "ridge": 1e-6,
}


@register("echo_state")
class EchoState(ReadOutModel):
    r"""Echo state network for site fields and for series of numbers.

    .. math::
        h(t+1) &= (1 - a)\, h(t) + a \tanh\big( W h(t) + W_\mathrm{in} u(t) + b \big) \\
        \phi(t+1) &= \phi(t) + w \cdot [\, h(t+1),\, u(t) \,]

    W and W_in are random and fixed (:class:`~latticezoo.zoo.layers.reservoir.Reservoir`); only w is
    learned, by ridge regression in one pass over the data, so that ``fit`` is a single epoch.

    For a site field every site has a reservoir of its own, all with the same weights, whose input u
    is the field on the shells around it in a form that no point operation changes
    (:class:`~latticezoo.zoo.layers.surroundings.Surroundings`; C. Dinh, Y. Fan, G.-W. Chern,
    arXiv:2412.11982): the network commutes with the whole space group and runs on any size. For a
    global field u is the field itself.

    Without bias everything is odd, so that a symmetry φ → −φ of the task is exact by construction;
    with a bias it is exact as well, at twice the cost. Inputs are in units of the standard
    deviation of the series.

    How to choose. One step ahead the error is mostly thermal noise and hardly tells networks apart;
    a large ``input_scale`` fits one step best and runs away when predictions are fed back. Choose
    by the free-running error on held-out series. ``radius`` sets the memory: a mode decays at least
    as fast as (1 − leak + leak · radius)^t, and ``washout`` should leave less than 1e-6 of it.

    Predictions are conditional means. Where the process is noisy, :meth:`residual_spread` is the
    standard deviation of what they leave open, for roll-outs with noise.

    Presets:
        ``compact``: 500 nodes, radius 0.9, leak 0.5, washout 270: for series of numbers, such as
        the order of the chaotic chain: without leak the one-step error there is smaller, and free
        runs lose the truth sooner. For site fields this name stands for ``compact_sites``.
        ``compact_sites``: orbit means of eight shells, radius 0.1, washout 7: for frames some
        relaxation times apart.
        ``invariants``: the same, with the orientations of the surroundings too.
        ``average``: the same, with all sites of the surroundings, averaged over the site group;
        eight times the cost on the square lattice.

    Args:
        task: What to learn: the same field, or the same global fields, one frame later.
        preset: One of those above.
        nodes: Size n of the reservoir.
        radius: Spectral radius of W, between 0 and 1.
        density: Share of entries of W that are not zero.
        input_scale: Entries of W_in are uniform in ± this.
        leak: The leak a.
        bias: Entries of b are uniform in ± this; above 0 the read-out has a constant too.
        coupling: ``"orbits"``, ``"invariants"`` or ``"average"``; not for global fields.
        shells: Shells of neighbours that a site sees.
        washout: First frames of each series that are only taken in.
        ridge: Penalty of the read-out, in units of the mean square of a node.
        seed: Of the reservoir.

    Raises:
        InputError: For a field that is not real and scalar, or a number out of range.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "compact": {
            "nodes": 500,
            "radius": 0.9,
            "density": 0.05,
            "input_scale": 0.5,
            "leak": 0.5,
            "bias": 0.0,
            "coupling": "orbits",
            "shells": 8,
            "washout": 270,
            "ridge": 1e-7,
            "seed": 0,
        },
        "compact_sites": _SITES,
        "invariants": {**_SITES, "coupling": "invariants"},
        "average": {**_SITES, "coupling": "average"},
    }

    bound = 3.0

    largest: Tensor

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        nodes: int | None = None,
        radius: float | None = None,
        density: float | None = None,
        input_scale: float | None = None,
        leak: float | None = None,
        bias: float | None = None,
        coupling: str | None = None,
        shells: int | None = None,
        washout: int | None = None,
        ridge: float | None = None,
        seed: int | None = None,
        **training: Any,
    ) -> None:
        sites = Task.from_dict(task).targets[0].support == "site"
        super().__init__(
            task,
            preset="compact_sites" if sites and preset == "compact" else preset,
            architecture={
                "nodes": nodes,
                "radius": radius,
                "density": density,
                "input_scale": input_scale,
                "leak": leak,
                "bias": bias,
                "coupling": coupling,
                "shells": shells,
                "washout": washout,
                "ridge": ridge,
                "seed": seed,
            },
            **training,
        )
        options, field = self.options, self.task.targets[0]
        if isinstance(options["washout"], bool) or options["washout"] < 1:
            raise InputError(f"washout is {options['washout']}; it must be 1 frame or more.")
        if not 0 < options["ridge"] < float("inf"):
            raise InputError(f"ridge is {options['ridge']:g}; it must be positive.")
        self.channels = sum(map(self._channels, self.task.targets))
        self.surroundings: Surroundings | None = None
        inputs = self.channels
        if field.support == "site":
            self.surroundings = Surroundings(
                self.task.family, options["shells"], options["coupling"]
            )
            inputs *= self.surroundings.inputs
        self.reservoir = Reservoir(
            inputs,
            options["nodes"],
            radius=options["radius"],
            density=options["density"],
            input_scale=options["input_scale"],
            leak=options["leak"],
            bias=options["bias"],
            seed=options["seed"],
        )
        constant = options["bias"] > 0
        self.set_read_out(options["nodes"] + inputs + constant, self.channels, constant)
        self.register_buffer("largest", torch.full((self.channels,), float("inf")))

    def _channels(self, field: Field) -> int:
        if field.support == "site":
            check_scalar(self, field)
        elif field.support != "global" or field.internal is not None or field.conjugated:
            raise self.refuse(
                f"it carries real site fields and global fields, not {field.name!r} on the "
                f"{field.support} support."
            )
        else:
            names = {
                name for _, name, _ in self._family.site_group.representation(field.point).blocks
            }
            if names != {self._family.site_group.trivial}:
                raise self.refuse(
                    f"it carries scalars only, but {field.name!r} has point type {field.point!r}."
                )
        return field.channels(self._family)

    @property
    def built_in_flips(self) -> frozenset[str]:  # type: ignore[override]
        """Without bias the whole network is odd."""
        odd = self.options["bias"] == 0
        return frozenset(
            name
            for name in self.task.flips
            if odd and all(name in field.odd for field in self.task.targets)
        )

    @property
    def receptive_radius(self) -> float:
        """Of one step; what is remembered has come from further away."""
        return 0.0 if self.surroundings is None else self.surroundings.radius

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """The shells that a site sees."""
        return super().required_shells if self.surroundings is None else self.surroundings.shells

    @property
    def required_frames(self) -> int:
        """The washout."""
        return int(self.options["washout"])

    # ---- features ------------------------------------------------------------------------------

    def inputs(self, series: Tensor, lattice: Lattice) -> Tensor:
        """What the reservoirs are given.

        Args:
            series: Standardized frames, ``[T, B, N, C]``, or ``[T, B, C]`` of a global field.
            lattice: The lattice.

        Returns:
            ``[T, B, N, images, inputs]``, or ``[T, B, inputs]``.
        """
        if self.surroundings is None:
            return series
        parts = [
            self.surroundings(channel.flatten(0, 1).unsqueeze(-1), lattice)
            for channel in series.unbind(-1)
        ]
        return torch.cat(parts, -1).unflatten(0, series.shape[:2])

    def blocks(
        self, series: Tensor, lattice: Lattice, hidden: Tensor | None = None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Run over series, some frames at a time.

        Args:
            series: Standardized, ``[B, T, …, C]``.
            lattice: The lattice.
            hidden: Hidden states ``[B, N, images, n]`` or ``[B, n]`` to begin with; silence by
                default.

        Yields:
            Frames, their features ``[B, frames, …, F]``, and the hidden states after them.
        """
        frames = series.transpose(0, 1)
        images = 1 if self.surroundings is None else self.surroundings.images
        rows = frames[0, ..., 0].numel() * images
        size = max(1, _BLOCK // max(rows, 1))
        state = self.reservoir.start(rows) if hidden is None else hidden.flatten(0, -2)
        for first in range(0, len(frames), size):
            inputs = self.inputs(frames[first : first + size], lattice)
            states, state = self.reservoir(state, inputs.flatten(1, -2))
            parts = [states.unflatten(1, inputs.shape[1:-1]), inputs]
            if self.options["bias"] > 0:
                parts.append(inputs.new_ones(()).expand(*inputs.shape[:-1], 1))
            features = torch.cat(parts, -1)
            if self.surroundings is not None:
                features = features.mean(-2) if images > 1 else features.squeeze(-2)
            after = state.unflatten(0, inputs.shape[1:-1])
            yield slice(first, first + len(inputs)), features.transpose(0, 1), after

    def features(self, series: Tensor, lattice: Lattice, last: int | None = None) -> Tensor:
        """Hidden states and inputs at the last frames, ``[B, last, …, F]``."""
        return torch.cat([part for _, part in self._last(series, lattice, last)], 1)

    def _last(
        self, series: Tensor, lattice: Lattice, last: int | None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Features of the last frames, block by block, with the frames that they belong to."""
        begin = 0 if last is None else series.shape[1] - last
        for frames, features, _ in self.blocks(series, lattice):
            if frames.stop > begin:
                skipped = max(0, begin - frames.start)
                yield slice(frames.start + skipped, frames.stop), features[:, skipped:]

    def predict(
        self, fields: dict[str, Tensor], lattice: Lattice, last: int | None = None
    ) -> dict[str, Tensor]:
        """As the base, without keeping the features of all frames."""
        series = self.joined(fields)
        parts = [
            series[:, frames] + features @ self.read_out
            for frames, features in self._last(series, lattice, last)
        ]
        return self.parted(torch.cat(parts, 1))

    def begin_features(self, series: Tensor, lattice: Lattice) -> tuple[Tensor, Memory]:
        """Features after a series, and the hidden states."""
        *_, (_, features, hidden) = self.blocks(series, lattice)
        frames = torch.zeros(len(series), dtype=torch.int64, device=series.device)
        return features[:, -1], {"hidden": hidden, "frames": frames}

    def next_features(
        self, frame: Tensor, memory: Memory, lattice: Lattice
    ) -> tuple[Tensor, Memory]:
        """Features after one more frame."""
        _, features, hidden = next(self.blocks(frame[:, None], lattice, memory["hidden"]))
        return features[:, 0], {"hidden": hidden, "frames": memory["frames"] + 1}

    def expected(self, memory: Memory) -> dict[str, Tensor]:
        """As the base; stops a roll-out that runs away.

        Raises:
            InputError: Saying at which frame, and what to change.
        """
        found = super().expected(memory)
        if math.isinf(self.bound):
            return found
        sizes = self.input_scaling.normalize(found)
        for name, largest in self.parted(self.largest).items():
            size = sizes[name].detach().abs()
            if not bool((size <= self.bound * largest).all()):
                raise InputError(
                    f"{self.registry_name} ran away at frame {int(memory['frames'].max()) + 1} "
                    f"after the wash-in: {name!r} came to {float(size.max()):.3g} standard "
                    f"deviations where the training data reach {float(largest.max()):.3g}; take a "
                    "smaller input_scale, a smaller radius or a larger ridge, and fit again."
                )
        return found

    # ---- training ------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Lightning hook: begin the sums anew."""
        super().on_train_epoch_start()
        self.largest.zero_()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Lightning hook: take a batch into the sums, all frames but the washout.

        Raises:
            InputError: When the series are not longer than the washout.
        """
        lattice, washout = batch["lattice"], self.required_frames
        with torch.no_grad():
            series = self.joined(self._standardized(batch["fields"], lattice))
            goals = self.joined(self._standardized(batch["targets"], lattice))
            length = series.shape[1]
            if length <= washout:
                raise InputError(
                    f"the series have {length} frames, all of which the washout of {washout} takes "
                    "up; take longer windows or a shorter washout."
                )
            last = min(batch.get("scored") or length, length - washout)
            for frames, features in self._last(series, lattice, last):
                changes = goals[:, frames] - series[:, frames]
                self._sums.add(features.flatten(0, -2), changes.flatten(0, -2))
            largest = series.abs().flatten(0, -2).amax(0)
            self.largest.copy_(torch.maximum(self.largest, largest))
        return 0.0 * self.read_out.sum()

    def _solve(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.largest, torch.distributed.ReduceOp.MAX)
        super()._solve()
