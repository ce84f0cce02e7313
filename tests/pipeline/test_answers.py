"""Answers to many histories: what is finished stays on disk, and a rerun goes on after it."""

import datetime
import json
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bua_jax.alignment.answer import Description, NextBehaviour, NextDay
from bua_jax.basics.errors import ClaimedError, ConfigError, Interrupted, WriteError
from bua_jax.events.histories import People
from bua_jax.pipeline import answers
from bua_jax.pipeline.answers import write_answers

IDS = [f"person {i}" for i in range(10)]


class Asked:
    """Answers with the index of a history; stops before the `stop`th part."""

    def __init__(self, stop: int = 99) -> None:
        self.parts: list[tuple[int, int]] = []
        self.stop = stop

    def __call__(self, some, begin: int):
        if len(self.parts) == self.stop:
            raise KeyboardInterrupt
        self.parts.append((begin, len(some)))
        return [{"answer": begin + i} for i in range(len(some))]


def write(output: Path, asked: answers.Ask, identity: str = "this") -> None:
    histories: list = list(range(10))
    write_answers(output, IDS, histories, asked, identity=identity, part=3)


def expected() -> str:
    return "".join(json.dumps({"id": f"person {i}", "answer": i}) + "\n" for i in range(10))


def test_all_at_once(tmp_path: Path) -> None:
    asked = Asked()
    write(tmp_path / "out.jsonl", asked)
    assert asked.parts == [(0, 3), (3, 3), (6, 3), (9, 1)]
    assert (tmp_path / "out.jsonl").read_text() == expected()
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("cut", [0, 5, 60])
def test_interrupted_and_run_again(tmp_path: Path, cut: int, capsys) -> None:
    """With a cut the end of the first run's last part is missing, as by a killed process.

    The whole part is made anew: answers depend, in their last bits, on those decoded with them.
    """
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    output.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        write(output, Asked(stop=2))
    assert output.read_text() == "earlier"
    data = partial.read_bytes()
    partial.write_bytes(data[: len(data) - cut])
    again = Asked()
    write(output, again)
    assert again.parts[0] == ((6, 3) if cut == 0 else (3, 3))
    assert output.read_text() == expected()
    assert not partial.exists()
    assert "going on after them" in capsys.readouterr().err


def changed(data: bytes, damage: str) -> bytes:
    head, *lines = data.splitlines(keepends=True)
    parts = {
        "a bit": [*lines[:5], lines[5].replace(b"4", b"5"), *lines[6:]],
        "a line twice": [*lines[:5], *lines[4:]],
        "a part twice": [*lines, *lines[4:]],
        "a line less": [*lines[:4], *lines[5:]],
    }[damage]
    return head + b"".join(parts)


@pytest.mark.parametrize("damage", ["a bit", "a line twice", "a part twice", "a line less"])
def test_a_damaged_part_is_made_anew_and_said(tmp_path: Path, damage: str, capsys) -> None:
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        write(output, Asked(stop=2))
    partial.write_bytes(changed(partial.read_bytes(), damage))
    again = Asked()
    write(output, again)
    assert again.parts[0] == ((6, 3) if damage == "a part twice" else (3, 3))
    assert output.read_text() == expected()
    assert "was altered or damaged in part" in capsys.readouterr().err


def test_no_bit_of_what_is_kept_is_believed_unseen(tmp_path: Path, capsys) -> None:
    """The answers are those of a run that was not cut, and nothing is made twice in them."""
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        write(output, Asked(stop=2))
    whole = partial.read_bytes()
    for place in range(0, 8 * len(whole), 7):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        partial.write_bytes(data)
        again = Asked()
        write(output, again)
        assert output.read_text() == expected()
        said = capsys.readouterr().err
        if again.parts[0][0] < 6:
            assert any(x in said for x in ("damaged in part", "beginning anew", "ends within part"))


