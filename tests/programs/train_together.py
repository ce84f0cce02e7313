"""One of the processes that train together, which a test kills and resumes.

python -m tests.programs.train_together FOLDER CACHE MESH PAUSE COUNT INDEX PORT
"""

import sys
import time
from pathlib import Path

from bua_jax.basics.console import run_verb
from bua_jax.parallel import processes, sharding
from bua_jax.training import loop
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import OptimizerSettings


def main() -> None:
    folder, cache, mesh_text, pause, count, index, port = sys.argv[1:]
    import jax

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if count != "1":
        processes.start(f"127.0.0.1:{port}", int(count), int(index))
    from tests.support import tiny  # makes arrays, which takes devices

    put = sharding.shard_batch

    def slowly(*args):
        time.sleep(float(pause))  # so that a signal finds the run in its middle
        return put(*args)

    model, variables = tiny.model()
    records, mesh = tiny.records(60), sharding.make_mesh(mesh_text)
    settings = TrainSettings(
        total_steps=8,
        microbatches=2,
        evaluate_every=4,
        checkpoint_every=2,
        log_every=3,
        balancer="appendix_k",
        optimizer=OptimizerSettings(peak_lr=1e-2),
    )
    sharding.shard_batch = slowly
    with jax.set_mesh(mesh):
        trained, _ = loop.fit(
            Dialogues(
                model, tiny.plan(records, rows_multiple=2), settings, records, tiny.records(8, 1)
            ),
            variables,
            ("projector", "adapter"),
            settings,
            Path(folder),
            mesh,
            {"stage": "stage2"},
        )
    q = trained["adapter"]["layers"]["self_attn"]["q_proj"]["b"]
    print(q.addressable_shards[0].data.shape, sharding.to_host(q).shape, flush=True)


if __name__ == "__main__":
    with processes.ending_together():
        run_verb(main)
