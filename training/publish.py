"""Publish a model card: to a folder, to a URL of fsspec, or to the Hugging Face hub.

  latticezoo publish cards/gcn.mine /shared/zoo/gcn.mine
  latticezoo publish cards/gcn.mine s3://bucket/zoo/gcn.mine        # any fsspec back end
  latticezoo publish cards/gcn.mine hf-hub:user/gcn.mine            # token from HF_TOKEN
  latticezoo publish cards/gcn.mine hf-hub:user/gcn.mine --dry-run  # what would be sent

DESTINATION is the place of the card itself. A card that does not pass its check (hashes, golden
outputs, all measurements, a page without gaps) is refused before anything is sent; what was checked
is what is sent. Whoever loads it makes the same checks: load_pretrained("hf-hub:user/gcn.mine"),
latticezoo models --check hf-hub:user/gcn.mine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from latticezoo.symmetry.errors import InputError
from latticezoo.training.card_check import check_card
from latticezoo.zoo.sources import CONFIG, HUB, card_folder, open_card


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("card", metavar="CARD", help="folder of a card, or the name of a pretrained network")
    add("destination", metavar="DESTINATION", help="folder, fsspec URL, or hf-hub:user/name")
    add("--dry-run", action="store_true", help="check the card and list what would be sent")
    add("--force", action="store_true", help="replace a card that is there (folders and URLs)")
    add("--private", action="store_true", help="a new repository on the hub is private")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    destination = arguments.destination
    if destination.startswith(HUB):
        open_card(destination)  # raises where no repository can have that name
        if "@" in destination:
            raise InputError(f"{destination}: a card is sent to the main branch; leave @… out.")
    given = Path(arguments.card).expanduser()
    files = check_card(given if (given / CONFIG).exists() else card_folder(arguments.card))
    for name, data in files.items():
        print(f"{len(data):>10,} bytes  sha256 {hashlib.sha256(data).hexdigest()}  {name}")
    size = sum(map(len, files.values()))
    if arguments.dry_run:
        print(f"would send {len(files)} files, {size:,} bytes, to {destination}")
        return 0
    print(f"wrote {publish(files, destination, arguments.force, arguments.private)}")
    return 0


def publish(
    files: Mapping[str, bytes], destination: str, force: bool = False, private: bool = False
) -> str:
    """Send the files of a card, as :func:`~latticezoo.training.card_check.check_card` gives them.

    Args:
        files: Contents by name.
        destination: A folder, a URL that fsspec knows, or ``hf-hub:user/name``.
        force: Replace a card that is there; on the hub a new commit does.
        private: Make a repository that is not there yet a private one.

    Returns:
        Where it is now.

    Raises:
        InputError: Something is there already, the destination cannot be written to, or the hub
            does not let one in.
    """
    if destination.startswith(HUB):
        return _to_hub(files, destination.removeprefix(HUB), private)
    if "://" in destination:
        return _to_url(files, destination, force)
    return _to_folder(files, Path(destination).expanduser(), force)


def _to_folder(files: Mapping[str, bytes], folder: Path, force: bool) -> str:
    """Write beside, then rename: the folder holds the whole card or none."""
    from latticezoo.training.cards import put_in_place

    if folder.exists() and not (force and (folder / CONFIG).exists()):
        hint = "--force replaces it" if (folder / CONFIG).exists() else "it is no card"
        raise InputError(f"{folder} exists; {hint}, or choose another destination.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    with put_in_place(made, folder):
        for name, data in files.items():
            (made / name).write_bytes(data)
    return str(folder)


def _to_url(files: Mapping[str, bytes], url: str, force: bool) -> str:
    """Write by fsspec, config.json last, and read everything back."""
    import fsspec

    try:
        system, folder = fsspec.core.url_to_fs(url)
        folder = folder.rstrip("/")
        if system.exists(f"{folder}/{CONFIG}") and not force:
            raise InputError(f"{url} holds a card already; --force replaces it.")
        system.makedirs(folder, exist_ok=True)
        if system.exists(f"{folder}/{CONFIG}"):  # what is half replaced is no card
            system.rm_file(f"{folder}/{CONFIG}")
        for name, data in files.items():
            system.pipe_file(f"{folder}/{name}", data)
            if system.cat_file(f"{folder}/{name}") != data:
                raise InputError(f"{url}/{name} is not what was written there.")
    except ImportError as error:
        raise InputError(f"{url} needs another package: {error}.") from error
    except InputError:
        raise
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"{url} cannot be written to: {error}.") from error
    return url


def _to_hub(files: Mapping[str, bytes], repository: str, private: bool) -> str:
    """One commit with all files."""
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    token = os.environ.get("HF_TOKEN")
    if not token:
        raise InputError(
            "HF_TOKEN is not set; it must hold a token of the hub that may write to "
            f"{repository!r}."
        )
    api = HfApi(token=token, library_name="lattice-zoo")
    try:
        api.create_repo(repository, exist_ok=True, private=private or None)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, data) for name, data in files.items()],
            commit_message="Model card of lattice-zoo",
        )
    except (errors.HfHubHTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise InputError(
                f"the hub does not let this token write to {repository!r} (status {status})."
            ) from error
        reason = (str(error).splitlines() or ["it does not answer"])[0].rstrip(".")
        raise InputError(f"nothing was published: the hub said: {reason}.") from error
    return str(commit.commit_url)
