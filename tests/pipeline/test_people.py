"""Histories of the people in a file of events: what a model is asked about."""

import datetime
from pathlib import Path

import numpy as np
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.events.histories import people_of_events
from bua_jax.events.readers import read_events
from bua_jax.events.schema import Catalogue
from bua_jax.events.spec import DataSpec
from bua_jax.events.windows import history
from tests.events.stores import COLUMNS, HEADER, LABELS

OWN = Catalogue(("unseen", *LABELS), 48, has_places=True)
"""A model's labels: in another order, and one more, than the file's."""


def spec(tmp_path: Path, people: str = "abc", events: int = 12, label: str = "pay") -> DataSpec:
    rows = [
        f"{user},2024-03-{4 + i // 3:02d}T{8 + i % 3:02d}:30,area {i % 3},{(label, 'chat')[i % 2]}\n"
        for user in people
        for i in range(events)
    ]
    path = tmp_path / "e.csv"
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    return DataSpec("t", str(path), "csv", COLUMNS)


def test_each_person_is_asked_about_with_their_last_events(tmp_path: Path) -> None:
    given = spec(tmp_path)
    found = people_of_events(given, {}, OWN, 10)
    assert found.ids == ["a", "b", "c"]
    store = read_events(given)
    for number, seen in enumerate(found.histories):
        end = int(store.offsets[number + 1])
        expected = history(store, end - 10, end)
        for name in ("day", "weekday", "slot", "place", "place_seen", "gap"):
            assert np.array_equal(getattr(seen, name), getattr(expected, name)), name
        said = [OWN.behaviours[b] for b in seen.behaviour]
        assert said == [store.catalogue.behaviours[b] for b in expected.behaviour]
    assert found.dates == [datetime.date(2024, 3, 7)] * 3
    ranks = found.histories[0].place.tolist()
    areas = [f"area {i % 3}" for i in range(12)][-10:]
    assert [found.places[0][rank] for rank in ranks] == areas


def test_one_person_needs_no_others(tmp_path: Path) -> None:
    assert people_of_events(spec(tmp_path, "a"), {}, OWN, 40, "a").ids == ["a"]


def test_labels_are_asked_about_in_the_models_words(tmp_path: Path) -> None:
    given = spec(tmp_path, label="Zahlen")
    with pytest.raises(DataError, match="'Zahlen', expected one that the model was trained on"):
        people_of_events(given, {}, OWN, 40)
    found = people_of_events(given, {"Zahlen": "pay"}, OWN, 40)
    assert OWN.behaviours[found.histories[0].behaviour[0]] == "pay"


def test_people_with_too_few_events_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = spec(tmp_path)
    path = Path(given.path)
    path.write_text(path.read_text() + "d,2024-03-04T08:30,x,pay\n")
    assert people_of_events(given, {}, OWN, 40).ids == ["a", "b", "c"]
    assert "1 people with fewer than 10 events left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="d has 1 events; 10 are needed"):
        people_of_events(given, {}, OWN, 40, "d")
    with pytest.raises(DataError, match="no person 'aa' among its 4"):
        people_of_events(given, {}, OWN, 40, "aa")


@pytest.mark.parametrize("own", [Catalogue(LABELS, 24, True), Catalogue(LABELS, 48, False)])
def test_a_model_of_another_clock_or_without_places_is_refused(
    tmp_path: Path, own: Catalogue
) -> None:
    with pytest.raises(DataError, match="but the model was trained with"):
        people_of_events(spec(tmp_path), {}, own, 40)
