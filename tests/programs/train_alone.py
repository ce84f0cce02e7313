"""A small training run that a test kills and resumes.

python -m tests.programs.train_alone FOLDER CACHE PAUSE
"""

import sys
import time
from pathlib import Path

import jax

from bua_jax.basics.console import run_verb
from bua_jax.parallel import sharding
from bua_jax.training import loop
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import OptimizerSettings
from tests.support import tiny


def main() -> None:
    folder, cache, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    put = sharding.shard_batch

    def slowly(*args):
        time.sleep(pause)  # so that a signal finds the run in its middle
        return put(*args)

    model, variables = tiny.model()
    records, mesh = tiny.records(60), sharding.make_mesh("1")
    settings = TrainSettings(
        total_steps=8,
        evaluate_every=4,
        checkpoint_every=2,
        log_every=3,
        balancer="appendix_k",
        optimizer=OptimizerSettings(peak_lr=1e-2),
    )
    sharding.shard_batch = slowly
    with jax.set_mesh(mesh):
        loop.fit(
            Dialogues(model, tiny.plan(records), settings, records, tiny.records(8, 1)),
            variables,
            ("projector", "adapter"),
            settings,
            folder,
            mesh,
            {"stage": "stage2"},
        )


if __name__ == "__main__":
    run_verb(main)