def test_a_second_process_ends_at_once(tmp_path: Path) -> None:
    """And leaves what the first has made."""
    asked = Asked()

    def ask(some, begin: int):
        with pytest.raises(ClaimedError, match=r"out\.jsonl is being written by process"):
            write(tmp_path / "out.jsonl", Asked())
        return asked(some, begin)

    write(tmp_path / "out.jsonl", ask)
    assert (tmp_path / "out.jsonl").read_text() == expected()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_part_at_hand_and_stops(tmp_path: Path, number: int) -> None:
    """Twice Ctrl-C stops within the part."""
    asked = Asked()

    def ask(some, begin: int):
        if begin == 3:
            signal.raise_signal(number)
        return asked(some, begin)

    with pytest.raises(Interrupted, match="6 of 10 answers are kept") as stop:
        write(tmp_path / "out.jsonl", ask)
    assert stop.value.exit_code == (130 if number == signal.SIGINT else 2)
    assert asked.parts == [(0, 3), (3, 3)]

    def twice(some, begin: int):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.jsonl", twice)
    write(tmp_path / "out.jsonl", asked)
    assert asked.parts[2:] == [(6, 3), (9, 1)]
    assert (tmp_path / "out.jsonl").read_text() == expected()


def test_parts_that_take_too_long_are_halved(tmp_path: Path, monkeypatch) -> None:
    """But for the first, in which programs are compiled; a run that goes on keeps the size."""
    clock = [0.0]
    monkeypatch.setattr(answers.time, "monotonic", lambda: clock[0])
    asked = Asked(stop=3)

    def slow(some, begin: int):
        clock[0] += 12 * len(some)
        return asked(some, begin)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.jsonl", slow)
    assert asked.parts == [(0, 3), (3, 3), (6, 1)]
    again = Asked()
    write(tmp_path / "out.jsonl", again)
    assert again.parts == [(7, 1), (8, 1), (9, 1)]


def test_another_model_or_input_begins_anew(tmp_path: Path, capsys) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.jsonl", Asked(stop=2), identity="other")
    asked = Asked()
    write(tmp_path / "out.jsonl", asked)
    assert asked.parts[0] == (0, 3)
    assert "beginning anew" in capsys.readouterr().err


def test_answers_in_the_words_of_a_file_of_events(tmp_path: Path) -> None:
    """The day after the last event by its date, places by their names; others as they are."""
    date = datetime.date(2024, 2, 28)
    people = People(["anna"], [], [{1: "home", 2: "gym"}], [date])
    events = [
        {"time": "08:00", "place": place, "behaviour": "x"} for place in ("L2", "other", "L3")
    ]
    answer = {"weekday": "Thursday", "events": events}
    said = answers.in_own_words(people, 0, answer)
    assert said["date"] == "2024-02-29"
    assert [event["place"] for event in said["events"]] == ["gym", "other", "L3"]
    assert events[0]["place"] == "L2"
    assert answers.in_own_words(People(["anna"], [], [], []), 0, answer) == answer


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_answers_as_tables(tmp_path: Path, ending: str) -> None:
    shares = {"read; news": 0.25, "pay": 0.75}
    text = {"summary": 'of "quotes",\nand lines'}

    def ask(some, begin: int):
        return [{"prediction": "pay", "probabilities": shares, "understanding": text} for _ in some]

    output = tmp_path / f"next.{ending}"
    people = People(["a", "b"], [None, None], [], [])  # type: ignore[list-item]
    answers.write_asked(output, people, ask, identity="i", part=1)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet}
    found = read[ending](output) if ending in read else pl.read_csv(output, separator="\t")
    assert found["id"].to_list() == ["a", "b"]
    assert found["probability"].to_list() == [0.75, 0.75]
    assert found["summary"][0] == text["summary"]
    assert json.loads(found["probabilities"][0]) == shares


def test_where_a_table_cannot_be_written_no_answer_is_lost(tmp_path: Path, monkeypatch) -> None:
    """And what is kept meanwhile overwrites no file but its own."""
    output, other = tmp_path / "next.csv", tmp_path / "next.csv.jsonl"
    other.write_text("of somebody")
    people = People(IDS, [None] * 10, [], [])  # type: ignore[list-item]
    asked: list[int] = []

    def ask(some, begin: int):
        asked.append(begin)
        return [{"prediction": "pay", "probabilities": {"pay": 1.0}, "understanding": {}}] * len(
            some
        )

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_csv", full)
        with pytest.raises(WriteError, match=r"next\.csv: No space left"):
            answers.write_asked(output, people, ask, identity="i", part=4)
    assert asked == [0, 4, 8]
    answers.write_asked(output, people, ask, identity="i", part=4)
    assert asked == [0, 4, 8]  # none was asked again
    assert pl.read_csv(output)["id"].to_list() == IDS
    assert {path.name for path in tmp_path.iterdir()} == {output.name, other.name}
    assert other.read_text() == "of somebody"


