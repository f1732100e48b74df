"""The Lightning data module of the Holstein model."""

from __future__ import annotations

from typing import Any, ClassVar

from latticezoo.datasets.module import MadeData
from latticezoo.datasets.quenches import QuenchRecipe
from latticezoo.datasets.registry import create_recipe, register_data
from latticezoo.datasets.split import HELD_OUT
from latticezoo.datasets.torus import torus_task
from latticezoo.symmetry.errors import unknown

FAMILIES = ("square", "chain")


@register_data("holstein")
class Holstein(MadeData):
    """Holstein model on the square lattice or the chain, made on demand.

    Amplitudes are in units of g/k, times in units of tau0 = √(m/k), energies in units of t.

    Args:
        lattice: Linear size (12 on the square, 64 on the chain by default), or a lattice such as
            ``square(12, 16)`` or ``chain(64)``; even sides.
        family: ``square`` or ``chain``; taken from the lattice when that names it.
        preset: Parameter set: ``holstein_weak`` (set A) or ``holstein_strong`` (set B).
        random: Number of random configurations.
        trajectories: Number of quenches.
        frames: Samples taken from each quench.
        target: What to learn: ``density`` (n − ½) or ``force`` (the total force).
        odd_symmetry: State the exact symmetry F(−Q) = −F(Q) in the task, where it holds (half
            filling, even sides), so that networks honour it.
        temperature: Temperature of electrons and bath instead of the preset's.
        g: Electron–lattice coupling instead of the preset's.
        k: Spring constant instead of the preset's.
        kappa: Coupling of neighbouring displacements instead of the preset's.
        filling: Electrons per site instead of one half.
        first_time: Time of the first frame of a quench.
        last_time: Time of its last frame.
        driver: Network whose forces drive the quenches, as pretrained name, checkpoint, run folder
            or card folder; labels are exact in any case. Without one the quenches are exact.
        exact_trajectories: Of driven quenches, the first so many are exact, to compare with.
        driver_sha256: SHA-256 of the driver's weights: noted when it is not given, checked when it
            is.
        options: Further options of the recipe, such as ``{"dt": 0.05, "start": "hot"}``.
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

    kind_of_runs: ClassVar[str] = "quenches"

    def __init__(
        self,
        lattice: int | str | None = None,
        family: str | None = None,
        preset: str = "holstein_weak",
        random: int = 100,
        trajectories: int = 10,
        frames: int = 20,
        target: str = "density",
        odd_symmetry: bool = True,
        temperature: float | None = None,
        g: float | None = None,
        k: float | None = None,
        kappa: float | None = None,
        filling: float | None = None,
        first_time: float | None = None,
        last_time: float = 40.0,
        driver: str | None = None,
        exact_trajectories: int = 0,
        driver_sha256: str | None = None,
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
        named = str(lattice).partition("(")[0].strip() if isinstance(lattice, str) else ""
        family = family or (named if named.isalpha() else "square")
        if family not in FAMILIES:
            raise unknown("lattice of the Holstein recipe", family, FAMILIES)
        given = {
            "lattice": lattice,
            "temperature": temperature,
            "g": g,
            "k": k,
            "kappa": kappa,
            "filling": filling,
            "first_time": first_time,
        }
        recipe = create_recipe(
            f"holstein_{family}",
            preset=preset,
            random=random,
            trajectories=trajectories,
            frames=frames,
            last_time=last_time,
            driver=driver,
            exact_trajectories=exact_trajectories,
            driver_sha256=driver_sha256,
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},
            **(options or {}),
        )
        assert isinstance(recipe, QuenchRecipe)
        task = torus_task(recipe.system, recipe.geometry, target, odd_symmetry)
        self.use(recipe, task=task, path=path, workers=workers)
