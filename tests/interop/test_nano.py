"""nano's text: what it was pretrained on, and a tokenizer that keeps what events are made of whole."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from bua_jax.alignment.parts import NANO
from bua_jax.alignment.warm_start import CONTEXT, event_words
from bua_jax.basics import config as configs
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rules import ANNOTATORS
from bua_jax.dialogue.tasks import INSTRUCTIONS, Writer
from bua_jax.dialogue.text import parse_day
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import BEHAVIOURS, RESERVED_SEEDS, simulated_store
from bua_jax.interop import nano
from bua_jax.interop.tokenizer import HFTokenizer, load_tokenizer
from bua_jax.models.presets import PRESETS
from tests.support.runs import verb


@pytest.fixture(scope="module")
def tokenizer() -> HFTokenizer:
    return load_tokenizer(NANO, PRESETS["nano"].vocab_size)


@pytest.fixture(scope="module")
def store() -> EventStore:
    return simulated_store(20, 20, 3)


@pytest.fixture(scope="module")
def window(store: EventStore) -> Window:
    return Writer.of(store).window(5, 25, "w")


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


def test_corpus_holds_no_answer_of_the_final_tasks(store: EventStore) -> None:
    drilled = configs.load("configs/base.py").model.drill
    assert drilled == nano.DRILL
    asked = INSTRUCTIONS["prediction"]
    forbidden = {asked, f"{drilled} {asked}", INSTRUCTIONS["future_scene"]}
    seen: set[str] = set()
    for _, dialogue in nano.dialogues(store, 200, 0, length=20):
        for turn in dialogue.rounds:
            assert turn.instruction not in forbidden
            assert not turn.instruction.startswith("Write the events of the next day")
            seen.add(turn.kind)
    assert seen == {"drill", *nano.KINDS}


def test_drills_are_true(window: Window) -> None:
    rng, asked = np.random.default_rng(0), set()
    rows = list(zip(window.slots, window.behaviours, strict=True))
    days = window.history.weekday.tolist()
    for _ in range(60):
        turn = nano.drill(window, rng)
        if turn.instruction == "What was last?":
            asked.add("last")
            day = parse_day(turn.answer, window.catalogue)
            assert day is not None
            assert day.weekday == days[-1]
            assert (day.slot, day.behaviour) == ((rows[-1][0],), (rows[-1][1],))
        elif turn.instruction.startswith("What was on "):
            asked.add("at")
            _, _, _, name, _, clock = turn.instruction[:-1].split(" ")
            expected = [
                window.label(b)
                for d, (s, b) in zip(days, rows, strict=True)
                if window.catalogue.clock(s) == clock
                and ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[d] == name
            ]
            assert turn.answer.split("; ") == expected
        else:
            asked.add("after")
            label = turn.instruction.removeprefix("What came after ").removesuffix("?")
            names = [window.label(b) for _, b in rows]
            following = [y for x, y in itertools.pairwise(names) if x == label]
            assert turn.answer.split("; ") == (following or ["nothing"])
    assert asked == {"last", "at", "after"}


@pytest.mark.parametrize("spelled", [True, False])
def test_answers_alone_are_marked(tokenizer: HFTokenizer, store: EventStore, spelled: bool) -> None:
    for window, dialogue in nano.dialogues(store, 20, 1, length=20):
        ids, answer = nano.encode(tokenizer, window, dialogue, spelled=spelled)
        marked = [i for i, a in zip(ids, answer, strict=True) if a]
        texts = tokenizer.decode(marked)
        assert texts == "".join(turn.answer for turn in dialogue.rounds)
        assert marked.count(tokenizer.im_end) == len(dialogue.rounds)
        assert ids.count(tokenizer.soft) == (0 if spelled else len(window.history))


def test_relabelled_events_keep_their_times(store: EventStore) -> None:
    other = nano.relabelled(store, np.random.default_rng(0))
    assert set(other.catalogue.behaviours) <= set(nano.OTHER_LABELS)
    assert np.array_equal(other.slot, store.slot // 2)
    assert np.array_equal(other.day, store.day)
    window = Writer.of(other).window(0, 15, "w")
    assert ANNOTATORS["reconstruction"](window)


def test_event_words(tokenizer: HFTokenizer, store: EventStore) -> None:
    ids, weights = event_words(tokenizer, store.catalogue, [1, 15, 2, 3])
    assert sum(weights) == pytest.approx(1 + 3 * CONTEXT)
    assert tokenizer.decode(ids) == f" {store.catalogue.behaviours[3]} Tue 07:30 L2"


def test_the_reserved_population_is_refused(tmp_path: Path) -> None:
    done = verb("pretrain", f"--workdir={tmp_path}", f"--config.data.seed={RESERVED_SEEDS[0]}")
    assert done.returncode == 2
    assert "reserved" in done.stderr
    assert "--config.data.seed=1" in done.stderr
    assert "Traceback" not in done.stderr
