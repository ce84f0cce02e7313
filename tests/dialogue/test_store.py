"""Dialogues on disk."""

import polars as pl
import pytest

from bua_jax.basics.console import out
from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.dialogue.rounds import Dialogue, Round
from bua_jax.dialogue.store import provenance, read_dialogues, show, write_dialogues
from tests.dialogue.stores import make_store

ROUNDS = (
    Round("summary", "Who?", "Traits: [bold]x[/bold]; ünï\nline"),
    Round("prediction", "Next?", "pay"),
)
DIALOGUES = [
    Dialogue(f"u{i}:10", "train", 2, task, i, i + 10, ROUNDS)
    for i, task in enumerate(["prediction", "prediction", "generation"])
]


@pytest.fixture
def store():
    return make_store([[(0, i, 1, 0, False) for i in range(12)]])


def test_round_trip_and_readable_columns(tmp_path, store):
    path = tmp_path / "stage2.parquet"
    write_dialogues(path, iter(DIALOGUES), provenance(store))
    assert read_dialogues(path, provenance(store)) == DIALOGUES
    frame = pl.read_parquet(path)
    assert frame.columns == ["sample_id", "split", "stage", "task", "start", "end", "rounds"]
    assert frame["rounds"][0][1] == {"kind": "prediction", "instruction": "Next?", "answer": "pay"}
    assert [p.name for p in tmp_path.iterdir()] == ["stage2.parquet"]


@pytest.mark.parametrize("field", ["catalogue", "data", "annotator"])
def test_a_file_of_something_else_is_refused_with_both_values(tmp_path, store, field):
    path = tmp_path / "stage2.parquet"
    mine = provenance(store)
    write_dialogues(path, DIALOGUES, {**mine, field: "another"})
    with pytest.raises(MismatchError, match="another") as error:
        read_dialogues(path, mine)
    assert mine[field] in str(error.value)


def test_missing_damaged_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match="missing"):
        read_dialogues(tmp_path / "none.parquet")
    cut = tmp_path / "cut.parquet"
    write_dialogues(cut, DIALOGUES, {})
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(DataError, match="complete parquet"):
        read_dialogues(cut)
    foreign = tmp_path / "foreign.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(foreign)
    with pytest.raises(DataError, match="its columns are a, expected sample_id"):
        read_dialogues(foreign)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "d.parquet"
    write_dialogues(path, DIALOGUES, {})

    def failing():
        yield DIALOGUES[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_dialogues(path, failing(), {})
    assert read_dialogues(path) == DIALOGUES
    assert len(list(tmp_path.iterdir())) == 1


def test_show_takes_turns_over_tasks_and_prints_text_as_it_is():
    with out.capture() as captured:
        show(DIALOGUES, 2)
    text = captured.get()
    assert text.count("===") == 2
    assert "prediction u0:10" in text
    assert "generation u2:10" in text
    assert "[bold]x[/bold]" in text
