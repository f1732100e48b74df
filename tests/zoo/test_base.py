"""The base of all networks: odd symmetry, standardization, metrics, schedules, checkpoints."""

import logging
import math

import pytest
import torch
from pytorch_lightning import Callback

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import honeycomb, square
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import assert_equivariant
from latticezoo.zoo import base
from latticezoo.zoo.base import ZooModel, batch_statistics
from latticezoo.zoo.layers.scaling import FieldScaling
from latticezoo.zoo.metrics import RootMeanSquare
from latticezoo.zoo.optimization import TRAINING_DEFAULTS, cosine, make_optimizer
from latticezoo.zoo.registry import create_model
from latticezoo.zoo.testing import (
    Batches,
    perturb,
    random_fields,
    scalar_task,
    short_trainer,
    vector_task,
)

TASK = scalar_task("square", odd=True)
LATTICE = square(4)


class Polynomial(ZooModel):
    """A network without parameters to speak of: a polynomial of the site's own value."""

    registry_name = "polynomial"

    def __init__(self, task, **training):
        super().__init__(task, **training)
        self.coefficients = torch.nn.Parameter(torch.tensor([0.7, 1.3, -0.4, 0.9]))

    def predict(self, fields, lattice):
        x = next(iter(fields.values()))
        powers = torch.stack([x**n for n in range(4)])
        value = torch.tensordot(self.coefficients, powers, 1)
        return {field.name: value for field in self.task.targets}

    @property
    def receptive_radius(self):
        return 0.0


def batches(n=3, size=4, seed=0, kinds=(0, 1)):
    result = []
    for number in range(n):
        fields = random_fields(TASK, LATTICE, size, torch.float32, seed + number)
        targets = {"force": torch.sin(2 * fields["Q"])}
        kind = torch.tensor([kinds[i % len(kinds)] for i in range(size)])
        result.append({"fields": fields, "targets": targets, "lattice": LATTICE, "kind": kind})
    return result


# ---- odd symmetry ----------------------------------------------------------------------------


def test_an_odd_target_keeps_the_odd_part_of_the_network():
    network = Polynomial(TASK).double()
    x = random_fields(TASK, LATTICE)["Q"]
    found = network({"Q": x}, LATTICE)["force"]
    torch.testing.assert_close(found, 1.3 * x + 0.9 * x**3, rtol=1e-6, atol=1e-6)


def test_an_even_target_keeps_the_even_part():
    odd = ("particle_hole",)
    task = Task("even", (Field("Q", odd=odd),), (Field("n"),), "square", flips=odd)
    x = random_fields(task, LATTICE)["Q"]
    found = Polynomial(task).double()({"Q": x}, LATTICE)["n"]
    torch.testing.assert_close(found, 0.7 - 0.4 * x**2, rtol=1e-6, atol=1e-6)


def test_without_flips_nothing_is_projected():
    task = scalar_task("square")
    x = random_fields(task, LATTICE)["Q"]
    found = Polynomial(task).double()({"Q": x}, LATTICE)["force"]
    torch.testing.assert_close(found, 0.7 + 1.3 * x - 0.4 * x**2 + 0.9 * x**3, rtol=1e-6, atol=1e-6)


def test_a_network_that_is_odd_by_construction_is_evaluated_once():
    class Odd(Polynomial):
        built_in_flips = frozenset({"particle_hole"})
        calls = 0

        def predict(self, fields, lattice):
            Odd.calls += len(fields["Q"])
            return {"force": fields["Q"] ** 3}

    network = Odd(TASK)
    network(random_fields(TASK, LATTICE, batch=5), LATTICE)
    assert Odd.calls == 5


def test_two_flips_are_projected_together_for_complex_conjugation_too():
    flips = ("time_reversal", "charge_conjugation")
    task = Task(
        "two_flips",
        (
            Field("m", odd=("time_reversal",)),
            Field("phi", internal=0, conjugated=("charge_conjugation",)),
        ),
        (Field("h", odd=("time_reversal",)),),
        "square",
        flips=flips,
    )

    class Mixed(Polynomial):
        def predict(self, fields, lattice):
            m, phi = fields["m"], fields["phi"]
            return {"h": (m + m**2 + 1) * (1 + phi.real**2 + phi.imag + phi.imag**2)}

    network = Mixed(task).double()
    assert_equivariant(network, task, LATTICE)
    fields = random_fields(task, LATTICE)
    m, phi = fields["m"], fields["phi"]
    expected = m * (1 + phi.real**2 + phi.imag**2)
    torch.testing.assert_close(network(fields, LATTICE)["h"], expected)


