"""What loading a model takes of memory, as one JSON list: MiB of the weights, MiB above them, hash, shard.

python -m tests.programs.load_weights FOLDER DEVICES
"""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from bua_jax.interop import huggingface
from bua_jax.parallel.sharding import make_mesh, shardings


def mib(key: str) -> float:
    """Of this process, by Linux."""
    found = re.search(key + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    jnp.zeros(3).block_until_ready()
    before, mesh = mib("VmRSS"), make_mesh(sys.argv[2])

    def placement(shapes):
        return shardings({"base": shapes}, mesh)["base"]

    _, params = huggingface.load(sys.argv[1], "float32", placement)
    digest = huggingface.tree_hash(params)
    leaves = jax.tree.leaves(params)
    weights = sum(leaf.nbytes for leaf in leaves) / 2**20
    largest = max(
        leaf.addressable_shards[0].data.nbytes / leaf.nbytes for leaf in leaves if leaf.ndim > 2
    )
    print(json.dumps([weights, mib("VmHWM") - before - weights, digest, largest]))


if __name__ == "__main__":
    main()
