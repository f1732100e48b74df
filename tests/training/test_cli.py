"""The command line itself: help, unknown names, statuses."""

import subprocess
import sys

import pytest

from latticezoo.symmetry.errors import InputError
from latticezoo.training.cli import main


def test_help_does_not_import_torch():
    code = (
        "import sys; from latticezoo.training.cli import main; main(['--help']);"
        "heavy = {'torch', 'numpy', 'pytorch_lightning', 'matplotlib', 'h5py'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "compare" in found.stdout


@pytest.mark.parametrize(
    "name", ["compare", "data", "simulate", "models", "card", "publish", "leaderboard"]
)
def test_every_command_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"latticezoo {name}" in capsys.readouterr().out


def test_fit_explains_itself_with_lightnings_options(capsys):
    assert main(["fit", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--trainer.max_epochs" in out
    assert "--budget" in out


def test_an_unknown_command_names_the_nearest(refused):
    assert refused("fti") == "unknown command 'fti'; did you mean fit?"


def test_an_unknown_option_names_the_nearest(refused):
    sentence = refused("compare", "--data", "holstein", "--models", "gcn", "--budgt", "3")
    assert "--budget" in sentence


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("no."), 2, "no."),
        (FileNotFoundError(2, "No such file or directory", "x.h5"), 1, "x.h5"),
        (OSError(28, "No space left on device", "x.h5"), 1, "disk is full while writing x.h5"),
        (RuntimeError("PytorchStreamWriter failed writing file data/1"), 1, "disk is full"),
        (
            OSError("Can't write data (errno = 28, error message = 'No space left')"),
            1,
            "disk is full",
        ),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_on_the_users_side_become_one_sentence(monkeypatch, capsys, error, status, text):
    def fail(arguments):
        raise error

    monkeypatch.setattr("latticezoo.training.cli._dispatch", fail)
    assert main(["fit"]) == status
    err = capsys.readouterr().err
    assert text in err
    assert len(err.strip().splitlines()) == 1


def test_the_debug_switch_shows_where_it_happened(monkeypatch):
    monkeypatch.setenv("LATTICEZOO_DEBUG", "1")
    with pytest.raises(InputError):
        main(["fti"])


def test_a_fault_of_the_library_is_not_hidden(monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("latticezoo.training.cli._dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        main(["fit"])
