"""Lightning data modules: make or open a dataset, split it, feed it to a network."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from latticezoo.datasets.batches import Batch, Samples, loader
from latticezoo.datasets.driven import DRIVER_OPTIONS, DrivenRecipe
from latticezoo.datasets.labelled import KINDS, LabelledData
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.registry import Recipe, check_count, register_data
from latticezoo.datasets.split import HELD_OUT, SPLITS, check_fractions, split_by_group
from latticezoo.simulate.forcefield import System
from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: Added to the seed of training data for fresh data to judge by.
EVALUATION_SEED = 1_000_000
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class LatticeData(LightningDataModule):
    """Base of the data modules: splits, loaders, statistics.

    The task, the lattice and the system are known from construction on, before any data are made,
    so that a model can be built from them. Batches are :class:`~latticezoo.datasets.batches.Batch`.

    Args:
        batch_size: Samples in a training batch, of all processes together where several train.
        dtype: ``"float32"`` or ``"float64"``: type of the batches.
        seed: Seed of the split.
        shuffle_seed: Seed of the order of training samples; that of the split by default.
        val_fraction: Share of the trajectories, and of the random configurations, for validation.
        test_fraction: Share for the test.
        random_share: Share of random configurations in every training batch, the rest frames of
            trajectories; by default as many as the data have.

    Attributes:
        kind_of_runs: What the trajectories are called on a model card.

    Raises:
        InputError: An option is outside its range.
    """

    kind_of_runs: ClassVar[str] = "runs"

    def __init__(
        self,
        batch_size: int = 8,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
        random_share: float | None = None,
    ) -> None:
        super().__init__()
        check_count("batch_size", batch_size, least=1)
        check_count("seed", seed)
        check_count("shuffle_seed", seed if shuffle_seed is None else shuffle_seed)
        if dtype not in _DTYPES:
            raise unknown("dtype", dtype, _DTYPES)
        check_fractions(val_fraction, test_fraction)
        self.batch_size = batch_size
        self.dtype = _DTYPES[dtype]
        self.seed = seed
        self.shuffle_seed = seed if shuffle_seed is None else shuffle_seed
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        if random_share is not None and not 0 <= random_share <= 1:
            raise InputError(f"random_share is {random_share}; it must be between 0 and 1.")
        self.random_share = random_share
        self._data: LabelledData | None = None
        self._splits: dict[str, Tensor] = {}
        self._samples: dict[str, Samples] = {}

    # ---- what it is about, known without data --------------------------------------------------

    @property
    @abstractmethod
    def task(self) -> Task:
        """The task to learn."""

    @property
    @abstractmethod
    def lattice(self) -> Lattice:
        """The lattice of the samples."""

    @property
    @abstractmethod
    def system(self) -> System:
        """The exact system that gave the labels."""

    @abstractmethod
    def file(self) -> Path:
        """The dataset file; it is made when it is not there."""

    def _open(self) -> LabelledData:
        return LabelledData.open(self.file()).with_task(self.task)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Names of all options."""
        return tuple(inspect.signature(cls).parameters)

    # ---- Lightning's hooks ---------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the dataset file when it is not there."""
        self.file()

    def setup(self, stage: str | None = None) -> None:
        """Open the file, check it, split it. Does nothing the second time."""
        if self._data is not None:
            return
        data = self._open()
        self._splits = split_by_group(
            data.groups,
            data.strata,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.seed,
        )
        self._samples = {
            name: Samples(data, chosen, self.dtype) for name, chosen in self._splits.items()
        }
        self._data = data

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches, shuffled by (shuffle_seed, epoch); the share of this process."""
        return self._train_loader(shared=True)

    def training_batches(self) -> DataLoader[Batch]:
        """All training batches, also where several processes train together."""
        return self._train_loader(shared=False)

    def _train_loader(self, shared: bool) -> DataLoader[Batch]:
        train = self.samples("train")
        return loader(train, self.batch_size, self.shuffle_seed, self.random_share, shared)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Validation batches in the order of the file; none when the fraction is 0."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Test batches in the order of the file; none when the fraction is 0."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The test batches."""
        return self._in_order("test")

    def _in_order(self, split: str) -> DataLoader[Batch] | list[Any]:
        samples = self.samples(split)
        # A larger batch changes no result where nothing is learned; a few are enough.
        return loader(samples, 4 * self.batch_size, shared=True) if len(samples) else []

    # ---- the data ------------------------------------------------------------------------------

    @property
    def data(self) -> LabelledData:
        """All samples, float64, in the order of the file."""
        self.setup()
        assert self._data is not None
        return self._data

    @property
    def splits(self) -> dict[str, Tensor]:
        """Indices into :attr:`data` by ``train``, ``val``, ``test``."""
        self.setup()
        return self._splits

    def samples(self, split: str) -> Samples:
        """The samples of a split as tensors of the module's dtype.

        Raises:
            InputError: The split is unknown.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        self.setup()
        return self._samples[split]

    @property
    def split_sizes(self) -> dict[str, dict[str, int]]:
        """Number of samples by split and kind."""
        return {
            split: {
                kind: int((self.samples(split).kind == number).sum())
                for number, kind in enumerate(KINDS)
            }
            for split in SPLITS
        }

    def statistics(self) -> dict[str, dict[str, dict[str, Tensor]]]:
        """Mean and standard deviation of inputs and targets over the training split.

        Returns:
            ``{"inputs": {name: {"mean": [C], "std": [C]}}, "targets": …}``, float64, over samples
            and sites.

        Raises:
            InputError: There is no training split.
        """
        train = self.splits["train"]
        if not len(train):
            raise InputError("these data have no training split, so no training statistics.")
        tables = {"inputs": self.data.fields, "targets": self.data.targets}
        return {
            group: {name: _moments(values[train]) for name, values in table.items()}
            for group, table in tables.items()
        }


def _moments(values: Tensor) -> dict[str, Tensor]:
    flat = values.reshape(-1, values.shape[-1])
    return {"mean": flat.mean(0), "std": flat.std(0, correction=0)}


@register_data("from_file")
class FromFile(LatticeData):
    """A dataset file, however it was made.

    Args:
        path: The file.
        batch_size: Samples in a training batch, of all processes together.
        dtype: ``"float32"`` or ``"float64"``: type of the batches.
        seed: Seed of the split.
        shuffle_seed: Seed of the order of training samples; that of the split by default.
        val_fraction: Share of the trajectories, and of the random configurations, for validation.
        test_fraction: Share for the test.
        random_share: Share of random configurations in every training batch, the rest frames of
            trajectories; by default as many as the data have.
        content_hash: SHA-256 of the data, as ``latticezoo data info`` shows it: checked when it is
            given, noted when it is not, so that a run never goes on with other data of that path.

    Raises:
        InputError: The file is missing or damaged, or an option is outside its range.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 8,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
        random_share: float | None = None,
        content_hash: str | None = None,
    ) -> None:
        super().__init__(
            batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction, random_share
        )
        self.save_hyperparameters(logger=False)
        self.path = Path(path).expanduser()
        # A file states its own task, so it is read before anything can be built from it.
        self._contents = LabelledData.open(self.path)
        found = self._contents.content_hash
        if content_hash not in (None, found):
            raise InputError(
                f"{path} holds other data than asked for: their sha256 is {found[:12]}…, not "
                f"{str(content_hash)[:12]}…"
            )
        self.hparams["content_hash"] = found

    @property
    def task(self) -> Task:
        """The task that the file states."""
        return self._contents.task

    @property
    def lattice(self) -> Lattice:
        """The lattice of the samples."""
        return self._contents.lattice

    @property
    def system(self) -> System:
        """The exact system that gave the labels.

        Raises:
            InputError: The file names none that this library knows.
        """
        source = self._contents.source
        return create_system(source.system, **source.parameters)

    def file(self) -> Path:
        """The file."""
        return self.path

    def _open(self) -> LabelledData:
        return self._contents


