"""Windows of time series: every frame judged once, split by run, nothing leaks."""

import pytest
import torch

from latticezoo.datasets import create_data
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.series import Windows
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import chain

SMALL = {"trajectories": 6, "frames": 60, "sites": 8, "val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    target = tmp_path_factory.mktemp("data") / "chain.h5"
    options = {name: SMALL[name] for name in ("trajectories", "frames", "sites")}
    return str(make_dataset("chaotic_holstein", path=target, progress=False, workers=1, **options))


def test_windows_judge_every_frame_once_and_targets_are_one_frame_later():
    series = {"x": torch.arange(50.0).reshape(1, 50, 1) + torch.tensor([[[0.0]], [[100.0]]])}
    windows = Windows(series, chain(8), window=12, scored=5, dtype=torch.float64)
    batch = windows.__getitems__(range(len(windows)))
    assert torch.equal(batch.targets["x"], batch.fields["x"] + 1)
    scored = batch.targets["x"][:, -5:].flatten().tolist()
    assert len(set(scored)) == len(scored)
    assert max(scored) == 149
    assert set(range(20, 50)) <= set(scored)
    assert batch["scored"] == 5


def test_runs_are_split_whole_and_cut_after_the_transient(path):
    data = create_data("chaotic_holstein", path=path, skip=10, window=20, scored=8, **SMALL)
    runs = {split: data.runs(split)["delta_n"] for split in ("train", "val", "test")}
    assert {split: tuple(values.shape) for split, values in runs.items()} == {
        "train": (4, 50, 1),
        "val": (1, 50, 1),
        "test": (1, 50, 1),
    }
    firsts = torch.cat([values[:, 0, 0] for values in runs.values()])
    assert len(firsts.unique()) == 6
    batch = next(iter(data.train_dataloader()))
    assert batch["fields"]["delta_n"].shape[1:] == (20, 1)
    assert data.statistics()["inputs"]["delta_n"]["std"].item() == pytest.approx(
        runs["train"].std(correction=0).item()
    )
    assert data.frame_time == 3.0
    other = create_data(
        "chaotic_holstein", order="delta_Q", path=path, skip=10, window=20, scored=8, **SMALL
    )
    assert not torch.equal(other.runs("test")["delta_Q"], runs["test"])


def test_labels_of_the_file_are_the_next_frames(path):
    from latticezoo.datasets import LabelledData

    data = LabelledData.open(path)
    for name in ("delta_n", "delta_Q"):
        now, later = (table[name].reshape(6, 60) for table in (data.fields, data.labels))
        assert torch.equal(now[:, 1:], later[:, :-1])


def test_bad_windows_are_named(path):
    with pytest.raises(InputError, match="window is 50 frames, but the series have 50 after"):
        create_data("chaotic_holstein", path=path, skip=10, window=50, **SMALL).setup()
    with pytest.raises(InputError, match="scored is 30"):
        create_data("chaotic_holstein", window=20, scored=30)
    with pytest.raises(InputError, match="delta_m"):
        create_data("chaotic_holstein", order="delta_m")
    with pytest.raises(InputError, match="each order parameter once"):
        create_data("chaotic_holstein", order="delta_n,delta_n")
