"""Build the reference of all public names, as HTML pages, by pdoc.

    make docs                                   # into build/reference
    python -m latticezoo.training.reference --out FOLDER

Names of a package load on first use, which a tool that only looks at a module does not see, and the
packages lie in a namespace; so all modules are named here, and their lazy names resolved.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from latticezoo.symmetry.errors import InputError
from latticezoo.training.cli import guarded

#: The floors, from the lowest.
PACKAGES = ("symmetry", "simulate", "zoo", "datasets", "training")


def public_modules() -> Iterator[str]:
    """Names of all modules of the library but the data folders, packages before their modules."""
    for floor in PACKAGES:
        package = importlib.import_module(f"latticezoo.{floor}")
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.rpartition(".")[2].startswith("_"):
                yield found.name


def build(out: Path) -> Path:
    """Write the pages.

    Args:
        out: Folder, which is made anew.

    Returns:
        The first page.

    Raises:
        InputError: pdoc is not installed, or the folder holds something else.
    """
    try:
        import pdoc
    except ImportError:
        raise InputError("the reference is built by pdoc; install it with pip install pdoc.") from (
            None
        )
    first = out / "index.html"
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not first.exists())):
        raise InputError(f"{out} exists and is no reference; give another folder with --out.")
    names = list(public_modules())
    for name in names:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            module.__dict__.setdefault(public, getattr(module, public))
    pdoc.render.configure(docformat="google", math=True, show_source=False)
    shutil.rmtree(out, ignore_errors=True)
    # Types that are imported for the type checker alone stay names; and a package brings its
    # modules along unless it says what is public, so that some are named twice.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Error parsing type annotation")
        warnings.filterwarnings("ignore", message=".*already been added")
        pdoc.pdoc(*names, output_directory=out)
    for page in out.rglob("*.html"):
        # Sphinx's way to show the last part of a name alone, which pdoc does not know.
        page.write_text(page.read_text().replace("<code>~", "<code>"))
    return first


def run(arguments: list[str]) -> int:
    """Build by the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("build/reference"), help="folder")
    first = build(parser.parse_args(arguments).out)
    print(f"wrote:\n  {first}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(run, sys.argv[1:]))
