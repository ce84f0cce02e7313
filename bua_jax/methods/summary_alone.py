"""What a summary alone tells of the next behaviour: a linear reader of its words, which sees no log.

Is understanding of use? A text that is true of a person and says nothing of what comes next would predict no
better than another person's. All rows read the same windows; whose text, and about whom, alone differs.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from bua_jax.basics import files
from bua_jax.methods.cross import SETS
from bua_jax.methods.hybrid import check_cross
from bua_jax.methods.protocol import (
    ROWS,
    About,
    Cases,
    Data,
    Method,
    Notes,
    Prediction,
    Site,
)

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Inverse penalties that are tried; the validation people's log-loss chooses."""
_UNSEEN = 0.01  # of probability, shared by all labels: one that training lacks has some too


@dataclass(frozen=True)
class Reader:
    """Words and pairs of words, weighted by tf-idf, to labels by multinomial logistic regression."""

    words: Mapping[str, int]  # V
    idf: np.ndarray  # float64[V]
    weights: np.ndarray  # float64[V, C]
    bias: np.ndarray  # float64[C]; -inf for a label that training lacks
    facts: Mapping[str, Any]
    rows: int = ROWS

    def predict(self, cases: Cases) -> Prediction:
        p = np.exp(self.log_probabilities(summaries(cases)))
        return Prediction(p.argmax(1).astype(np.int16), p)

    def log_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """float64[n, C] of n summaries; of an empty one what is known without any."""
        vectors = _vectorizer(vocabulary=self.words)
        vectors.idf_ = self.idf
        own = np.exp(log_softmax(vectors.transform(texts) @ self.weights + self.bias, axis=1))
        return np.log((1 - _UNSEEN) * own + _UNSEEN / len(self.bias))


def _vectorizer(**more: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second, for those who use it

    return TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True, **more)


def summaries(cases: Cases) -> list[str]:
    """The summary that each case carries; "" where it was refused."""
    return [one.get("summary", "") for one in cases.notes]


def fit(
    texts: Sequence[str],
    target: np.ndarray,
    held: Sequence[str],
    held_target: np.ndarray,
    classes: int,
) -> tuple[Reader, float]:
    """The reader of training texts, and the strength that validation chose.

    target: int[n] of the n texts; held, held_target: those of validation people.
    """
    vectors = _vectorizer(min_df=2)
    try:
        x = vectors.fit_transform(texts)
        words, idf = vectors.vocabulary_, vectors.idf_
    except ValueError:  # no word is in two texts
        x, words, idf = np.zeros((len(texts), 1)), {"": 0}, np.ones(1)
    best: tuple[float, Reader, float] | None = None
    for strength in STRENGTHS:
        reader = Reader(words, idf, *_regression(x, target, classes, strength), facts={})
        log_p = reader.log_probabilities(held)
        loss = -float(np.mean(log_p[np.arange(len(held)), held_target]))
        if best is None or loss < best[0]:
            best = loss, reader, strength
    assert best is not None
    return best[1], best[2]


def _regression(
    x: Any, target: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights float64[V, C] and bias float64[C]; a label that is not among the targets is ruled out."""
    from sklearn.linear_model import LogisticRegression

    weights, bias = np.zeros((x.shape[1], classes)), np.full(classes, -np.inf)
    seen = np.unique(target)
    if len(seen) == 1:  # which the library refuses
        bias[seen] = 0
        return weights, bias
    made = LogisticRegression(C=strength, max_iter=1000).fit(x, target)
    own, base = made.coef_, made.intercept_
    if len(seen) == 2:  # it keeps one logit of two
        own, base = np.concatenate([-own, own]) / 2, np.concatenate([-base, base]) / 2
    weights[:, seen], bias[seen] = own.T, base
    return weights, bias


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    train, held = map(data.draw, SETS)
    texts, classes = summaries(train.cases), len(data.store.catalogue.behaviours)
    made, strength = fit(texts, train.target, summaries(held.cases), held.target, classes)
    values = {
        "words": made.words,
        "idf": made.idf.tolist(),
        "weights": made.weights.tolist(),
        "bias": [None if b == -np.inf else b for b in made.bias.tolist()],
    }
    files.write_json(site.folder / "reader.json", values)
    return {"training_windows": len(texts), "strength": strength}


def _load(site: Site, name: str) -> Reader:
    values = files.read_json(site.folder / "reader.json")
    bias = [-np.inf if b is None else b for b in values["bias"]]
    idf, weights = np.asarray(values["idf"]), np.asarray(values["weights"])
    facts = site.inputs[f"fit/{name}"].result
    return Reader(values["words"], idf, weights, np.asarray(bias), facts)


ROWS_OF = {  # ending of a row's name -> whose summary it reads
    "": ("BUA's summary alone", Notes("bua", summary=True)),
    "_another": (
        "BUA's summary of another person",
        Notes("bua", another=True, summary=True),
    ),
    "_untuned": ("the untuned base's summary alone", Notes("untuned", summary=True)),
    "_reference": ("the rules' summary alone", Notes("reference", summary=True)),
}


def _method(name: str, title: str, notes: Notes) -> Method:
    return Method(
        name,
        About(
            title[0].upper() + title[1:],
            "words of a text to labels by logistic regression; no log",
            (),
            "windows",
        ),
        load=functools.partial(_load, name=name),
        fit=_fit,
        fit_sets=SETS,
        files=("reader.json",),
        check=functools.partial(check_cross, name=name),
        notes=notes,
    )


METHODS = tuple(
    _method(f"summary_alone{ending}", title, notes) for ending, (title, notes) in ROWS_OF.items()
)
