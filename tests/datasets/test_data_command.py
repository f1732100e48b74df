"""``latticezoo data``: make, info, list; one sentence and a status for every mistake."""

import json

import h5py
import numpy as np
import pytest
import toy_recipe  # noqa: F401  registers the recipe

from latticezoo.training.cli import main

TINY = "--lattice 4 --random 6 --trajectories 3 --frames 2 --last_time 2 --workers 1 --quiet"


@pytest.fixture
def made(tmp_path, capsys):
    path = tmp_path / "tiny.h5"
    assert main(["data", "make", "holstein_square", *TINY.split(), "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote:\n  {path}\n"
    return path


def refused(capsys, *words, status=2):
    assert main(["data", *map(str, words)]) == status
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.startswith("latticezoo: ")
    assert caught.err.count("\n") == 1
    return caught.err


def test_info_tells_what_the_file_holds(made, capsys):
    assert main(["data", "info", str(made)]) == 0
    text = capsys.readouterr().out
    for part in (
        "holstein_square on square(4, 4)",
        "g 1.5",
        "12: 6 random, 6 from 3 trajectories",
        "train 6 (4 + 2), val 3 (1 + 2), test 3 (1 + 2)",
        "particle_hole",
        "sha256",
    ):
        assert part in text


def test_info_as_json_agrees_with_the_file(made, capsys):
    assert main(["data", "info", str(made), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    with h5py.File(made) as file:
        density = file["labels/density"][...]
    (column,) = [column for column in facts["columns"] if column["name"] == "density"]
    assert column["role"] == "target"
    assert column["std"] == pytest.approx(density.std())
    assert column["mean"] == pytest.approx(density.mean())
    assert column["std_by_kind"]["random"] == pytest.approx(density[:6].std())
    assert facts["options"]["frames"] == 2
    assert facts["hash_ok"] is True


def test_make_again_takes_the_file_that_is_there(made, capsys):
    before = made.stat().st_mtime_ns
    assert main(["data", "make", "holstein_square", *TINY.split(), "--out", str(made)]) == 0
    assert made.stat().st_mtime_ns == before
    assert capsys.readouterr().out == f"already there:\n  {made}\n"


def test_help_and_list_name_recipes_and_options(capsys):
    for words in (["data", "--help"], ["data", "make", "--help"], ["data", "list"]):
        assert main(words) == 0
        capsys.readouterr()
    assert main(["data", "list", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert {"holstein_square", "holstein_chain"} <= set(tables["recipes"])
    assert {"holstein", "from_file"} <= set(tables["datasets"])
    assert main(["data", "make", "holstein_chain", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--lattice", "--temperature", "--trajectories", "--out", "--workers"):
        assert option in text
    assert "default 64" in text


def test_mistakes_are_told_in_one_sentence(made, tmp_path, capsys):
    make = ("make", "holstein_square")
    assert "did you mean holstein_square" in refused(capsys, "make", "holstein_sqare")
    assert "needs a recipe" in refused(capsys, "make")
    assert "did you mean --trajectories" in refused(capsys, *make, "--trajectory", 3)
    assert "'many' is not a whole number" in refused(capsys, *make, "--random", "many")
    assert "temperature is -1.0" in refused(capsys, *make, "--temperature", -1)
    assert "unstable" in refused(capsys, *make, "--kappa", 0.3)
    assert "odd period" in refused(capsys, *make, "--lattice", 5)
    assert "holds another dataset" in refused(capsys, *make, "--out", made)
    assert "there is no dataset" in refused(capsys, "info", tmp_path / "absent.h5")
    assert "Not a directory" in refused(capsys, *make, "--out", made / "x.h5", status=1)
    with h5py.File(made, "r+") as file:
        file["labels/density"][2, 3] = np.nan
    assert "labels/density, sample 2" in refused(capsys, "info", made)
    made.write_bytes(made.read_bytes()[:3000])
    assert "no whole dataset file" in refused(capsys, "info", made)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.h5"]


DRIVEN = "--driver gcn.holstein_weak --exact_trajectories 1"


def test_driven_trajectories_are_counted_and_checked(tmp_path, capsys):
    path = tmp_path / "driven.h5"
    words = [*TINY.split(), *DRIVEN.split(), "--out", str(path)]
    assert main(["data", "make", "holstein_square", *words]) == 0
    capsys.readouterr()
    assert main(["data", "info", str(path)]) == 0
    assert (
        "4 frames from 2 trajectories driven by gcn.holstein_weak, 2 from 1 exact"
        in capsys.readouterr().out
    )
    assert main(["data", "check", str(path)]) == 0
    text = capsys.readouterr().out
    for part in ("1 exact trajectories, 2 driven", "energy_per_site", "driven trajectory"):
        assert part in text
    assert main(["data", "check", str(path), "--times"]) == 0
    assert capsys.readouterr().out.count("exact") > text.count("exact")
    assert main(["data", "check", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["driver"]["populations"]["driven trajectory"]["samples"] == 4
    assert facts["missing"] == []


def test_a_check_without_driven_trajectories_is_refused(made, capsys):
    assert "holds no trajectories driven" in refused(capsys, "check", made)


def test_a_check_without_exact_trajectories_measures_the_driver(tmp_path, capsys):
    path = tmp_path / "driven.h5"
    words = [*TINY.split(), "--driver", "gcn.holstein_weak", "--out", str(path)]
    assert main(["data", "make", "holstein_square", *words]) == 0
    capsys.readouterr()
    assert main(["data", "check", str(path)]) == 0
    text = capsys.readouterr().out
    assert "a comparison needs both" in text
    assert "driven trajectory" in text
    assert "unknown driver" in refused(capsys, "check", path, "--driver", "gcn.none")


def test_a_bad_driver_writes_nothing(tmp_path, capsys):
    words = [*TINY.split(), "--preset", "holstein_strong", "--first_time", "1"]
    words += ["--driver", "gcn.holstein_weak"]
    out = tmp_path / "bad.h5"
    said = refused(capsys, "make", "holstein_square", *words, "--out", out)
    assert "trained on another system" in said
    assert not list(tmp_path.iterdir())
