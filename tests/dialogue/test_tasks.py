"""Dialogues of stages 1 and 2: contents, skips, proportions, switches, no leak of the target."""

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue import tasks as tasks_module
from bua_jax.dialogue.critic import refinement_dialogue, reviewed
from bua_jax.dialogue.rounds import STAGE1_TASKS, Dialogue, Round
from bua_jax.dialogue.rules import ANNOTATORS, NOTHING
from bua_jax.dialogue.tasks import (
    Writer,
    build_stage2,
    cap_nothing,
    cap_stage1,
    is_nothing,
    stage1_dialogue,
    stage1_tasks,
    stage2_dialogue,
    write_stage1,
)
from bua_jax.dialogue.text import parse_day
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import WEEKDAYS
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import (
    generation_windows,
    histories,
    history,
    prediction_windows,
    sample_windows,
    target_day,
)
from tests.dialogue.stores import LABELS, changed_from, make_store, stores

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BLIND = tuple(t for t in STAGE1_TASKS if t != "future_scene")  # all that may not see the future


@pytest.fixture(scope="module")
def simulated():
    return simulated_store(12, 20, 5)


# -- the metamorphic check -------------------------------------------------------------------------


def seen_before_the_answer(store, shares, task, windows, row, split):
    """All that is shown or learnt before the final answer: encoder input, prompts, answers."""
    writer = Writer(store, shares)
    start, end = int(windows.start[row]), int(windows.end[row])
    fields = history(store, start, end).encoder_fields().tobytes()
    if task in STAGE1_TASKS:
        made = stage1_dialogue(writer, task, windows, row, split)
        return fields, made
    if task == "refinement":
        window = writer.window(start, end, "x")
        return fields, refinement_dialogue(
            window, split, start, end, "Traits: sociable.", reviewed(window, "Traits: sociable.")
        )
    made = stage2_dialogue(writer, task, windows, row, split)
    *rounds, final = made.rounds
    return fields, dataclasses.replace(
        made, rounds=(*rounds, Round(final.kind, final.instruction, ""))
    )


def leaks(store, task, windows, row, split):
    """Whether anything before the final answer changes with the target and what follows it.

    For people outside the training set the population's shares are computed anew, as a run would;
    a training user's own events are part of them, so there they are held fixed.
    """
    other = changed_from(store, int(windows.end[row]), seed=row)
    mine = Writer(store, training_shares(store)).shares
    theirs = mine if split == "train" else Writer(other, training_shares(other)).shares
    before = seen_before_the_answer(store, mine, task, windows, row, split)
    return before != seen_before_the_answer(other, theirs, task, windows, row, split)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("task", [*BLIND, "prediction", "generation", "refinement"])
