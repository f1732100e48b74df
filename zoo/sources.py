"""Where cards come from: the installed package, a folder, or a repository on the Hugging Face hub.

====================== =============================================================================
name                   source
====================== =============================================================================
``gcn.holstein_weak``  the cards that are installed with the library
``local-dir:PATH``     a folder, also as a path
``hf-hub:user/name``   a repository on the hub, ``@revision`` behind it for a branch, tag or commit
====================== =============================================================================

All are read in the same way: whole files by the names that a card has, regular ones, no links, so
that nothing outside of the card is ever opened. What is in them is judged by
:mod:`latticezoo.zoo.pretrained`.
"""

from __future__ import annotations

import errno
import fnmatch
import importlib.resources
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from latticezoo.symmetry.errors import InputError, unknown

CONFIG, WEIGHTS, GOLDEN = "config.json", "model.safetensors", "golden.safetensors"
LOCAL, HUB = "local-dir:", "hf-hub:"

#: Largest config.json and the largest of the other files, in bytes.
_LIMITS = {CONFIG: 2**20}
_LIMIT = 2**32

_NAME = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")


@dataclass(frozen=True)
class Card:
    """A folder with a card.

    Attributes:
        folder: The folder.
    """

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def read(self, file: str) -> bytes:
        """Read one of its files whole.

        Args:
            file: ``config.json``, ``model.safetensors`` or ``golden.safetensors``.

        Raises:
            InputError: It is missing, a link, no regular file, or too large.
        """
        return _read(self.folder / file, f"{self}/{file}", _LIMITS.get(file, _LIMIT))


@dataclass(frozen=True)
class HubCard(Card):
    """A card in a repository on the Hugging Face hub; its files are fetched one by one when read.

    Attributes:
        folder: Not used: files lie where huggingface_hub keeps them.
        repository: ``user/name``.
        revision: Branch, tag or commit; None for the main branch.
    """

    repository: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        return f"{HUB}{self.repository}{'@' + self.revision if self.revision else ''}"

    def read(self, file: str) -> bytes:
        """Fetch one of its files, or take it from the cache of huggingface_hub, and read it whole.

        Raises:
            InputError: The repository, the revision or the file does not exist, the hub cannot be
                reached, or the file is too large.
        """
        from huggingface_hub import errors, hf_hub_download

        try:
            found = Path(
                hf_hub_download(
                    self.repository, file, revision=self.revision, library_name="lattice-zoo"
                )
            )
        except errors.GatedRepoError as error:
            raise InputError(
                f"{self} is behind a gate; ask its owner, and set HF_TOKEN."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise InputError(
                f"there is no repository {self.repository!r} on the hub, or it is private and "
                "HF_TOKEN does not open it."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise InputError(
                f"the repository {self.repository!r} has no revision {self.revision!r}."
            ) from error
        except errors.LocalEntryNotFoundError as error:
            raise InputError(
                f"the hub cannot be reached, and {file} of {self} is not in the cache."
            ) from error
        except errors.EntryNotFoundError as error:
            raise InputError(f"{self} has no {file}: it holds no card.") from error
        except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as error:
            raise InputError(
                f"{file} of {self} cannot be fetched: {str(error).splitlines()[0]}."
            ) from error
        # The cache holds links to the files of the same repository, and to nothing else.
        home, real = found.parents[2].resolve(), found.resolve()
        if not real.is_relative_to(home):
            raise InputError(f"{file} of {self} leads out of the cache of its repository.")
        return _read(real, f"{self}/{file}", _LIMITS.get(file, _LIMIT))


def list_pretrained(pattern: str = "*") -> list[str]:
    """Names of the networks that come with the library and match a pattern, sorted."""
    folder = importlib.resources.files("latticezoo.model_cards")
    names = [entry.name for entry in folder.iterdir() if entry.joinpath(CONFIG).is_file()]
    return sorted(fnmatch.filter(names, pattern))


def is_source(name: str) -> bool:
    """Whether a name starts with one of the prefixes of a folder or of the hub."""
    return name.startswith((LOCAL, HUB))


def open_card(name: str | Path, revision: str | None = None) -> Card:
    """The card that a name stands for.

    Args:
        name: As in the table of this module.
        revision: Branch, tag or commit on the hub.

    Raises:
        InputError: For an unknown name, with the nearest ones, a folder that holds no card, a name
            that no repository can have, or a revision of something that has none.
    """
    if isinstance(name, str) and name.startswith(HUB):
        repository, _, marked = name.removeprefix(HUB).partition("@")
        if marked and revision and marked != revision:
            raise InputError(
                f"{name} names the revision {marked!r}, but {revision!r} is given too."
            )
        revision = revision or marked or None
        if not _REPOSITORY.fullmatch(repository) or ".." in repository:
            raise InputError(
                f"{name!r} is no repository on the hub; it must read {HUB}user/name, with "
                "@revision behind it where one is wanted."
            )
        if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise InputError(f"{revision!r} is no revision: a branch, tag or commit is needed.")
        return HubCard(Path(), repository, revision)
    if revision is not None:
        raise InputError(
            f"only repositories on the hub have revisions, and {str(name)!r} is none; "
            f"write {HUB}user/name, or leave the revision out."
        )
    return Card(card_folder(name))


def card_folder(name: str | Path) -> Path:
    """The folder that a name stands for.

    Raises:
        InputError: For an unknown name, with the nearest ones, or a folder that is not there.
    """
    if isinstance(name, str):
        if name.startswith(LOCAL):
            return _existing(Path(name.removeprefix(LOCAL)).expanduser())
        if _NAME.fullmatch(name):
            folder = Path(str(importlib.resources.files("latticezoo.model_cards"))) / name
            if (folder / CONFIG).is_file():
                return folder
            raise unknown("pretrained model", name, list_pretrained())
    return _existing(Path(name))


def _existing(folder: Path) -> Path:
    if not (folder / CONFIG).is_file():
        raise InputError(f"{str(folder)!r} is not a folder with pretrained weights: no {CONFIG}.")
    return folder


def _read(path: Path, shown: str, limit: int) -> bytes:
    """The bytes of a regular file; the file that is checked is the one that is read."""
    try:
        # Without O_NONBLOCK a pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(
                f"{shown} is a symbolic link, which could lead anywhere; a card holds its files "
                "themselves."
            ) from error
        raise InputError(f"{shown} cannot be read: {error.strerror}.") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{shown} is not a regular file.")
        if found.st_size > limit:
            raise InputError(f"{shown} takes {found.st_size:,} bytes, more than {limit:,}.")
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)
