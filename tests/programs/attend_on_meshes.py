"""A kernel's attention on meshes of eight devices against one, as JSON lines.

python -m tests.programs.attend_on_meshes splash|cpu
"""

import json
import sys

import jax

from bua_jax.parallel import sharding
from tests.support import tiny
from tests.support.attention import ATTENTIONS, value_and_gradients


def main() -> None:
    attention, inputs = ATTENTIONS[sys.argv[1]]
    arrays = inputs(4)
    alone = jax.device_get(value_and_gradients(attention, *arrays))
    for text in ("2x2x2", "1x2x4"):
        mesh = sharding.make_mesh(text)
        with jax.set_mesh(mesh):
            batch = sharding.shard_batch(dict(zip("qkvs", arrays, strict=True)), mesh)
            found = value_and_gradients(attention, *batch.values())
        error = {name: tiny.relative(found[name], alone[name]) for name in alone}
        shard = found["y"].addressable_shards[0].data.shape
        print(json.dumps({"error": error, "shard": shard}))


if __name__ == "__main__":
    main()