# ---- standardization ---------------------------------------------------------------------------


def test_standardization_changes_units_and_nothing_else():
    network = Polynomial(TASK).double()
    network.set_statistics(
        {
            "inputs": {"Q": {"mean": [0.0], "std": [2.0]}},
            "targets": {"force": {"mean": [0.0], "std": [5.0]}},
        }
    )
    x = random_fields(TASK, LATTICE)["Q"]
    expected = 5 * (1.3 * (x / 2) + 0.9 * (x / 2) ** 3)
    torch.testing.assert_close(network({"Q": x}, LATTICE)["force"], expected, rtol=1e-6, atol=1e-6)
    assert bool(network.statistics_set)


def test_means_of_odd_fields_stay_zero_and_join_the_scale():
    network = Polynomial(TASK)
    statistics = {
        "inputs": {"Q": {"mean": [3.0], "std": [4.0]}},
        "targets": {"force": {"mean": [0.6], "std": [0.8]}},
    }
    network.set_statistics(statistics)
    assert network.input_scaling.to_dict() == {"Q": {"mean": [0.0], "scale": [5.0]}}
    assert network.target_scaling.to_dict()["force"]["scale"] == pytest.approx([1.0])
    plain = Polynomial(scalar_task("square"))
    plain.set_statistics(statistics)
    assert plain.input_scaling.to_dict() == {"Q": {"mean": [3.0], "scale": [4.0]}}


def test_components_of_an_irrep_share_a_scale_and_only_invariants_have_a_mean():
    field = Field("u", point="2xA1+B1+E")
    task = Task("mixed", (field,), (Field("n"),), "square")
    scaling = FieldScaling((field,), task)
    scaling.set({"u": {"mean": [1.0, 2, 3, 4, 5], "std": [1.0, 2, 4, 3, 12]}})
    assert scaling.mean("u").tolist() == [1, 2, 0, 0, 0]
    doublet = math.sqrt((3**2 + 4**2 + 12**2 + 5**2) / 2)
    assert scaling.scale("u").tolist() == pytest.approx([1, 2, 5, doublet, doublet])


@pytest.mark.parametrize("task", [vector_task("square"), vector_task("honeycomb")], ids=str)
def test_scaling_commutes_with_every_symmetry(task):
    scaling = FieldScaling(task.inputs, task).double()
    width = scaling.mean("u").numel()
    scaling.set({"u": {"mean": torch.rand(width), "std": 1 + torch.rand(width)}})
    lattice = square(3) if task.family == "square" else honeycomb(2)
    assert_equivariant(lambda fields, _: {"force": scaling.normalize(fields)["u"]}, task, lattice)
    values = {"u": torch.randn(1, lattice.n_sites, width).double()}
    torch.testing.assert_close(scaling.restore(scaling.normalize(values)), values)


def test_spins_and_links_have_one_scale_and_no_mean():
    fields = (
        Field("S", internal="1x1e"),
        Field("J", support="link"),
        Field("I", support="link", oriented=True),
        Field("phi", internal=1),
        Field("U", support="link", internal="link"),
    )
    task = Task("many", fields, (Field("n"),), "square", internal="SO3", gauge="U1")
    scaling = FieldScaling(fields, task)
    scaling.set(
        {
            "S": {"mean": [1.0, 2.0, 2.0], "std": [0.0, 0.0, 0.0]},
            "J": {"mean": [2.0, 2.0], "std": [3.0, 3.0]},
            "I": {"mean": [3.0, 3.0], "std": [4.0, 4.0]},
            "phi": {"mean": torch.tensor([3j]), "std": [4.0]},
            "U": {"mean": torch.tensor([1j]), "std": [0.3]},
        }
    )
    found = scaling.to_dict()
    assert found["S"] == {"mean": [0, 0, 0], "scale": pytest.approx([math.sqrt(3)] * 3)}
    assert found["J"] == {"mean": [2.0], "scale": [3.0]}
    assert found["I"] == {"mean": [0.0], "scale": [5.0]}
    assert found["phi"] == {"mean": [0.0], "scale": [5.0]}
    assert found["U"] == {"mean": [0.0], "scale": [1.0]}