def test_a_day_is_a_row_for_each_event() -> None:
    events = [{"time": "08:00", "behaviour": "x"}, {"time": "09:30", "behaviour": "y"}]
    table = answers.as_table([{"id": "a", "weekday": "Monday", "events": events}])
    assert table.columns == ["id", "date", "time", "behaviour"]
    assert table["behaviour"].to_list() == ["x", "y"]


def test_nobody_is_lost_whose_day_is_empty(tmp_path: Path) -> None:
    """And predictions that were asked for stand in the table; one of empty days alone has its columns."""
    first = {"prediction": "x", "probabilities": {"x": 0.75, "y": 0.25}, "weekday": "Monday"}
    events = [{"time": "08:00", "behaviour": "x", "place": "home"}]
    table = answers.as_table(
        [{"id": "a", **first, "events": []}, {"id": "b", **first, "events": events}]
    )
    assert table.columns == [
        "id",
        "date",
        "prediction",
        "probability",
        "time",
        "behaviour",
        "place",
    ]
    assert table.rows()[0] == ("a", "Monday", "x", 0.75, None, None, None)
    alone = answers.as_table([{"id": "a", "weekday": "Monday", "events": []}])
    assert alone.rows() == [("a", "Monday", None, None)]


def test_an_ending_without_a_format_is_refused(tmp_path: Path) -> None:
    """A spreadsheet that is there is not replaced by JSON lines; nor the input by what is kept beside."""
    with pytest.raises(ConfigError, match=r"none of the endings \.jsonl, \.csv, \.tsv, \.parquet"):
        answers.check_answers(str(tmp_path / "next.xlsx"), "")
    source = tmp_path / "next.csv.partial"
    source.touch()
    with pytest.raises(ConfigError, match="which is the input"):
        answers.check_answers(str(tmp_path / "next.csv"), str(source))
    for name in ("next.jsonl", "next.tsv", "next"):
        answers.check_answers(str(tmp_path / name), str(source))


def test_an_empty_day_on_the_terminal_is_said(capsys) -> None:
    day = NextDay("Thursday", (), 0, {}, "g")
    answers.tell(People(["anna"], [], [], []), lambda some, begin: [day], "")
    assert "no events" in capsys.readouterr().out


def test_a_day_on_the_terminal_is_in_the_words_of_the_file(capsys) -> None:
    """Dates and places of the person's file; brackets in names are no markup."""
    people = People(["anna"], [], [{1: "[red]home"}], [datetime.date(2024, 2, 28)])
    events = ({"time": "08:00", "behaviour": "x [b]", "place": "L1"},)
    after = NextBehaviour("pay", {"pay": 0.8, "read": 0.2}, {}, "s")
    day = NextDay("Thursday", events, 0, {"summary": "calm [/b]"}, "g", after)
    answers.tell(people, lambda some, begin: [day], "")
    said = capsys.readouterr().out
    for part in ("anna", "2024-02-29", "08:00", "[red]home", "x [b]", "80 %", "summary: calm [/b]"):
        assert part in said
    answers.tell(people, lambda some, begin: [Description({"summary": "a"})], "")
    assert capsys.readouterr().out.split() == ["anna", "summary:", "a"]


def test_descriptions_as_a_table(tmp_path: Path) -> None:
    people = People(["a", "b"], [None, None], [], [])  # type: ignore[list-item]

    def ask(some, begin: int):
        return [Description({"summary": f"of {begin}"}) for _ in some]

    output = tmp_path / "texts.csv"
    answers.tell(people, ask, str(output), identity="i", part=1)
    assert output.read_text() == "id,summary\na,of 0\nb,of 1\n"
