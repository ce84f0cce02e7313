"""The linear reader of summaries against scikit-learn's own pipeline, and texts that say all or nothing."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.methods import summary_alone
from bua_jax.methods.protocol import Built, Cases, Data, Histories, Labelled, Site
from bua_jax.methods.table import METHODS

LABELS = ("walk", "read a book", "散步", "sleep")


def told(count: int, classes: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Summaries that name what comes next three times out of four, among words that say nothing."""
    draw = np.random.default_rng(seed)
    target = draw.integers(classes, size=count)
    named = np.where(draw.random(count) < 0.75, target, draw.integers(classes, size=count))
    noise = draw.choice(["calm", "busy", "early", "late"], size=(count, 3))
    return [f"{' '.join(n)} {LABELS[i]}" for n, i in zip(noise, named, strict=True)], target


def test_it_is_the_pipeline_of_scikit_learn() -> None:
    """Labels that it lacks have what all share: 1 % of the probability, by labels."""
    texts, target = told(200, 3, 1)
    held, held_target = told(80, 3, 2)
    made, strength = summary_alone.fit(texts, target, held, held_target, 4)
    words = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    peer = make_pipeline(words, LogisticRegression(C=strength, max_iter=1000)).fit(texts, target)
    p = np.exp(made.log_probabilities(held))
    np.testing.assert_allclose(p[:, 3], 0.01 / 4)
    np.testing.assert_allclose(p[:, :3], 0.99 * peer.predict_proba(held) + 0.01 / 4, atol=1e-12)
    assert np.mean(p.argmax(1) == held_target) > 0.6  # 75 % and a quarter of a third at best


@pytest.mark.parametrize("classes", [1, 2])
def test_few_labels(classes: int) -> None:
    texts, target = told(100, classes, 3)
    made, _ = summary_alone.fit(texts, target, texts, target, classes + 1)
    p = np.exp(made.log_probabilities([*texts, ""]))
    np.testing.assert_allclose(p.sum(1), 1)
    assert np.mean(p[:-1].argmax(1) == target) > 0.7


@pytest.mark.parametrize("texts", [[""] * 40, [f"w{i}" for i in range(40)]])
def test_texts_that_share_no_word_are_known_by_nothing(texts: list[str]) -> None:
    """Then all are the shares of labels in training, by a weak penalty."""
    target = np.arange(40) % 4 // 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made, _ = summary_alone.fit(texts, target, texts, target, 2)
    p = np.exp(made.log_probabilities(["", "anything"]))
    np.testing.assert_allclose(p[0], [0.75, 0.25], atol=5e-3)
    np.testing.assert_allclose(p[1], p[0])


def labelled(count: int, seed: int) -> Labelled:
    texts, target = told(count, 4, seed)
    none = np.zeros((count, 2), np.int32)
    seen = Histories(np.zeros((count, 2, 4), np.int32), none, none, none[:, 0] + 2)
    names, unknown = tuple(f"case {i}" for i in range(count)), np.full(count, -1)
    notes = tuple({"summary": text} if text else {} for text in texts)
    return Labelled(Cases(names, names, seen, none.astype(bool), unknown, unknown, notes), target)


def test_what_is_fitted_is_what_is_asked(tmp_path: Path) -> None:
    method = METHODS["summary_alone"]
    sets = {"cross": labelled(120, 4), "validation": labelled(50, 5)}

    class Store:
        class catalogue:
            behaviours = LABELS

    config = configs.load("configs/curriculum.py")
    data = Data(Store(), lambda name: sets[name])  # type: ignore[arg-type]  # its labels alone are read
    assert method.fit is not None
    facts = method.fit(Site(config, tmp_path, {}), data)
    assert facts["training_windows"] == 120
    assert facts["strength"] in summary_alone.STRENGTHS
    fitted = {"fit/summary_alone": Built(tmp_path, config, facts)}
    asked = method.load(Site(config, tmp_path, fitted))
    cases = labelled(30, 6).cases
    own, held = sets.values()
    texts = [summary_alone.summaries(one.cases) for one in (own, held)]
    made, _ = summary_alone.fit(texts[0], own.target, texts[1], held.target, 4)
    said, p = asked.predict(cases), np.exp(made.log_probabilities(summary_alone.summaries(cases)))
    np.testing.assert_array_equal(said.probability, p)
    np.testing.assert_array_equal(said.label, p.argmax(1))


def test_nobody_set_apart() -> None:
    config = configs.load("configs/curriculum.py")
    with pytest.raises(ConfigError, match=r"windows\.cross=0 .* on whose windows summary_alone is"):
        METHODS["summary_alone"].check(config)
