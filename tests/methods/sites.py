"""Where a method that reads hybrid prompts is fitted in a test: nano, few people, fresh encoders."""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from bua_jax.alignment.base_files import NANO
from bua_jax.alignment.encoder import FILE, encoder_config, encoder_metadata
from bua_jax.basics import config as configs
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import prediction_windows, sample_windows
from bua_jax.interop import huggingface
from bua_jax.interop.huggingface import save_tree, tree_hash
from bua_jax.methods.protocol import Built, Cases, Data, Labelled, Site, cases_of
from bua_jax.methods.table import METHODS
from bua_jax.training.events import EncoderSettings, fresh

LENGTH, FIRST = 8, 4


@functools.cache
def first_block() -> tempfile.TemporaryDirectory[str]:
    """A folder with nano's first block alone, which compiles sooner; it is there as long as this is kept."""
    kept = tempfile.TemporaryDirectory()
    config, params = huggingface.load(NANO, "float32")
    layers = jax.tree.map(lambda x: x[:1], params["layers"])
    config = dataclasses.replace(config, num_layers=1)
    huggingface.save(Path(kept.name), config, {**params, "layers": layers})
    shutil.copy(NANO / "tokenizer.json", kept.name)
    return kept


def config_of(**page: Any) -> ConfigDict:
    """nano's config at a tiny size; page: fields of the pages of all four systems."""
    config = configs.load("configs/curriculum.py")
    config.windows.update(prediction_history=LENGTH, generation_history=LENGTH, min_history=FIRST)
    config.windows.validation = 4
    config.model.path = first_block().name
    config.encoder.update(dim=8, num_layers=1, num_heads=2, epochs=1)
    config.stage2.update(row_length=256, batch_dialogues=4, evaluations=1, checkpoints=2)
    config.execution.update(decode_batch=8, remat="none")
    for name in ("tallrec", "collm", "llara", "a_llmrec"):
        config.methods[name].update(page)
    return config


def labelled(store: EventStore, split: str, count: int) -> Labelled:
    windows = prediction_windows(store, split, history_length=LENGTH, min_history=FIRST)
    windows = sample_windows(windows, count, 0)
    return Labelled(cases_of(store, windows, LENGTH), store.behaviour[windows.end].astype(int))


def data_of(store: EventStore, train: int = 12) -> Data:
    counts = {"fit_train": ("train", train), "fit_validation": ("validation", 6)}
    return Data(store, lambda name: labelled(store, *counts[name]))


def site_of(folder: Path, store: EventStore, config: ConfigDict) -> Site:
    """A folder with an untrained encoder of either kind, and where a method is fitted."""
    inputs = {}
    for kind, name in (("sasrec", "fit/sasrec"), ("behavegpt", "encoder")):
        sizes = dataclasses.replace(encoder_config(config, store.catalogue), kind=kind, dim=8)
        params = fresh(sizes, EncoderSettings(history_length=LENGTH))
        said = encoder_metadata(sizes, store.catalogue, store.fingerprint, tree_hash(params))
        own = folder / name.replace("/", "_")
        own.mkdir(parents=True, exist_ok=True)
        save_tree(own / FILE, jax.device_get(params), said)
        inputs[name] = Built(own, config, {})
    (folder / "own").mkdir(exist_ok=True)
    return Site(config, folder / "own", inputs)


def fitted(site: Site, data: Data, name: str) -> Mapping[str, Any]:
    fit = METHODS[name].fit
    assert fit is not None
    return fit(site, data)


def loaded(site: Site, name: str, facts: Mapping[str, Any]) -> Any:
    own = {f"fit/{name}": Built(site.folder, site.config, facts)}
    return METHODS[name].load(dataclasses.replace(site, inputs={**site.inputs, **own}))


def cases_about(store: EventStore, count: int = 6) -> Cases:
    return labelled(store, "test", count).cases
