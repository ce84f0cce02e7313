"""nano's corpus: label sets, worlds, drills that are true, and batches that depend on a seed alone."""

import dataclasses
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from bua_jax.alignment.warm_start import EXPECTED, word_weights
from bua_jax.basics import config as configs
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.tasks import INSTRUCTIONS
from bua_jax.events.schema import WEEKDAYS
from bua_jax.events.simulate import BEHAVIOURS
from bua_jax.interop.tokenizer import HFTokenizer
from bua_jax.nano import drills, labels, vectors
from bua_jax.nano.batches import draw_batch
from bua_jax.nano.corpus import draw_dialogue, draw_rounds
from bua_jax.nano.labels import LONGEST, label_set, lexicon
from bua_jax.nano.settings import PHASES, phase_of
from bua_jax.nano.tokenizer import pieces
from bua_jax.nano.worlds import draw_world, window_of


def window(seed: str, length: int = 30) -> Window:
    return window_of(draw_world(Random(seed), length), 0, length, seed)


@pytest.mark.parametrize("seed", range(60))
def test_label_sets_are_sets_that_a_catalogue_takes(seed: int) -> None:
    found = label_set(Random(seed), 12, ("ab", " c", "東"))
    assert len(set(found)) == 12
    assert all(label == label.strip() and 0 < len(label) <= LONGEST for label in found)
    assert found == label_set(Random(seed), 12, ("ab", " c", "東"))


@pytest.mark.parametrize("drawn", ["\u180e", "\ufeff", "\u2028", "\x1b", "", "a;b", "x" * 41])
def test_a_label_that_no_catalogue_takes_is_drawn_again(
    drawn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = itertools.chain([drawn], (f"label {i}" for i in itertools.count()))
    monkeypatch.setattr(labels, "_maker", lambda rng, pieces: lambda r: next(coming))
    assert label_set(Random(0), 3) == ("label 0", "label 1", "label 2")


def test_label_sets_differ_in_script_and_kind() -> None:
    text = "".join("".join(label_set(Random(i), 4)) for i in range(300))
    for letters in (
        "[a-z]",
        "[A-Z]",
        "[0-9]",
        "[а-я]",
        "[ぁ-ん]",
        "[\U0001f300-\U0001f9ff]",
        "[_-]",
    ):
        assert re.search(letters, text), letters


def test_worlds_hold_counts_of_all_sizes() -> None:
    most = Counter(max(window(f"w{i}", 40).counts.values()) for i in range(200))
    assert min(most) <= 5
    assert max(most) >= 30
    assert len(most) > 20


def answers_of(seen: Window, drill) -> list[tuple[str, str]]:
    turns = [drill(seen, Random(i)) for i in range(12)]
    return [(turn.instruction, turn.answer) for turn in turns if turn is not None]


@pytest.mark.parametrize("seed", range(8))
def test_drills_are_true(seed: int) -> None:
    """Recomputed from the columns, not with the drills' helpers."""
    seen = window(f"true{seed}")
    names = [seen.catalogue.behaviours[b] for b in seen.history.behaviour]
    days = [WEEKDAYS[d][:3] for d in seen.history.weekday]
    clocks = [seen.catalogue.clock(int(s)) for s in seen.history.slot]
    counted = Counter(names)

    def event(i: int) -> str:
        place = int(seen.history.place[i])
        where = f"L{place} " if place else "other "
        return f"{days[i]} {clocks[i]} {where * seen.catalogue.has_places}{names[i]}"

    assert answers_of(seen, drills.last)[0][1] == event(-1)
    for question, answer in answers_of(seen, drills.nth):
        number = int(re.findall(r"\d+", question)[0])
        assert answer == event(-number if "from the end" in question else number - 1)
    for question, answer in answers_of(seen, drills.how_often):
        assert int(answer) == counted[question.removeprefix("How often ").removesuffix("?")]
    label, count = re.fullmatch(r"(.*) (\d+) of 30", answers_of(seen, drills.top)[0][1]).groups()
    assert counted[label] == int(count) == max(counted.values())
    for _, answer in answers_of(seen, drills.counts):
        said = [re.fullmatch(r"(.*) (\d+)", part).groups() for part in answer.split("; ")]
        assert [counted[label] for label, _ in said] == [int(n) for _, n in said]
        assert int(said[0][1]) == max(counted.values())
    for question, answer in answers_of(seen, drills.tally):
        begin = int(re.findall(r"\d+", question)[0]) - 1
        expected = [f"{x} {names[: i + 1].count(x)}" for i, x in enumerate(names)]
        assert answer == "; ".join(expected[begin : begin + 8])
    for question, answer in answers_of(seen, drills.after):
        if question.startswith("What came after "):
            asked = question.removeprefix("What came after ").removesuffix("?")
            following = [b for a, b in itertools.pairwise(names) if a == asked][:6]
            assert answer == ("; ".join(following) or "nothing")
    for question, answer in answers_of(seen, drills.on_day):
        day, clock = re.fullmatch(r"What was on (\w+) at (.*)\?", question).groups()
        pairs = zip(days, clocks, names, strict=True)
        assert answer.split("; ") == [x for d, c, x in pairs if (d, c) == (day, clock)][:6]


def test_yes_and_no_are_both_said_and_right() -> None:
    said = Counter[str]()
    for i in range(60):
        seen = window(f"yes{i}")
        names = [seen.label(b) for b in seen.behaviours]
        for question, answer in answers_of(seen, drills.is_true):
            said[answer] += 1
            match = re.fullmatch(r"Is it true: (.*) (\d+) times\?", question)
            if match:
                assert (answer == "yes") == (names.count(match[1]) == int(match[2]))
    assert min(said["yes"], said["no"]) > 100


def test_no_round_is_about_what_comes_after() -> None:
    drilled = configs.load("configs/base.py").model.drill
    assert drilled == drills.DRILL
    asked = INSTRUCTIONS["prediction"]
    forbidden = {asked, f"{drilled} {asked}", INSTRUCTIONS["future_scene"]}
    kinds: set[str] = set()
    for i in range(150):
        rng = Random(f"rounds{i}")
        world = draw_world(rng, 20)
        for turn in draw_rounds(rng, window_of(world, 0, 20, "w"), world):
            kinds.add(turn.kind)
            assert turn.instruction not in forbidden
            assert "next" not in turn.instruction
    assert {"key_behaviours", "patterns", "summary", "refinement", "last", "tally"} <= kinds
    assert not kinds & {"prediction", "generation", "future_scene"}


def test_a_drill_depends_on_the_window_alone() -> None:
    """The same events with others behind them get the same questions and answers."""
    longer = draw_world(Random("a"), 30)
    columns = ("day", "slot", "place", "behaviour", "gap")
    world = dataclasses.replace(longer, **{name: getattr(longer, name)[:20] for name in columns})
    for drill in drills.DRILLS:
        first = drill(window_of(world, 0, 20, "w"), Random(0))
        assert first == drill(window_of(longer, 0, 20, "w"), Random(0)), drill.__name__


def test_a_vector_says_what_and_in_which_order(tokenizer: HFTokenizer) -> None:
    weights = word_weights(4)
    assert np.linalg.norm(weights) == pytest.approx(1)
    assert (np.diff(weights) < 0).all()
    seen = window("v")
    columns, table = vectors.event_vectors(tokenizer, seen, None)
    faint = np.full((30, len(seen.catalogue.behaviours)), 0.0, np.float32)
    faint[:, 0] = 1.0
    _, mixed = vectors.event_vectors(tokenizer, seen, faint)
    ids = tokenizer.encode(f" {seen.catalogue.behaviours[0]}")
    added = np.zeros(tokenizer.vocab_size)
    np.add.at(added, ids, EXPECTED * word_weights(len(ids)))
    np.testing.assert_allclose(mixed - table, np.tile(added[columns], (30, 1)), atol=1e-6)


def test_batches_depend_on_their_seed_alone(tokenizer: HFTokenizer) -> None:
    texts = pieces(tokenizer.tokenizer)
    first, answers = draw_batch("s", tokenizer, texts, (3, 512), 400, PHASES[-1])
    again, _ = draw_batch("s", tokenizer, texts, (3, 512), 400, PHASES[-1])
    other, _ = draw_batch("t", tokenizer, texts, (3, 512), 400, PHASES[-1])
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["tokens"], other["tokens"])
    for _, row, span in answers:
        assert first["tokens"][row, span.stop - 1] == tokenizer.im_end
        assert (first["answer"][row, span] > 0).all()
    wanted = first["wanted"]
    assert (first["positions"].reshape(-1)[wanted] > 0).all()
    flat = first["answer"].reshape(-1)
    assert first["is_answer"].sum() == (flat > 0).sum()


