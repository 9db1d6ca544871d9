"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


class UnwritableError(OSError):
    """A file that cannot be written: the disk is full, or the folder does not allow it."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name and rename it once it is complete.

    Raises
    ------
    UnwritableError
        If it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)


@contextmanager
def writing(path: Path, temporary: Path | None = None, then: str = "; the run resumes") -> Iterator[None]:
    """Raise UnwritableError if what is written meanwhile cannot be written; a temporary file or folder is deleted.

    `then` says what comes after that is mended.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            if temporary is not None and temporary.is_dir():
                shutil.rmtree(temporary)
            elif temporary is not None:
                temporary.unlink(missing_ok=True)
        if isinstance(error, UnwritableError):
            raise
        raise UnwritableError(
            f"Cannot write {path}: {getattr(error, 'strerror', None) or error}. Make room or choose another "
            f"folder{then}."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_atomically` does."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def check_writable(folder: Path, make: bool = True) -> None:
    """Raise UnwritableError if nothing can be written to a folder, which is made if `make`, or could not be made."""
    if not make:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        with writing(folder, then=""), tempfile.TemporaryFile(dir=there):
            return
    with writing(folder, then=""):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
