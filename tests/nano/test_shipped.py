"""The shipped nano: small and safe files, and a tokenizer that keeps what events are made of whole."""

from pathlib import Path

import numpy as np
import pytest

from bua_jax.alignment.base_files import NANO
from bua_jax.events.simulate import BEHAVIOURS, RESERVED_SEEDS
from bua_jax.interop.tokenizer import HFTokenizer, load_tokenizer
from bua_jax.models.presets import PRESETS
from tests.support.runs import verb


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
    assert (NANO / "model.safetensors").stat().st_size <= 8_000_000


def test_the_reserved_population_is_refused(tmp_path: Path) -> None:
    done = verb("pretrain", f"--workdir={tmp_path}", f"--config.data.seed={RESERVED_SEEDS[0]}")
    assert done.returncode == 2
    assert "reserved" in done.stderr
    assert "--config.data.seed=1" in done.stderr
    assert "Traceback" not in done.stderr