def test_it_begins_with_what_can_be_copied_from_short_texts(tokenizer: HFTokenizer) -> None:
    first, second = (int(phase.before) for phase in PHASES[:2])
    at = [phase_of(step) for step in (0, first - 1, first, second - 1, second, 10**6)]
    assert at == [PHASES[i] for i in (0, 0, 1, 1, 2, 2)]
    kinds: set[str] = set()
    for i in range(40):
        one = draw_dialogue(Random(f"p{i}"), tokenizer, (), 400, PHASES[0])
        assert not len(one.vectors)
        assert tokenizer.soft not in one.tokens
        kinds |= {turn.kind for turn in one.rounds}
    assert kinds == {drill.__name__ for drill in drills.COPIES} | {
        "drill"
    }  # that of an earlier answer


def test_placeholders_take_the_vectors_of_their_own_dialogue(tokenizer: HFTokenizer) -> None:
    for i in range(40):
        one = draw_dialogue(Random(f"d{i}"), tokenizer, (), 400, PHASES[-1])
        soft = np.asarray(one.tokens) == tokenizer.soft
        shown = np.asarray(one.shown)
        assert len(one.tokens) == len(one.answer) == len(shown) <= 400
        assert (shown[~soft] == 0).all()
        if soft.any():
            assert shown[soft].max() < len(one.vectors)


@pytest.mark.parametrize(
    "text", ["Ünïcode 東京 🙂 123 <|im_end|>", "  two  spaces\n\nlines ", "Ω ж ค"]
)
def test_text_survives(tokenizer: HFTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.im_start, tokenizer.im_end, tokenizer.soft} & set(ids)


def test_the_lexicon_has_the_built_in_populations_words() -> None:
    known = {word for words in lexicon().values() for word in words}
    assert {word for label in BEHAVIOURS for word in label.split()} <= known


def test_no_word_of_the_other_namings_is_known() -> None:
    known = {word for words in lexicon().values() for word in words}
    paths = sorted((Path(labels.__file__).parent / "namings").glob("*.json"))
    assert len(paths) == 5
    for path in paths:
        name, mapping = path.stem, json.loads(path.read_text(encoding="utf-8"))
        assert tuple(mapping) == BEHAVIOURS, name
        assert len(set(mapping.values())) == len(BEHAVIOURS), name
        words = {
            word for label in mapping.values() for word in re.findall(r"[^\W\d_]+", label.lower())
        }
        assert not words & known, name
