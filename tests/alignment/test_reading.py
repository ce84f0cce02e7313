"""Labels that a base has hardly seen."""

import json
from pathlib import Path

from bua_jax import nano
from bua_jax.alignment.bases import load_base
from bua_jax.alignment.reading import label_losses, unread_labels
from bua_jax.basics import config as configs
from bua_jax.events.simulate import BEHAVIOURS


def test_what_a_base_has_hardly_seen_is_listed() -> None:
    """Other words for the labels that it knows: the same events, and all of them strange."""
    base = load_base(configs.load("configs/base.py").model)
    path = Path(nano.__file__).parent / "namings" / "german.json"
    german = list(json.loads(path.read_text(encoding="utf-8")).values())
    said = unread_labels(base, german)
    assert f"{len(german)} of {len(german)} labels are less likely" in said
    assert repr(german[0]) in said
    assert "--config.data.words" in said
    assert unread_labels(base, BEHAVIOURS) == ""
    assert "1 of 38 labels" in unread_labels(base, [*BEHAVIOURS, german[0]])


def test_a_label_is_as_likely_alone_as_among_others() -> None:
    base = load_base(configs.load("configs/base.py").model)
    together = label_losses(base, BEHAVIOURS[:3], "assistant\n")
    alone = label_losses(base, BEHAVIOURS[1:2], "assistant\n")
    assert abs(together[1] - alone[0]) < 1e-4  # rows of another length are padded otherwise
