"""Multi-round decoding: understanding rounds, then a prediction or a generated day.

Every history is a job of the engine (decoding/engine.py); its rounds continue on its own cache.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bua_jax.basics.console import progress
from bua_jax.decoding import engine
from bua_jax.decoding.dialogue import (
    Asked,
    DayAsked,
    Decoder,
    GeneratedDay,
    Rounds,
    Understanding,
    check_finite,
    dialogue,
    drawing_of,
    final_turn,
    joined,
    log_softmax,
    room_of,
    understanding,
)
from bua_jax.decoding.engine import Engine, Job
from bua_jax.decoding.labels import LabelTree, build_tree
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.dialogue.text import parse_label
from bua_jax.events.schema import History

DECODE = ("labels", "trie", "free")
"""Predictions by exact scores of all labels, greedily along their tree, or as free text."""
_BUCKET = 64


def engine_of(decoder: Decoder, batch: int, slots: int, **parts: Any) -> Engine:
    """`batch` rows for dialogues of at most `slots` tokens."""
    return Engine(
        decoder.model,
        decoder.weights,
        decoder.tokenizer.im_end,
        batch=batch,
        slots=-(-slots // _BUCKET) * _BUCKET,
        max_new=decoder.max_new_tokens,
        cache_dtype=decoder.cache_dtype,
        **parts,
    )


def run_jobs(
    decoder: Decoder, slots: int, jobs: Sequence[Callable[[], Job]], description: str, **parts: Any
) -> list[Any]:
    """Results of all jobs in order; slots: tokens that the longest may take."""
    batch = min(decoder.batch, 1 << (len(jobs) - 1).bit_length())
    ready = engine_of(decoder, batch, slots, **parts)
    with on_mesh(decoder):
        found = dict(progress(engine.run(ready, jobs), description, total=len(jobs)))
    return [found[number] for number in range(len(jobs))]


def on_mesh(decoder: Decoder) -> contextlib.AbstractContextManager[Any]:
    """Within it the engine runs where the decoder's variables are."""
    return jax.set_mesh(decoder.mesh) if decoder.mesh else contextlib.nullcontext()


def understand(
    decoder: Decoder, histories: Sequence[History], rounds: Rounds
) -> list[Understanding]:
    """The texts of the rounds (kind, instruction) for every history."""
    if not histories:
        return []
    asked = [Asked(history, rounds, i) for i, history in enumerate(histories)]
    jobs = [functools.partial(dialogue, decoder, one) for one in asked]
    slots = room_of(decoder, histories, rounds, [], 0)
    return [one.said for one in run_jobs(decoder, slots, jobs, "understanding")]


def label_tree(decoder: Decoder) -> LabelTree:
    """The prefix tree of all labels as final answers."""
    labels = decoder.catalogue.behaviours
    return build_tree([label_tokens(decoder.tokenizer, label) for label in labels])


def predict(
    decoder: Decoder,
    histories: Sequence[History],
    rounds: Rounds,
    final: Sequence[str],
    *,
    decode: str = "labels",
    given: Sequence[Mapping[str, str]] | None = None,
) -> tuple[np.ndarray, list[Understanding]]:
    """The next behaviour of every history, after the understanding rounds.

    final: the prediction instruction of each history. given: answers of some rounds of each history by
    kind, which the model reads as its own (oracle substitution, Appendix J). Returns log-probabilities
    float32[n, C] over all labels (exact, normalised over them) and the texts; with `decode` "trie" or
    "free" 0 for the label that was written and -inf elsewhere (a row of -inf only = an invalid answer,
    which free text alone can be).
    """
    free = decode == "free"
    labels = decoder.catalogue.behaviours
    if not histories:
        return np.zeros((0, len(labels)), np.float32), []

    def job(i: int) -> Job:
        answers = given[i] if given else {}
        said, unread = yield from understanding(decoder, histories[i], rounds, i, answers)
        turn = final_turn(decoder, histories[i], final[i], first=not rounds)
        turn = joined(unread, turn)
        if not free:
            log_p, label = yield dataclasses.replace(turn, wants="labels")
            check_finite(log_p, i)
            if decode == "labels":
                return log_softmax(log_p), said
        else:
            answer = yield turn
            label = parse_label(decoder.tokenizer.decode(answer.tokens), decoder.catalogue)
        scores = np.full(len(labels), -np.inf, np.float32)
        if label >= 0:
            scores[label] = 0.0
        return scores, said

    room = decoder.max_new_tokens + 1 if free else 0
    for answers in given or ():
        room = max(room, sum(len(decoder.tokenizer.encode(text)) for text in answers.values()))
    slots = room_of(decoder, histories, rounds, final, room)
    jobs = [functools.partial(job, i) for i in range(len(histories))]
    results = run_jobs(decoder, slots, jobs, "predicting", tree=label_tree(decoder))
    return np.stack([scores for scores, _ in results]), [said for _, said in results]


def generate(  # noqa: PLR0913 (how a day is drawn is said by name)
    decoder: Decoder,
    histories: Sequence[History],
    rounds: Rounds,
    final: Sequence[str],
    weekdays: Sequence[int],
    *,
    constrained: bool = True,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seed: int = 42,
    rows: Sequence[int] = (),
    max_events: int = 24,
    predict_first: Sequence[str] = (),
) -> tuple[list[GeneratedDay], list[Understanding], np.ndarray]:
    """The next day of every history, after the understanding rounds.

    final: the generation instruction of each history; weekdays: of the day to write. Constrained days
    obey the grammar and always parse; free ones are parsed leniently. History i draws from
    (seed, rows[i]), by default (seed, i), so that neither the batch nor how a file is divided matters.

    predict_first: a prediction instruction of each history, which is asked after the same rounds and
    then forgotten (design, decision 11). Returns days, texts, and what `predict` would:
    log-probabilities float32[n, C], or [0, C] without such instructions.
    """
    labels = decoder.catalogue.behaviours
    if not histories:
        return [], [], np.zeros((0, len(labels)), np.float32)
    drawing = drawing_of(decoder, constrained, temperature, top_p, seed, max_events)
    asked = [
        Asked(
            history,
            rounds,
            i,
            predict_first[i] if predict_first else "",
            DayAsked(final[i], weekdays[i], rows[i] if rows else i),
        )
        for i, history in enumerate(histories)
    ]
    slots = room_of(decoder, histories, rounds, final, drawing.limit + 1)
    if predict_first:
        slots = max(slots, room_of(decoder, histories, rounds, predict_first, 0))
    jobs = [functools.partial(dialogue, decoder, one, constrained) for one in asked]
    tree = label_tree(decoder) if predict_first else None
    results = run_jobs(decoder, slots, jobs, "generating", drawing=drawing, tree=tree)
    none = np.zeros((0, len(labels)), np.float32)
    log_p = np.stack([one.log_p for one in results]) if predict_first else none
    return [one.day for one in results], [one.said for one in results], log_p
