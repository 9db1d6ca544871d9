"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class UnwritableError(OSError):
    """A file that cannot be written: the disk is full, or the folder does not allow it."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name and rename it once it is complete.

    Raises
    ------
    UnwritableError
        If it cannot be written; nothing is left behind, and the message says what to do.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UnwritableError(
            f"Cannot write {path}: {error.strerror or error}. Make room or choose another folder; the run resumes."
        ) from error


def check_writable(folder: Path) -> None:
    """Raise UnwritableError if nothing can be written to a folder, which is made."""
    probe = folder / ".writable"
    write_atomically(probe, lambda temporary: temporary.write_text(""))
    probe.unlink(missing_ok=True)
