"""Dataset files: what goes in comes out, and damage is told in one sentence."""

import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
import torch
from toy_recipe import TASK, toy_data

from latticezoo.datasets.file import FORMAT, LabelledData, Source, read_source, write_dataset
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice, square

SOURCE = Source("toy", {"g": 1.5}, "toy", {"n": 3}, 7, 1e-12, "1.0", {"numpy": "1"})


def one_sentence(message: str) -> bool:
    return message.endswith(".") and "\n" not in message and "Traceback" not in message


@pytest.fixture
def data():
    return toy_data(square(4, 6), 0, 10, 0, SOURCE)


@pytest.fixture
def path(data, tmp_path):
    target = tmp_path / "toy.h5"
    write_dataset(target, data)
    return target


def test_round_trip_keeps_every_number_type_and_source(data, path):
    back = LabelledData.open(path)
    assert back.task == data.task
    assert back.lattice == data.lattice
    assert back.source == data.source
    assert back.types == data.types
    before, after = data.arrays(), back.arrays()
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert after[name].dtype == values.dtype
        assert np.array_equal(after[name], values)
    assert back.energy.shape == (10,)
    assert back.fields["Q"].shape == (10, 24, 1)


def test_the_file_explains_itself_without_this_library(data, path):
    import json

    with h5py.File(path) as file:
        attrs = {k: v.decode() if isinstance(v, bytes) else v for k, v in file.attrs.items()}
        assert attrs["format"] == FORMAT
        assert json.loads(attrs["task"])["name"] == "toy"
        assert attrs["lattice"] == "square(4, 6)"
        assert attrs["system"] == "toy"
        assert json.loads(attrs["parameters"]) == {"g": 1.5}
        assert attrs["recipe"] == "toy"
        assert json.loads(attrs["options"]) == {"n": 3}
        assert attrs["seed"] == 7
        assert attrs["solver_tolerance"] == 1e-12
        assert attrs["library_version"] == "1.0"
        assert len(attrs["content_hash"]) == 64
        for name, field in (("inputs/Q", "Q"), ("labels/density", "density")):
            assert json.loads(file[name].attrs["field"].decode())["name"] == field
            assert file[name].dtype == np.float64


def test_equal_data_give_equal_bytes(data, path, tmp_path):
    write_dataset(tmp_path / "again.h5", data)
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()


def test_the_hash_sees_every_part(data):
    from dataclasses import replace

    from latticezoo.datasets.labelled import content_hash

    changed = [
        replace(data, fields={"Q": data.fields["Q"] + 1e-15}),
        replace(data, labels={**data.labels, "energy": data.energy.flip(0)}),
        replace(data, kind=1 - data.kind),
        replace(data, lattice=square(6, 4)),
        replace(data, source=replace(SOURCE, parameters={"g": 1.6})),
        replace(data, types={"energy": Field("energy", support="global", odd=("flip",))}),
    ]
    hashes = {content_hash(each) for each in [data, *changed]}
    assert len(hashes) == 1 + len(changed)
    # The version that made the same numbers does not count.
    assert content_hash(replace(data, source=replace(SOURCE, library_version="2"))) in hashes


def test_random_samples_are_groups_of_their_own(data):
    groups, trajectory = data.groups, data.trajectory
    assert torch.equal(groups[trajectory >= 0], trajectory[trajectory >= 0])
    alone = groups[trajectory < 0]
    assert len(alone.unique()) == len(alone)
    assert not set(alone.tolist()) & set(trajectory[trajectory >= 0].tolist())


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    for read in (LabelledData.open, read_source):
        with pytest.raises(InputError) as caught:
            read(path)
        assert one_sentence(str(caught.value))
        assert str(path) in str(caught.value)


def test_every_flipped_byte_is_noticed_or_harmless(data, path):
    """One byte changed anywhere: the file is refused, or gives back the very same data."""
    whole = bytearray(path.read_bytes())
    before, refused = data.arrays(), 0
    positions = range(0, len(whole), 37)
    for position in positions:
        whole[position] ^= 0xFF
        path.write_bytes(whole)
        whole[position] ^= 0xFF
        try:
            back = LabelledData.open(path)
        except InputError:
            refused += 1
            continue
        assert back.source.identity() == data.source.identity()
        assert back.task == data.task
        assert all(np.array_equal(before[name], v) for name, v in back.arrays().items())
    assert refused > 0.5 * len(positions)


def test_changed_numbers_do_not_match_the_hash(path):
    with h5py.File(path, "r+") as file:
        values = file["labels/density"][...]
        values[3, 5] += 1e-12
        file["labels/density"][...] = values
    with pytest.raises(InputError, match="does not match its hash"):
        LabelledData.open(path)


def test_changed_parameters_do_not_match_the_hash(path):
    with h5py.File(path, "r+") as file:
        file.attrs["parameters"] = '{"g":1.6}'
    with pytest.raises(InputError, match="does not match its hash"):
        LabelledData.open(path)


def test_nan_names_dataset_and_sample(data, path):
    with h5py.File(path, "r+") as file:
        values = file["labels/density"][...]
        values[7, 5] = np.nan
        file["labels/density"][...] = values
    with pytest.raises(InputError, match=r"labels/density, sample 7"):
        LabelledData.open(path)
    data.fields["Q"][2, 1] = np.inf
    with pytest.raises(InputError, match=r"inputs/Q, sample 2"):
        write_dataset(path.with_name("bad.h5"), data)
    assert not path.with_name("bad.h5").exists()


def test_missing_parts_are_named(path):
    with h5py.File(path, "r+") as file:
        del file["labels/energy"]
    with pytest.raises(InputError, match="has no readable dataset labels/energy"):
        LabelledData.open(path)


def test_foreign_files_are_refused(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("hello")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(3)
    for path in (text, other, tmp_path / "absent.h5", tmp_path):
        with pytest.raises(InputError) as caught:
            LabelledData.open(path)
        assert one_sentence(str(caught.value))


def test_a_newer_format_asks_for_an_update(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(InputError, match="update the library"):
        LabelledData.open(path)


def test_parts_that_do_not_fit_are_refused(data):
    q, density = data.fields["Q"], data.labels["density"]
    lattice = data.lattice
    with pytest.raises(InputError, match="lack the label 'density'"):
        LabelledData(TASK, lattice, {"Q": q}, {})
    with pytest.raises(InputError, match="lack the input 'Q'"):
        LabelledData(TASK, lattice, {}, {"density": density})
    with pytest.raises(InputError, match="9 samples"):
        LabelledData(TASK, lattice, {"Q": q}, {"density": density[:9]})
    with pytest.raises(InputError, match=r"\[10, 24, 1\]"):
        LabelledData(TASK, Lattice.parse("square(5)"), {"Q": q}, {"density": density})
    with pytest.raises(InputError, match="has no type"):
        LabelledData(TASK, lattice, {"Q": q}, {"density": density, "extra": density})
    with pytest.raises(InputError, match="unknown input field 'P'"):
        LabelledData(TASK, lattice, {"Q": q, "P": q}, {"density": density})


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A limit on file sizes stops the write half-way, as a full disk does."""
    script = f"""
        import resource, sys
        sys.path.insert(0, {str(__import__("os").path.dirname(__file__))!r})
        from toy_recipe import toy_data
        from latticezoo.datasets.file import Source, write_dataset
        from latticezoo.symmetry.lattices import square
        data = toy_data(square(16), 0, 200, 0, Source())
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_dataset({str(tmp_path / "full.h5")!r}, data)
        except OSError as error:
            print(error)
        else:
            sys.exit("no error")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []
