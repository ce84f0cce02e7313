"""Four switches: how each system differs from BUA, what is refused, and candidates scored in one pass."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from bua_jax.alignment import hybrid
from bua_jax.alignment.hybrid import MAPPINGS, SCHEDULES, Learning, Phase, Switches
from bua_jax.basics import config as configs
from bua_jax.basics.errors import CheckpointError, ConfigError
from bua_jax.decoding.dialogue import Decoder
from bua_jax.dialogue.hybrid import SOURCES, TARGETS, Known, Prompts, records
from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.feed.batches import one_per_row
from bua_jax.feed.packing import PackingPlan
from bua_jax.methods.table import METHODS
from bua_jax.models import projector
from bua_jax.models.aligned import supervised_nll
from bua_jax.models.encoders import EncoderConfig, build
from bua_jax.pipeline.stages import train_settings
from tests.decoding import fakes
from tests.decoding.fakes import CATALOGUE, LABELS, history_of, whole_forward

BUA = Switches("states", "mlp", "joint", "label")  # trained at once, without rounds (Appendix S)
DIFFERS = {
    "tallrec": {"source": "none"},
    "collm": {"source": "item+user", "schedule": "adapter_then_projector", "target": "yes_no"},
    "llara": {"source": "item", "schedule": "ramp"},
    "a_llmrec": {"source": "item+user", "mapping": "two_stage", "schedule": "projector"},
}
CONFIG = configs.load("configs/curriculum.py")
PLAN = PackingPlan(1024, 64, 3, 7.3, 2.5, 40, 0.9)


@pytest.mark.parametrize("name", DIFFERS)
def test_a_page_differs_from_bua_in_its_named_switches_alone(name: str) -> None:
    page, bua = CONFIG.methods[name], dataclasses.asdict(BUA)
    found = dataclasses.asdict(Switches.of(page))
    assert {key: value for key, value in found.items() if value != bua[key]} == DIFFERS[name]
    assert {*page} == {*bua, "negatives", "epochs", "peak_lr"}


@pytest.mark.parametrize("name", DIFFERS)
def test_it_is_optimised_as_buas_second_stage(name: str) -> None:
    """Batches, loss, AdamW and its schedule: the same record, but for the projector that a ramp lets rest."""
    page, stage = CONFIG.methods[name], CONFIG.stage2
    for phase in Switches.of(page).phases:
        paused = ("projector",) if phase.form == "ramp" else ()
        learning = Learning(stage, stage.epochs, stage.peak_lr, page.negatives, CONFIG.seed)
        found = learning.settings(PLAN, paused)
        expected = train_settings(CONFIG, "stage2", PLAN)
        how = dataclasses.replace(expected.optimizer, paused=paused)
        assert found == dataclasses.replace(expected, optimizer=how)


def test_the_phases_are_those_of_the_systems() -> None:
    phases = {name: Switches.of(CONFIG.methods[name]).phases for name in DIFFERS}
    assert phases == {
        "tallrec": (Phase(("adapter",)),),
        "collm": (Phase(("adapter",), "words"), Phase(("projector",))),
        "llara": (Phase(("projector", "adapter"), "ramp"),),
        "a_llmrec": (Phase(("projector",)),),
    }
    assert BUA.phases == (Phase(("projector", "adapter")),)
    assert [Switches.of(CONFIG.methods[name]).soft_tokens for name in DIFFERS] == [
        *("text", "both", "both", "both")
    ]
    assert BUA.soft_tokens == "sequence"


def test_all_that_is_legal_works_together_or_is_refused_by_name() -> None:
    refused = {}
    for source in SOURCES:
        for mapping in MAPPINGS:
            for schedule in SCHEDULES:
                for target in TARGETS:
                    try:
                        assert Switches(source, mapping, schedule, target).phases
                    except ConfigError as error:
                        refused[source, mapping, schedule] = str(error)
    assert {key[0] for key in refused if key[2] == "ramp" and key[1] == "mlp"} == {"none", "states"}
    assert {key[0] for key in refused if key[2] == "projector" and key[1] == "mlp"} == {"none"}
    assert {key[0] for key in refused if key[1:] == ("two_stage", "joint")} == {
        *("none", "last", "states")
    }
    assert "schedule='ramp' cannot go with source='none'" in refused["none", "mlp", "ramp"]
    assert (
        "mapping='two_stage' cannot go with source='last'" in refused["last", "two_stage", "joint"]
    )


def test_rows_refuse_switches_before_anything_is_built() -> None:
    config = CONFIG.copy_and_resolve_references()
    config.methods.llara.source = "none"
    with pytest.raises(ConfigError, match="it takes words, and soft tokens beside them"):
        METHODS["llara"].check(config)
    METHODS["tallrec"].check(config)


# ------------------------------------------------------------------------------------- as they ask


def asking(source: str, **changes: Any) -> tuple[Decoder, Prompts]:
    """A random model that reads SASRec's items and states, in batches of 4."""
    one = fakes.decoder(4)
    sizes = EncoderConfig("sasrec", len(LABELS), 24, dim=8, num_layers=1, num_heads=2, max_events=9)
    encoder = build(sizes)
    example = jnp.zeros((1, 4, 4), jnp.int32), jnp.ones((1, 4), jnp.int32), jnp.arange(4)[None]
    params = jax.jit(encoder.init)(jax.random.key(2), *example)["params"]
    table = one.variables["base"]["embed_tokens"]["embedding"]
    fresh = [projector.init(jax.random.key(i), 8, table) for i in range(2)]
    kind = Switches(source, "mlp", "joint", "yes_no").soft_tokens
    model = dataclasses.replace(one.model, encoder=encoder, soft_tokens=kind)
    variables = {**one.variables, "encoder": params} | {
        "projector": {"item": fresh[0], "user": fresh[1]} if kind == "both" else fresh[0]
    }
    one = dataclasses.replace(one, model=model, variables=variables, **changes)
    return one, Prompts(one.tokenizer, CATALOGUE, SOURCES[source])


