"""Claims a path, says so, and keeps it until its input ends: `python -m tests.programs.hold_claim PATH`."""

import sys
from pathlib import Path

from bua_jax.basics.claims import claimed

if __name__ == "__main__":
    with claimed(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.read()
