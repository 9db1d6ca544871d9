"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


class UnwritableError(OSError):
    """A file that cannot be written: the disk is full, or the folder does not allow it."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what goes wrong in writing to a path as UnwritableError, whose message says what to do."""
    try:
        yield
    except UnwritableError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnwritableError(
            f"Cannot write {path}: {reason}. Make room or choose another folder; the run resumes."
        ) from error


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name and rename it once it is complete.

    Raises
    ------
    UnwritableError
        If it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            os.replace(temporary, path)
    except UnwritableError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def check_writable(folder: Path) -> None:
    """Raise UnwritableError if nothing can be written to a folder, which is made."""
    probe = folder / ".writable"
    write_atomically(probe, lambda temporary: temporary.write_text(""))
    probe.unlink(missing_ok=True)
