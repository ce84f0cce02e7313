"""Reference answers say what is true: every number is counted again here, from the history alone.

Nothing of `bua_jax.dialogue.facts` is used for the counting.
"""

import itertools
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bua_jax.dialogue import rules
from bua_jax.dialogue.facts import Window, distinctive, traits
from bua_jax.dialogue.rules import ANNOTATORS
from bua_jax.dialogue.tasks import Writer
from bua_jax.dialogue.traits import kind_of
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import history, prediction_windows, sample_windows
from tests.dialogue.stores import LABELS, make_store, stores

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LABEL = "|".join(re.escape(label) for label in sorted(LABELS, key=len, reverse=True))


@st.composite
def windows(draw):
    store = draw(stores())
    index = prediction_windows(store, "train")
    row = draw(st.integers(0, 10_000)) % len(index)
    name = f"s{draw(st.integers(0, 20))}"
    return Writer(store, training_shares(store)).window(
        int(index.start[row]), int(index.end[row]), name
    )


def ids(window, *labels):
    return [window.catalogue.behaviours.index(label) for label in labels]


def day_chains(window):
    """Behaviours of each day of the history, divided at gaps."""
    h, chains = window.history, []
    for i in range(len(h)):
        if i == 0 or h.gap[i] or h.day[i] != h.day[i - 1]:
            chains.append([])
        chains[-1].append(int(h.behaviour[i]))
    return chains


def occurrences(chain, gram):
    """Non-overlapping occurrences of `gram` in `chain`, from the left."""
    count = i = 0
    while i + len(gram) <= len(chain):
        if chain[i : i + len(gram)] == gram:
            count, i = count + 1, i + len(gram)
        else:
            i += 1
    return count


def share_near(window, behaviour, clocks):
    h, minutes = window.history, 1440 // window.catalogue.slots_per_day
    at = h.slot[h.behaviour == behaviour] * minutes
    said = [int(c[:2]) * 60 + int(c[3:]) for c in clocks]
    return np.mean([min(abs(int(a) - s) for s in said) <= 60 for a in at])


@QUICK
@given(windows())
def test_key_behaviours(window):
    h, text = window.history, ANNOTATORS["key_behaviours"](window)
    head, rest = text.split(": ", 1)
    assert head in ("Frequent", "Most frequent", "Key")
    items = rest.split(". ", 1)[0].split("; ")
    counts = np.bincount(h.behaviour, minlength=len(window.catalogue.behaviours))
    said = []
    for item in items:
        match = re.match(rf"({LABEL}) (\d+)(?: of (\d+))?", item)
        (b,) = ids(window, match[1])
        assert counts[b] == int(match[2])
        assert match[3] is None or int(match[3]) == len(h)
        said.append(counts[b])
        clocks = re.findall(r"\d\d:\d\d", item)
        assert not clocks or share_near(window, b, clocks) >= 0.6
    assert said == sorted(counts, reverse=True)[: len(said)]
    now = re.search(rf"Now (\w+) (\d\d:\d\d): (?:({LABEL}), then )?({LABEL})\.$", text)
    assert now[2] == window.catalogue.clock(int(h.slot[-1]))
    assert ids(window, now[4]) == [h.behaviour[-1]]
    assert (now[3] is None) == bool(h.gap[-1])
    assert now[3] is None or ids(window, now[3]) == [h.behaviour[-2]]
    opened = re.search(rf"Days open with ({LABEL}) \((\d+) of (\d+)\)", text)
    if opened:  # neither the first day nor days behind a gap may be cut off
        first = [
            int(h.behaviour[i])
            for i in range(1, len(h))
            if h.day[i] != h.day[i - 1] and not h.gap[i]
        ]
        assert (first.count(ids(window, opened[1])[0]), len(first)) == tuple(
            map(int, opened.groups()[1:])
        )


@QUICK
@given(windows())
def test_patterns(window):
    h, text = window.history, ANNOTATORS["patterns"](window)
    chains = day_chains(window)
    head = text.split(". ", 1)[0]
    for match in re.finditer(rf"((?:{LABEL})(?: then (?:{LABEL}))+)[^;(]*\((\d+) times\)", head):
        gram = ids(window, *match[1].split(" then "))
        assert 2 <= int(match[2]) == sum(occurrences(chain, gram) for chain in chains)
    if text.startswith("No sequence recurs"):
        pairs = [(a, b) for chain in chains for a, b in itertools.pairwise(chain)]
        assert all(sum(occurrences(c, list(p)) for c in chains) < 2 for p in set(pairs))
    after = re.search(rf"After ((?:{LABEL})(?: then (?:{LABEL}))?): (.*?)\.(?: |$)", text)
    if after:
        last = ids(window, *after[1].split(" then "))
        depth = len(last)
        assert last == h.behaviour[-depth:].tolist()
        followed = [
            int(h.behaviour[i])
            for i in range(depth, len(h))
            if h.behaviour[i - depth : i].tolist() == last
            and not h.gap[i - depth + 1 : i + 1].any()
        ]
        for label, count, total in re.findall(rf"({LABEL}) \((\d+) of (\d+)\)", after[2]):
            (b,) = ids(window, label)
            assert (followed.count(b), len(followed)) == (int(count), int(total))
    around = re.search(r"Around (\d\d:\d\d) on other days: (.*)\.$", text)
    if around:
        hour = window.catalogue.slots_per_day // 24
        then = h.behaviour[(h.day < 0) & (np.abs(h.slot - h.slot[-1]) <= hour)].tolist()
        for label, count, total in re.findall(rf"({LABEL}) \((\d+) of (\d+)\)", around[2]):
            assert (then.count(ids(window, label)[0]), len(then)) == (int(count), int(total))
    at_place = re.search(rf"At L(\d+) mostly ({LABEL}) \((\d+) of (\d+)\)", text)
    if at_place:
        there = h.behaviour[h.place == int(at_place[1])].tolist()
        count = there.count(ids(window, at_place[2])[0])
        assert (count, len(there)) == (int(at_place[3]), int(at_place[4]))


