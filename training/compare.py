"""Train several networks on the same data with the same budget each, and print the leaderboard.

A member is a registered network (gcn), one of its presets (gcn:paper), or pretrained weights
(gcn.holstein_weak), which are measured but not trained. Options of the data and of single networks
have dots:

  latticezoo compare --data holstein --models descriptor_mlp,gcn --budget 180
  latticezoo compare --data holstein --data.lattice 16 --models gcn --gcn.width 64 --epochs 50

The budget is training time, validation left out. An ensemble (--gcn.ensemble 4) has the same budget
as any other member, for all its networks together. Several of these commands with other --models
may run into the same --out at the same time; one with all --models then only measures.

Held-out errors are those of the test split, in physical units, separately for states along
trajectories and for random states. The same command goes on after a kill: members that are finished
are not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latticezoo.symmetry.errors import InputError, unknown

if TYPE_CHECKING:
    from latticezoo.datasets.module import LatticeData
    from latticezoo.training.results import Results
    from latticezoo.training.runs import RunFolder
    from latticezoo.training.series_results import SeriesResults
    from latticezoo.zoo.base import ZooModel

DEFAULT_BUDGET = 180.0
#: How many states of another lattice are measured, by the names that recipes have for them.
_TRANSFER = {"random": 20, "thermal": 20, "trajectories": 2, "frames": 10}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--data", required=True, metavar="NAME", help="dataset, such as holstein")
    add("--models", required=True, metavar="A,B,…", help="networks to compare")
    add(
        "--budget",
        type=float,
        metavar="SECONDS",
        help=f"training time of each member (default {DEFAULT_BUDGET:g})",
    )
    add(
        "--processor-time",
        action="store_true",
        help="count the budget in seconds of the processor, which a busy machine does not lengthen",
    )
    add("--epochs", type=int, metavar="N", help="passes over the data, instead of --budget")
    add(
        "--patience",
        type=int,
        metavar="N",
        help="end a training after N epochs without a lower validation error",
    )
    add("--seed", type=int, default=0, help="of weights and order of the data (default 0)")
    add("--transfer", metavar="L", help="also measure on exact states of another lattice size")
    add("--roll-outs", type=int, metavar="N", help="of time series: roll-outs (default 50)")
    add("--frames", type=int, metavar="N", help="of time series: frames of each (default 1500)")
    add("--no-baselines", action="store_true", help="leave out training mean and linear ridge")
    add("--accelerator", default="auto", help="cpu, gpu or auto (default)")
    add("--out", type=Path, metavar="DIR", help="folder (default comparisons/<data>-<hash>)")


def dotted_heads() -> tuple[str, ...]:
    """First parts of the dotted options: the data, and every network."""
    from latticezoo.zoo.registry import list_models

    return ("data", *list_models())


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from latticezoo.training.runs import fingerprint
    from latticezoo.training.train import quiet, written

    options = dict(arguments.dotted)
    data_options = options.pop("data")
    with quiet():
        comparison = Comparison.open(
            arguments.data,
            [name.strip() for name in arguments.models.split(",") if name.strip()],
            data_options,
            model_options={name: given for name, given in options.items() if given},
            budget=arguments.budget,
            epochs=arguments.epochs,
            patience=arguments.patience,
            seed=arguments.seed,
            accelerator=arguments.accelerator,
            processor_time=arguments.processor_time,
        )
        name = arguments.data.lower().replace("/", "-")
        default = Path("comparisons") / f"{name}-{fingerprint(comparison.settings)}"
        out = arguments.out or default
        results = comparison.run(
            out,
            transfer=arguments.transfer,
            with_baselines=not arguments.no_baselines,
            roll_outs=arguments.roll_outs,
            frames=arguments.frames,
        )
        written(*results.write(out, comparison.settings))
    return 0


@dataclass(frozen=True)
class Comparison:
    """Networks to train on the same data with the same budget.

    Attributes:
        data: What all are trained on.
        members: The networks, built and checked.
        settings: What is compared, plain values.
        seed: Of the weights and of what is drawn in training.
        budget: Training time of each member, s, or None.
        epochs: Passes over the training split instead, or None.
        patience: Epochs without improvement after which a training ends, or None.
        accelerator: As Lightning's.
        processor_time: Whether training time is that of the processor, summed over its threads.
    """

    data: LatticeData
    members: tuple[Member, ...]
    settings: dict[str, Any]
    seed: int
    budget: float | None
    epochs: int | None
    patience: int | None
    accelerator: str
    processor_time: bool = False

    @classmethod
    def open(
        cls,
        data_name: str,
        names: list[str],
        data_options: Mapping[str, Any] | None = None,
        *,
        model_options: Mapping[str, Mapping[str, Any]] | None = None,
        budget: float | None = None,
        epochs: int | None = None,
        patience: int | None = None,
        seed: int = 0,
        accelerator: str = "auto",
        processor_time: bool = False,
    ) -> Comparison:
        """Build data module and networks, so that a mistake shows before any work is done.

        Args:
            data_name: Registered dataset.
            names: Networks, presets as ``name:preset``, pretrained weights.
            data_options: Options of the data module.
            model_options: Options of networks by registered name.
            budget: Training time of each member, s; 180 unless ``epochs`` is given.
            epochs: Passes over the training split instead.
            patience: Epochs without improvement after which a training ends.
            seed: Of the weights and of what is drawn in training.
            accelerator: As Lightning's.
            processor_time: Whether training time is that of the processor.

        Raises:
            InputError: Unknown names, both budgets at once, or a member that cannot serve the
                task.
        """
        from latticezoo.training.names import data_record, open_data
        from latticezoo.training.train import check_budget, check_patience

        if not names:
            raise InputError("no network to compare; give --models with at least one name.")
        if len(set(names)) < len(names):
            raise InputError(f"a network is named twice in {','.join(names)}; give each once.")
        if budget is not None and epochs is not None:
            raise InputError("both a budget in seconds and a number of epochs; give one of them.")
        check_budget(budget)
        if epochs is not None and epochs < 1:
            raise InputError(f"the number of epochs is {epochs}; it must be at least 1.")
        if budget is None and epochs is None:
            budget = DEFAULT_BUDGET
        data = open_data(data_name, data_options or {})
        check_patience(patience, data)
        members = tuple(Member.plan(name, data, model_options or {}, seed) for name in names)
        settings = {
            "data": data_record(data),
            "members": names,
            "options": {name: dict(given) for name, given in (model_options or {}).items()},
            "budget_seconds": budget,
            "epochs": epochs,
            **({} if patience is None else {"patience": patience}),
            **({"processor_time": True} if processor_time else {}),
            "seed": seed,
        }
        return cls(
            data, members, settings, seed, budget, epochs, patience, accelerator, processor_time
        )

    def run(
        self,
        out: Path,
        *,
        transfer: str | None = None,
        with_baselines: bool = True,
        roll_outs: int | None = None,
        frames: int | None = None,
    ) -> Results | SeriesResults:
        """Train every member that is not finished in the folder, and measure all.

        Args:
            out: Folder of the comparison.
            transfer: Size of another lattice to measure on.
            with_baselines: Whether to add the training mean and the linear ridge, or persistence.
            roll_outs: Of time series, the number of roll-outs.
            frames: Of time series, the frames of each.

        Returns:
            The measurements; ``write`` saves them.
        """
        from latticezoo.training.runs import RunFolder

        self.data.prepare_data()
        self.data.setup()
        results = self._results(transfer, {"count": roll_outs, "frames": frames})
        if with_baselines:
            results.add_baselines()
        for member in self.members:
            folder = RunFolder(out / "members" / member.label.replace(":", "-"))
            network, record = member.train(
                self.data,
                folder,
                seed=self.seed,
                max_epochs=self.epochs,
                budget=self.budget,
                patience=self.patience,
                accelerator=self.accelerator,
                processor_time=self.processor_time,
            )
            results.add(member.label, network, record, folder)
        return results

    def _results(
        self, transfer: str | None, roll_outs: Mapping[str, int | None]
    ) -> Results | SeriesResults:
        """What the data are measured by."""
        from latticezoo.datasets.series import SeriesData

        given = {name: value for name, value in roll_outs.items() if value is not None}
        if isinstance(self.data, SeriesData):
            from latticezoo.training.series_results import SeriesResults

            if transfer is not None:
                raise InputError("--transfer is for fields of one instant, not for time series.")
            return SeriesResults(self.data, **given)
        from latticezoo.training.results import Results

        if given:
            raise InputError("--roll-outs and --frames are for time series; these data are none.")
        return Results(self.data, open_transfer(self.data, transfer))


def open_transfer(data: LatticeData, size: str | None) -> LatticeData | None:
    """Exact states of another lattice, made as the data were, all of them for the test.

    Raises:
        InputError: When the data cannot be made on another lattice, or not on this one.
    """
    if size is None:
        return None
    from latticezoo.datasets.module import MadeData, evaluation_data

    if not isinstance(data, MadeData):
        raise InputError("--transfer needs data that a recipe makes, such as holstein.")
    known = type(data).option_names()
    fresh = evaluation_data(
        data, lattice=size, **{name: count for name, count in _TRANSFER.items() if name in known}
    )
    fresh.setup()
    return fresh


@dataclass(frozen=True)
class Member:
    """One network of a comparison.

    Attributes:
        label: As given: ``gcn``, ``gcn:paper``, ``gcn.holstein_weak``.
        network: Untrained, or pretrained.
        pretrained: Whether it is measured only.
    """

    label: str
    network: ZooModel
    pretrained: bool

    @classmethod
    def plan(
        cls, name: str, data: LatticeData, options: Mapping[str, Mapping[str, Any]], seed: int
    ) -> Member:
        """Build the network for the data's task, so that a mistake shows before any training.

        Raises:
            InputError: Unknown name or option, or a network that cannot serve the task.
        """
        from lightning_fabric.utilities.seed import seed_everything
        from pytorch_lightning.utilities.seed import isolate_rng

        from latticezoo.training.train import check_fits
        from latticezoo.zoo.pretrained import list_pretrained, load_pretrained
        from latticezoo.zoo.registry import create_model, list_models, model_class

        bare, _, preset = name.partition(":")
        trained = list_pretrained()
        if bare in trained and bare not in list_models():
            network = load_pretrained(bare)
            if network.task != data.task:
                raise InputError(
                    f"{bare} was trained for the task {network.task.name!r}; these data are of "
                    f"{data.task.name!r}, or with other fields."
                )
            return cls(name, network, True)
        if bare not in list_models() and "." in bare:
            raise unknown("model", bare, [*list_models(), *trained])
        registered = model_class(bare).registry_name
        chosen = {**({"preset": preset} if preset else {}), **options.get(registered, {})}
        with isolate_rng():
            seed_everything(seed, workers=True, verbose=False)
            network = create_model(registered, data.task, **chosen)
        check_fits(network, data)
        return cls(name, network, False)

    def train(
        self,
        data: LatticeData,
        folder: RunFolder,
        *,
        seed: int,
        max_epochs: int | None,
        budget: float | None,
        patience: int | None,
        accelerator: str,
        processor_time: bool = False,
    ) -> tuple[ZooModel, dict[str, Any]]:
        """The trained network in eval mode, and the record of its training."""
        from latticezoo.training.runs import identity
        from latticezoo.training.train import train
        from latticezoo.zoo.base import ZooModel

        if self.pretrained:
            return self.network.eval(), {}
        record = train(
            self.network,
            data,
            folder,
            {
                **identity(
                    self.network,
                    data,
                    seed=seed,
                    max_epochs=max_epochs,
                    budget=budget,
                    patience=patience,
                ),
                **({"processor_time": True} if processor_time else {}),
            },
            label=self.label,
            seed=seed,
            max_epochs=max_epochs,
            budget=budget,
            patience=patience,
            accelerator=accelerator,
            processor_time=processor_time,
        )
        return ZooModel.load_from_checkpoint(folder.best).eval(), record
