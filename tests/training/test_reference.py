"""The reference: every public name explains itself, and the pages are built."""

import importlib
import inspect
from pathlib import Path

import pytest

from latticezoo.symmetry.errors import InputError
from latticezoo.training.reference import PACKAGES, build, public_modules

ROOT = Path(__file__).parents[2]


def undocumented(module):
    """Public classes, functions and methods of a module that say nothing of themselves.

    Methods that do what those of a base class do inherit their text.
    """
    for name, item in vars(module).items():
        own = getattr(item, "__module__", None) == module.__name__
        if name.startswith("_") or not own or not (inspect.isclass(item) or callable(item)):
            continue
        if not inspect.getdoc(item):
            yield name
        if not inspect.isclass(item):
            continue
        for method, found in vars(item).items():
            described = inspect.isfunction(found) or isinstance(
                found, property | classmethod | staticmethod
            )
            if (
                described
                and not method.startswith("_")
                and not inspect.getdoc(getattr(item, method))
            ):
                yield f"{name}.{method}"


def test_every_public_name_has_a_docstring():
    missing = []
    for name in public_modules():
        if name == "latticezoo.zoo.testing":  # a suite of tests, whose names are sentences
            continue
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            assert "escnn" in str(error)  # noqa: PT017 - the extra that may be absent
            continue
        missing += [] if module.__doc__ else [name]
        missing += [f"{name}.{public}" for public in undocumented(module)]
    assert not missing


def test_all_modules_are_in_the_reference():
    files = {
        ".".join(("latticezoo", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for floor in PACKAGES
        for path in (ROOT / floor).rglob("*.py")
    }
    assert set(public_modules()) == {name for name in files if "._" not in name}


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    pytest.importorskip("pdoc")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no reference"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_the_pages_are_built(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc is not installed")
    first = build(tmp_path / "reference")
    pages = {str(path.relative_to(first.parent)) for path in first.parent.rglob("*.html")}
    for name in public_modules():
        assert f"{name.replace('.', '/')}.html" in pages
    text = (first.parent / "latticezoo" / "simulate.html").read_text()
    for public in importlib.import_module("latticezoo.simulate").__all__:
        assert f'id="{public}"' in text
    assert build(first.parent) == first  # made anew over itself