@QUICK
@given(windows())
def test_home_and_work(window):
    h, text = window.history, ANNOTATORS["home_work"](window)
    hours = h.slot * 24 // window.catalogue.slots_per_day
    masks = {
        "night": (hours < 7) | (hours >= 21),
        "day": (hours >= 9) & (hours < 18) & (h.weekday < 5),
    }
    found = {}
    for what, pattern in (
        ("night", r"L(\d+): (\d+) of (\d+) night"),
        ("day", r"L(\d+): (\d+) of (\d+) weekday"),
    ):
        match = re.search(pattern, text)
        if match:
            place, count, total = map(int, match.groups())
            found[what] = place
            assert (h.place[masks[what]] == place).sum() == count
            assert masks[what].sum() == total
            known = [p for p in range(1, 11) if p != found.get("night") or what == "night"]
            if what == "night" or "night" in found:
                assert count == max((h.place[masks[what]] == p).sum() for p in known)
    assert len(set(found.values())) == len(found)


@QUICK
@given(windows())
def test_hobbies(window):
    h, text = window.history, ANNOTATORS["hobbies"](window)
    for label, count in re.findall(rf"({LABEL}) \((\d+) times", text):
        (b,) = ids(window, label)
        assert (h.behaviour == b).sum() == int(count) >= 2
        assert int(count) / len(h) > window.shares[b]
        assert kind_of(label).leisure


@QUICK
@given(windows())
def test_every_answer_exists_and_repeats(window):
    for annotate in ANNOTATORS.values():
        text = annotate(window)
        assert text
        assert text == text.strip()
        assert "  " not in text
        assert text == annotate(window)


def test_wording_varies_with_the_sample_and_facts_do_not():
    store = simulated_store(4, 10, 1)
    index = prediction_windows(store, "train")
    writer = Writer(store, training_shares(store))
    start, end = int(index.start[30]), int(index.end[30])
    for kind in ("key_behaviours", "patterns", "summary", "home_work", "current_scene"):
        texts = {ANNOTATORS[kind](writer.window(start, end, f"s{i}")) for i in range(30)}
        assert len(texts) >= 3
        assert len({tuple(re.findall(r"\d+", text)) for text in texts}) == 1


def test_answers_stay_within_their_length():
    store = simulated_store(20, 20, 2)
    index = sample_windows(prediction_windows(store, "train"), 200, 0)
    writer = Writer(store, training_shares(store))
    made = [writer.window(int(index.start[i]), int(index.end[i]), str(i)) for i in range(200)]
    for kind in ("key_behaviours", "patterns", "summary"):
        words = [len(ANNOTATORS[kind](w).split()) for w in made]
        assert np.percentile(words, 5) >= 20
        assert np.percentile(words, 95) <= 50


def test_two_peaks_are_told_apart_and_spread_events_get_no_time():
    rows = [(day, slot, 1, 0, False) for day in range(4) for slot in (16, 36)]
    rows += [(4 + i, 4 + 7 * i, 1, 1, False) for i in range(6)]
    store = make_store([rows], labels=("bus", "tea"))
    window = Window(history(store, 0, len(rows)), store.catalogue, np.asarray([0.5, 0.5]), "w")
    text = rules.key_behaviours(window)
    assert "bus 8 of 14 around 08:00 and 18:00" in text
    assert "tea 6. " in text


def test_work_and_travel_are_no_hobbies_but_lend_traits():
    labels = ("subway", "edit document", "play game", "pay", "chat")
    behaviour = [0, 1, 1, 2, 2, 2, 0, 1, 1, 2, 0, 1]
    rows = [(i // 4, 10 + i % 4, 1, b, False) for i, b in enumerate(behaviour)]
    store = make_store([rows], labels=labels)
    shares = np.asarray([0.1, 0.1, 0.1, 0.3, 0.4])
    window = Window(history(store, 0, 12), store.catalogue, shares, "w")
    text = rules.hobbies(window)
    assert "play game (4 times" in text
    assert "subway" not in text
    assert "document" not in text
    assert distinctive(window, 5) == [1, 2, 0]
    assert traits(window, 5) == ["work-focused", "entertainment-seeking", "often on the move"]


@pytest.mark.parametrize(
    ("weekday", "slot", "phase"),
    [
        (0, 16, "morning commute"),
        (0, 36, "evening commute"),
        (5, 16, "morning"),
        (0, 24, "early afternoon"),
    ],
)
def test_travel_on_a_working_day_makes_a_commute(weekday, slot, phase):
    rows = [(weekday - 7, i, 1, 1, False) for i in range(9)] + [(weekday, slot, 2, 0, False)]
    store = make_store([[(d + 7, *rest) for d, *rest in rows]], labels=("subway", "chat"))
    window = Window(history(store, 0, 10), store.catalogue, np.asarray([0.5, 0.5]), "w")
    assert f" {phase} at L2." in rules.current_scene(window)
