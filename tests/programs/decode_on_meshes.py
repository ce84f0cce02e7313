"""What the engine writes on one device and on a mesh of eight, as one JSON line.

python -m tests.programs.decode_on_meshes
"""

import dataclasses
import json
from typing import Any

import jax
import numpy as np

from bua_jax.decoding import engine, programs, rounds
from bua_jax.parallel import sharding
from tests.decoding.fakes import ROUNDS, decoder, history_of


def written(text: str) -> dict[str, Any]:
    """Texts, scores and days on the mesh `text`, and how its arrays lie."""
    seen = [history_of(10 + i * 7 % 31, i) for i in range(11)]
    mesh = sharding.make_mesh(text)
    one = decoder(8, 6)
    variables = jax.device_put(one.variables, sharding.shardings(one.variables, mesh))
    one = dataclasses.replace(one, variables=variables, mesh=mesh)
    scores, said = rounds.predict(one, seen, ROUNDS, ["Next?"] * 11)
    compiled = programs.decode._cache_size()
    rounds.predict(one, seen, ROUNDS, ["Next?"] * 11)
    compiled_again = programs.decode._cache_size() - compiled
    days, _, _ = rounds.generate(one, seen, [], ["Day?"] * 11, [0] * 11, max_events=2)
    with jax.set_mesh(mesh):
        empty = engine._empty(engine.Engine(one.model, one.weights, 257, 8, 64, 6))
    cache = empty.rows.caches[0].k
    kernel = jax.tree.leaves(one.weights["layers"][0]["params"]["mlp"]["up_proj"]["kernel"])[0]
    return {
        "texts": [t.texts for t in said],
        "scores": np.asarray(scores).tolist(),
        "days": [day.text for day in days],
        "devices": len(cache.sharding.device_set),
        "shard": cache.addressable_shards[0].data.shape,
        "kernel": kernel.addressable_shards[0].data.shape,
        "recompiled": compiled_again,
    }


if __name__ == "__main__":
    print(json.dumps({text: written(text) for text in ("1", "2x2x2")}))
