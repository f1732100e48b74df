"""The tests that every network of the zoo passes, as a class to inherit from (needs pytest).

A new network gets them all by naming itself and a few cases::

    class TestMyNetwork(ZooModelTests):
        model = "my_network"
        cases = (Case(scalar_task("square", odd=True), (square(4), square(3, 5))),)
        unsuitable = (vector_task("square"),)

They check laws, with random weights and with weights perturbed as training would: equivariance
under every element of the task's group, locality, independence of the batch and of the lattice
size, forces as the gradient of the energy where there is one, and that a network survives saving.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, perpendicular
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant, random_inputs, random_values
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.pretrained import (
    check_golden,
    golden_bytes,
    load_pretrained,
    model_config,
    weights_bytes,
)
from latticezoo.zoo.registry import create_model, list_models


def scalar_task(family: str, odd: bool = False) -> Task:
    """A scalar force from a scalar displacement; both odd under particle–hole when ``odd``."""
    flips = ("particle_hole",) if odd else ()
    return Task(
        f"scalar_{family}",
        (Field("Q", odd=flips),),
        (Field("force", odd=flips),),
        family,
        flips,
        conservative=(("force", "Q"),),
    )


def vector_task(family: str) -> Task:
    """A vector force from a vector displacement."""
    return Task(
        f"vector_{family}",
        (Field("u", point="vector"),),
        (Field("force", point="vector"),),
        family,
        conservative=(("force", "u"),),
    )


@dataclass(frozen=True)
class Case:
    """What a network is tried on.

    Attributes:
        task: The task.
        lattices: Tori for the tests of equivariance, the first of them for all others; one of
            unequal sides among them where the family allows.
        options: Options of the network.
    """

    task: Task
    lattices: tuple[Lattice, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.task.name}-{'-'.join(self.task.flips) or 'no flips'}"


def perturb(network: ZooModel, seed: int = 1) -> ZooModel:
    """Give a network weights and statistics such as training leaves: no zero, nothing symmetric.

    Args:
        network: Changed in place.
        seed: Of the changes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            size = max(float(weight.double().square().mean().sqrt()), 0.05)
            weight.add_(0.3 * size * noise.to(weight.dtype))
        learned = dict(network.named_parameters())
        for name, fitted in network.state_dict().items():  # without constants, which are not saved
            if name.endswith("_weights") and name not in learned:  # fit before training, or zero
                noise = torch.randn(fitted.shape, generator=generator, dtype=torch.float64)
                fitted.copy_(0.3 * noise)
    statistics = {
        group: {
            entry.name: {
                "mean": torch.rand(width, generator=generator),
                "std": 0.5 + torch.rand(width, generator=generator),
            }
            for entry in fields
            for width in [network.get_submodule(scaling).mean(entry.name).numel()]  # type: ignore[operator]
        }
        for group, scaling, fields in (
            ("inputs", "input_scaling", network.task.inputs),
            ("targets", "target_scaling", network.task.targets),
        )
    }
    network.set_statistics(statistics)
    return network


def fill(network: ZooModel) -> ZooModel:
    """Set every weight by a formula, so that outputs depend on no random number generator."""
    with torch.no_grad():
        for number, weight in enumerate(network.parameters()):
            index = torch.arange(weight.numel(), dtype=torch.float64)
            fan_in = weight.shape[-1] if weight.dim() > 1 else 16
            values = torch.sin(1.0 + number + 12.9898 * index) * (1.5 / fan_in**0.5)
            weight.copy_(values.view(weight.shape))
    return network


