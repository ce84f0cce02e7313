"""Precision, recall and abstention of texts about people, as functions of sums over people."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np

from bua_jax.dialogue.facts import Window
from bua_jax.evaluation.counts import Totals, interval
from bua_jax.evaluation.understanding import persona
from bua_jax.evaluation.understanding.checks import Ground, holds, recalled
from bua_jax.evaluation.understanding.claims import ASPECTS, read
from bua_jax.evaluation.understanding.persona import Known
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import Persona
from bua_jax.events.windows import WindowSet, history

SHOWN = ("precision", "recall", "abstention")
EDITED = ("flips", "stays", "follows")
METRICS = (
    *SHOWN,
    *(f"{aspect}_{kind}" for aspect in ASPECTS for kind in SHOWN),
    *(f"persona_{kind}" for kind in SHOWN[:2]),
    *(f"{field}_persona_{kind}" for field in persona.FIELDS for kind in SHOWN[:2]),
    *EDITED,
)
OTHERS, SHUFFLED = "another person's", "words shuffled"


@dataclass(frozen=True)
class TextCounts(Totals):
    """Totals float64[R, ...]; A aspects, P fields of a persona (zeros where there is none)."""

    texts: np.ndarray  # [R]
    silent: np.ndarray  # [R, A] texts without a claim
    claims: np.ndarray  # [R, A] that can be checked
    true: np.ndarray  # [R, A] of these
    facts: np.ndarray  # [R, A] strongest facts of the windows
    stated: np.ndarray  # [R, A] of these
    persona: np.ndarray  # [R, P, 4] `persona.against`
    edits: np.ndarray  # [R, 4] `counterfactual.followed`; zeros where no log was edited


@dataclass(frozen=True)
class Subject:
    """A window that texts are held against, and its person where that is known."""

    ground: Ground
    person: Known | None = None


def subjects(
    store: EventStore,
    frozen: WindowSet,
    shares: np.ndarray,
    personas: Mapping[str, Persona] | None = None,
) -> list[Subject]:
    """The windows of a set. shares: float64[C], of the training people's events; personas by user."""
    index, found = frozen.windows, []
    hobbies = {name for one in (personas or {}).values() for name in one.hobbies}
    for user, start, end in zip(index.user, index.start.tolist(), index.end.tolist(), strict=True):
        window = Window(history(store, start, end), store.catalogue, shares, str(start))
        name = str(store.users[int(user)])
        person = personas.get(name) if personas else None
        who = None
        if person:
            who = persona.known(store, person, hobbies, start, end, window.places)
        found.append(Subject(Ground(window), who))
    return found


def whole(text: Mapping[str, str], kinds: Sequence[str]) -> str:
    """What was written in the rounds of these kinds, a paragraph each."""
    return "\n".join(text[kind] for kind in kinds if text.get(kind))


def count_texts(people: np.ndarray, about: Sequence[Subject], texts: Sequence[str]) -> TextCounts:
    """Counts per person, in the order of np.unique(people).

    people: int[n] whose each window is; about, texts: the windows, and a text about each.
    """
    owner = np.unique(people, return_inverse=True)[1]
    size = int(np.max(owner, initial=-1)) + 1
    table = {name: np.zeros((size, len(ASPECTS))) for name in ("silent", "claims", "true")}
    table |= {name: np.zeros((size, len(ASPECTS))) for name in ("facts", "stated")}
    of_persona = np.zeros((size, len(persona.FIELDS), 4))
    for one, subject, text in zip(owner, about, texts, strict=True):
        claims = read(subject.ground.window.catalogue, text).claims
        checked = {claim: holds(subject.ground, claim) for claim in claims}
        true = [claim for claim, held in checked.items() if held]
        found = recalled(subject.ground, true)
        for a, aspect in enumerate(ASPECTS):
            said = [held for claim, held in checked.items() if claim.aspect == aspect]
            judged = [held for held in said if held is not None]
            table["silent"][one, a] += not said
            table["claims"][one, a] += len(judged)
            table["true"][one, a] += sum(judged)
            table["stated"][one, a] += found[aspect][0]
            table["facts"][one, a] += found[aspect][1]
        if subject.person is not None:
            of_persona[one] += persona.against(subject.person, text, claims)
    texts_of = np.bincount(owner, minlength=size).astype(float)
    return TextCounts(texts_of, **table, persona=of_persona, edits=np.zeros((size, 4)))


