"""Precision, recall and abstention of texts: of the rules, of nobody's, of nothing."""

import numpy as np
import pytest

from bua_jax.evaluation.counts import resamples
from bua_jax.evaluation.understanding import persona
from bua_jax.evaluation.understanding.claims import ASPECTS, read
from bua_jax.evaluation.understanding.score import (
    METRICS,
    OTHERS,
    SHUFFLED,
    TextCounts,
    against,
    count_texts,
    placebos,
    scored,
    text_metrics,
)
from bua_jax.events.simulate import HOBBIES
from tests.evaluation.understanding.described import Described, described


@pytest.fixture(scope="module")
def some() -> Described:
    return described()


@pytest.fixture(scope="module")
def counts(some: Described) -> dict[str, TextCounts]:
    rows = {"rules": some.texts, "nothing": [""] * len(some.texts)}
    rows |= placebos(some.texts, some.frozen.donor, some.names)
    return {name: count_texts(some.people, some.about, texts) for name, texts in rows.items()}


def values(counts: TextCounts) -> dict[str, float]:
    return {name: float(value[0]) for name, value in text_metrics(counts.total()).items()}


def test_rules_are_right_and_placebos_are_not(counts: dict[str, TextCounts]) -> None:
    found = {name: values(one) for name, one in counts.items()}
    assert set(found["rules"]) == set(METRICS)
    for aspect in ASPECTS:
        assert found["rules"][f"{aspect}_precision"] == 1.0
    assert found["rules"]["recall"] > 0.9
    assert found["rules"]["abstention"] < 0.1
    for placebo in (OTHERS, SHUFFLED):
        assert found[placebo]["precision"] < 0.75
        assert found[placebo]["recall"] < 0.5
    assert found[SHUFFLED]["behaviours_precision"] > 0.9  # the words are the person's own
    assert found[OTHERS]["behaviours_precision"] < 0.9


def test_silence_has_no_recall_and_no_precision(counts: dict[str, TextCounts]) -> None:
    found = values(counts["nothing"])
    assert found["recall"] == 0.0
    assert found["abstention"] == 1.0
    assert np.isnan(found["precision"])
    said = scored(counts["nothing"], resamples(len(counts["nothing"]), 10, 0))
    assert said["metrics"]["recall"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert said["metrics"]["precision"] == {"value": None, "low": None, "high": None}


def test_sums_over_people_are_the_whole(some: Described, counts: dict[str, TextCounts]) -> None:
    """Against claims counted one by one, without sums over people."""
    one = counts[OTHERS].total()
    texts = placebos(some.texts, some.frozen.donor, some.names)[OTHERS]
    silent = sum(
        not any(c.aspect == "order" for c in read(some.store.catalogue, text).claims)
        for text in texts
    )
    assert one.silent[0, ASPECTS.index("order")] == silent
    assert one.texts[0] == len(texts) == len(some.people)
    assert len(counts[OTHERS]) == len(np.unique(some.people))
    assert np.all(one.true <= one.claims)
    assert np.all(one.stated <= one.facts)


def test_differences_are_paired(counts: dict[str, TextCounts]) -> None:
    drawn = resamples(len(counts["rules"]), 200, 0)
    found = against(counts["rules"], counts[OTHERS], drawn)
    assert 0 < found["precision"]["low"] <= found["precision"]["difference"]
    same = against(counts["rules"], counts["rules"], drawn)
    assert same["recall"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert "precision" not in against(counts["rules"], counts["nothing"], drawn)


def test_placebos_are_fixed_by_the_set(some: Described) -> None:
    texts, donor = ["a b c d e f", "g"], np.array([1, -1])
    made = placebos(texts, donor, ["x", "y"])
    assert made[OTHERS] == ["g", ""]
    assert sorted(made[SHUFFLED][0].split()) == list("abcdef")
    assert made[SHUFFLED] == placebos(texts, donor, ["x", "y"])[SHUFFLED]


# ------------------------------------------------------------------------------------ simulated people


def fields_of(some: Described, row: int, text: str) -> dict[str, list[float]]:
    person = some.about[row].person
    assert person is not None
    table = persona.against(person, text, read(some.store.catalogue, text).claims)
    return dict(zip(persona.FIELDS, table.tolist(), strict=True))


def test_a_persona_is_held_against(some: Described) -> None:
    """Every field said right, said wrong, and not said: claims, true ones, facts, stated."""
    row = next(i for i, one in enumerate(some.about) if one.person.work and one.person.home)
    person = some.about[row].person
    who = person.persona
    wakes = "early riser" if who.wake_slot < 16 else "morning starter"
    pattern = {"office": "office worker", "shift": "works shifts", "student": "student"}
    right = (
        f"A {pattern[who.pattern]}, {wakes}. Likes {who.hobbies[0]}. Home is L{person.home}. "
        f"Work is L{person.work}."
    )
    found = fields_of(some, row, right)
    assert found["pattern"] == found["chronotype"] == [1, 1, 1, 1]
    assert found["home"] == found["work"] == [1, 1, 1, 1]
    assert found["hobbies"] == [1, 1, len(who.hobbies), 1]
    assert found["change"] == [0, 0, person.changed, 0]
    other = next(h for h in HOBBIES if h not in who.hobbies)
    wrong = f"Retired, a late starter who used to sleep. Likes {other}. Home is L9. Work is L{person.home}."
    found = fields_of(some, row, wrong)
    assert found["pattern"] == found["chronotype"] == found["work"] == [1, 0, 1, 0]
    assert found["home"] == [1, 0, 1, 0]
    assert found["hobbies"][:2] == [1, 0]
    assert found["change"][:2] == [1, person.changed]
    assert [said for said, *_ in fields_of(some, row, "").values()] == [0] * 6


def test_a_change_of_life_is_looked_for_in_the_window(some: Described) -> None:
    """Of a person who changes: a window over that day, one that ends before it, one that begins on it."""
    store, people = some.store, {str(user): row for row, user in enumerate(some.store.users)}
    who = next(one.person.persona for one in some.about if one.person.persona.change_day > 3)
    row = people[who.user]
    events = range(store.offsets[row], store.offsets[row + 1])
    begins = next(i for i in events if store.day[i] >= who.change_day)
    changed = [
        persona.known(store, who, (), start, end, [1] * (end - start)).changed
        for start, end in ((begins - 5, begins + 5), (begins - 10, begins), (begins, begins + 10))
    ]
    assert changed == [True, False, False]
