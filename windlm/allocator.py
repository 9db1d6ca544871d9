"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Numbers of glibc's parameters, see mallopt(3)."""


def keep_freed_memory() -> None:
    """Have the C library reuse freed memory, rather than return it to the system at once.

    By default glibc asks the system for each tensor of more than 32 MiB and gives it back after use, so that the system
    fills the same memory with zeros again and again: up to half the time of a training step on a CPU. In return the
    process keeps the memory of its peak, and a little more. Does nothing where the C library is another one.
    """
    if platform.libc_ver()[0] == "glibc":
        set_parameter = ctypes.CDLL(None).mallopt
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 2**28)):
            set_parameter(parameter, value)
