"""What the README and the changelog's neighbours show must run as written."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
#: Blocks marked ```python run in order in one namespace; those marked ```console are commands.
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
CONSOLE = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATTICEZOO_CACHE", str(tmp_path / "cache"))
    assert PYTHON
    namespace: dict = {"__name__": "readme"}
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), namespace)


def console_commands() -> list[str]:
    lines = "\n".join(CONSOLE).replace("\\\n", " ").splitlines()
    return [line[2:].split("  #")[0].strip() for line in lines if line.startswith("$ ")]


def test_every_command_shown_exists(capsys):
    """Each `latticezoo …` line names a real command and only options that it knows."""
    from latticezoo.training import cli

    commands = [shlex.split(line)[1:] for line in console_commands() if "latticezoo " in line]
    assert commands
    helps: dict[tuple[str, ...], str] = {}
    for words in commands:
        # A recipe explains its own options.
        head = tuple(words[:3]) if words[:2] == ["data", "make"] else (words[0],)
        if head not in helps:
            assert cli.main([*head, "--help"]) == 0
            helps[head] = capsys.readouterr().out
        for option in (word.split(".")[0] for word in words if word.startswith("--")):
            assert option in helps[head], (words, option)


def test_links_to_files_of_the_repository_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    missing = [name for name in targets if not (ROOT / name).exists()]
    assert not missing
