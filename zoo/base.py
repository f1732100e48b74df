"""The base of every network: what goes in and out, exact odd symmetry, checkpoints.

A network is built from a :class:`~latticezoo.symmetry.tasks.Task` and implements one method,
:meth:`ZooModel.predict`, between standardized fields. Everything that decides a comparison (loss,
metrics, optimizer, schedule, data statistics) comes from :mod:`latticezoo.zoo.learning` and is the
same for all.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field, check_layout, perpendicular
from latticezoo.symmetry.groups import CONVENTION_VERSION
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.tasks import Conservation, Task
from latticezoo.zoo.checkpoints import check_checkpoint, read_checkpoint
from latticezoo.zoo.conservation import compensated, shifted, solve
from latticezoo.zoo.layers.spin_tasks import maps_spins
from latticezoo.zoo.learning import KINDS, Learner, batch_statistics
from latticezoo.zoo.optimization import TRAINING_DEFAULTS, check_options
from latticezoo.zoo.registry import model_class

__all__ = ["KINDS", "ZooModel", "batch_statistics"]

_logger = logging.getLogger(__name__)


class ZooModel(Learner):
    """A map from fields to fields on any lattice of the task's family.

    A subclass sets :attr:`presets`, hands its own options to this constructor as
    ``architecture``, builds its layers from the resolved :attr:`options`, and implements
    :meth:`predict` and :attr:`receptive_radius`. It calls :meth:`refuse` on tasks that it cannot
    serve. See ``zoo/gcn.py`` for an example.

    Args:
        task: What to learn, or that as plain values (as checkpoints and the command line give it).
        preset: Name of a set of options; those that are given win over it.
        architecture: The subclass's own options; None stands for the preset's value.
        learning_rate: Initial learning rate.
        optimizer: ``"adam"``, ``"adamw"``, or ``"lbfgs"`` for a minimization on every batch.
        weight_decay: Weight decay of the optimizer.
        schedule: ``"cosine"`` to zero over the planned steps, ``"plateau"`` (times 0.85 after five
            validations without improvement) or ``"constant"``.
        warmup: Steps of linear rise of the learning rate, at most a tenth of all.
        ema: Decay per step of an exponential moving average of the weights, which is then what is
            validated, saved and kept; 0 switches it off.
        gradient_clip: Gradients with more than this multiple of their usual norm are cut down to
            it; 0 switches it off. ``trainer.gradient_clip_val``, an absolute limit, replaces it.
        conserve: Keep the number of particles of the task exactly, by a search for the potential;
            see :class:`~latticezoo.symmetry.tasks.Conservation`. Training then needs data with
            ``chemical_potential``, or searches in every step.

    Attributes:
        task: What it learns.
        options: All options, resolved, plain values.
        statistics_set: Whether standardization has been set from data.

    Raises:
        InputError: For an unknown preset or a value out of range, and when the network cannot
            serve the task.
    """

    registry_name: str = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"compact": {}}
    #: Two-element symmetries that the network has by construction, so that no projection is needed.
    built_in_flips: frozenset[str] = frozenset()
    #: Whether it keeps the symmetry of its task by construction; tests hold it to this. One that
    #: learns the symmetry keeps the translations alone.
    equivariant: ClassVar[bool] = True

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        preset: str = "compact",
        architecture: dict[str, Any] | None = None,
        learning_rate: float | None = None,
        optimizer: str | None = None,
        weight_decay: float | None = None,
        schedule: str | None = None,
        warmup: int | None = None,
        ema: float | None = None,
        gradient_clip: float | None = None,
        conserve: bool | None = None,
    ) -> None:
        task = Task.from_dict(task)
        preset = self.preset_for(task, preset)
        if preset not in self.presets:
            raise unknown(f"preset of {self.registry_name}", preset, self.presets)
        given = {
            **(architecture or {}),
            "learning_rate": learning_rate,
            "optimizer": optimizer,
            "weight_decay": weight_decay,
            "schedule": schedule,
            "warmup": warmup,
            "ema": ema,
            "gradient_clip": gradient_clip,
            "conserve": conserve,
        }
        options = {
            **TRAINING_DEFAULTS,
            "conserve": False,
            **self.presets["compact"],
            **self.presets[preset],
            **{name: _plain(value) for name, value in given.items() if value is not None},
        }
        check_options(options)
        super().__init__(task, options)
        # Plain values alone, and all of them: arguments that the command line links, such as the
        # task, would otherwise be missing, and a changed preset would change old checkpoints.
        self.save_hyperparameters(
            {"task": self.task.to_dict(), "preset": preset, **self.options}, logger=False
        )

    # ---- what a subclass provides --------------------------------------------------------------

    @classmethod
    def preset_for(cls, task: Task, preset: str) -> str:
        """The preset that a name stands for on a task: on spins there may be one of their own."""
        own = f"{preset}_spins"
        return own if own in cls.presets and maps_spins(task) else preset

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets.

        Args:
            fields: Every input of the task, (value − mean) / scale.
            lattice: Where they live.

        Returns:
            Every target of the task, (value − mean) / scale.
        """
        raise NotImplementedError

    @property
    def receptive_radius(self) -> float:
        """Distance in bond lengths beyond which a change of the input changes nothing."""
        raise NotImplementedError

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """Neighbours that must be different sites on any lattice it runs on."""
        return self._family.shells(count=1)

    # ---- evaluation ----------------------------------------------------------------------------

    def forward(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Predict the targets.

        The two-element symmetries of the task hold exactly: the output is the mean over them of
        what the network gives for the transformed input, transformed back. For one symmetry under
        which input and output are odd that is [N(Q) − N(−Q)]/2. All are evaluated in one batch.

        With ``conserve`` the number of particles of the task holds too: the uniform shift of the
        input that gives it is searched, which takes a few evaluations
        (:mod:`latticezoo.zoo.conservation`).

        Args:
            fields: Inputs by name, in the layout of their field, physical units. They are converted
                to the network's floating-point type.
            lattice: Any torus of the task's family that holds the network's neighbourhood.

        Returns:
            Targets by name, physical units, in the network's floating-point type.

        Raises:
            InputError: For a lattice of another family or too small, a missing field, or a wrong
                shape.
        """
        self._check_input(fields, lattice)
        fields = {field.name: self._cast(fields[field.name]) for field in self.task.inputs}
        rule = self.conserved
        if rule is None:
            return self._local(fields, lattice)
        with torch.no_grad():
            found = solve(lambda given: self._local(given, lattice), fields, rule)
        if not torch.is_grad_enabled():
            return found.outputs
        return self.at_potential(fields, lattice, found.potential)

    @property
    def conserved(self) -> Conservation | None:
        """What the network keeps exactly, with the option ``conserve``.

        Raises:
            InputError: For networks that derive their targets from an energy.
        """
        if not self.options["conserve"] or self.task.conserved is None:
            return None
        if hasattr(self, "energy"):
            raise self.refuse(
                "conserve shifts the input by itself, so that its targets are no derivatives of "
                "the learned energy; leave conserve out, or learn the targets directly."
            )
        return self.task.conserved

    def at_potential(
        self, fields: Mapping[str, Tensor], lattice: Lattice, potential: Tensor
    ) -> dict[str, Tensor]:
        """Targets at known potentials ``[B]``: one evaluation in place of a search.

        Training uses it with the exact potentials of the data.
        """
        rule = self.conserved
        assert rule is not None
        fields = {field.name: self._cast(fields[field.name]) for field in self.task.inputs}
        outputs = self._local(shifted(fields, rule, potential), lattice)
        return compensated(outputs, rule, potential)

    def training_outputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Predictions for the loss: at the exact potential of the data, where they have it."""
        if self.conserved is None or "chemical_potential" not in batch:
            return super().training_outputs(batch)
        fields, lattice = batch["fields"], batch["lattice"]
        self._check_input(fields, lattice)
        return self.at_potential(fields, lattice, batch["chemical_potential"])

    def _local(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """What the network gives for inputs of its own type."""
        outputs = self._mean_of_images(fields, lattice)
        for target, source in self.task.tangent:
            outputs[target] = perpendicular(outputs[target], fields[source])
        return outputs

    def _mean_of_images(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        images = self._images()
        outputs = self.predict(self.input_scaling.normalize(self.images(fields)), lattice)
        outputs = self.target_scaling.restore(outputs)
        if len(images) == 1:
            return outputs
        return {
            field.name: mean_of(
                [
                    flipped(field, part, image)
                    for part, image in zip(
                        outputs[field.name].chunk(len(images)), images, strict=True
                    )
                ]
            )
            for field in self.task.targets
        }

    def images(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs, and their images under the task's two-element symmetries, in one batch."""
        images = self._images()
        return {
            field.name: torch.cat([flipped(field, fields[field.name], image) for image in images])
            if len(images) > 1
            else fields[field.name]
            for field in self.task.inputs
        }

    def _images(self) -> list[frozenset[str]]:
        """All combinations of those symmetries that the network does not have by construction."""
        flips = [name for name in self.task.flips if name not in self.built_in_flips]
        return [
            frozenset(chosen)
            for size in range(len(flips) + 1)
            for chosen in itertools.combinations(flips, size)
        ]

    def forces(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """What the network knows of the forces, without gradients.

        Args:
            fields: As in :meth:`forward`.
            lattice: As in :meth:`forward`.

        Returns:
            For every conservative pair (target, input) of the task the prediction of the target
            under the name of the input. It is in the target's units and holds the learned part
            alone; a system adds what is known exactly.

        Raises:
            InputError: When no target of the task is a force.
        """
        if not self.task.conservative:
            raise InputError(f"no target of the task {self.task.name!r} is a force.")
        with torch.no_grad():
            outputs = self(fields, lattice)
        return {source: outputs[target].detach() for target, source in self.task.conservative}

    def _check_input(self, fields: Mapping[str, Tensor], lattice: Lattice) -> None:
        if lattice.family != self.task.family:
            raise InputError(
                f"{self.registry_name} for the task {self.task.name!r} runs on "
                f"{self.task.family} lattices, not on {lattice}."
            )
        for field in self.task.inputs:
            if field.name not in fields:
                given = ", ".join(sorted(fields)) or "none"
                raise InputError(f"input field {field.name!r} is missing; given: {given}.")
        self._check_fields(fields, lattice)
        _check_size(lattice, self.required_shells, self.registry_name, self.receptive_radius)

    def _check_fields(self, fields: Mapping[str, Tensor], lattice: Lattice) -> None:
        """Check the shapes of the inputs."""
        for field in self.task.inputs:
            check_layout(field, fields[field.name], lattice)

    def _cast(self, values: Tensor) -> Tensor:
        dtype = self.dtype
        assert isinstance(dtype, torch.dtype)
        return values.to(dtype.to_complex() if values.is_complex() else dtype)

    @property
    def _family(self) -> Lattice:
        """A lattice of the family, for its groups and shells."""
        return Lattice(self.task.family, (1,) * Lattice.dimension(self.task.family))

    def refuse(self, reason: str) -> InputError:
        """The error for a task that the network cannot serve, to be raised at construction."""
        return InputError(
            f"{self.registry_name} cannot serve the task {self.task.name!r}: {reason}"
        )

    # ---- description, checkpoints --------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_config` builds the same network."""
        return {
            "model": self.registry_name,
            "task": self.task.to_dict(),
            "options": {"preset": self.hparams["preset"], **self.options},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a network with random weights from its description.

        Args:
            config: As :meth:`config` gives it; the class is found by its registry name alone. With
                ``"ensemble": n`` it is an :class:`~latticezoo.zoo.ensemble.Ensemble` of n.

        Raises:
            InputError: For a model that is unknown or another than this class.
        """
        own = cls.registry_name or cls.__name__
        if config.get("ensemble", 1) != 1:
            from latticezoo.zoo.ensemble import Ensemble

            if not issubclass(Ensemble, cls):
                raise InputError(
                    f"the description is of an ensemble of {config['model']}, not of one {own}."
                )
            return cast(Self, Ensemble.build(config))
        found = model_class(config["model"])
        if not issubclass(found, cls):
            raise InputError(f"the description is of the model {config['model']!r}, not {own!r}.")
        return found(config["task"], **config["options"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning hook: write down what the network is."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["latticezoo"] = {
            "network": self.config(),
            "convention_version": CONVENTION_VERSION,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning hook: refuse the checkpoint of another network.

        Raises:
            InputError: When model, task, sizes or conventions differ.
        """
        check_checkpoint(self, checkpoint)
        super().on_load_checkpoint(checkpoint)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: Any = None,
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool = True,
        **options: Any,
    ) -> Self:
        """Build the network of a checkpoint with its weights; tensors and plain values only.

        Called on :class:`ZooModel` it takes any member of the zoo.

        Args:
            checkpoint_path: File written by Lightning's trainer.
            map_location: Device of the network, the CPU by default.
            hparams_file: Not used: checkpoints hold all options.
            strict: Not used: the weights must fit.
            weights_only: Not used: nothing else is ever loaded.
            **options: Options to change, such as ``learning_rate``.

        Raises:
            InputError: When there is no such file, it is damaged or of another network.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        description = checkpoint["latticezoo"]["network"]
        described = {**description, "options": {**description["options"], **options}}
        network = cls.from_config(described)
        network.on_load_checkpoint(checkpoint)
        floating = [t.dtype for t in checkpoint["state_dict"].values() if t.is_floating_point()]
        network = network.to(device=map_location, dtype=floating[0] if floating else None)
        network.load_state_dict(checkpoint["state_dict"])
        return network


@lru_cache(maxsize=256)
def _check_size(lattice: Lattice, shells: tuple[Shell, ...], name: str, radius: float) -> None:
    """Refuse a lattice that is too small, once per lattice, and note a view around the torus."""
    lattice.require(shells, name)
    periods = [
        size * float(torch.tensor(vector).norm())
        for size, vector in zip(lattice.shape, lattice.vectors, strict=True)
    ]
    if 2 * radius + 1 > min(periods):
        _logger.info(
            "%s sees %.3g bond lengths to every side, more than half of %s: its view wraps around "
            "the torus, as the labels do.",
            name,
            radius,
            lattice,
        )


def flipped(field: Field, values: Tensor, flips: frozenset[str]) -> Tensor:
    """The values under some of the two-element symmetries."""
    if sum(name in flips for name in field.conjugated) % 2:
        values = values.conj()
    return -values if sum(name in flips for name in field.odd) % 2 else values


def mean_of(parts: list[Tensor]) -> Tensor:
    """The mean, summed in order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts)


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value
