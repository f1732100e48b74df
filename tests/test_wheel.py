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
