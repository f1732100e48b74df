"""Data modules: known before the data, batches by (seed, epoch), statistics, splits."""

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from toy_recipe import toy_data

import latticezoo.datasets as datasets
from latticezoo.datasets.file import LabelledData, Source, write_dataset
from latticezoo.datasets.holstein_module import Holstein
from latticezoo.datasets.module import FromFile, LatticeData, evaluation_data
from latticezoo.datasets.registry import create_data, list_data
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain, square

TINY = {
    "lattice": 4,
    "random": 10,
    "trajectories": 5,
    "frames": 3,
    "last_time": 2.0,
    "batch_size": 4,
    "workers": 1,
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATTICEZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def data():
    return Holstein(**TINY)


def order(data, epoch):
    """The inputs of one epoch, batch after batch, as seen by a network."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch["fields"]["Q"] for batch in loader])


def test_task_lattice_and_system_are_known_without_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LATTICEZOO_CACHE", str(tmp_path / "empty"))
    data = Holstein(lattice=12, temperature=0.2)
    assert data.task.name == "holstein_square"
    assert data.task.flips == ("particle_hole",)
    assert data.lattice == square(12)
    assert data.system.temperature == 0.2
    assert Holstein(target="force").task.targets[0].name == "force"
    assert Holstein(odd_symmetry=False).task.flips == ()
    assert Holstein(odd_symmetry=False).task.input("Q").odd == ()
    assert Holstein(family="chain").lattice == chain(64)
    assert Holstein("chain(16)").task.family == "chain"
    assert not (tmp_path / "empty").exists()


def test_batches_hold_what_a_network_needs(data):
    batch = next(iter(data.train_dataloader()))
    given = {"fields", "targets", "energy", "chemical_potential", "kind", "lattice"}
    assert set(batch) == given
    assert batch["lattice"] == data.lattice
    assert batch["fields"]["Q"].shape == batch["targets"]["density"].shape == (4, 16, 1)
    assert batch["energy"].shape == batch["kind"].shape == (4,)
    assert batch["fields"]["Q"].dtype == batch["energy"].dtype == torch.float32
    assert batch["kind"].dtype == torch.int64
    double = next(iter(Holstein(**TINY, dtype="float64").train_dataloader()))
    assert double["fields"]["Q"].dtype == torch.float64


def test_one_file_serves_both_targets(data):
    force = Holstein(**TINY, target="force", dtype="float64")
    assert force.file() == data.file()
    batch = next(iter(force.train_dataloader()))
    assert set(batch["targets"]) == {"force"}
    exact = force.system.forces(batch["fields"], force.lattice)["Q"]
    torch.testing.assert_close(batch["targets"]["force"], exact, rtol=0, atol=1e-12)


def test_batches_depend_on_seed_and_epoch_alone(data):
    again = Holstein(**TINY)
    torch.manual_seed(5)
    first = order(data, 3)
    torch.manual_seed(6)
    assert torch.equal(first, order(again, 3))
    assert not torch.equal(first, order(data, 4))
    other = Holstein(**TINY, shuffle_seed=1)
    assert not torch.equal(first, order(other, 3))
    # Each epoch shows every training sample once.
    for seen in (first, order(data, 4), order(other, 3)):
        assert torch.equal(seen[:, 0, 0].sort().values, first[:, 0, 0].sort().values)
    assert torch.equal(other.splits["test"], data.splits["test"])


class Recorder(LightningModule):
    """Notes what it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, index):
        assert batch["lattice"] == square(4)
        self.seen.append(batch["fields"]["Q"].clone())
        return self.weight * batch["fields"]["Q"].mean()

    def validation_step(self, batch, index):
        assert batch["lattice"] == square(4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, epochs, **options):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        **options,
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:.*number of training batches.*")
def test_a_resumed_fit_sees_the_batches_of_an_undisturbed_one(tmp_path):
    whole = Recorder()
    seed_everything(1, verbose=False)
    trainer(tmp_path, 4).fit(whole, datamodule=Holstein(**TINY))

    first, second = Recorder(), Recorder()
    seed_everything(2, verbose=False)
    stopped = trainer(tmp_path, 2)
    stopped.fit(first, datamodule=Holstein(**TINY))
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    seed_everything(3, verbose=False)
    trainer(tmp_path, 4).fit(
        second,
        datamodule=Holstein(**TINY),
        ckpt_path=tmp_path / "stopped.ckpt",
        weights_only=True,
    )
    assert torch.equal(torch.cat(whole.seen), torch.cat(first.seen + second.seen))


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:.*number of training batches.*")
@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)]
)
def test_lightning_converts_batches_for_its_precisions(tmp_path, data, precision, dtype):
    network = Recorder()
    trainer(tmp_path, 1, precision=precision).fit(network, datamodule=data)
    assert network.seen[0].dtype == dtype


def test_statistics_are_those_of_the_training_split(data):
    found = data.statistics()
    train = data.splits["train"]
    everything = LabelledData.open(data.file())
    for group, name, values in (
        ("inputs", "Q", everything.fields["Q"]),
        ("targets", "density", everything.labels["density"]),
    ):
        chosen = values[train].flatten(0, 1)
        assert torch.allclose(found[group][name]["mean"], chosen.mean(0))
        assert torch.allclose(found[group][name]["std"], chosen.std(0, correction=0))
        assert found[group][name]["std"].dtype == torch.float64
    assert not torch.allclose(
        found["inputs"]["Q"]["std"], everything.fields["Q"].flatten(0, 1).std(0, correction=0)
    )