def random_fields(
    task: Task, lattice: Lattice, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs of a task; unit vectors where a target is perpendicular to them."""
    return random_inputs(task, lattice, batch, dtype, torch.Generator().manual_seed(seed))


class ZooModelTests:
    """Inherit and set the attributes.

    Attributes:
        model: Registry name.
        cases: Tasks and lattices to try.
        unsuitable: Tasks that the network must refuse.
        too_small: Lattices that it must refuse, of the first case's family.
        golden: JSON file with outputs that must not change, or None; see
            :meth:`golden_outputs`.
    """

    model: ClassVar[str]
    cases: ClassVar[tuple[Case, ...]]
    unsuitable: ClassVar[tuple[Task, ...]] = ()
    too_small: ClassVar[tuple[Lattice, ...]] = ()
    golden: ClassVar[Path | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test that asks for a case on all of them."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases, ids=str)

    def build(self, case: Case, dtype: torch.dtype = torch.float64, trained: bool = True):
        """The network of a case, with random or trained-like weights, in eval mode."""
        torch.manual_seed(0)
        network = create_model(self.model, case.task, **case.options).to(dtype)
        return (perturb(network) if trained else network).eval()

    # ---- construction --------------------------------------------------------------------------

    def test_it_is_listed_and_builds_from_a_task_or_its_plain_values(self, case: Case) -> None:
        assert self.model in list_models()
        network = self.build(case)
        plain = json.loads(json.dumps(network.config()))
        again = ZooModel.from_config(plain)
        assert type(again) is type(network)
        assert again.config() == network.config()
        assert again.task == case.task
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        assert shapes == {name: value.shape for name, value in again.state_dict().items()}

    def test_it_refuses_unsuitable_tasks_in_one_sentence(self) -> None:
        for task in self.unsuitable:
            with pytest.raises(InputError, match=f"cannot serve the task '{task.name}'") as caught:
                create_model(self.model, task)
            assert "\n" not in str(caught.value)

    def test_it_refuses_lattices_on_which_neighbours_coincide(self) -> None:
        network = self.build(self.cases[0])
        for lattice in self.too_small:
            with pytest.raises(InputError, match="too small"):
                network(random_fields(network.task, lattice), lattice)

    # ---- laws of the map -----------------------------------------------------------------------

    def group(self, network: ZooModel, lattice: Lattice) -> SymmetryGroup:
        """What a network keeps by construction: all, or translations where it learns the rest."""
        if network.equivariant:
            return network.task.symmetry(lattice)
        return SymmetryGroup(lattice, point_operations=(0,))

    @pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
    def test_equivariance_in_double_precision(self, case: Case, trained: bool) -> None:
        network = self.build(case, trained=trained)
        for lattice in case.lattices:
            group = self.group(network, lattice)
            assert_equivariant(network, case.task, lattice, dtype=torch.float64, group=group)

    @pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
    def test_equivariance_in_single_precision(self, case: Case, trained: bool) -> None:
        network = self.build(case, torch.float32, trained)
        group = self.group(network, case.lattices[0])
        assert_equivariant(network, case.task, case.lattices[0], dtype=torch.float32, group=group)

    def test_a_batch_gives_what_its_samples_give(self, case: Case) -> None:
        network, lattice = self.build(case), case.lattices[0]
        fields = random_fields(case.task, lattice, batch=3)
        together = network(fields, lattice)
        for sample in range(3):
            alone = network({k: v[sample : sample + 1] for k, v in fields.items()}, lattice)
            for name, values in alone.items():
                _assert_close(together[name][sample : sample + 1], values, 1e-12)

    def test_gradients_or_not_the_numbers_are_the_same(self, case: Case) -> None:
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            network, lattice = self.build(case, dtype), case.lattices[0]
            fields = random_fields(case.task, lattice, dtype=dtype)
            with torch.no_grad():
                without = network(fields, lattice)
            for name, values in network(fields, lattice).items():
                _assert_close(values.detach(), without[name], tolerance)

    def test_the_same_weights_serve_a_larger_lattice(self, case: Case) -> None:
        """A periodically repeated input gives the repeated output."""
        network, small = self.build(case), case.lattices[0]
        if math.isinf(network.receptive_radius):
            pytest.skip("loops around the torus go in, and those of a larger torus are longer")
        large = Lattice(small.family, (2 * small.shape[0], *small.shape[1:]))
        fields = random_fields(case.task, small)
        site = {entry.name for entry in (*case.task.inputs, *case.task.targets)} - {
            entry.name
            for entry in (*case.task.inputs, *case.task.targets)
            if entry.support == "global"
        }
        repeated = {
            k: v.repeat(1, 2, *[1] * (v.dim() - 2)) if k in site else v for k, v in fields.items()
        }
        found, expected = network(repeated, large), network(fields, small)
        for name in site & set(expected):
            _assert_close(found[name].chunk(2, dim=1)[1], expected[name], 1e-12)

    def test_nothing_beyond_the_receptive_radius_matters(self, case: Case) -> None:
        network, family = self.build(case), case.lattices[0].family
        radius = network.receptive_radius
        if math.isinf(radius):
            pytest.skip("loops around the torus go in")
        spacing = _spacing(case.lattices[0])
        cells = int((2 * radius + 3) / spacing) + 1
        lattice = Lattice(family, (cells, *case.lattices[0].shape[1:]))
        fields = random_fields(case.task, lattice, batch=1)
        before = network(fields, lattice)
        changed = {
            k: torch.cat([v[:, :1] + 0.1, v[:, 1:]], dim=1) if v.dim() > 2 else v
            for k, v in fields.items()
        }
        after = network(changed, lattice)
        # Along the first direction alone: the others may be short enough to be seen around.
        height = (lattice.positions @ _normal(lattice)) % (cells * spacing)
        far = torch.minimum(height, cells * spacing - height) > radius + 1e-6
        assert bool(far.any())
        for name, values in after.items():
            if case.task.target(name).support == "global":
                continue
            difference = (values - before[name]).detach().abs().flatten(2).amax((0, 2))
            assert float(difference[far].max()) == 0
            assert float(difference.max()) > 0

    def test_forces_are_the_targets_or_the_gradient_of_the_energy(self, case: Case) -> None:
        network, lattice = self.build(case), case.lattices[0]
        fields = random_fields(case.task, lattice)
        if not case.task.conservative:
            with pytest.raises(InputError, match="force"):
                network.forces(fields, lattice)
            return
        forces, outputs = network.forces(fields, lattice), network(fields, lattice)
        for target, source in case.task.conservative:
            assert not forces[source].requires_grad
            _assert_close(forces[source], outputs[target].detach(), 1e-12)
        if hasattr(network, "energy"):
            self._check_gradient(network, fields, lattice, forces)

    def _check_gradient(
        self,
        network: Any,
        fields: dict[str, Tensor],
        lattice: Lattice,
        forces: Mapping[str, Tensor],
        step: float = 1e-4,
    ) -> None:
        for source, found in forces.items():
            direction = torch.randn(
                found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(3)
            )
            if any(pair[1] == source for pair in network.task.tangent):
                direction = perpendicular(direction, fields[source])
            energies = []
            for sign in (1, -1):
                moved = {**fields, source: fields[source] + sign * step * direction}
                energies.append(network.energy(moved, lattice).detach())
            slope = (energies[0] - energies[1]) / (2 * step)
            work = -(found * direction).flatten(1).sum(1)
            _assert_close(slope.reshape(-1), work, 1e-6)

    # ---- training and saving -------------------------------------------------------------------

    def test_training_reaches_every_weight_and_lowers_the_loss(self, case: Case) -> None:
        network, lattice = self.build(case, trained=False).train(), case.lattices[0]
        fields = random_fields(case.task, lattice, batch=4)
        teacher = perturb(self.build(case, trained=False), seed=5)
        network.set_statistics(
            {
                "inputs": {k: _moments(v) for k, v in fields.items()},
                "targets": {k: _moments(v) for k, v in teacher(fields, lattice).items()},
            }
        )
        network.calibrate([{"fields": fields, "lattice": lattice}])
        targets = {k: v.detach() for k, v in teacher(fields, lattice).items()}
        batch = {"fields": fields, "targets": targets, "lattice": lattice}
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        losses = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = network.loss(network(fields, lattice), batch)
            loss.backward()
            losses.append(float(loss.detach()))
            optimizer.step()
        for name, weight in network.named_parameters():
            if not weight.requires_grad:  # such as the zero of an energy
                continue
            assert weight.grad is not None, name
            assert bool(weight.grad.isfinite().all()), name
            if not (name.endswith("bias") and case.task.flips and "layers" in name):
                assert bool((weight.grad != 0).any()), name
        assert losses[-1] < 0.9 * losses[0]

    @pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*many workers.*")
    def test_a_checkpoint_gives_the_network_back(self, case: Case, tmp_path: Path) -> None:
        network, lattice = self.build(case, torch.float32), case.lattices[0]
        fields = random_fields(case.task, lattice, batch=4, dtype=torch.float32)
        targets = {k: v.detach() for k, v in network(fields, lattice).items()}
        batch = {"fields": fields, "targets": targets, "lattice": lattice}
        trainer = short_trainer(tmp_path, max_steps=2)
        trainer.fit(network.train(), Batches([batch]), Batches([batch]))
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        network.eval()
        for cls in (type(network), ZooModel):
            again = cls.load_from_checkpoint(tmp_path / "x.ckpt").eval()
            assert again.config() == network.config()
            for name, values in again(fields, lattice).items():
                assert torch.equal(values, network(fields, lattice)[name])

    def test_published_weights_give_the_network_back(self, case: Case, tmp_path: Path) -> None:
        network, lattice = self.build(case), case.lattices[0]
        fields = random_fields(case.task, lattice)
        write_card(network, fields, lattice, tmp_path)
        assert check_golden(tmp_path) == 0
        again = load_pretrained(f"local-dir:{tmp_path}")
        assert not again.training
        for name, values in again(fields, lattice).items():
            assert torch.equal(values, network(fields, lattice)[name])
        assert next(load_pretrained(tmp_path, dtype=torch.float32).parameters()).dtype is (
            torch.float32
        )

    # ---- golden outputs ------------------------------------------------------------------------

    def golden_outputs(self, case: Case) -> dict[str, list[float]]:
        """Outputs of weights set by a formula, a few numbers of every target."""
        torch.manual_seed(0)
        network = fill(create_model(self.model, case.task, **case.options).double()).eval()
        lattice = case.lattices[0]
        fields = {}
        for number, entry in enumerate(case.task.inputs):
            shape = random_values(entry, lattice, 1, gauge=case.task.gauge)
            parts = torch.view_as_real(shape) if shape.is_complex() else shape
            index = torch.arange(parts.numel(), dtype=torch.float64)
            values = torch.sin(1.3 * index + number).view(parts.shape)
            fields[entry.name] = torch.view_as_complex(values) if shape.is_complex() else values
        with torch.no_grad():
            outputs = network(fields, lattice)
        real = {
            name: torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
            for name, values in outputs.items()
        }
        return {name: values.reshape(-1)[:6].tolist() for name, values in real.items()}

    def test_golden_outputs(self, case: Case) -> None:
        """Weights saved today must mean the same tomorrow."""
        if self.golden is None:
            return
        expected = json.loads(self.golden.read_text())[f"{self.model} {case}"]
        for name, values in self.golden_outputs(case).items():
            assert values == pytest.approx(expected[name], rel=1e-9, abs=1e-12)


class Batches:
    """Batches from a list, in the form that Lightning takes as a data loader."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def short_trainer(folder: Path, **options: Any) -> Any:
    """A silent trainer on the CPU."""
    from pytorch_lightning import Trainer

    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def write_card(
    network: ZooModel, fields: Mapping[str, Tensor], lattice: Lattice, folder: Path
) -> None:
    """Write the files that :func:`~latticezoo.zoo.pretrained.load_pretrained` reads."""
    weights, golden = weights_bytes(network), golden_bytes(network, fields, lattice)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "golden.safetensors").write_bytes(golden)
    config = model_config(network, weights, golden, lattice)
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def _moments(values: Tensor) -> dict[str, Tensor]:
    flat = values.detach().reshape(-1, values.shape[-1])
    return {"mean": flat.mean(0), "std": flat.std(0)}


def _spacing(lattice: Lattice) -> float:
    """Distance between neighbouring layers of cells across the first direction."""
    return float(torch.from_numpy(lattice.vectors)[0] @ _normal(lattice))


def _normal(lattice: Lattice) -> Tensor:
    """Unit vector across all lattice vectors but the first."""
    inverse = torch.linalg.inv(torch.from_numpy(lattice.vectors))
    return inverse[:, 0] / inverse[:, 0].norm()


def _assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = float(expected.detach().abs().max())
    error = float((found - expected).detach().abs().max())
    assert error <= tolerance * max(scale, 1e-30), f"deviation {error:.2e} of {scale:.2e}"
