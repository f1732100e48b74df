"""The Lightning data module of itinerant magnets."""

from __future__ import annotations

from typing import Any, ClassVar

from latticezoo.datasets.magnets import ItinerantMagnet
from latticezoo.datasets.module import MadeData
from latticezoo.datasets.registry import create_recipe, register_data
from latticezoo.datasets.split import HELD_OUT


@register_data("sd_magnet")
class ItinerantMagnets(MadeData):
    """s–d model on the triangular or square lattice, made on demand.

    Energies are in units of t, times in 1/t. The target is the field perpendicular to the spin,
    without the external one.

    Args:
        lattice: Linear size, or a lattice such as ``triangular(12, 12)``.
        preset: Parameter set: ``sd_tetrahedral``, ``sd_120``, ``sd_skyrmion`` or ``sd_square``.
        random: Number of random configurations.
        trajectories: Number of damped runs of Landau–Lifshitz–Gilbert dynamics.
        frames: Samples taken from each.
        ordered_share: Share of the random configurations that are disturbed ordered states.
        disturbed: Of the trajectories, the first so many start from a disturbed ordered state.
        temperature: Temperature of the electrons instead of the preset's.
        J: Coupling instead of the preset's.
        first_time: Time of the first frame.
        last_time: Time of the last frame.
        options: Further options of the recipe, such as ``{"damping": 0.1}``.
        path: The dataset file; one in the cache by default. Made when it is not there.
        workers: Processes that make it; one a core by default.
        batch_size: Samples in a training batch, of all processes together.
        dtype: ``"float32"`` or ``"float64"``: type of the batches.
        seed: Seed of the data and of the split.
        shuffle_seed: Seed of the order of training samples; ``seed`` by default.
        val_fraction: Share of the trajectories, and of the random configurations, for validation.
        test_fraction: Share for the test.
        random_share: Share of random configurations in every training batch, the rest frames of
            trajectories; by default as many as the data have.

    Raises:
        InputError: An option is outside its range.
    """

    kind_of_runs: ClassVar[str] = "damped runs"

    def __init__(
        self,
        lattice: int | str = 12,
        preset: str = "sd_tetrahedral",
        random: int = 100,
        trajectories: int = 10,
        frames: int = 20,
        ordered_share: float = 0.5,
        disturbed: int = 0,
        temperature: float | None = None,
        J: float | None = None,
        first_time: float | None = None,
        last_time: float | None = None,
        options: dict[str, Any] | None = None,
        path: str | None = None,
        workers: int | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
        random_share: float | None = None,
    ) -> None:
        super().__init__(
            batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction, random_share
        )
        self.save_hyperparameters(logger=False)
        given = {
            "lattice": lattice,
            "preset": preset,
            "random": random,
            "trajectories": trajectories,
            "frames": frames,
            "ordered_share": ordered_share,
            "disturbed": disturbed,
            "temperature": temperature,
            "J": J,
            "first_time": first_time,
            "last_time": last_time,
            "seed": seed,
        }
        recipe = create_recipe("sd_magnet", **{**given, **(options or {})})
        assert isinstance(recipe, ItinerantMagnet)
        self.use(recipe, task=recipe.task, path=path, workers=workers)