def test_a_standardized_energy_has_the_standardized_force_as_its_gradient():
    """For every conservative pair, target scale times input scale is one unit of energy."""
    task = Task(
        "two_forces",
        (Field("Q", point="A1+B1"), Field("u", point="vector")),
        (Field("F", point="A1+B1"), Field("f", point="vector")),
        "square",
        conservative=(("F", "Q"), ("f", "u")),
    )
    network = Polynomial(task)
    network.set_statistics(
        {
            "inputs": {
                "Q": {"mean": [0.0, 0], "std": [1.0, 2]},
                "u": {"mean": [0.0, 0], "std": [0.1, 0.1]},
            },
            "targets": {
                "F": {"mean": [0.5, 0], "std": [3.0, 4]},
                "f": {"mean": [0.0, 0], "std": [7.0, 7]},
            },
        }
    )
    products = torch.stack(
        [
            network.target_scaling.scale("F") * network.input_scaling.scale("Q"),
            network.target_scaling.scale("f") * network.input_scaling.scale("u"),
        ]
    )
    torch.testing.assert_close(products, products[0, 0].expand(2, 2))


@pytest.mark.parametrize(
    ("statistics", "sentence"),
    [
        ({}, "lack the group 'inputs'"),
        ({"inputs": {}, "targets": {}}, "lack the field 'Q'"),
        ({"inputs": {"Q": {"mean": [0.0], "std": [math.nan]}}, "targets": {}}, "finite"),
        ({"inputs": {"Q": {"mean": [0.0, 1.0, 2.0]}}, "targets": {}}, "must be 1 finite"),
    ],
)
def test_wrong_statistics_are_refused(statistics, sentence):
    with pytest.raises(InputError, match=sentence):
        Polynomial(TASK).set_statistics(statistics)


def test_batch_statistics_are_those_of_all_samples_together():
    some = batches()
    found = batch_statistics(some, TASK)
    values = torch.cat([batch["fields"]["Q"] for batch in some]).double()
    assert float(found["inputs"]["Q"]["mean"]) == pytest.approx(float(values.mean()))
    assert float(found["inputs"]["Q"]["std"]) == pytest.approx(float(values.std(correction=0)))


# ---- input -------------------------------------------------------------------------------------


def test_inputs_are_converted_to_the_type_of_the_network():
    network = create_model("gcn", TASK, widths=[3, 3])
    fields = random_fields(TASK, LATTICE, dtype=torch.float64)
    assert network(fields, LATTICE)["force"].dtype is torch.float32
    assert network.double()(fields, LATTICE)["force"].dtype is torch.float64


def test_wrong_input_is_refused_in_one_sentence():
    network = create_model("gcn", TASK, widths=[3, 3])
    good = random_fields(TASK, LATTICE, dtype=torch.float32)
    for fields, lattice, sentence in (
        ({}, LATTICE, "input field 'Q' is missing; given: none"),
        ({"P": good["Q"]}, LATTICE, "given: P"),
        (good, square(5), r"needs values of shape \[batch, 25, 1\]"),
        (good, honeycomb(2, 4), "runs on square lattices, not on honeycomb"),
    ):
        with pytest.raises(InputError, match=sentence):
            network(fields, lattice)


def test_a_view_around_the_torus_is_told_once(caplog):
    base._check_size.cache_clear()
    network = create_model("gcn", TASK, widths=[3] * 4)
    with caplog.at_level(logging.INFO, logger="latticezoo.zoo.base"):
        for _ in range(3):
            network(random_fields(TASK, LATTICE, dtype=torch.float32), LATTICE)
        large = square(12)
        network(random_fields(TASK, large, dtype=torch.float32), large)
    assert sum("wraps around the torus" in line for line in caplog.messages) == 1


# ---- metrics -----------------------------------------------------------------------------------


