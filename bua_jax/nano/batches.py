"""Batches of nano's corpus: dialogues packed into rows, as a pure function of a seed."""

from random import Random

import numpy as np

from bua_jax.interop.tokenizer import HFTokenizer
from bua_jax.nano.corpus import draw_dialogue
from bua_jax.nano.settings import Phase


def draw_batch(
    seed: str,
    tokenizer: HFTokenizer,
    pieces: tuple[str, ...],
    shape: tuple[int, int],
    most_vectors: int,
    phase: Phase,
) -> tuple[dict[str, np.ndarray], list[tuple[str, int, slice]]]:
    """Rows of packed dialogues, and (round kind, row, tokens) of each answer: by `seed` and phase alone.

    tokens, segments, positions, answer, shown int32[B, T]; vectors float32[most_vectors, V], of which
    placeholder t takes vectors[shown[b, t]]; wanted int32[N], places in the flat tokens that have a loss,
    answers first, then other text, and is_answer bool[N].
    """
    rng = Random(seed)
    rows, length = shape
    names = ("tokens", "segments", "positions", "answer", "shown")
    batch: dict[str, np.ndarray] = {name: np.zeros(shape, np.int32) for name in names}
    batch["vectors"] = np.zeros((most_vectors, tokenizer.vocab_size), np.float32)
    answers: list[tuple[str, int, slice]] = []
    taken = 0
    for row in range(rows):
        fill = segment = 0
        while length - fill > 64:
            one = draw_dialogue(rng, tokenizer, pieces, length - fill, phase)
            if not one.rounds or taken + len(one.vectors) > most_vectors:
                break
            segment += 1
            at = slice(fill, fill + len(one.tokens))
            batch["tokens"][row, at] = one.tokens
            batch["segments"][row, at] = segment
            batch["positions"][row, at] = np.arange(len(one.tokens))
            batch["answer"][row, at] = one.answer
            batch["shown"][row, at] = np.asarray(one.shown) + taken
            stop = taken + len(one.vectors)
            batch["vectors"][taken:stop, one.columns] = one.vectors
            marks = np.asarray(one.answer)
            for number, turn in enumerate(one.rounds, 1):
                spots = np.flatnonzero(marks == number)
                answers.append(
                    (turn.kind, row, slice(fill + int(spots[0]), fill + int(spots[-1]) + 1))
                )
            taken, fill = stop, at.stop
    inside = (
        (batch["segments"] > 0) & (batch["positions"] > 0) & (batch["tokens"] != tokenizer.soft)
    )
    rank = np.where(batch["answer"] > 0, 0.0, 1.0 + np.random.default_rng(taken).random(shape))
    order = np.argsort(np.where(inside, rank, 9.0).reshape(-1), kind="stable")
    batch["wanted"] = order[: rows * length * 5 // 8].astype(np.int32)
    batch["is_answer"] = batch["answer"].reshape(-1)[batch["wanted"]] > 0
    return batch, answers
