"""Linking renewed ids: by hand, and of simulated people what docs/privacy.md says."""

from pathlib import Path

import polars as pl
import pytest

from bua_jax.evaluation.linkage import Linked, audit, linked
from bua_jax.events.anonymise import Hiding, anonymise_file
from bua_jax.events.simulate import write_population
from bua_jax.events.spec import DataSpec

Rows = list[tuple[str, str, int, int]]  # id, behaviour, hour, events

PEOPLE = pl.DataFrame(
    {
        "opaque": ["a0", "b0", "c0", "a1", "b1", "c1"],
        "user": [0, 1, 2, 0, 1, 2],
        "period": [0, 0, 0, 1, 1, 1],
    }
)
HABITS: Rows = [
    ("a0", "chat", 9, 10),
    ("a0", "pay", 12, 1),
    ("b0", "chat", 18, 10),
    ("c0", "pay", 9, 10),
    ("a1", "chat", 9, 6),
    ("b1", "chat", 18, 3),
    ("b1", "pay", 18, 1),
    ("c1", "chat", 9, 5),  # now as a does
]


def table(rows: Rows, splits: str = "tttttt") -> pl.DataFrame:
    split = dict(zip(PEOPLE["opaque"], splits, strict=True))
    events = [(user, split[user], label, hour) for user, label, hour, n in rows for _ in range(n)]
    return pl.DataFrame(events, schema=["user", "split", "behaviour", "slot"], orient="row")


def test_the_most_alike_of_the_period_before() -> None:
    found = linked(table(HABITS), PEOPLE, 24, dated=True, by_split=True)
    assert found == Linked(tried=3, found=2, chance=pytest.approx(1 / 3))
    assert found.rate == pytest.approx(2 / 3)
    assert "2 of 3 ids (66.7%)" in str(found)
    assert "guessing finds 33.3%" in str(found)


def test_a_split_of_the_person_tells_people_apart() -> None:
    splits = "ttvttv"
    found = linked(table(HABITS, splits), PEOPLE, 24, dated=True, by_split=True)
    assert found == Linked(tried=3, found=3, chance=pytest.approx((1 / 2 + 1 / 2 + 1) / 3))
    assert linked(table(HABITS, splits), PEOPLE, 24, dated=True, by_split=False).found == 2


def test_without_dates_all_others_are_candidates() -> None:
    """a's and c's second ids are each other's twins, so that neither is linked."""
    found = linked(table(HABITS), PEOPLE, 24, dated=False, by_split=True)
    assert found == Linked(tried=3, found=1, chance=pytest.approx(1 / 5))


def test_nobody_to_link() -> None:
    found = linked(table(HABITS[:4]), PEOPLE, 24, dated=True, by_split=True)
    assert (found.tried, found.found, found.rate) == (0, 0, 0.0)


def test_most_ids_of_simulated_people_are_linked(tmp_path: Path) -> None:
    """docs/privacy.md: more than half whatever is hidden, where guessing finds at most one in ten."""
    people, output = tmp_path / "people.parquet", tmp_path / "out.parquet"
    write_population(people, 60, 180, 5, personas=tmp_path / "personas")
    columns = {"user": "user", "time": "time", "location": "location", "behaviour": "behaviour"}
    spec = DataSpec("simulated", str(people), "parquet", columns)
    for hiding in (Hiding(), Hiding(date_shift=True, slot_hours=12, split_by="period")):
        anonymise_file(spec, output, bytes(32), hiding=hiding)
        found = audit(spec, output, bytes(32), hiding)
        assert found is not None
        assert found.tried == 60
        assert found.rate > 0.5
        assert found.chance < 0.1