def test_the_root_mean_square_is_that_of_all_numbers_not_the_mean_of_batches():
    metric = RootMeanSquare()
    metric.update(torch.tensor([1.0, 2.0]))
    metric.update(torch.tensor([[4.0]]))
    assert float(metric.compute()) == pytest.approx(math.sqrt(21 / 3))


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*many workers.*")
def test_logged_errors_are_exact_over_the_epoch_by_kind_and_in_physical_units(tmp_path):
    network = perturb(create_model("gcn", TASK, widths=[4, 4]))
    uneven = [*batches(2, 4, kinds=(0, 1)), *batches(1, 3, seed=9, kinds=(1,))]
    trainer = short_trainer(tmp_path)
    (logged,) = trainer.validate(network, Batches(uneven), verbose=False)
    errors = [
        (network(batch["fields"], LATTICE)["force"] - batch["targets"]["force"]).detach()
        for batch in uneven
    ]
    joined, kinds = torch.cat(errors), torch.cat([batch["kind"] for batch in uneven])
    for name, chosen in (("", kinds >= 0), ("_random", kinds == 0), ("_trajectory", kinds == 1)):
        expected = float(joined[chosen].square().mean().sqrt())
        assert logged[f"val/rmse{name}"] == pytest.approx(expected, rel=1e-5)
    scale = float(network.target_scaling.scale("force"))
    assert logged["val/loss"] == pytest.approx(float(joined.square().mean()) / scale**2, rel=1e-5)
    # The next epoch starts from zero, and a kind without samples is left out.
    (again,) = trainer.test(network, Batches(batches(1, 4, kinds=(1,))), verbose=False)
    assert "test/rmse_random" not in again
    assert again["test/rmse_trajectory"] == pytest.approx(again["test/rmse"])


# ---- training ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*many workers.*")
def test_statistics_are_taken_once_from_the_training_batches(tmp_path):
    network = create_model("descriptor_mlp", TASK, shells=1, widths=[4])
    some = batches()
    trainer = short_trainer(tmp_path, max_steps=1)
    trainer.fit(network, Batches(some), Batches(some))
    expected = batch_statistics(some, TASK)["targets"]["force"]
    rms = math.sqrt(float(expected["std"]) ** 2 + float(expected["mean"]) ** 2)
    q = network.input_scaling.scale("Q").item()
    assert network.target_scaling.scale("force").item() == pytest.approx(rms, rel=1e-5)
    assert not torch.equal(network.feature_scale, torch.ones_like(network.feature_scale))
    short_trainer(tmp_path, max_steps=1).fit(network, Batches(batches(seed=50)), Batches(some))
    assert network.input_scaling.scale("Q").item() == q


def test_the_cosine_ends_at_zero_after_a_linear_rise():
    weight = torch.nn.Parameter(torch.zeros(1))
    options = {**TRAINING_DEFAULTS, "learning_rate": 2.0, "warmup": 10}
    made = make_optimizer([weight], options, steps=200)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(2 / 11)
    assert rates[100] == pytest.approx(2 * cosine(0.5))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    endless = make_optimizer([weight], options, steps=math.inf)["optimizer"]
    assert endless.param_groups[0]["lr"] == pytest.approx(2 / 11)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*many workers.*")
