"""The verb `anonymise`, as a person runs it."""

from functools import partial
from pathlib import Path

import polars as pl

from tests.events.stores import good_rows, write_csv
from tests.support.runs import verb

anonymise = partial(verb, "anonymise")


def test_a_file_is_anonymised_and_the_key_kept_where_asked(tmp_path: Path) -> None:
    rows = [*good_rows(), "p1,never,cell0,chat\n"]
    path, output, key = (
        write_csv(tmp_path / "mine.csv", rows),
        tmp_path / "out/a.parquet",
        tmp_path / "k.json",
    )
    arguments = (f"--input={path}", f"--output={output}", f"--key-file={key}")
    done = anonymise(*arguments)
    assert done.returncode == 2
    assert "row 61 (line 62), column time" in done.stderr
    assert not output.exists()
    done = anonymise(*arguments, "--config.data.on_bad_row=skip")
    assert done.returncode == 0, done.stderr
    assert "skipped 1 rows" in done.stderr
    assert "60 events of 5 people" in done.stdout
    assert "renewed every 90 days" in done.stdout
    assert key.exists()
    assert [p.name for p in output.parent.iterdir()] == ["a.parquet"]
    assert set(pl.read_parquet(output)["split"]) == {"train", "test"}


def test_an_audit_says_how_many_ids_are_linked(tmp_path: Path) -> None:
    """Two people with habits of their own, for half a year."""
    rows = [
        f"{who},2024-{month:02d}-{day:02d}T{hour:02d}:15,home,{label}\n"
        for who, hour, label in (("a", 9, "chat"), ("b", 18, "pay"), ("c", 9, "pay"))
        for month in (1, 2, 4, 5)
        for day in range(1, 28)
    ]
    path, output = write_csv(tmp_path / "mine.csv", rows), tmp_path / "out/a.parquet"
    done = anonymise(f"--input={path}", f"--output={output}", "--audit")
    assert done.returncode == 0, done.stderr
    assert "linked: 3 of 3 ids (100.0%) to another of their person" in done.stdout
    done = anonymise(f"--input={path}", f"--output={output}", "--config.anonymise.slot_hours=5")
    assert done.returncode == 2
    assert "config.anonymise.slot_hours=5 is none of 0, 1, 2" in done.stderr
    done = anonymise(f"--input={path}", f"--output={output}", "--config.data.split_seed=-1")
    assert done.returncode == 2
    assert "config.data.split_seed=-1 is negative" in done.stderr


def test_without_dates_the_skipped_renewal_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    rows = [f"{p}\t{d}\t9\tchat\n" for p in range(4) for d in range(12)]
    path.write_text("seq_id\tday_index\thour\tbehaviour\n" + "".join(rows))
    output = tmp_path / "out.parquet"
    config = "--config=configs/curriculum.py:data=foursquare_usa"
    done = anonymise(config, f"--input={path}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "renewal skipped: the data has no dates" in done.stdout
    assert "key: kept nowhere" in done.stdout


def test_wrong_calls_are_one_paragraph(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "mine.csv", good_rows())
    wrong = {
        "no column 'who'": (
            f"--input={path}",
            "--output=a.parquet",
            "--config.data.columns.user=who",
        ),
        "has no file yet": ("--output=a.parquet",),
        "--output=FILE.parquet": (f"--input={path}",),
        "in the folder of the output": (
            f"--input={path}",
            f"--output={tmp_path / 'a.parquet'}",
            f"--key_file={tmp_path / 'key.json'}",
        ),
    }
    for message, arguments in wrong.items():
        done = anonymise(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.csv"]
