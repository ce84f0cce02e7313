"""Cases: all that a method sees, and nothing of what follows."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from bua_jax.events.simulate import simulated_store
from bua_jax.events.split import without_test_people
from bua_jax.events.windows import generation_windows, history, prediction_windows, sample_windows
from bua_jax.methods.protocol import Data, Labelled, Site, cases_of
from tests.support.helpers import ROOT
from tests.support.readme import tagged

STORE = simulated_store(12, 15, 3)
WINDOWS = sample_windows(prediction_windows(STORE, "test"), 20, 0)


def test_a_case_holds_the_history_of_its_window() -> None:
    cases = cases_of(STORE, WINDOWS, 40)
    assert len(cases) == 20
    for row, case in enumerate(cases):
        expected = history(STORE, int(WINDOWS.start[row]), int(WINDOWS.end[row]))
        for field in dataclasses.fields(expected):
            found = getattr(case.history, field.name)
            np.testing.assert_array_equal(found, getattr(expected, field.name), field.name)
        assert (case.weekday, case.slot, case.notes) == (None, None, {})
    assert [len(h) for h in cases.histories()] == (WINDOWS.end - WINDOWS.start).tolist()


def test_slices_and_orders_are_of_the_same_cases() -> None:
    cases = cases_of(STORE, WINDOWS, 40, told="time").with_notes([{"n": str(i)} for i in range(20)])
    turned = cases.take(np.arange(20)[::-1])
    for some, at in ((cases[3:7], 3), (turned[13:17], None)):
        assert len(some) == 4
        for i, case in enumerate(some):
            same = cases[at + i if at is not None else 6 - i]
            assert (case.sample_id, case.notes) == (same.sample_id, same.notes)
            assert (case.weekday, case.slot) == (same.weekday, same.slot)
            np.testing.assert_array_equal(case.history.behaviour, same.history.behaviour)


@pytest.mark.parametrize("told", ["nothing", "weekday", "time"])
def test_the_target_and_what_follows_change_nothing_but_what_is_told(told: str) -> None:
    windows = sample_windows(generation_windows(STORE, "test"), 4, 0)
    before = cases_of(STORE, windows, 100, told=told)
    behaviour, weekday, slot = (getattr(STORE, n).copy() for n in ("behaviour", "weekday", "slot"))
    last = {}  # of each person only what no window's history holds may change
    for user, end in zip(windows.user, windows.end, strict=True):
        last[user] = max(last.get(user, 0), int(end))
    for user, end in last.items():
        after = slice(end, int(STORE.offsets[user + 1]))
        behaviour[after] = (behaviour[after] + 1) % 37
        weekday[after] = (weekday[after] + 1) % 7
        slot[after] = (slot[after] + 1) % 48
    other = dataclasses.replace(STORE, behaviour=behaviour, weekday=weekday, slot=slot)
    after = cases_of(other, windows, 100, told=told)
    changed = np.asarray(
        [int(e) == last[u] for u, e in zip(windows.user, windows.end, strict=True)]
    )
    for name, one in vars(before.arrays).items():
        np.testing.assert_array_equal(one, getattr(after.arrays, name))
    assert before.sample_id != after.sample_id  # names are hashed with all events
    assert [n.partition(":")[2] for n in before.sample_id] == [
        n.partition(":")[2] for n in after.sample_id
    ]
    np.testing.assert_array_equal(before.weekday != after.weekday, changed & (told != "nothing"))
    np.testing.assert_array_equal(before.slot != after.slot, changed & (told == "time"))


def test_fitting_sees_no_test_people() -> None:
    smaller = without_test_people(STORE)
    kept = [i for i, split in enumerate(STORE.split) if split != 2]
    assert smaller.users.tolist() == STORE.users[kept].tolist()
    assert set(smaller.split.tolist()) == {0, 1}
    for place, user in enumerate(kept):
        one = slice(*smaller.offsets[place : place + 2])
        other = slice(*STORE.offsets[user : user + 2])
        for name, values in smaller.columns().items():
            np.testing.assert_array_equal(values[one], STORE.columns()[name][other])
    assert smaller.fingerprint != STORE.fingerprint


def test_the_example_of_the_docs_is_a_method(tmp_path: Path) -> None:
    (body,) = re.findall(
        r"```python long\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL
    )
    made: dict[str, Any] = {}
    exec(compile(body, "docs/methods.md", "exec"), made)
    cases, method, site = (
        cases_of(STORE, WINDOWS, 40),
        made["METHOD"],
        Site(ConfigDict(), tmp_path, {}),
    )
    undeclared = Data(
        STORE, lambda name: pytest.fail(f"it draws {name}, which it does not declare")
    )
    assert method.fit(site, undeclared) == {"training_windows": 0}
    assert [path.name for path in tmp_path.iterdir()] == list(method.files)
    said = method.load(site).predict(cases)
    assert said.label.tolist() == [int(case.history.behaviour[-1]) for case in cases]
    assert said.probability.sum(1).tolist() == [1.0] * 20


def test_the_method_of_the_documentation_says_what_came_last(tmp_path: Path) -> None:
    (text,) = [body for body in tagged("python", "long") if "METHOD = Method(" in body]
    module: dict[str, Any] = {}
    exec(text, module)
    method, site = module["METHOD"], Site(ConfigDict(), tmp_path, {})
    data = Data(STORE, lambda name: Labelled(cases_of(STORE, WINDOWS, 40), WINDOWS.end))
    method.fit(site, data)
    assert [path.name for path in tmp_path.iterdir()] == [*method.files]
    said = method.load(site).predict(cases_of(STORE, WINDOWS, 40))
    np.testing.assert_array_equal(said.label, STORE.behaviour[WINDOWS.end - 1])
    assert said.probability.shape == (20, 37)
