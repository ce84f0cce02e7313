"""Result files: written in slices, sealed, gone on with after a cut, refused where they are of others."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bua_jax.basics.errors import DataError, Interrupted, MismatchError
from bua_jax.evaluation import results
from bua_jax.evaluation.results import (
    Ready,
    check_predictions,
    day_columns,
    read,
    rows_of,
    text_columns,
    write,
)
from bua_jax.events.windows import Day

NAMES = [f"case {i}" for i in range(10)]
TABLE = np.random.default_rng(0).dirichlet(np.ones(3), 10).astype(np.float32)
TABLE_64 = TABLE.astype(np.float64)
TEXTS = [{"summary": f"<ü> {i}"} for i in range(10)]
ABOUT = {"method": "one", "windows": "w"}


def answers(some: slice) -> dict[str, Any]:
    label = TABLE[some].argmax(1).astype(np.int16)
    return {"label": label, "probability": TABLE_64[some], **text_columns(TEXTS[some], None)}


def put(path: Path, ask: Callable[[slice], Any] = answers, identity: str = "a") -> None:
    write(path, "predict", ABOUT, identity, NAMES, Ready({"tau": 0.5}, 4, ask))


def content(path: Path) -> dict[str, list[Any]]:
    return read(path).table.drop_columns(["seconds"]).to_pydict()


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    put(tmp_path / "deep" / "result.arrow")
    found = read(tmp_path / "deep" / "result.arrow")
    assert found.sample_id == NAMES
    np.testing.assert_array_equal(found.probability, TABLE)
    np.testing.assert_array_equal(found.label, TABLE.argmax(1))
    assert found.texts == TEXTS
    assert found.about["facts"] == {"tau": 0.5}
    assert found.about["method"] == "one"
    assert found.table["cut"].null_count == 10
    assert min(found.table["seconds"].to_pylist()) >= 0
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["result.arrow"]


def test_it_holds_no_target() -> None:
    names = {name for columns in results.COLUMNS.values() for name, _ in columns}
    assert not {name for name in names if "target" in name or "true" in name}


def test_days_and_labels_alone(tmp_path: Path) -> None:
    days = [Day(2, (1, 9), (1, 0), (4, 5)), Day(6, (), (), ())]
    ready = Ready({}, 5, lambda some: day_columns(days[some]))
    write(tmp_path / "days", "generate", ABOUT, "a", NAMES[:2], ready)
    assert read(tmp_path / "days").days == days
    assert read(tmp_path / "days").texts == [{}, {}]
    bare = Ready({}, 5, lambda some: {"label": [0, -1][some]})
    write(tmp_path / "labels", "predict", ABOUT, "a", NAMES[:2], bare)
    assert read(tmp_path / "labels").probability is None
    assert read(tmp_path / "labels").label.tolist() == [0, -1]
    write(tmp_path / "none", "predict", ABOUT, "a", [], bare)
    assert len(read(tmp_path / "none")) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, DataError])
def test_a_cut_run_loses_one_slice_and_ends_as_one_that_was_not(tmp_path: Path, error) -> None:
    asked: list[slice] = []

    def cut(some: slice) -> dict[str, Any]:
        if some.start == 8 and not asked:
            raise error
        return answers(some)

    def rest(some: slice) -> dict[str, Any]:
        asked.append(some)
        return answers(some)

    path = tmp_path / "result.arrow"
    with pytest.raises(error):
        put(path, cut)
    assert not path.exists()
    put(path, rest)
    assert asked == [slice(8, 10)]
    put(tmp_path / "whole", answers)
    assert content(path) == content(tmp_path / "whole")


def test_a_whole_file_that_no_record_names_yet_is_not_made_again(tmp_path: Path) -> None:
    """It was killed after the file had its name. What is damaged in it is; other settings begin anew."""
    path, asked = tmp_path / "r", list[slice]()
    put(path)
    whole, same = path.read_bytes(), content(path)

    def counted(some: slice) -> dict[str, Any]:
        asked.append(some)
        return answers(some)

    put(path, counted)
    assert (asked, path.read_bytes()) == ([], whole)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    put(path, counted)
    assert 0 < len(asked) < 3
    assert content(path) == same
    asked.clear()
    put(path, counted, identity="b")
    assert len(asked) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_what_a_method_lacks_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    def ask(some: slice) -> dict[str, Any]:
        raise FileNotFoundError(2, "No such file", "weights")

    with pytest.raises(FileNotFoundError, match="weights"):
        put(tmp_path / "result.arrow", ask)
    assert not (tmp_path / "result.arrow.partial").exists()  # nothing to go on from


def test_other_settings_begin_anew(tmp_path: Path, capsys) -> None:
    def cut(some: slice) -> dict[str, Any]:
        if some.start:
            raise KeyboardInterrupt
        return answers(some)

    with pytest.raises(KeyboardInterrupt):
        put(tmp_path / "r", cut)
    asked = []
    put(tmp_path / "r", lambda some: asked.append(some) or answers(some), identity="b")
    assert [some.start for some in asked] == [0, 4, 8]
    assert "of other settings or inputs" in capsys.readouterr().err


def test_a_signal_stops_after_the_slice_at_hand(tmp_path: Path) -> None:
    import signal

    def ask(some: slice) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return answers(some)

    with pytest.raises(Interrupted, match="4 of 10 cases are kept"):
        put(tmp_path / "r", ask)
    again: list[slice] = []
    put(tmp_path / "r", lambda some: again.append(some) or answers(some))
    assert again[0].start == 4


def test_no_flipped_bit_is_silent(tmp_path: Path) -> None:
    """In a whole file: an error. In an unfinished one: it ends as one that nothing happened to."""
    path, rng = tmp_path / "r", random.Random(0)
    put(path)
    whole, same = path.read_bytes(), content(path)
    refused = 0
    for _ in range(200):
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(raw))
        try:
            found = content(path)
        except DataError:
            refused += 1
        else:
            assert found == same  # a bit that Arrow pads with
        path.unlink()
        partial = tmp_path / "r.partial"
        partial.write_bytes(bytes(raw))
        put(path)
        assert content(path) == same
    assert refused > 40


@pytest.mark.parametrize("keep", [0, 9, 700, -1])
def test_a_file_that_was_cut_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "r"
    put(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] if keep == -1 else raw[:keep])
    with pytest.raises(DataError, match=r"r is missing or damaged .*Remove"):
        read(path)


def test_a_file_about_other_cases_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    put(tmp_path / "r")
    found = read(tmp_path / "r")
    order = NAMES[::-1]
    assert rows_of(found, "w", order).tolist() == [*range(9, -1, -1)]
    assert found.take(rows_of(found, "w", order)).sample_id == order
    with pytest.raises(MismatchError, match=r"windows w, but here they are v: 0 of 10 are missing"):
        rows_of(found, "v", NAMES)
    with pytest.raises(MismatchError, match=r"1 of 10 are missing in it, 1 are no part of them"):
        rows_of(found, "w", [*NAMES[:-1], "another"])
    twice = Ready({}, 4, lambda some: {"label": [0] * len(range(*some.indices(11)))})
    write(tmp_path / "twice", "predict", ABOUT, "a", [*NAMES, NAMES[3]], twice)
    with pytest.raises(MismatchError, match=r"0 of 10 are missing in it, 1 are no part of them"):
        rows_of(read(tmp_path / "twice"), "w", NAMES)


@pytest.mark.parametrize(
    ("row", "value", "said"),
    [
        (None, 3, "case case 5 has 3, expected a label from -1 to 2"),
        (None, -2, "case case 5 has -2, expected a label"),
        (5, np.nan, "case case 5 has nan, expected a distribution"),
        (5, np.inf, "case case 5 has inf, expected"),
        (5, 0.0, "case case 5 has 0, expected"),
        (5, 0.5, "case case 5 has 1.5, expected"),
        (5, [-0.5, 1.0, 0.5], "case case 5 has 1, expected"),
    ],
)
def test_what_cannot_be_scored_is_refused_and_named(row: int | None, value: Any, said: str) -> None:
    label, probability = TABLE.argmax(1), TABLE.copy()
    if row is None:
        label[5] = value
    else:
        probability[row] = value
    with pytest.raises(DataError, match=f"the file: {said}"):
        check_predictions("the file", NAMES, {"label": label, "probability": probability}, 3)


def test_labels_of_another_catalogue_are_refused() -> None:
    """Their own probabilities tell; none, and labels that could not be read, are no fault."""
    said: dict[str, Any] = {"label": TABLE.argmax(1), "probability": TABLE}
    check_predictions("the file", NAMES, said, 3)
    check_predictions("the file", NAMES, {"label": [-1] * 10, "probability": None}, 3)
    check_predictions("the file", [], {"label": [], "probability": None}, 3)
    for classes in (2, 4):
        with pytest.raises(DataError, match=rf"case|shape \(10, 3\), expected {classes} of each"):
            check_predictions("the file", NAMES, said, classes)


def test_free_answers_are_counted_among_those_that_were_written() -> None:
    said = ['{"free": "run", "free_label": "run"}', '{"free": "run fa", "free_label": ""}', None]
    table = pa.table({"text": pa.array(said, pa.string())})
    assert results.Result(Path("x"), {}, table).free_valid == 0.5
    assert results.Result(Path("x"), {}, table.slice(2)).free_valid is None
