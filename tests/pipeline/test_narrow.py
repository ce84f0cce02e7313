"""A trained run whose weights are read in a narrower type than it was trained in."""

from pathlib import Path

import numpy as np
import pytest

from bua_jax.basics.errors import ConfigError
from bua_jax.events.histories import example_lines, read_histories
from bua_jax.events.schema import EventStore
from bua_jax.pipeline import finished
from bua_jax.pipeline.finished import load


def test_narrow_weights_predict_nearly_the_same(quickstart: Path, tmp_path: Path) -> None:
    """Total variation to the run's own probabilities: below 0.1, and not 0; another identity of answers."""
    store = EventStore.load(quickstart / "data" / "events.parquet")
    source = tmp_path / "histories.jsonl"
    source.write_text("".join(example_lines(store, 2)))
    own, narrow = load(quickstart), load(quickstart, weights="int8")
    _, histories = read_histories(source, own.catalogue, own.windows.prediction_history)
    given = [{"key_behaviours": "a", "patterns": "b", "summary": "c"}] * len(histories)
    exact, near = (np.exp(one.probabilities(histories, given=given)[0]) for one in (own, narrow))
    apart = np.abs(exact - near).sum(axis=1) / 2
    assert (apart < 0.1).all()
    assert (apart > 0).any()
    assert own.identity(source, "") != narrow.identity(source, "")


def test_what_cannot_be_narrowed_is_refused(quickstart: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"--weights='fp8'.*bfloat16"):
        load(quickstart, weights="fp8")
    recorded = finished.recorded_config

    def in_half(*args):
        config = recorded(*args)
        config.model.dtype = "bfloat16"
        return config

    monkeypatch.setattr(finished, "recorded_config", in_half)
    with pytest.raises(
        ConfigError, match="weight_dtype='int8' rounds the weights of a float32 base"
    ):
        load(quickstart, weights="int8")