def with_edits(
    counts: TextCounts, people: np.ndarray, rows: np.ndarray, edits: Sequence[Sequence[int]]
) -> TextCounts:
    """The counts with those of edited logs, edits[i] of the window rows[i]; people: as in `count_texts`."""
    owner = np.unique(people, return_inverse=True)[1]
    table = np.zeros_like(counts.edits)
    np.add.at(table, owner[rows], np.asarray(edits, float))
    return replace(counts, edits=table)


def text_metrics(counts: TextCounts) -> dict[str, np.ndarray]:
    """Each of `METRICS` float64[R]; NaN where it is of nothing, so that silence has no precision.

    precision: claims that are true; recall: strongest facts that are stated (`checks.recalled`); abstention:
    texts without a claim. By aspect, and over all of them; of abstention the mean over aspects.
    flips, stays, follows: see `counterfactual`.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        own = {
            "precision": counts.true / counts.claims,
            "recall": counts.stated / counts.facts,
            "abstention": counts.silent / counts.texts[:, None],
        }
        found = {
            "precision": counts.true.sum(1) / counts.claims.sum(1),
            "recall": counts.stated.sum(1) / counts.facts.sum(1),
            "abstention": own["abstention"].mean(1),
        }
        said, true, there, stated = np.moveaxis(counts.persona, 2, 0)
        people = {"precision": true / said, "recall": stated / there}
        together = {"precision": true.sum(1) / said.sum(1), "recall": stated.sum(1) / there.sum(1)}
        flips = counts.edits[:, 1] / counts.edits[:, 0]
        stays = counts.edits[:, 3] / counts.edits[:, 2]
    found |= {"flips": flips, "stays": stays, "follows": flips + stays - 1}
    for kind, values in own.items():
        found |= {f"{aspect}_{kind}": values[:, a] for a, aspect in enumerate(ASPECTS)}
    for kind, values in people.items():
        found[f"persona_{kind}"] = together[kind]
        found |= {f"{f}_persona_{kind}": values[:, p] for p, f in enumerate(persona.FIELDS)}
    return {name: found[name] for name in METRICS}


# ----------------------------------------------------------------------------------- rows of a table


def shuffled(text: str, name: str) -> str:
    """Its words in another order, drawn from the case's name."""
    words = text.split()
    random.Random(crc32(name.encode())).shuffle(words)
    return " ".join(words)


def placebos(texts: Sequence[str], donor: np.ndarray, names: Sequence[str]) -> dict[str, list[str]]:
    """Texts of the same style that tell nothing of the person; nothing is asked anew.

    donor: int[n] the row of another person's window, -1 where there is nobody else (then the text is empty);
    names: of the cases.
    """
    return {
        OTHERS: [texts[row] if row >= 0 else "" for row in donor.tolist()],
        SHUFFLED: [shuffled(text, name) for text, name in zip(texts, names, strict=True)],
    }


def scored(counts: TextCounts, drawn: np.ndarray) -> dict[str, Any]:
    """Metrics with their 95 % intervals over people, as JSON; None for what is of nothing.

    drawn: float64[S, people], see `counts.resamples`.
    """
    values, resampled = text_metrics(counts.total()), text_metrics(counts.combined(drawn))
    found: dict[str, Any] = {}
    for name, (value,) in values.items():
        if name in EDITED and not counts.edits.any():
            continue
        known = np.isfinite(value)
        low, high = interval(resampled[name]) if known else (None, None)
        found[name] = {"value": float(value) if known else None, "low": low, "high": high}
    return {"n": int(counts.texts.sum()), "people": len(counts), "metrics": found}


def against(counts: TextCounts, other: TextCounts, drawn: np.ndarray) -> dict[str, Any]:
    """Of precision and recall the first minus the other, with intervals over the same people drawn."""
    one, two = (text_metrics(c.total()) for c in (counts, other))
    first, second = (text_metrics(c.combined(drawn)) for c in (counts, other))
    found = {}
    for name in SHOWN[:2]:
        value = float((one[name] - two[name])[0])
        if np.isfinite(value):
            low, high = interval(first[name] - second[name])
            found[name] = {"difference": value, "low": low, "high": high}
    return found
