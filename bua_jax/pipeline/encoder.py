"""Step `encoder`: the behaviour encoder, pretrained on the training users."""

from typing import Any

from bua_jax.alignment.encoder import FILE
from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice
from bua_jax.basics.files import write_json
from bua_jax.events.schema import Catalogue
from bua_jax.interop.huggingface import save_tree, tree_hash
from bua_jax.models.encoders import EncoderConfig
from bua_jax.parallel import processes, sharding
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run
from bua_jax.training.events import EncoderSettings, train_encoder


def encoder_config(run_config: Settings, catalogue: Catalogue) -> EncoderConfig:
    """Sizes of the encoder that the config asks for."""
    config, windows = run_config.encoder, run_config.windows
    return EncoderConfig(
        kind=config.kind,
        num_behaviours=len(catalogue.behaviours),
        slots_per_day=catalogue.slots_per_day,
        dim=config.dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
        max_events=max(windows.prediction_history, windows.generation_history),
    )


def encoder_settings(run_config: Settings) -> EncoderSettings:
    """How the config wants encoders trained (the baselines' too)."""
    config = run_config.encoder
    return EncoderSettings(
        history_length=run_config.windows.prediction_history,
        min_history=run_config.windows.min_history,
        epochs=config.epochs,
        batch=config.batch,
        peak_lr=config.peak_lr,
        weight_decay=config.weight_decay,
        dro_lambda=config.dro_lambda,
        seed=run_config.seed,
    )


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
    metadata = {
        "config": config.to_json(),
        "catalogue": store.catalogue.to_json(),
        "data": store.fingerprint,
        "hash": digest,
    }
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