@pytest.mark.parametrize(
    "options", [{}, {"ema": 0.8}, {"schedule": "plateau"}, {"gradient_clip": 1.0}], ids=str
)
def test_a_resumed_fit_ends_with_the_same_weights(tmp_path, options):
    def fit(checkpoint=None):
        torch.manual_seed(3)
        network = create_model("gcn", TASK, widths=[5, 5], **options)
        trainer = short_trainer(tmp_path, max_epochs=4)
        trainer.callbacks.append(_SaveAfter(2, tmp_path / "half.ckpt"))
        trainer.fit(
            network,
            Batches(batches()),
            Batches(batches(1, seed=7)),
            ckpt_path=checkpoint,
            weights_only=True,
        )
        return network

    whole = fit()
    resumed = fit(tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    assert ZooModel.load_from_checkpoint(tmp_path / "half.ckpt").options == whole.options


class _SaveAfter(Callback):
    def __init__(self, epochs, path):
        self.epochs, self.path = epochs, path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch + 1 == self.epochs:
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*many workers.*")
def test_the_moving_average_is_what_is_validated_and_kept(tmp_path):
    torch.manual_seed(3)
    network = create_model("gcn", TASK, widths=[5, 5], ema=0.5, learning_rate=0.1)
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(module.network.layers[0].bias.detach().clone())

    trainer = short_trainer(tmp_path, max_epochs=1)
    trainer.callbacks.append(Watch())
    trainer.fit(network, Batches(batches()), Batches(batches(1)))
    average = seen[0]
    for value in seen[1:]:
        average = 0.5 * average + 0.5 * value
    torch.testing.assert_close(network.network.layers[0].bias.detach(), average)
    assert not torch.equal(average, seen[-1])


# ---- checkpoints -------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    network = create_model("gcn", TASK, widths=[3, 3])
    trainer = short_trainer(tmp_path)
    trainer.strategy.connect(network)
    path = tmp_path / "gcn.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_a_checkpoint_of_another_network_is_refused_in_one_sentence(checkpoint):
    mlp = type(create_model("descriptor_mlp", TASK))
    with pytest.raises(InputError, match="of the model 'gcn', not 'descriptor_mlp'"):
        mlp.load_from_checkpoint(checkpoint)
    saved = torch.load(checkpoint, weights_only=True)
    for network, sentence in (
        (create_model("descriptor_mlp", TASK), "holds the model 'gcn', not 'descriptor_mlp'"),
        (create_model("gcn", TASK, widths=[4, 4]), r"other options \(it has widths=\[3, 3\]\)"),
        (create_model("gcn", scalar_task("chain"), widths=[3, 3]), "not 'scalar_chain'"),
        (create_model("gcn", scalar_task("square"), widths=[3, 3]), "other fields or symmetries"),
    ):
        with pytest.raises(InputError, match=sentence):
            network.on_load_checkpoint(saved)
    saved["latticezoo"]["convention_version"] = -1
    with pytest.raises(InputError, match="version -1 of the representation conventions"):
        create_model("gcn", TASK, widths=[3, 3]).on_load_checkpoint(saved)


def test_damaged_and_foreign_files_are_refused_in_one_sentence(checkpoint, tmp_path):
    data = checkpoint.read_bytes()
    broken = tmp_path / "broken.ckpt"
    for content in (data[: len(data) // 2], b"", b"no checkpoint at all"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match="damaged or not a checkpoint"):
            ZooModel.load_from_checkpoint(broken)
    torch.save({"state_dict": {}}, broken)
    with pytest.raises(InputError, match="does not say which network"):
        ZooModel.load_from_checkpoint(broken)
    with pytest.raises(InputError, match="there is no checkpoint"):
        ZooModel.load_from_checkpoint(tmp_path / "absent.ckpt")


def test_a_checkpoint_holds_plain_values_and_every_option(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    hyper = saved["hyper_parameters"]
    assert hyper["task"] == TASK.to_dict()
    assert hyper["widths"] == [3, 3]
    assert hyper["learning_rate"] == create_model("gcn", TASK).options["learning_rate"]


@pytest.mark.filterwarnings("ignore")
def test_the_command_line_builds_networks_with_a_linked_task(tmp_path, monkeypatch):
    """LightningCLI leaves linked arguments out of the hyperparameters; here they are kept."""
    from pytorch_lightning import LightningDataModule
    from pytorch_lightning.cli import LightningCLI

    class Data(LightningDataModule):
        task = TASK

        def train_dataloader(self):
            return Batches(batches())

    class CLI(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.link_arguments("data.task", "model.init_args.task", apply_on="instantiate")

    model_class = type(create_model("gcn", TASK))
    cli = CLI(
        ZooModel,
        Data,
        subclass_mode_model=True,
        run=False,
        save_config_callback=None,
        args=[
            f"--model={model_class.__module__}.GCN",
            "--model.widths=[3,3]",
            "--model.learning_rate=0.5",
            "--trainer.logger=false",
            f"--trainer.default_root_dir={tmp_path}",
        ],
    )
    assert cli.model.options["widths"] == [3, 3]
    assert cli.model.options["learning_rate"] == 0.5
    assert cli.model.hparams["task"] == TASK.to_dict()
    cli.trainer.strategy.connect(cli.model)
    cli.trainer.save_checkpoint(tmp_path / "cli.ckpt")
    again = ZooModel.load_from_checkpoint(tmp_path / "cli.ckpt")
    assert again.config() == cli.model.config()
