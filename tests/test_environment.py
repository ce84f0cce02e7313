"""Memory that training keeps."""

import os
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import numpy as np
from bua_jax.environment import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does")
@pytest.mark.parametrize("tunables", ["", "glibc.malloc.mmap_max=65536"])
def test_freed_memory_is_kept_unless_the_user_says_otherwise(tunables: str) -> None:
    """64 MiB are 16,384 pages; huge pages, where the kernel gives them unasked, are fewer."""
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS],
        env={**os.environ, "GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=True,
    )
    as_it_is, kept = map(int, done.stdout.split())
    assert as_it_is >= 32
    assert kept >= 32 if tunables else kept < 32
