"""The shipped nano: small and safe files, and a tokenizer that keeps what events are made of whole."""

import json
from typing import Any

import numpy as np
import pytest

from bua_jax.alignment.base_files import NANO
from bua_jax.alignment.bases import load_base
from bua_jax.basics import config as configs
from bua_jax.events.simulate import BEHAVIOURS
from bua_jax.interop.tokenizer import HFTokenizer, load_tokenizer
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2
from bua_jax.nano.pretraining import examine, table
from bua_jax.nano.settings import Settings
from tests.support.helpers import ROOT


@pytest.fixture(scope="module")
def tokenizer() -> HFTokenizer:
    return load_tokenizer(NANO, PRESETS["nano"].vocab_size)


@pytest.mark.parametrize(
    "text",
    [
        "07:30 L1 alarm; 08:00 other watch video",
        " Professional & Other Places",
        "Ünïcode 東京 🙂 123 <|im_end|>",
        "  two  spaces\n\nlines ",
    ],
)
def test_text_survives(tokenizer: HFTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.im_start, tokenizer.im_end, tokenizer.soft} & set(ids)


def test_times_places_and_weekdays_are_one_token(tokenizer: HFTokenizer) -> None:
    for hour in range(24):
        for minute in (0, 30):
            assert len(tokenizer.encode(f" {hour:02d}:{minute:02d}")) == 1
    for place in (*[f" L{i}" for i in range(1, 11)], " other"):
        assert len(tokenizer.encode(place)) == 1
    labels = [len(tokenizer.encode(f" {label}")) for label in BEHAVIOURS]
    assert np.mean(labels) < 2.2


def test_soft_tokens_are_rows_that_the_tokenizer_does_not_use(tokenizer: HFTokenizer) -> None:
    used = set(tokenizer.tokenizer.get_vocab(with_added_tokens=True).values())
    soft = {tokenizer.soft_start, tokenizer.soft, tokenizer.soft_end}
    assert len(soft) == 3
    assert not soft & used
    assert max(soft) < tokenizer.vocab_size


def test_shipped_weights_are_small_and_safe() -> None:
    files = {path.name for path in NANO.iterdir()}
    assert "model.safetensors" in files
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    assert (NANO / "model.safetensors").stat().st_size <= 16_000_000


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    """What the pretraining measured when it was done."""
    return json.loads((NANO / "training.json").read_text())


def test_the_shipped_weights_read_as_their_card_says(
    tokenizer: HFTokenizer, card: dict[str, Any]
) -> None:
    """The table of docs/nano.md is that of these weights, on this machine: of 30 rows an argmax may flip."""
    model = Qwen2(PRESETS["nano"])
    params = load_base(configs.load("configs/base.py").model).params
    found = examine(model, tokenizer, Settings(), params)
    assert found.keys() == card["held_out"].keys()
    for level, values in found.items():
        recorded = card["held_out"][level]
        assert values.keys() == recorded.keys()
        assert values["loss"] == pytest.approx(recorded["loss"], abs=1e-3)
        for name in set(values) - {"loss"}:
            assert values[name] == pytest.approx(recorded[name], abs=0.15), (level, name)


def test_the_shipped_weights_copy_and_count(card: dict[str, Any]) -> None:
    """Labels drawn anew: in words nearly always, as vectors mostly; chance is a few percent."""
    words, vectors = (card["held_out"][name] for name in ("8 events in words", "8 as vectors"))
    assert words["last"] >= 0.95
    assert words["how_often"] >= 0.3
    assert vectors["last"] >= 0.7


def test_the_page_shows_the_card(card: dict[str, Any]) -> None:
    assert table(card["held_out"]) in (ROOT / "docs" / "nano.md").read_text(encoding="utf-8")