class MadeData(LatticeData):
    """Base of the data modules whose file a recipe makes on demand.

    A subclass hands its recipe to :meth:`use`, or sets ``recipe``, ``path`` and ``workers`` and
    says itself what task and system are.
    """

    recipe: Any
    path: str | None
    workers: int | None

    def use(
        self,
        recipe: Recipe,
        *,
        task: Task,
        path: str | None,
        workers: int | None,
    ) -> None:
        """Say how the data are made and what of them is learned.

        Args:
            recipe: How the file is made.
            task: What to learn.
            path: The dataset file, or None for one in the cache.
            workers: Processes that make it.
        """
        self.recipe = recipe
        self.path = path
        self.workers = workers
        self._task = task
        if not isinstance(recipe, DrivenRecipe):
            return
        # The weights behind a name may change, so they are among what a run is told apart by.
        driver = {name: getattr(recipe, name) for name in DRIVER_OPTIONS}
        for name, value in driver.items():
            self.hparams.pop(name, None)
            if recipe.driver:
                self.hparams[name] = value

    @property
    def task(self) -> Task:
        """From the fields to the chosen target."""
        return self._task

    @property
    def lattice(self) -> Lattice:
        """The lattice of the samples."""
        return self.recipe.geometry

    @property
    def system(self) -> System:
        """The exact system."""
        return self.recipe.system

    def file(self) -> Path:
        """The dataset file; it is made when it is not there."""
        return make_dataset(self.recipe, path=self.path, workers=self.workers)


def evaluation_data(data: MadeData, **changes: Any) -> MadeData:
    """Fresh data for a trained network, all of it in the test split.

    The same system, target and options, with other random numbers: another seed unless one is
    given. Trajectories are exact, whatever drove those of the training data. Example:
    ``evaluation_data(data, lattice=24, random=20, trajectories=2)`` asks how the weights do on a
    larger lattice.

    Args:
        data: What the network was trained on.
        **changes: Options of the data module to change.

    Raises:
        InputError: An option is unknown or outside its range.
    """
    known = type(data).option_names()
    for name in changes:
        if name not in known:
            raise unknown(f"option of {type(data).__name__}", name, known)
    options = {name: value for name, value in data.hparams.items() if name not in DRIVER_OPTIONS}
    if options.get("disturbed") and "trajectories" in changes:
        # As large a share of the trajectories as in the data starts from a disturbed order.
        share = options["disturbed"] / options["trajectories"]
        options["disturbed"] = round(share * changes["trajectories"])
    fresh = {"path": None, "seed": data.seed + EVALUATION_SEED, "shuffle_seed": None}
    whole = {"val_fraction": 0.0, "test_fraction": 1.0}
    return type(data)(**{**options, **fresh, **whole, **changes})