@pytest.mark.parametrize(
    "source",
    [
        source if source == "item+user" else pytest.param(source, marks=pytest.mark.long)
        for source in SOURCES
    ],
)
def test_candidates_in_one_pass_equal_each_alone(source: str) -> None:
    """Every history's questions, one of which is a part of another, against the whole record of each."""
    decoder, prompts = asking(source)
    histories = [history_of(length, length) for length in (9, 3, 5, 1, 7)]
    found = hybrid.yes_logits(decoder, prompts, histories)
    for history, row in zip(histories, found, strict=True):
        for label in range(len(LABELS)):
            asked = prompts.head(history) + prompts.candidate(label)
            np.testing.assert_allclose(row[label], alone(decoder, prompts, asked), atol=2e-4)
    assert found.std(axis=1).min() > 1e-2


def alone(decoder: Decoder, prompts: Prompts, asked: hybrid.Asked) -> float:
    """The logit of yes after one question, in one forward pass of nothing else."""
    size, room = 512, 16
    tokens, soft_index = np.zeros(size, np.int32), np.zeros(size, np.int32)
    tokens[: len(asked.tokens)] = asked.tokens
    soft_index[tokens == prompts.tokenizer.soft] = asked.shown
    events = np.zeros((room, 4), np.int32)
    events[: len(asked.events)] = asked.events
    count = np.arange(room)
    inside = count < len(asked.events)
    batch = {
        "tokens": tokens,
        "soft_index": soft_index,
        "events": events,
        "event_segments": inside.astype(np.int32),
        "event_positions": np.where(inside, count, 0),
    }
    rows = {name: jnp.asarray(value)[None] for name, value in batch.items()}
    positions = jnp.arange(size)[None]
    logits = whole_forward(decoder.model, decoder.variables, rows, positions)
    return float(logits[len(asked.tokens) - 1, prompts.answers[0]])


@pytest.mark.parametrize("source", [pytest.param("none", marks=pytest.mark.long), "item+user"])
def test_labels_are_scored_exactly_and_written_freely(source: str) -> None:
    decoder, prompts = asking(source, max_new_tokens=9)
    assert hybrid.longest_label(prompts) == len(" schläft".encode()) + 1
    histories = [history_of(length, length) for length in (9, 2, 4)]
    notes = ["", "fond of tea", "lives by night"]
    log_p, written = hybrid.label_scores(decoder, prompts, histories, notes)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, atol=1e-6)
    for history, note, row in zip(histories, notes, log_p, strict=True):
        [again], _ = hybrid.label_scores(decoder, prompts, [history], [note])
        np.testing.assert_allclose(row, again, atol=1e-4)
        [without], _ = hybrid.label_scores(decoder, prompts, [history])
        assert np.allclose(row, without, atol=1e-4) == (not note)
        asked = {str(c): Known(history, c, note) for c in range(len(LABELS))}
        made = [one for _, one in records(prompts, "label", asked, 1, 0)]
        trained_on = -summed_losses(decoder, made)  # of each label with its stop token
        np.testing.assert_allclose(row, log_softmax(trained_on), atol=2e-4)
    assert all(isinstance(text, str) and len(text) <= 9 for text, _ in written)
    assert any(cut for _, cut in written)  # a random model does not stop


def summed_losses(decoder: Decoder, made: list[TokenRecord]) -> np.ndarray:
    """float[n]: of all supervised tokens of each record."""
    size = -(-max(len(one.tokens) for one in made) // 64) * 64
    batch = one_per_row(made, size)
    losses = jax.jit(functools.partial(supervised_nll, decoder.model, room=16, chunk=16))
    return np.asarray(losses(decoder.variables, batch)).sum(1)


def test_a_history_that_is_too_long_and_weights_that_are_not_finite_are_errors() -> None:
    decoder, prompts = asking("item")
    with pytest.raises(ConfigError, match="has 10 events, but the encoder was trained on 9"):
        hybrid.yes_logits(decoder, prompts, [history_of(10, 0)])
    words, in_words = asking("none")
    assert hybrid.yes_logits(words, in_words, [history_of(10, 0)]).shape == (1, len(LABELS))
    broken = {
        **words.variables,
        "base": jax.tree.map(lambda x: x * np.nan, words.variables["base"]),
    }
    with pytest.raises(CheckpointError, match="not finite"):
        hybrid.yes_logits(
            dataclasses.replace(words, variables=broken), in_words, [history_of(3, 0)]
        )