def test_nothing_before_the_final_answer_depends_on_the_target(simulated, task, split):
    make = generation_windows if task == "generation" else prediction_windows
    windows = make(simulated, split, history_length=40)
    rows = range(0, len(windows), max(1, len(windows) // 15))
    assert len(rows) > 5
    for row in rows:
        assert not leaks(simulated, task, windows, row, split)


@pytest.mark.parametrize("task", ["prediction", "generation"])
@pytest.mark.parametrize("kind", ["key_behaviours", "patterns", "summary"])
def test_the_check_catches_an_annotator_that_reads_one_event_too_far(
    simulated, monkeypatch, kind, task
):
    current = {}
    honest = ANNOTATORS[kind]
    make_windows = Writer.windows

    def remember(self, index):
        for end, window in zip(index.end.tolist(), make_windows(self, index), strict=True):
            current["next"] = (self.store, end)
            yield window

    def leaking(window):
        store, end = current["next"]
        return f"{honest(window)} {window.label(int(store.behaviour[end]))}"

    monkeypatch.setattr(Writer, "windows", remember)
    monkeypatch.setitem(ANNOTATORS, kind, leaking)
    make = generation_windows if task == "generation" else prediction_windows
    windows = make(simulated, "test", history_length=40)
    assert all(leaks(simulated, task, windows, row, "test") for row in range(0, len(windows), 5))


def test_the_check_catches_a_history_one_event_too_long(simulated, monkeypatch):
    monkeypatch.setattr(
        tasks_module, "histories", lambda store, start, end: histories(store, start, end + 1)
    )
    windows = prediction_windows(simulated, "test")
    assert all(leaks(simulated, "prediction", windows, row, "test") for row in range(0, 50, 5))


@QUICK
@given(stores(), st.integers(0, 10_000))
def test_random_stores_do_not_leak(store, pick):
    for split in ("train", "test"):
        windows = prediction_windows(store, split)
        for task in (*BLIND, "prediction"):
            assert not leaks(store, task, windows, pick % len(windows), split)


# -- stage 2 ---------------------------------------------------------------------------------------


def test_stage2_ends_in_the_true_target(simulated):
    windows = prediction_windows(simulated, "test")
    for row, made in enumerate(
        build_stage2(Writer(simulated, training_shares(simulated)), "prediction", windows, "test")
    ):
        label = simulated.catalogue.behaviours[simulated.behaviour[windows.end[row]]]
        assert made.rounds[-1].answer == label
        if row == 0:
            kinds = [turn.kind for turn in made.rounds]
            assert kinds == ["key_behaviours", "patterns", "summary", "prediction"]
        if row == 20:
            break


def test_shortened_training_dialogues_end_alike_and_validation_is_whole(simulated):
    windows = prediction_windows(simulated, "train")
    whole, shortened = (
        Writer(simulated, training_shares(simulated)),
        Writer(simulated, training_shares(simulated), shortened_share=0.5),
    )
    lengths = []
    for row in range(60):
        full = stage2_dialogue(whole, "prediction", windows, row, "train").rounds
        made = stage2_dialogue(shortened, "prediction", windows, row, "train").rounds
        assert made == full[len(full) - len(made) :]
        lengths.append(len(made))
    assert set(lengths) == {1, 4}
    assert 15 < lengths.count(4) < 45
    held = prediction_windows(simulated, "validation")
    assert len(stage2_dialogue(shortened, "prediction", held, 0, "validation").rounds) == 4


def test_generation_names_the_weekday_and_only_that(simulated):
    windows = generation_windows(simulated, "test", history_length=40)
    made = stage2_dialogue(
        Writer(simulated, training_shares(simulated)), "generation", windows, 0, "test"
    )
    weekday = WEEKDAYS[simulated.weekday[windows.end[0]]]
    instruction, answer = made.rounds[-1].instruction, made.rounds[-1].answer
    assert instruction == f"Write the events of the next day, {weekday}."
    assert parse_day(answer, simulated.catalogue) == target_day(simulated, windows, 0)


def test_switches(simulated):
    windows = prediction_windows(simulated, "test")
    plain = stage2_dialogue(
        Writer(simulated, training_shares(simulated)), "prediction", windows, 3, "test"
    )
    short = stage2_dialogue(
        Writer(simulated, training_shares(simulated), rounds=False),
        "prediction",
        windows,
        3,
        "test",
    )
    assert short.rounds == plain.rounds[-1:]
    writer = Writer(simulated, training_shares(simulated), target_time_revealed=True)
    told = stage2_dialogue(writer, "prediction", windows, 3, "test").rounds[-1].instruction
    assert simulated.catalogue.clock(int(simulated.slot[windows.end[3]])) in told
    assert not any(c.isdigit() for c in plain.rounds[-1].instruction)
    assert plain.rounds[-1].instruction == "Which behaviour comes next?"
    for revealed, without in ((False, plain.rounds[-1].instruction), (True, told)):
        writer = Writer(
            simulated,
            training_shares(simulated),
            target_time_revealed=revealed,
            drill="What was last?",
        )
        drilled = stage2_dialogue(writer, "prediction", windows, 3, "test").rounds[-1]
        assert drilled.instruction == f"What was last? {without}"


def odd_store(seed):
    """Few or many labels, ties, unknown places, none or more than ten, gaps, days of one event."""
    rng = np.random.default_rng(seed)
    labels = (*LABELS, *(f"play game {i}" for i in range(12)), "subway ride")
    labels = labels[: rng.choice([1, 2, 8, len(labels)])]
    slots, days = int(rng.choice([24, 48])), int(rng.choice([1, 4, 20]))
    users = []
    for _ in range(3):
        n = int(rng.integers(12, 130))
        day, slot = np.sort(rng.integers(0, days, n)), rng.integers(0, slots, n)
        slot = slot[np.lexsort((slot, day))]
        place = rng.integers(-1, rng.choice([0, 2, 25]), n)
        gap = (rng.random(n) < rng.choice([0, 0.2])) & (np.arange(n) > 0)
        behaviour = np.minimum(rng.zipf(1.5, n) - 1, len(labels) - 1)
        columns = (day, slot, place, behaviour, gap)
        users.append(list(zip(*(column.tolist() for column in columns), strict=True)))
    places = bool(rng.random() < 0.7)
    return make_store(users, labels=labels, slots_per_day=slots, has_places=places)


def test_texts_of_odd_data_stay_as_they_are() -> None:
    """Frozen: facts may be found in faster ways, and say the same. A new `rules.VERSION` may not."""
    said = hashlib.sha256()
    for seed in range(40):
        store = odd_store(seed)
        writer = Writer(store, training_shares(store), seed=seed)
        for task, make in (("prediction", prediction_windows), ("generation", generation_windows)):
            windows = sample_windows(make(store, "train", min_history=2), 15, seed)
            for made in (
                *build_stage2(writer, task, windows, "train"),
                *write_stage1(writer, windows, "train")[0],
            ):
                said.update(repr(made).encode())
    assert said.hexdigest()[:16] == "a3549b044a80a01f"


def test_windows_that_are_gathered_together_are_those_of_one_each(simulated, monkeypatch):
    windows = prediction_windows(simulated, "train").take(np.arange(0, 300, 13))
    monkeypatch.setattr(tasks_module, "AT_ONCE", 7)
    writer = Writer(simulated, training_shares(simulated))
    made = list(build_stage2(writer, "prediction", windows, "train"))
    assert made == [
        stage2_dialogue(writer, "prediction", windows, row, "train") for row in range(len(windows))
    ]


# -- stage 1 ---------------------------------------------------------------------------------------


def test_future_scene_is_the_true_next_two_hours_and_stands_alone():
    rows = [(0, i, 1, 0, False) for i in range(10)]
    rows += [(0, 11, 2, 1, False), (0, 13, 1, 3, False), (0, 14, 1, 2, False)]
    store = make_store([rows])
    windows = prediction_windows(store, "train")
    made = stage1_dialogue(
        Writer(store, training_shares(store)), "future_scene", windows, 0, "train"
    )
    assert made is not None
    assert len(made.rounds) == 1
    # the last event is in slot 9 (04:30): 05:30 and 06:30 are within two hours, 07:00 is not;
    # the area of the first was never visited before, so it is not among the history's places
    expected = "Next two hours, morning: 05:30 other pay, then 06:30 L1 read news."
    assert made.rounds[0].answer == expected


@pytest.mark.parametrize(
    ("gap_at", "known"), [(9, False), (7, False), (6, True), (None, True)], ids=str
)
def test_current_scene_is_skipped_where_its_two_hours_touch_a_gap(gap_at, known):
    rows = [(0, 2 * i, 1, 0, i == gap_at) for i in range(12)]  # an event per hour
    store = make_store([rows])
    windows = prediction_windows(store, "train")  # first window: events 0..9, the last in slot 18
    made = stage1_dialogue(
        Writer(store, training_shares(store)), "current_scene", windows, 0, "train"
    )
    # two hours back from slot 18 reach slot 14, event 7: what came right before it counts
    assert (made is not None) is known


def test_future_scene_is_skipped_at_a_gap_and_at_the_end_of_the_record():
    rows = [(0, i, 1, 0, False) for i in range(10)]
    cut = make_store([[*rows, (0, 11, 1, 1, True), (2, 1, 1, 1, False)]])
    ends = make_store([[*rows, (0, 11, 1, 1, False)]])
    for store in (cut, ends):
        windows = prediction_windows(store, "train")
        assert (
            stage1_dialogue(
                Writer(store, training_shares(store)), "future_scene", windows, 0, "train"
            )
            is None
        )


def test_places_tasks_are_left_out_where_there_are_none():
    store = make_store([[(0, i, 1, 0, False) for i in range(12)]], has_places=False)
    windows = prediction_windows(store, "train")
    assert "home_work" not in stage1_tasks(store.catalogue)
    assert (
        stage1_dialogue(Writer(store, training_shares(store)), "home_work", windows, 0, "train")
        is None
    )
    made, _ = write_stage1(Writer(store, training_shares(store)), windows, "train")
    answers = [turn.answer for d in made for turn in d.rounds]
    assert not any("L1" in answer or "other" in answer for answer in answers)
    with pytest.raises(ConfigError, match="no places"):
        stage1_tasks(store.catalogue, ("home_work",))
    with pytest.raises(ConfigError, match="'hobby' is no stage-1 task"):
        stage1_tasks(store.catalogue, ("hobby",))


def test_proportions_are_kept_and_draws_depend_on_the_sample_alone(simulated):
    windows = prediction_windows(simulated, "train")
    writer = Writer(simulated, training_shares(simulated))
    weights = {"reconstruction": 3.0, "hobbies": 1.0, "home_work": 0.0}
    made, skipped = write_stage1(writer, windows, "train", tasks=weights)
    share = np.mean([d.task == "reconstruction" for d in made])
    # binomial: sd <= 0.5 / sqrt(n); five of them
    assert abs(share - 0.75) < 2.5 / np.sqrt(len(made))
    assert not skipped
    assert {d.task for d in made} == {"reconstruction", "hobbies"}
    half = windows.take(np.arange(0, len(windows), 2))
    assert write_stage1(writer, half, "train", tasks=weights)[0] == made[::2]
    assert (
        write_stage1(
            Writer(simulated, training_shares(simulated), seed=1), half, "train", tasks=weights
        )[0]
        != made[::2]
    )
    with pytest.raises(ConfigError, match="proportions"):
        write_stage1(writer, half, "train", tasks={"hobbies": -1.0})


def scene(name, nothing):
    turn = Round("future_scene", "?", NOTHING[0] if nothing else "Next two hours")
    return Dialogue(name, "train", 1, "future_scene", 0, 10, (turn,))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_nothing_answers_are_capped_at_their_share(share):
    made = [scene(f"u{i}", i % 4 != 0) for i in range(400)]
    kept = cap_nothing(made, share)
    empty = sum(map(is_nothing, kept))
    something = len(kept) - empty
    assert something == 100
    assert empty == min(300, round(share * 100 / (1 - share)) if share < 1 else 300)
    assert [d for d in made if d in kept] == kept
    if share == 0.2:  # those that stay are spread over the users, not the first ones
        assert max(i for i, d in enumerate(made) if is_nothing(d) and d in kept) > 200


def test_the_cap_is_for_training_alone():
    # an event every six hours: the next two hours are always empty
    rows = [(i // 4, 6 * (i % 4), 1, 0, False) for i in range(60)]
    store = make_store([rows] * 3, slots_per_day=24, splits=(0, 1, 2))
    counts = {}
    for split in ("train", "validation"):
        windows = prediction_windows(store, split)
        made, skipped = write_stage1(
            Writer(store, training_shares(store)), windows, split, ("future_scene",)
        )
        made, left_out = cap_stage1(made, split, 0.2, 42)
        skipped += left_out
        counts[split] = len(made)
        assert len(made) + skipped.total() == len(windows)
    assert counts["train"] == 0
    assert counts["validation"] > 40
