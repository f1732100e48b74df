"""The Lightning data modules of gauge links."""

from __future__ import annotations

from typing import Any

from latticezoo.datasets.gauge_links import FermionsOnLinks, LoopsOfLinks
from latticezoo.datasets.module import MadeData
from latticezoo.datasets.registry import create_recipe, register_data
from latticezoo.datasets.split import HELD_OUT


@register_data("gauge_fermions")
class GaugeFermionsData(MadeData):
    """Fermions on Z2, U(1) or SU(2) links of the square lattice, made on demand.

    Energies are in units of t. Backgrounds are independent, and the split is by background.

    Args:
        group: ``Z2``, ``U1`` or ``SU2``.
        lattice: Linear size, or a lattice such as ``square(12, 16)``.
        target: What to learn, names with commas between: ``bond``, ``current`` (U1),
            ``energy_per_site``, ``energy_density``, ``density``, ``flip_cost`` (Z2), ``force`` (U1,
            SU2), ``local_density_of_states`` (with ``spectrum``).
        random: Number of backgrounds with Haar-random links.
        thermal: Number of backgrounds from the pure gauge theory.
        betas: Their values of β, with commas between; a negative one favours plaquettes of −1.
        temperature: Temperature of the fermions.
        mass: Staggered mass.
        antiperiodic: Whether fermions change sign around both sides.
        spectrum: Whether to keep the local density of states.
        options: Further options of the recipe, such as ``{"sweeps": 100}``.
        path: The dataset file; one in the cache by default. Made when it is not there.
        workers: Processes that make it; one a core by default.
        batch_size: Samples in a training batch, of all processes together.
        dtype: ``"float32"`` or ``"float64"``: type of the batches, and their complex partners.
        seed: Seed of the data and of the split.
        shuffle_seed: Seed of the order of training samples; ``seed`` by default.
        val_fraction: Share of the backgrounds for validation.
        test_fraction: Share for the test.

    Raises:
        InputError: An option is outside its range.
    """

    def __init__(
        self,
        group: str = "Z2",
        lattice: int | str = 12,
        target: str = "bond",
        random: int = 200,
        thermal: int = 200,
        betas: str = "0.5,1,2",
        temperature: float = 0.02,
        mass: float = 0.0,
        antiperiodic: bool = False,
        spectrum: bool = False,
        options: dict[str, Any] | None = None,
        path: str | None = None,
        workers: int | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
    ) -> None:
        super().__init__(batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction)
        self.save_hyperparameters(logger=False)
        given = {
            "group": group,
            "lattice": lattice,
            "random": random,
            "thermal": thermal,
            "betas": betas,
            "temperature": temperature,
            "mass": mass,
            "antiperiodic": antiperiodic,
            "spectrum": spectrum,
            "seed": seed,
        }
        recipe = create_recipe("gauge_fermions", **{**given, **(options or {})})
        assert isinstance(recipe, FermionsOnLinks)
        task = recipe.system.task("square", target)
        self.use(recipe, task=task, path=path, workers=workers)


@register_data("wilson_loops")
class WilsonLoopsData(MadeData):
    """Traced rectangular loops of gauge links, made on demand.

    Args:
        group: ``Z2``, ``U1`` or ``SU2``.
        lattice: Linear size, or a lattice such as ``square(12, 16)``.
        target: What to learn, names with commas between: ``loop_1`` (1 × 1), ``loop_1x2``, …,
            ``loop_4``; all by default.
        random: Number of backgrounds with Haar-random links.
        thermal: Number of backgrounds from the pure gauge theory.
        betas: Their values of β, with commas between; a negative one favours plaquettes of −1.
        options: Further options of the recipe, such as ``{"largest": 3}``.
        path: The dataset file; one in the cache by default. Made when it is not there.
        workers: Processes that make it; one a core by default.
        batch_size: Samples in a training batch, of all processes together.
        dtype: ``"float32"`` or ``"float64"``: type of the batches, and their complex partners.
        seed: Seed of the data and of the split.
        shuffle_seed: Seed of the order of training samples; ``seed`` by default.
        val_fraction: Share of the backgrounds for validation.
        test_fraction: Share for the test.

    Raises:
        InputError: An option is outside its range.
    """

    def __init__(
        self,
        group: str = "SU2",
        lattice: int | str = 8,
        target: str | None = None,
        random: int = 0,
        thermal: int = 400,
        betas: str = "1,2,4",
        options: dict[str, Any] | None = None,
        path: str | None = None,
        workers: int | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
    ) -> None:
        super().__init__(batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction)
        self.save_hyperparameters(logger=False)
        given = {
            "group": group,
            "lattice": lattice,
            "random": random,
            "thermal": thermal,
            "betas": betas,
            "seed": seed,
        }
        recipe = create_recipe("wilson_loops", **{**given, **(options or {})})
        assert isinstance(recipe, LoopsOfLinks)
        system = recipe.system
        task = system.task("square", target or ",".join(system.targets))
        self.use(recipe, task=task, path=path, workers=workers)
