"""Freed memory is used again, so that the system fills it with zeros once and not at every use."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "keep":
    from allocator import keep_freed_memory
    keep_freed_memory()
for _ in range(20):
    np.ones(2**23)  # 64 MiB, above the 32 that glibc would keep by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_freed_memory_is_used_again(pytestconfig):
    def faults(mode):
        words = [sys.executable, "-c", PROGRAM, str(pytestconfig.rootpath / "windlm"), mode]
        environment = {"PATH": ""}  # none that sets the allocator
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        return int(done.stdout)

    assert faults("keep") < 0.5 * faults("default")