def test_both_kinds_are_on_every_side(data):
    sizes = data.split_sizes
    assert sizes == {
        "train": {"random": 8, "trajectory": 9},
        "val": {"random": 1, "trajectory": 3},
        "test": {"random": 1, "trajectory": 3},
    }
    kinds = torch.cat([batch["kind"] for batch in data.test_dataloader()])
    assert kinds.tolist() == [0, 1, 1, 1]


def test_evaluation_data_are_fresh_and_all_test(data):
    larger = evaluation_data(data, lattice=6, random=2, trajectories=1)
    assert larger.lattice == square(6)
    assert larger.task == data.task
    assert larger.system == data.system
    assert larger.recipe.seed != data.recipe.seed
    assert larger.split_sizes["test"] == {"random": 2, "trajectory": 3}
    assert larger.split_sizes["train"] == {"random": 0, "trajectory": 0}
    assert larger.val_dataloader() == []
    with pytest.raises(InputError, match="no training split"):
        larger.statistics()
    with pytest.raises(InputError, match="did you mean lattice"):
        evaluation_data(data, latice=6)


def test_any_file_can_be_used(tmp_path, data):
    known = FromFile(str(data.file()), batch_size=4)
    assert known.task == data.task
    assert known.system == data.system
    assert torch.equal(order(known, 1), order(data, 1))

    path = tmp_path / "own.h5"
    write_dataset(path, toy_data(square(4), 0, 40, 0, Source()))
    own = FromFile(str(path))
    assert own.split_sizes["train"] == {"random": 16, "trajectory": 16}
    with pytest.raises(InputError):
        own.system  # noqa: B018
    with pytest.raises(InputError, match="there is no dataset"):
        FromFile(str(tmp_path / "absent.h5"))


def test_a_network_gets_options_by_name_and_class():
    assert {"from_file", "holstein"} <= set(list_data())
    assert isinstance(create_data("holstein", **TINY), Holstein)
    assert datasets.Holstein is Holstein
    assert issubclass(datasets.Holstein, LatticeData)
    with pytest.raises(InputError, match="did you mean holstein"):
        create_data("holstien")
    with pytest.raises(InputError, match="did you mean trajectories"):
        create_data("holstein", trajectorys=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"val_fraction": 1.5}, "val_fraction is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"target": "densty"}, "did you mean density"),
        ({"family": "cubic"}, "unknown lattice"),
        ({"family": "chain", "lattice": "square(4)"}, "is for the chain lattice"),
        ({"lattice": 7}, "odd period"),
        ({"kappa": 0.4}, "unstable"),
        ({"options": {"dtt": 1}}, "did you mean dt"),
    ],
)
def test_bad_options_are_refused_at_construction(options, words):
    with pytest.raises(InputError, match=words):
        Holstein(**options)


# ---- mixed batches -----------------------------------------------------------------------------


def kinds(data, epoch):
    """Kinds in the batches of one epoch."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch["kind"] for batch in loader]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7])
def test_every_batch_holds_the_wanted_share_of_random_configurations(share):
    data = Holstein(**TINY, random_share=share)
    plain = Holstein(**TINY)
    n = len(data.samples("train"))
    for epoch in (0, 3):
        batches = kinds(data, epoch)
        assert [len(b) for b in batches] == [len(b) for b in kinds(plain, epoch)]
        for batch in batches[:-1]:
            assert abs(int((batch == 0).sum()) - 4 * share) <= 1
        total = int(sum((b == 0).sum() for b in batches))
        assert abs(total - n * share) <= 1
    for whole, kind in ((0.0, 1), (1.0, 0)):
        batches = kinds(Holstein(**TINY, random_share=whole), 0)
        assert all(bool((batch == kind).all()) for batch in batches)


def test_mixed_batches_use_every_sample_in_turn_and_depend_on_seed_and_epoch():
    data = Holstein(**TINY, random_share=0.7)
    sampler = data.train_dataloader().sampler
    kind = data.samples("train").kind
    drawn = []
    for epoch in range(12):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
        assert drawn[-1] == list(sampler)
    assert drawn[0] != drawn[1]
    for number in (0, 1):
        rows = torch.nonzero(kind == number).flatten()
        seen = torch.tensor(drawn).flatten()
        counts = torch.bincount(seen[kind[seen] == number], minlength=len(kind))[rows]
        # Whole passes: no sample is ahead of another by more than one.
        assert counts.min() > 0
        assert counts.max() - counts.min() <= 1
    other = Holstein(**TINY, random_share=0.7, shuffle_seed=5).train_dataloader().sampler
    assert list(other) != drawn[0]


def test_shares_that_cannot_be_had_are_refused():
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="must be between 0 and 1"):
            Holstein(**TINY, random_share=share)
    only_random = Holstein(**{**TINY, "trajectories": 0}, random_share=0.5)
    with pytest.raises(InputError, match="the training split holds no trajectory samples"):
        only_random.train_dataloader()
