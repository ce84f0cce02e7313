"""People out of files, frames and tuples: the same histories, whatever they came in."""

import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.events.schema import Catalogue
from bua_jax.pipeline import finished
from bua_jax.planning.people import asked_people, people_of

OWN = Catalogue(("chat", "pay"), 48, has_places=True)
START = datetime.datetime(2024, 3, 4, 8)
ROWS = [
    (user, START + datetime.timedelta(hours=5 * i), ("pay", "chat")[i % 2], f"area {i % 3}")
    for user in ("anna", "ben")
    for i in range(12)
]
FRAME = pl.DataFrame(ROWS, schema=("person", "when", "action", "place"), orient="row")


def forms(folder: Path) -> dict[str, Any]:
    FRAME.write_csv(folder / "e.csv", separator=";")
    FRAME.write_parquet(folder / "e.parquet")
    return {
        "csv": folder / "e.csv",
        "parquet": str(folder / "e.parquet"),
        "polars": FRAME,
        "arrow": FRAME.to_arrow(),
        "tuples": ROWS,
    }


@pytest.mark.parametrize("form", ["csv", "parquet", "polars", "arrow", "tuples"])
def test_the_form_does_not_matter(form: str, tmp_path: Path) -> None:
    found = people_of(forms(tmp_path)[form], OWN, 10)
    assert found.ids == ["anna", "ben"]
    for seen in found.histories:
        assert [OWN.behaviours[b] for b in seen.behaviour] == [row[2] for row in ROWS[2:12]]
        assert seen.slot.tolist() == [row[1].hour * 2 for row in ROWS[2:12]]
    assert found.places[0][int(found.histories[0].place[-1])] == ROWS[11][3]
    assert found.dates == [ROWS[11][1].date()] * 2


def test_columns_are_given_where_the_guess_would_be_wrong(tmp_path: Path) -> None:
    twisted = FRAME.rename({"action": "place", "place": "action"})
    with pytest.raises(DataError, match="expected one that the model was trained on"):
        people_of(twisted, OWN, 10)
    given = {"behaviour": "place", "location": "action"}
    found = people_of(twisted, OWN, 10, columns=given, only="ben")
    assert found.ids == ["ben"]
    assert np.array_equal(
        found.histories[0].behaviour, people_of(FRAME, OWN, 10).histories[1].behaviour
    )


@pytest.mark.parametrize("wrong", [3, [], [("a", "b")], ["anna"], [("a", 1, "x"), ("b", 2)]])
def test_what_is_no_table_is_said(wrong: Any) -> None:
    with pytest.raises(
        DataError, match="Events are a path, a frame of polars or pandas, or tuples"
    ):
        people_of(wrong, OWN, 10)


def test_a_row_that_is_wrong_names_no_flag() -> None:
    frame = FRAME.with_columns(action=pl.Series([None, *FRAME["action"][1:]]))
    said = r"the frame, row 1, column action: value None.* Mend the row, or leave it out\.$"
    with pytest.raises(DataError, match=said):
        people_of(frame, OWN, 10)


class Mixed:
    """A frame with a column of numbers and text, of which no table can be made."""

    def __dataframe__(self, *_: Any, **__: Any) -> Any:
        raise ValueError("Conversion failed for column mixed with type object")

    __arrow_c_stream__ = __dataframe__


def test_a_frame_that_cannot_be_read() -> None:
    with pytest.raises(DataError, match=r"^The frame cannot be read: .*column mixed .* one type"):
        people_of(Mixed(), OWN, 10)


def test_frames_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS, columns=FRAME.columns)
    expected = people_of(FRAME, OWN, 10)
    text = frame.astype({"when": str})
    kinds = (frame, text, frame.astype({"action": "category"}), frame.set_index("when"))
    for kind in (*kinds, frame.sample(frac=1, random_state=1)):
        found = people_of(kind, OWN, 10)
        assert (found.ids, found.dates) == (expected.ids, expected.dates)
        for seen, other in zip(found.histories, expected.histories, strict=True):
            assert np.array_equal(seen.behaviour, other.behaviour)
            assert np.array_equal(seen.slot, other.slot)
    with pytest.raises(DataError, match=r"The frame cannot be read: .* name"):
        people_of(frame.set_axis(["person", "when", "action", "action"], axis=1), OWN, 10)
    with pytest.raises(DataError, match=r"The frame cannot be read: .* type"):
        people_of(frame.assign(mixed=[1, "a"] * 12), OWN, 10)


def test_tuples_need_no_guess_and_say_what_they_lack() -> None:
    """Twelve times the same is what one person did, not a column that is no behaviour."""
    rows = [(user, when, "pay", area) for user, when, _, area in ROWS if user == "anna"]
    assert people_of(rows, OWN, 10).ids == ["anna"]
    with pytest.raises(DataError, match="the list of tuples is read without a column of places"):
        people_of([row[:3] for row in rows], OWN, 10)
    with pytest.raises(DataError, match=r"columns: user=COLUMN,behaviour=COLUMN") as caught:
        people_of(FRAME.rename({"person": "a", "action": "b", "place": "c"}), OWN, 10)
    assert "--columns" not in str(caught.value)
    assert "area" not in repr(people_of(rows, OWN, 10))


@pytest.mark.parametrize(
    ("name", "separator", "encoding"),
    [("e.csv", ";", "cp1252"), ("e.csv", "|", "utf-16"), ("e.csv", "\t", "utf-8")],
)
def test_a_run_is_asked_about_the_very_file_that_it_was_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, separator: str, encoding: str
) -> None:
    path = tmp_path / name
    path.write_text(FRAME.write_csv(separator=separator), encoding=encoding)
    columns = {"user": "person", "time": "when", "behaviour": "action", "location": "place"}
    record = {"config": {"data": {"columns": columns, "name": "own"}}}
    monkeypatch.setattr(finished, "stage_of", lambda folder: (folder, {}))
    monkeypatch.setattr(finished, "_need", lambda *_: (tmp_path, record))
    found = asked_people(tmp_path, path, OWN, 10)
    assert found.ids == ["anna", "ben"]
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))} has no person 'bena'"):
        asked_people(tmp_path, path, OWN, 10, only="bena")
