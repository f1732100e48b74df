"""The wheel holds every module and data file; an editable install would hide a forgotten one."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("symmetry", "simulate", "datasets", "zoo", "training", "model_cards")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = out.glob("*.whl")
    assert wheel.stat().st_size < 40e6
    site = out / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_every_tracked_file_of_the_package_is_in_the_wheel(unpacked):
    listed = subprocess.run(
        ["git", "ls-files", *FOLDERS], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    missing = [name for name in listed if name and not (unpacked / "latticezoo" / name).exists()]
    assert not missing


def test_every_module_imports_from_the_wheel(unpacked):
    names = sorted(
        ".".join(path.relative_to(unpacked).with_suffix("").parts).removesuffix(".__init__")
        for path in (unpacked / "latticezoo").rglob("*.py")
    )
    assert len(names) > 10
    # -S and an explicit path keep the editable install of the checkout out of sight.
    site = next(p for p in sys.path if p.endswith("site-packages"))
    code = (
        "import sys, importlib; sys.path[:0] = sys.argv[1:3]\n"
        "for name in sys.argv[3:]:\n"
        "    module = importlib.import_module(name)\n"
        "    assert module.__file__.startswith(sys.argv[1]), (name, module.__file__)\n"
    )
    subprocess.run(
        [sys.executable, "-S", "-c", code, str(unpacked), site, *names], check=True, cwd=unpacked
    )


#: What somebody does who has installed the wheel, in an empty folder.
LOADS_ALL = """
import sys, json, importlib
sys.path[:0] = sys.argv[1:3]
import torch
from latticezoo.symmetry import Lattice
from latticezoo.symmetry.testing import random_inputs
from latticezoo.training.cli import main
from latticezoo.zoo import list_pretrained, load_pretrained
from latticezoo.zoo.sources import card_folder

assert main(["models", "--check"]) == 0
for name in list_pretrained():
    assert str(card_folder(name)).startswith(sys.argv[1]), card_folder(name)
    network = load_pretrained(name)
    config = json.loads((card_folder(name) / "config.json").read_text())
    lattice = Lattice.parse(config["golden_lattice"])
    with torch.no_grad():
        found = network(random_inputs(network.task, lattice, 1, torch.float32), lattice)
    assert all(values.isfinite().all() for values in found.values()), name
    assert main(["models", "--page", name]) == 0
"""


@pytest.mark.slow
def test_all_pretrained_networks_run_from_the_wheel_in_an_empty_folder(unpacked, tmp_path):
    from latticezoo.zoo import list_pretrained

    site = next(p for p in sys.path if p.endswith("site-packages"))
    done = subprocess.run(
        [sys.executable, "-S", "-c", LOADS_ALL, str(unpacked), site],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(list_pretrained())} pretrained networks checked" in done.stdout
    for name in list_pretrained():
        assert f"\n# {name}" in done.stdout
    assert list(tmp_path.iterdir()) == []
