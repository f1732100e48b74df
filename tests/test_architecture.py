"""The folders are floors: each imports only from the floors below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "symmetry": {"symmetry"},
    "simulate": {"simulate", "symmetry"},
    "zoo": {"zoo", "symmetry"},
    "datasets": {"datasets", "simulate", "zoo", "symmetry"},
    "training": {"training", "datasets", "simulate", "zoo", "symmetry"},
}


def imported_floors(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write absolute imports, from latticezoo…"
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("latticezoo.")}
        bare = {name.split(".")[0] for name in names} & set(ALLOWED)
        assert not bare, f"{path} imports {bare} without the latticezoo prefix"
    return found


@pytest.mark.parametrize("floor", ALLOWED)
def test_a_floor_imports_only_from_below(floor):
    files = sorted((ROOT / floor).rglob("*.py"))
    assert files
    for path in files:
        assert imported_floors(path) <= ALLOWED[floor] | {"model_cards"}, path


def test_every_package_folder_is_listed_in_the_project_file():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        str(path.parent.relative_to(ROOT))
        for floor in [*ALLOWED, "model_cards"]
        for path in (ROOT / floor).rglob("__init__.py")
    }
    assert set(project["package-dir"].values()) == folders
    assert set(project["packages"]) == set(project["package-dir"])


def test_public_names_of_the_packages_exist():
    import importlib

    for name in ("symmetry", "simulate", "datasets", "zoo"):
        package = importlib.import_module(f"latticezoo.{name}")
        assert package.__all__
        for public in package.__all__:
            assert getattr(package, public) is not None


def printed(code):
    """What a new process prints."""
    import subprocess
    import sys

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def test_importing_a_package_loads_no_heavy_library():
    code = (
        "import sys; import latticezoo.symmetry, latticezoo.simulate, latticezoo.zoo, "
        "latticezoo.datasets, latticezoo.training.cli\n"
        "print([m for m in ('torch', 'e3nn', 'pytorch_lightning', 'matplotlib', 'h5py') "
        "if m in sys.modules])"
    )
    assert printed(code) == "[]"


def test_networks_are_imported_without_scipy_signal_which_works_afterwards():
    code = (
        "import sys, latticezoo.zoo.base\n"
        "assert 'scipy.signal' not in sys.modules\n"
        "import scipy.signal\n"
        "print(scipy.signal.convolve([1, 2], [1, 1]).tolist())"
    )
    assert printed(code) == "[1, 3, 2]"
