"""The base of networks that go on with a time series: one frame in, the next frame out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import check_layout, value_shape
from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo.base import ZooModel, flipped, mean_of
from latticezoo.zoo.layers.scaling import FieldScaling
from latticezoo.zoo.learning import batch_statistics

#: What a network knows of the past: plain tensors, the first axis of each the batch.
Memory = dict[str, Tensor]
#: Before the name of a field in a memory: its predicted next frame.
NEXT = "next/"
#: Batches from which the size of increments is taken.
_CALIBRATION_BATCHES = 64


class SequenceModel(ZooModel):
    """A causal map from time series to the same series one frame later.

    Its task has the same fields as inputs and targets. Series of a site field are
    ``[B, T, N, C]``, of a global one ``[B, T, C]``, in physical units outside and standardized
    inside. The two-element symmetries of the task hold exactly, as in
    :class:`~latticezoo.zoo.base.ZooModel`, in roll-outs too.

    A subclass implements three maps between standardized values: :meth:`predict` for whole series,
    and for roll-outs :meth:`start` and :meth:`step`, which agree with it to rounding.

    Attributes:
        increments: Moments of the change from one frame to the next, in standardized units.

    Raises:
        InputError: Besides those of the base, for a task whose targets are not its inputs.
    """

    #: A roll-out that comes to this many times the largest value of the training data is stopped,
    #: by networks that know that value.
    bound: float = math.inf
    #: Number of last frames of a window whose predictions training compares; None for all.
    trained_frames: int | None = None

    def __init__(self, task: Any, **options: Any) -> None:
        super().__init__(task, **options)
        if self.task.inputs != self.task.targets:
            raise self.refuse(
                "it goes on with a time series, which needs the same fields as inputs and targets."
            )
        if self.options["conserve"]:
            raise self.refuse("conserve is for networks that predict a density of one instant.")
        self.increments = FieldScaling(self.task.targets, self.task)
        widths = {f.name: len(self.target_scaling.scale(f.name)) for f in self.task.targets}
        for name, width in widths.items():
            self.register_buffer(f"{name}_residual", torch.zeros(width))
        #: Channels of all fields where they are numbers whose noise hangs together, otherwise 0.
        self._together = sum(widths.values()) if self._numbers() else 0
        if self._together > 1:
            self.register_buffer("residual_factor", torch.eye(self._together))

    # ---- what a subclass provides --------------------------------------------------------------

    def predict(
        self, fields: dict[str, Tensor], lattice: Lattice, last: int | None = None
    ) -> dict[str, Tensor]:
        """Map standardized series to the standardized frames that follow each of their frames.

        Args:
            fields: Series by name, ``[B, T, …]``.
            lattice: Where they live.
            last: Only the predictions after the last so many frames are wanted; None for all.

        Returns:
            ``[B, last, …]`` by name. What follows frame t depends on the frames up to t alone.
        """
        raise NotImplementedError

    def start(
        self, fields: dict[str, Tensor], lattice: Lattice
    ) -> tuple[dict[str, Tensor], Memory]:
        """Take in standardized series ``[B, T, …]``.

        Returns:
            The predicted next frame ``[B, …]`` by name, and what :meth:`step` needs of the past.
        """
        raise NotImplementedError

    def step(
        self, frame: dict[str, Tensor], memory: Memory, lattice: Lattice
    ) -> tuple[dict[str, Tensor], Memory]:
        """Take in one more standardized frame ``[B, …]``; returns as :meth:`start`."""
        raise NotImplementedError

    @property
    def required_frames(self) -> int:
        """Frames that a roll-out must begin with."""
        return 1

    @property
    def receptive_radius(self) -> float:
        """Distance in bond lengths beyond which a change changes nothing; 0 of global series."""
        return 0.0

    # ---- series --------------------------------------------------------------------------------

    def forward(
        self, fields: Mapping[str, Tensor], lattice: Lattice, last: int | None = None
    ) -> dict[str, Tensor]:
        """Predict the frame that follows each frame.

        Args:
            fields: Series by name, ``[B, T, C]`` of global and ``[B, T, N, C]`` of site fields.
            lattice: Any torus of the task's family that holds the network's neighbourhood.
            last: Only the predictions after the last so many frames are wanted; None for all.

        Returns:
            Series ``[B, T, …]`` (``[B, last, …]``) by name: entry t is the prediction of t + 1.

        Raises:
            InputError: For a lattice of another family or too small, a missing field, or a wrong
                shape.
        """
        inputs = self._standardized(fields, lattice)
        return self._mean_over_images(self.predict(inputs, lattice, last))

    def begin(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Memory:
        """Wash in: take in what has happened so far.

        Args:
            fields: As :meth:`forward`.
            lattice: As :meth:`forward`.

        Returns:
            What :meth:`advance` needs: tensors whose first axis is the batch.

        Raises:
            InputError: As :meth:`forward`, and for too short series and values that are not finite.
        """
        for name, values in fields.items():
            if values.ndim > 1 and values.shape[1] < self.required_frames:
                raise InputError(
                    f"the series {name!r} has {values.shape[1]} frames, but {self.registry_name} "
                    f"needs {self.required_frames} to begin with."
                )
            if not bool(values.isfinite().all()):
                frame = int((~values.isfinite()).transpose(0, 1).flatten(1).any(1).nonzero()[0])
                raise InputError(
                    f"the series {name!r} is not finite at frame {frame}; a roll-out needs finite "
                    "values to begin with."
                )
        found, memory = self.start(self._standardized(fields, lattice), lattice)
        return self._packed(found, memory)

    def advance(
        self, memory: Memory, lattice: Lattice, frame: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Memory]:
        """Go on by one frame.

        Args:
            memory: As :meth:`begin` or the last call gave it; it is not changed.
            lattice: The lattice.
            frame: What really happened, ``[B, …]`` by name; without it the prediction is taken for
                what happened, as in a roll-out.

        Returns:
            The frame that was taken in, ``[B, …]`` by name, and the memory after it.
        """
        if frame is None:
            frame = self.expected(memory)
        own = {name: v for name, v in memory.items() if not name.startswith(NEXT)}
        if len(self._images()) > 1:
            own = {name: values.flatten(0, 1) for name, values in own.items()}
        inputs = {field.name: self._cast(frame[field.name]) for field in self.task.inputs}
        found, own = self.step(self.input_scaling.normalize(self.images(inputs)), own, lattice)
        return dict(frame), self._packed(found, own)

    def expected(self, memory: Memory) -> dict[str, Tensor]:
        """The predicted next frame ``[B, …]`` by name, before anything happens."""
        return {field.name: memory[NEXT + field.name] for field in self.task.targets}

    def residual_spread(self) -> dict[str, Tensor]:
        """Standard deviation ``[C]`` of what the predictions leave open, in the field's unit.

        Predictions are conditional means. A roll-out with noise of this size, here or by
        :class:`~latticezoo.simulate.dynamics.roll_out.RollOut`, fluctuates as the data do from
        frame to frame. The noise is independent from site to site and has no memory, which real
        fluctuations may have; that of several numbers is correlated as their residuals are
        (:meth:`residual_noise`).

        Raises:
            InputError: The network has not been trained, or without validation.
        """
        found = {f.name: self.get_buffer(f"{f.name}_residual") for f in self.task.targets}
        if not any(bool(spread.any()) for spread in found.values()):
            raise InputError(
                f"what the predictions of this {self.registry_name} leave open has not been "
                "measured, which training with validation does; leave noise out."
            )
        return found

    def residual_noise(self, kicks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Noise such as the predictions leave open.

        Args:
            kicks: Independent standard normal numbers ``[B, …]`` by name.

        Returns:
            The same with the spreads, and for global fields the correlations, of the residuals.

        Raises:
            InputError: As :meth:`residual_spread`.
        """
        spread = self.residual_spread()
        if self._together > 1:
            kicks = self.parted(self.joined(kicks) @ self.get_buffer("residual_factor").mT)
        return {name: spread[name] * values for name, values in kicks.items()}

    def set_residual(self, covariance: Tensor) -> None:
        """Note what the predictions leave open.

        Args:
            covariance: ``[C, C]`` of the residuals, all fields together, in the fields' units.
        """
        spread = covariance.diagonal().clamp_min(0.0).sqrt()
        with torch.no_grad():
            for name, part in self.parted(spread).items():
                self.get_buffer(f"{name}_residual").copy_(part)
            if self._together > 1:
                size = spread.clamp_min(torch.finfo(spread.dtype).tiny)
                unit = torch.eye(len(size), dtype=size.dtype, device=size.device)
                # The small part of the unit matrix is for residuals that are zero or equal.
                correlation = covariance / size[:, None] / size + 1e-9 * unit
                factor, failed = torch.linalg.cholesky_ex(correlation)
                self.get_buffer("residual_factor").copy_(unit if bool(failed) else factor)

    def joined(self, fields: Mapping[str, Tensor]) -> Tensor:
        """All fields as channels of one."""
        return torch.cat([fields[field.name] for field in self.task.targets], -1)

    def parted(self, values: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`joined`."""
        widths = [len(self.target_scaling.scale(field.name)) for field in self.task.targets]
        parts = values.split(widths, -1)
        return {field.name: part for field, part in zip(self.task.targets, parts, strict=True)}

    def _numbers(self) -> bool:
        return all(field.support == "global" for field in self.task.targets)

    def roll_out(
        self,
        fields: Mapping[str, Tensor],
        lattice: Lattice,
        steps: int,
        *,
        noise: float = 0.0,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """Go on with series by the network's own predictions.

        Args:
            fields: Series to begin with, as :meth:`begin` takes them.
            lattice: The lattice.
            steps: Number of frames to predict.
            noise: Random numbers added to each frame before it is taken in, in units of
                :meth:`residual_noise`.
            seed: Of the noise.

        Returns:
            The predicted frames by name, ``[B, steps, …]``.

        Raises:
            InputError: As :meth:`begin`; or steps is below 1.
        """
        if steps < 1:
            raise InputError(f"a roll-out of {steps} steps was asked for; give 1 or more.")
        if noise:
            self.residual_spread()  # raises before anything is computed
        draw = torch.Generator(self.device).manual_seed(seed)
        frames = []
        with torch.no_grad():
            memory = self.begin(fields, lattice)
            for _ in range(steps):
                frame = self.expected(memory)
                if noise:
                    kicks = {
                        name: torch.empty_like(values).normal_(generator=draw)
                        for name, values in frame.items()
                    }
                    for name, values in self.residual_noise(kicks).items():
                        frame[name] = frame[name] + noise * values
                frame, memory = self.advance(memory, lattice, frame)
                frames.append(frame)
        names = [field.name for field in self.task.targets]
        return {name: torch.stack([frame[name] for frame in frames], 1) for name in names}

    # ---- inside --------------------------------------------------------------------------------

    def images(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs and their images under the task's two-element symmetries, ``[B · images, …]``.

        The images of one series stand together, so that a memory ``[B · images, …]`` is one of the
        batch by a mere view.
        """
        images = self._images()
        if len(images) == 1:
            return {field.name: fields[field.name] for field in self.task.inputs}
        return {
            field.name: torch.stack(
                [flipped(field, fields[field.name], image) for image in images], 1
            ).flatten(0, 1)
            for field in self.task.inputs
        }

    def _standardized(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        self._check_input(fields, lattice)
        inputs = {field.name: self._cast(fields[field.name]) for field in self.task.inputs}
        return self.input_scaling.normalize(self.images(inputs))

    def _mean_over_images(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        images = self._images()
        outputs = self.target_scaling.restore(outputs)
        if len(images) == 1:
            return outputs
        return {
            field.name: mean_of(
                [
                    flipped(field, part, image)
                    for part, image in zip(
                        outputs[field.name].unflatten(0, (-1, len(images))).unbind(1),
                        images,
                        strict=True,
                    )
                ]
            )
            for field in self.task.targets
        }

    def _packed(self, found: dict[str, Tensor], memory: Memory) -> Memory:
        """The memory with the batch as first axis, and the predicted frame in physical units."""
        images = len(self._images())
        if images > 1:
            memory = {k: v.unflatten(0, (-1, images)) for k, v in memory.items()}
        frame = self._mean_over_images(found)
        return {**memory, **{NEXT + name: values for name, values in frame.items()}}

    def _check_fields(self, fields: Mapping[str, Tensor], lattice: Lattice) -> None:
        for field in self.task.inputs:
            values = fields[field.name]
            if values.ndim != len(value_shape(field, lattice)) + 2:
                wanted = ", ".join(map(str, ("batch", "time", *value_shape(field, lattice))))
                raise InputError(
                    f"a series of field {field.name!r} on {lattice} needs values of shape "
                    f"[{wanted}], but they have shape {list(values.shape)}."
                )
            check_layout(field, values.flatten(0, 1), lattice)

    # ---- training ------------------------------------------------------------------------------

    def set_statistics(self, statistics: Mapping[str, Any]) -> None:
        """Set the standardization: the same for the series and for what follows it."""
        super().set_statistics({**statistics, "targets": statistics["inputs"]})

    def calibrate(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Find the size of the change from one frame to the next."""
        changes = [
            {
                "fields": batch["fields"],
                "targets": {
                    field.name: self._standard(batch["targets"], field.name)
                    - self._standard(batch["fields"], field.name)
                    for field in self.task.targets
                },
            }
            for batch in itertools.islice(batches, _CALIBRATION_BATCHES)
        ]
        self.increments.set(batch_statistics(changes, self.task)["targets"])

    def _standard(self, fields: Mapping[str, Tensor], name: str) -> Tensor:
        return (fields[name] - self.input_scaling.mean(name)) / self.input_scaling.scale(name)

    def training_outputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Predictions after the last :attr:`trained_frames` frames of the windows."""
        return self(batch["fields"], batch["lattice"], self.trained_frames)

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Predictions after those last frames of the windows on which all networks are judged."""
        return self(batch["fields"], batch["lattice"], batch.get("scored"))

    def _errors(
        self, field: Any, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        predicted = outputs[field.name]
        return predicted - batch["targets"][field.name][:, -predicted.shape[1] :]


@contextmanager
def unbounded(network: SequenceModel) -> Iterator[None]:
    """Let roll-outs run away, where those that do shall be counted."""
    bound, network.bound = network.bound, math.inf
    try:
        yield
    finally:
        network.bound = bound
