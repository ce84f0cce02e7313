"""Asking a trained model: describe, predict, generate. The Python API and the verbs use this."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.answer import Description, NextBehaviour, NextDay
from bua_jax.alignment.parts import Parts
from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.version import signature
from bua_jax.decoding import rounds as decoding
from bua_jax.decoding.dialogue import Decoder, GeneratedDay, Instruction, Understanding
from bua_jax.dialogue.critic import critique, refinement_instruction
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.prompts import first_instruction, num_placeholders, opening
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.tasks import (
    INSTRUCTIONS,
    generation_instruction,
    prediction_instruction,
)
from bua_jax.dialogue.text import event_record
from bua_jax.events.schema import WEEKDAYS, Catalogue, History
from bua_jax.events.windows import Day
from bua_jax.interop import huggingface
from bua_jax.interop.tokenizer import token_bytes
from bua_jax.models.aligned import input_embeddings


@dataclass(frozen=True)
class Bua:
    """A trained model and how it is asked: `bua_jax.load` returns it, and `bua_jax.read_people` histories.

    describe(history) -> Description: understanding (round -> text).
    predict(histories) -> [NextBehaviour]: prediction, probabilities (label -> share, sum 1), understanding;
    likely(3) are the likeliest labels.
    generate(histories) -> [NextDay]: weekday, events (each time, behaviour and, where the model has places,
    place), understanding; next, a NextBehaviour, with predictions=True.
    There is one answer for each history, in their order. Printed they are short, a notebook draws them,
    and `.record` is the JSON line that the verbs write.

    `shares`: training users' behaviour shares float64[C], which the critic of the refine round needs.
    `decoding`, `windows`: these parts of a config; `windows` has the lengths of the histories that it was
    trained on, for those who read them from a file.
    """

    parts: Parts
    decoding: Settings
    shares: np.ndarray
    windows: Settings = field(default_factory=ConfigDict)
    with_rounds: bool = True
    refine: bool = False
    seed: int = 42
    batch: int = 32  # histories decoded together
    drill: str = ""  # what the prediction instruction began with in training

    @property
    def catalogue(self) -> Catalogue:
        """The labels and slots that it was trained with."""
        return self.parts.catalogue

    @cached_property
    def decoder(self) -> Decoder:
        """What writes its answers."""
        parts = self.parts
        return Decoder(
            parts.model,
            parts.variables,
            parts.tokenizer,
            parts.catalogue,
            token_bytes(parts.tokenizer),
            self.batch,
            self.decoding.max_new_tokens,
            self.decoding.cache_dtype,
            self.decoding.weight_dtype,
            parts.mesh,
        )

    @property
    def final_instruction(self) -> str:
        """What asks for the next behaviour, its time not told."""
        return prediction_instruction(self.catalogue, drill=self.drill)

    def rounds(self, histories: Sequence[History]) -> list[tuple[str, Instruction]]:
        """The understanding rounds; with `refine` the critic's feedback on the drafted summary too."""
        if not self.with_rounds:
            return []
        asked: list[tuple[str, Instruction]] = [
            (kind, INSTRUCTIONS[kind]) for kind in UNDERSTANDING
        ]
        if self.refine:

            def instruction(texts: dict[str, str], i: int) -> str:
                window = Window(histories[i], self.catalogue, self.shares, str(i))
                draft = texts["summary"]
                return refinement_instruction(draft, critique(window, draft).issues)

            asked.append(("refinement", instruction))
        return asked

    def signature(self, decode: str) -> str:
        """What an answer depends on."""
        data = self.parts.identity["data"]
        return signature(data=data, decode=decode, refine=self.refine, seed=self.seed)

    def identity(self, path: str | Path, how: str) -> str:
        """What the answers to a file of histories depend on: its content, the model, the settings."""
        made = {name: self.parts.variables[name] for name in ("adapter", "projector")}
        said = {
            "input": files.sha256_file(path),
            "model": self.parts.trained or huggingface.tree_hash(made),
            "parts": self.parts.identity,
            "decoding": self.decoding.to_dict(),
        }
        return f"{self.signature(how)}|{files.sha256_json(said)}"

    def probabilities(
        self,
        histories: Sequence[History],
        final: Sequence[str] | None = None,
        *,
        decode: str = "labels",
        given: Sequence[Mapping[str, str]] | None = None,
    ) -> tuple[np.ndarray, list[Understanding]]:
        """(log-probabilities float32[n, C], understanding texts); see `decoding.rounds.predict`."""
        final = final or [self.final_instruction] * len(histories)
        asked = self.rounds(histories)
        return decoding.predict(self.decoder, histories, asked, final, decode=decode, given=given)

    def days(
        self, histories: Sequence[History], weekdays: Sequence[int], **options: Any
    ) -> tuple[list[GeneratedDay], list[Understanding], np.ndarray]:
        """(generated days, understanding texts, log-probabilities); see `decoding.rounds.generate`."""
        settings = {
            "constrained": self.decoding.constrained,
            "temperature": self.decoding.temperature,
            "top_p": self.decoding.top_p,
            "seed": self.seed,
            **options,
        }
        final = [generation_instruction(day) for day in weekdays]
        return decoding.generate(
            self.decoder,
            histories,
            self.rounds(histories),
            final,
            weekdays,
            **settings,
        )

    def first_turn(self, history: History, instruction: str) -> np.ndarray:
        """Embeddings float32[T, H] of the first user turn of an understanding round, soft tokens included.

        What `inputs_embeds` of another framework takes, with the base and the exported adapter.
        """
        parts = self.parts
        n_soft = num_placeholders(len(history), parts.model.soft_tokens)
        kind = parts.model.soft_tokens
        instruction = first_instruction(instruction, parts.catalogue, history, kind)
        tokens = np.asarray(opening(parts.tokenizer, n_soft, instruction), np.int32)
        soft_index = np.zeros_like(tokens)
        soft_index[tokens == parts.tokenizer.soft] = range(n_soft)
        batch: dict[str, np.ndarray] = {
            "tokens": tokens,
            "soft_index": soft_index,
            "events": history.encoder_fields().astype(np.int32),
            "event_segments": np.ones(len(history), np.int32),
            "event_positions": np.arange(len(history)),
        }
        rows = {key: jnp.asarray(value[None]) for key, value in batch.items()}
        return np.asarray(input_embeddings(parts.model, parts.variables, rows)[0], np.float32)

    def understand(self, histories: Sequence[History]) -> list[Understanding]:
        """The understanding texts of histories, also where a prediction is asked without rounds."""
        asked = dataclasses.replace(self, with_rounds=True)
        return decoding.understand(self.decoder, histories, asked.rounds(histories))

    def describe(self, history: History) -> Description:
        """The understanding texts of one history, by round."""
        return self.describe_all([history])[0]

    def describe_all(self, histories: Sequence[History]) -> list[Description]:
        """`describe` of many, which are read together."""
        _check_histories(histories)
        return [self.description_of(said) for said in self.understand(histories)]

    def description_of(self, said: Understanding) -> Description:
        """The answer that the texts are."""
        return Description(said.texts, self.signature("texts"))

    def predict(self, histories: Sequence[History]) -> list[NextBehaviour]:
        """Of each history the next behaviour, the probability of every label, and the understanding texts.

        Raises `ConfigError` for what is no list of histories and for one longer than the encoder was trained
        on, `CheckpointError` where the weights give no finite probability.
        """
        _check_histories(histories)
        log_p, texts = self.probabilities(histories)
        return [self.next_of(row, said) for row, said in zip(log_p, texts, strict=True)]

    def generate(
        self, histories: Sequence[History], *, predictions: bool = False, **options: Any
    ) -> list[NextDay]:
        """The day after each history's last event. options: temperature, top_p, seed, constrained, rows.

        With `predictions` also what `predict` says (`next`), after the same rounds, which are written once.
        """
        _check_histories(histories)
        weekdays = [(int(h.weekday[-1]) + 1) % 7 for h in histories]
        if predictions:
            asked = [self.final_instruction] * len(histories)
            options = {**options, "predict_first": asked}
        days, texts, log_p = self.days(histories, weekdays, **options)
        scores = list(log_p) if predictions else [None] * len(days)
        return [self.day_of(*one) for one in zip(days, texts, scores, strict=True)]

    def day_of(
        self, one: GeneratedDay, said: Understanding, log_p: np.ndarray | None = None
    ) -> NextDay:
        """The answer that a generated day is; log_p float32[C]: of the prediction, where it was asked for."""
        return NextDay(
            WEEKDAYS[one.day.weekday],
            tuple(event_record(self.catalogue, *event) for event in _events(one.day)),
            one.invalid,
            said.texts,
            self.signature("grammar" if self.decoding.constrained else "free"),
            None if log_p is None else self.next_of(log_p, said),
        )

    def next_of(self, log_p: np.ndarray, said: Understanding) -> NextBehaviour:
        """The answer that log-probabilities float32[C] and the texts before them are."""
        labels = self.catalogue.behaviours
        shares = {b: float(p) for b, p in zip(labels, np.exp(log_p), strict=True)}
        best = labels[int(np.argmax(log_p))]
        return NextBehaviour(best, shares, said.texts, self.signature("labels"))


def _check_histories(given: Sequence[History]) -> None:
    """Raises `ConfigError` for one history, its people or a name in place of a list of histories."""
    if not isinstance(given, Sequence) or any(not isinstance(one, History) for one in given):
        raise ConfigError(
            "A model is asked about a list of histories, such as read_people(...).histories or [history] "
            f"(describe about one); this is {type(given).__name__}."
        )


def _events(day: Day) -> list[tuple[int, int, int]]:
    return list(zip(day.slot, day.place, day.behaviour, strict=True))
