"""Step `encoder`: the behaviour encoder, pretrained on the training users."""

from typing import Any

from bua_jax.alignment.encoder import (
    FILE,
    encoder_config,
    encoder_metadata,
    encoder_settings,
)
from bua_jax.basics.console import notice
from bua_jax.basics.files import write_json
from bua_jax.interop.huggingface import save_tree, tree_hash
from bua_jax.parallel import processes, sharding
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run
from bua_jax.training.events import train_encoder


def build_encoder(run: Run) -> dict[str, Any]:
    """Writes encoder/encoder.safetensors and history.json."""
    store = load_store(run)
    config = encoder_config(run.config, store.catalogue)
    how = run.config.execution
    params, records = train_encoder(
        config,
        store,
        encoder_settings(run.config),
        run.folder("encoder"),
        sharding.make_mesh(how.mesh),
        how.profile,
    )
    digest = tree_hash(params)
    metadata = encoder_metadata(config, store.catalogue, store.fingerprint, digest)
    if processes.is_first():
        save_tree(run.folder("encoder") / FILE, params, metadata)
        write_json(run.folder("encoder") / "history.json", records)
        if records:  # they are read back from metrics.jsonl, which may be damaged
            best = min(records, key=lambda record: record["validation_log_loss"])
            notice(
                f"encoder: validation log-loss {best['validation_log_loss']:.3f}, "
                f"accuracy {best['validation_accuracy']:.1%} (epoch {int(best['epoch'])})"
            )
    return {"encoder": digest}
