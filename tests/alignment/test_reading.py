"""Labels that a base has hardly seen."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax import nano
from bua_jax.alignment import bases
from bua_jax.alignment.bases import Base, load_base
from bua_jax.alignment.reading import label_losses, read_base, unread_labels
from bua_jax.basics import config as configs
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.events.simulate import BEHAVIOURS, simulated_store
from bua_jax.parallel.sharding import make_mesh
from bua_jax.planning import check


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(configs.load("configs/base.py").model)


def naming(name: str) -> list[str]:
    path = Path(nano.__file__).parent / "namings" / f"{name}.json"
    return list(json.loads(path.read_text(encoding="utf-8")).values())


def without(base: Base, labels: Sequence[str]) -> Base:
    """A base whose layers add nothing; the tokens of the labels, never met, lie opposite to all others."""
    params = jax.tree.map(lambda x: x, base.params)
    layers = params["layers"]
    for part in (layers["self_attn"]["o_proj"], layers["mlp"]["down_proj"]):
        part["kernel"] = jnp.zeros_like(part["kernel"])
    shape = params["embed_tokens"]["embedding"].shape
    table = np.random.default_rng(0).normal(0, 0.05, shape).astype(np.float32)
    unmet = {i for label in labels for i in label_tokens(base.tokenizer, label)}
    table[:, 0] = 5.0
    table[sorted(unmet), 0] = -5.0
    return base._replace(params={**params, "embed_tokens": {"embedding": jnp.asarray(table)}})


def test_what_a_base_has_hardly_seen_is_listed(base: Base) -> None:
    strange = naming("german")[:5]
    said = unread_labels(without(base, strange), strange)
    assert "5 of 5 labels are less likely" in said
    assert repr(strange[0]) in said
    assert "--config.data.words" in said
    assert "5 of 8 labels" in unread_labels(without(base, strange), [*strange, *BEHAVIOURS[:3]])


@pytest.mark.parametrize("name", ["", "chinese", "codes", "german", "rare", "russian"])
def test_nano_copies_the_labels_of_every_naming(base: Base, name: str) -> None:
    labels = naming(name) if name else BEHAVIOURS
    assert unread_labels(base, labels) == ""
    assert label_losses(base, labels).max() < math.log(base.config.vocab_size) - 1


def test_a_label_is_as_likely_alone_as_among_others(base: Base) -> None:
    together = label_losses(base, BEHAVIOURS[:3])
    alone = label_losses(base, BEHAVIOURS[1:2])
    assert abs(together[1] - alone[0]) < 1e-4  # rows of another length are padded otherwise


def test_what_looks_at_a_base_leaves_it_loaded_for_the_run() -> None:
    """`fit` looks at labels before its run does, and that before its stages; elsewhere one device does."""
    config = configs.load("configs/quickstart.py")
    bases._load.cache_clear()
    check._model_says(config, simulated_store(6, 8, 0))
    found, _ = read_base(config, ["pay"])
    assert load_base(config.model, make_mesh(config.execution.mesh)) is found
    assert bases._load.cache_info().misses == 1
    config.execution.mesh = "4000"
    assert read_base(config, ["pay"])[0].digest == found.digest
