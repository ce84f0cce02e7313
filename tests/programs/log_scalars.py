"""Writes one scalar as training does, and prints which of the heavy packages that imported:
`python -m tests.programs.log_scalars FOLDER`."""

import sys
from pathlib import Path

from bua_jax.training.writers import MetricWriter

if __name__ == "__main__":
    with MetricWriter(Path(sys.argv[1])) as writer:
        writer.write_scalars(1, {"loss": 2.0})
    print([name for name in ("torch", "tensorflow") if name in sys.modules])
