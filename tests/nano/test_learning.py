"""At tiny size a model that begins from nothing learns to copy labels off the prompt, and to count them."""

import functools
import math
from collections import Counter
from pathlib import Path

import jax
import pytest

from bua_jax.alignment.base_files import NANO
from bua_jax.interop.tokenizer import load_tokenizer
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2, Qwen2Config
from bua_jax.nano import corpus, drills, pretraining
from bua_jax.nano.settings import Phase, Settings

EASY = Phase(math.inf, (0, 1, 0), 2, 1.0, 0.0, 0.0)
"""Two events in words, whose labels are drawn anew in every dialogue."""
LEARNER = Settings(steps=900, rows=16, length=96, vectors=1, matrix_rate=0.02, rate=1e-2)


@pytest.mark.long
def test_it_learns_to_copy_and_to_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was last, and how often something was, of label sets that it never saw."""
    monkeypatch.setattr(pretraining, "phase_of", lambda step: EASY)
    monkeypatch.setattr(pretraining, "PHASES", (EASY,))
    monkeypatch.setattr(corpus, "COPIES", {drills.last: 1.0, drills.how_often: 2.0})
    rows = PRESETS["nano"].vocab_size
    tokenizer = load_tokenizer(NANO, rows)
    model = Qwen2(Qwen2Config(rows, 48, 96, 2, 4, 4, 12, rope_theta=1e4))
    held = pretraining._held(tokenizer, LEARNER, EASY)
    counts = Counter(
        tuple(batch["tokens"][row, span].tolist())
        for batch, answers in held
        for kind, row, span in answers
        if kind == "how_often"
    )
    guessing = counts.most_common(1)[0][1] / counts.total()

    params = pretraining.pretrain(model, tokenizer, LEARNER, tmp_path, every=LEARNER.steps)
    evaluate = jax.jit(functools.partial(pretraining.losses, model, tokenizer.soft, 0.0))
    found = pretraining.accuracies(evaluate, params, held)
    assert found["last"] >= 0.6  # by chance it is below 0.01: a label is several tokens of 3,072
    assert found["how_often"] >= guessing + 0.08
