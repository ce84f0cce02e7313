"""`check`: files of strangers, what their columns mean, and what is said of them."""

import datetime
import json
import shlex
from pathlib import Path
from random import Random

import polars as pl
import pytest

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.readers import DataSpec, read_events
from bua_jax.planning import estimate, size
from bua_jax.planning.check import alike, check, sections
from bua_jax.planning.columns import guess_columns, layout_of, plain_copy, sample_of
from bua_jax.planning.report import print_table
from bua_jax.planning.saved import check_asked, save
from tests.support.runs import verb

LABELS = ("Read News", "read news", "coffee", "Büro", "gym")
HEADER = ("Wer", "Zeitpunkt", "activity", "note")


def events(people: int = 8, days: int = 5) -> list[tuple[str, str, str, str]]:
    rng = Random(0)
    found: list[tuple[str, str, str, str]] = []
    for person in range(people):
        for day in range(days):
            for hour in (8, 12, 18):
                time = datetime.datetime(2024, 3, 4 + day, hour, rng.choice((0, 30)))
                found.append((f"p{person}", f"{time}", rng.choice(LABELS), f"note {len(found)}"))
    return found


def write(path: Path, separator: str = ",", encoding: str = "utf-8") -> Path:
    lines = [separator.join(row) for row in (HEADER, *events())]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_dialect_holds_the_same_events(tmp_path: Path, separator: str, encoding: str) -> None:
    path = write(tmp_path / "own.csv", separator, encoding)
    layout = layout_of(path)
    assert (layout.separator, layout.encoding) == (separator, encoding)
    assert layout.as_read == (separator in ",\t" and encoding.startswith("utf-8"))
    plain_copy(path, layout, tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == write(tmp_path / "plain.csv").read_bytes()
    guesses = {guess.role: guess.column for guess in guess_columns(sample_of(path, layout), {})}
    assert guesses == {"user": "Wer", "time": "Zeitpunkt", "behaviour": "activity"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n", "empty lines only"),
        (b"\x1f\x8b123", "is gzip"),
        (b"PK\x03\x04abc", "is zip"),
        (b"a\0bc", "is binary"),
        (b"PAR1abc", "truncated"),
        (b"a,a\n1,2\n", "several columns 'a'"),
        (b"\xff\xfea\x00,\x00b", "cannot be read as a table in utf-16"),
        (b"a,b\n" + b"x" * 140_000, "cannot be read as a table"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        layout_of(tmp_path / "x.csv")


def test_damage_behind_the_first_lines_is_said(tmp_path: Path) -> None:
    """A field without an end, and bytes that no encoding but Latin-1 takes."""
    path = write(tmp_path / "own.csv")
    path.write_text(path.read_text() + 'a,"' + "b,c\n" * 50_000)
    with pytest.raises(DataError, match=r"after line .* field larger than field limit"):
        sample_of(path, layout_of(path))
    path.write_bytes(",".join(HEADER).encode() + b"\na,2024-01-01T10:00,\x81\xe9,x\n")
    layout = layout_of(path)
    assert layout.encoding == "latin-1"
    assert sample_of(path, layout)["activity"].to_list() == ["\x81é"]


def test_columns_are_told_by_name_before_content() -> None:
    rows = {"user_id": ["a", "a", "b", "b"], "group": ["x", "x", "y", "y"]}
    frame = pl.DataFrame({**rows, "when": ["1710000000"] * 4, "action": ["p", "q", "p", "q"]})
    found = {guess.role: guess.column for guess in guess_columns(frame, {})}
    assert found == {"user": "user_id", "time": "when", "behaviour": "action"}
    given = {
        guess.role: guess.why for guess in guess_columns(frame, {"user": "group", "location": ""})
    }
    assert given["user"] == "given"
    with pytest.raises(ConfigError, match="Did you mean 'group'"):
        guess_columns(frame, {"user": "groupe"})
    with pytest.raises(ConfigError, match="'who' is none of user"):
        guess_columns(frame, {"who": "group"})


def test_what_cannot_be_told_is_asked_for() -> None:
    times = ["2024-01-01T10:00"] * 4
    frame = pl.DataFrame({"a": ["x", "x", "y", "y"], "b": ["p", "q", "p", "q"], "t": times})
    with pytest.raises(DataError, match=r"Several columns could be the person .*: a, b"):
        guess_columns(frame, {})
    with pytest.raises(DataError, match="No column looks like the behaviour"):
        guess_columns(frame.drop("b"), {"user": "a"})


def test_times_in_another_form_are_shown(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a", "a"], "Date": ["2024-01-01"] * 2, "Time": ["08:30"] * 2})
    with pytest.raises(
        DataError, match=r"one column of that form \(Date: '2024-01-01'; Time: '08:30'\)"
    ):
        guess_columns(frame.with_columns(action=pl.Series(["x", "y"])), {})
    with pytest.raises(DataError, match="no rows"):
        guess_columns(frame.clear(), {})


def test_without_a_good_row_the_first_bad_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user;time;what\n" + "a;1.1.2024 8:30;x\n" * 4)
    with pytest.raises(DataError, match=r"value '1\.1\.2024 8:30'") as caught:
        check(path, {"time": "time", "behaviour": "what"}, configs.load("configs/quickstart.py"))
    assert str(path) in str(caught.value)


def test_days_and_hours_stand_for_times() -> None:
    frame = pl.DataFrame(
        {"uid": ["a", "a"], "day_index": ["0", "1"], "hour": ["8", "9"], "app": ["x", "x"]}
    )
    found = {g.role: g.column for g in guess_columns(frame, {"behaviour": "app"})}
    assert found == {"user": "uid", "day": "day_index", "hour": "hour", "behaviour": "app"}


def test_labels_that_may_be_one() -> None:
    shares = {
        "read news": 0.3,
        "Read-News": 0.2,
        "shopping": 0.2,
        "shoping": 0.1,
        "b17": 0.1,
        "b18": 0.1,
    }
    assert alike(shares) == {"Read-News": "read news", "shoping": "shopping"}
    assert alike({"stage 1 sleep": 0.5, "stage 2 sleep": 0.5}) == {}


def test_what_is_found_can_be_saved_and_read_by_a_run(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", ";", "cp1252")
    config = configs.load("configs/quickstart.py")
    found = check(path, {}, config)
    assert found["card"]["users"] == 8
    assert found["alike"] in ({"Read News": "read news"}, {"read news": "Read News"})
    assert found["problems"] == []
    assert "cp1252" in found["notes"][0]
    assert "resample only 1 test people" in found["notes"][-1]
    assert json.loads(json.dumps(found)) == found
    assert {"What it holds", "Columns", "Minutes on 2 CPU cores"} <= {
        s.title for s in sections(found)
    }
    written = save(found, tmp_path / "mine", merge=True)
    assert [path.name for path in written] == ["mine.py", "mine.csv", "mine.words.json"]
    with pytest.raises(ConfigError, match="is there already"):
        save(found, tmp_path / "mine", merge=True)
    data = configs.load("configs/quickstart.py", f"data={written[0]}").data
    store = read_events(DataSpec.from_mapping(data.to_dict()))
    assert len(store.day) == found["card"]["events"] == len(events())
    words = json.loads(Path(data.words).read_text(encoding="utf-8"))
    assert len(store.renamed(words).catalogue.behaviours) == len(LABELS) - 1


def test_memory_is_that_of_each_stage_on_this_data(tmp_path: Path, monkeypatch) -> None:
    """Compiling the real steps takes half a minute; what the plan is asked, and what is shown of it."""
    asked = []

    def plan(config, target: str, *, trials: int) -> dict:
        asked.append((config.step, config.data.path, target, trials))
        return {"memory": {"total": 3 * 2**29 if config.step == "stage2" else None}}

    monkeypatch.setattr(estimate, "make_plan", plan)
    path = write(tmp_path / "own.csv")
    found = check(path, {}, configs.load("configs/quickstart.py"), memory=True)
    assert asked == [(stage, str(path), "a100-40g:1", 0) for stage in ("stage1", "stage2")]
    (shown,) = [s for s in sections(found) if s.title == "Memory of arrays"]
    assert shown.rows == [["stage1", "not known"], ["stage2", "1.50"]]


def test_no_name_of_a_file_or_column_is_code(tmp_path: Path) -> None:
    text = write(tmp_path / "own.csv").read_text()
    path = tmp_path / 'a""" + b\' {x}.csv'
    path.write_text(text.replace("activity", "acti'{y}", 1))
    found = check(
        path, {"behaviour": "acti'{y}", "user": "Wer"}, configs.load("configs/quickstart.py")
    )
    assert found["unused"] == ["note"]
    (own,) = save(found, tmp_path / "mine", merge=False)
    data = configs.load("configs/quickstart.py", f"data={own}").data
    assert (data.path, data.columns.behaviour) == (str(path), "acti'{y}")


def test_a_bad_row_and_too_few_people_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    rows = [f"{user},2024-01-01T10:00,{label}\n" for user in "abcdef" for label in "xyx"]
    path.write_text("user,time,behavior\n" + "".join(rows) + "a,soon,y\n")
    done = verb(
        "check", str(path), f"--json={tmp_path / 'c.json'}", f"--html={tmp_path / 'c.html'}"
    )
    assert done.returncode == 1, done.stderr
    assert "column time: value 'soon'" in done.stdout
    assert "of whom none has more than 3 events" in done.stdout
    assert json.loads((tmp_path / "c.json").read_text())["bad_rows"]
    assert "PROBLEM" in (tmp_path / "c.html").read_text()


def test_fit_writes_a_config_once_and_says_what_it_stands_for(tmp_path: Path) -> None:
    path, workdir = write(tmp_path / "own file.csv"), tmp_path / "run"
    flags = (str(path), f"--workdir={workdir}", "--dry_run", "--config.windows.train=50")
    first, again = verb("fit", *flags), verb("fit", *flags)
    assert first.returncode == again.returncode == 0, first.stderr
    assert "behaviour: column 'activity'" in first.stdout
    assert "python -m bua_jax.curriculum --config=" in first.stdout
    assert f"--config={workdir / 'fit.py'}" in first.stdout
    assert "windows, each 3 times, the encoder 30 times over all" in first.stdout
    config = configs.load(str(workdir / "fit.py"))
    assert (config.data.path, config.stage2.epochs) == (str(path), 3.0)
    assert config.encoder.epochs == 30  # of few events
    assert configs.load(str(workdir / "fit.py"), "model=smollm2-135m").data.path == str(path)
    assert "to build" in again.stdout
    assert "wrote" not in again.stdout
    path.write_text(path.read_text() + "p1,soon,gym,z\n")
    done = verb("fit", str(path), f"--workdir={tmp_path / 'other'}", "--dry_run")
    assert done.returncode == 2
    assert "value 'soon'" in done.stderr
    assert "--skip_bad_rows" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--input is missing"),
        (["no.csv"], "There is no file --input=no.csv"),
        (["README.md", "--columns=user"], "'user' is not FIELD=COLUMN"),
        (["README.md", "--time_zone=Mars"], "'Mars'"),
        (["a.csv", "b.csv"], "Unexpected argument"),
    ],
)
def test_usage_errors(flags: list[str], said: str) -> None:
    done = verb("check", *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_number_of_what_a_stranger_meets_first(tmp_path: Path) -> None:
    """No names of columns, date and clock apart, one label, names that are not told."""
    path, config = tmp_path / "e.csv", configs.load("configs/quickstart.py")
    path.write_text("anna,2024-03-01T08:10,chat\n" * 3)
    with pytest.raises(DataError, match=r"holds values \('2024-03-01T08:10'\), not names"):
        check(path, {}, config)
    path.write_text(
        "person,date,hour,activity\n" + "a,2024-03-01,08:10,x\na,2024-03-01,09:10,y\n" * 4
    )
    with pytest.raises(
        DataError, match=r"one column of that form \(date: '2024-03-01'; hour: '08:10'\)"
    ):
        check(path, {}, config)
    rows = "anna;дом;2024-03-01T08:10;сон\nanna;сад;2024-03-01T08:20;чай\n" * 4
    path.write_text("кто;где;когда;что\n" + rows, encoding="cp1251")
    asked = (
        r"--columns=user=COLUMN,behaviour=COLUMN \(and location=.*read as cp1252, which is a guess"
    )
    with pytest.raises(DataError, match=asked):
        check(path, {}, config)
    rows = "".join(f"{user},2024-01-01T10:00,nap\n" for user in "abcdef" for _ in range(20))
    path.write_text("user,time,behavior\n" + rows)
    (problem,) = check(path, {}, config)["problems"]
    assert "one label only, 'nap'" in problem
    assert problem.endswith("with --columns=behaviour=COLUMN.")


def test_what_is_said_of_a_row_can_be_done(tmp_path: Path) -> None:
    """`check` and `fit` know no field of a data config: the file has none yet."""
    path = write(tmp_path / "own.csv")
    path.write_text(path.read_text() + "p0,2024-03-04 08:00:00+02:00,gym,x\n" + "p1,soon,gym,z\n")
    found = check(path, {}, configs.load("configs/quickstart.py"))
    assert "`bua fit --skip_bad_rows`" in found["first_bad"]
    assert "config.data" not in found["first_bad"]


def test_commands_can_be_pasted(tmp_path: Path) -> None:
    """Also where names have spaces, and with what was given."""
    path = write(tmp_path / "own file.csv")
    flags = (str(path), "--columns=behaviour=activity", "--config.windows.train=50")
    said = verb("check", *flags).stdout.splitlines()[-1]
    assert shlex.split(said)[2:] == ["bua_jax.fit", *flags]
    done = verb("fit", *flags, f"--workdir={tmp_path / 'my run'}", "--dry_run")
    (said,) = [line for line in done.stdout.splitlines() if "bua_jax.curriculum" in line]
    verb_, config, *rest = shlex.split(said)[2:]
    assert verb_ == "bua_jax.curriculum"
    assert config == f"--config={tmp_path / 'my run' / 'fit.py'}"
    assert rest == [f"--workdir={tmp_path / 'my run'}", "--config.windows.train=50"]
    done = verb("check", str(path), f"--save={tmp_path / 'my data'}")
    said = done.stdout.splitlines()[-1]
    assert shlex.split(said)[3].endswith(f":data={tmp_path / 'my data'}.py")


def test_names_that_a_config_cannot_have(tmp_path: Path) -> None:
    """The default folder is without them; one that is given is refused before anything is written."""
    path = write(tmp_path / "log, [march].csv")
    done = verb("fit", str(path), "--dry_run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "log_ _march_" / "events.py").is_file()
    for flag in ("check", "--save=a,b"), ("fit", "--workdir=a,b"):
        done = verb(flag[0], str(path), flag[1], cwd=tmp_path)
        assert done.returncode == 2
        assert "a comma parts values there" in done.stderr
    assert "a colon parts" in verb("fit", str(path), "--workdir=a:b", cwd=tmp_path).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "runs"]


@pytest.mark.parametrize(
    ("other", "flags", "said"),
    [
        ("own.csv", ["--columns=behaviour=note"], "--columns=behaviour=note"),
        ("own.csv", ["--time_zone=Asia/Tokyo", "--merge"], "--time_zone=Asia/Tokyo, --merge"),
        ("own.csv", ["--skip_bad_rows"], "--skip_bad_rows"),
        ("other.csv", [], "other.csv as it is now"),
        ("own.csv", ["--columns=behaviour=activity"], ""),
        ("own.csv", ["--minutes=20"], ""),
        ("own.csv", ["--minutes=30"], "--minutes=30"),
        ("own.csv", ["--config=configs/joint.py"], "--config=configs/joint.py"),
    ],
)
def test_fit_uses_no_config_of_another_file_or_other_flags(
    tmp_path: Path, other: str, flags: list[str], said: str
) -> None:
    write(tmp_path / "other.csv")
    first = (str(write(tmp_path / "own.csv")), f"--workdir={tmp_path / 'run'}", "--dry_run")
    assert verb("fit", *first).returncode == 0
    done = verb("fit", str(tmp_path / other), *first[1:], *flags)
    assert done.returncode == (2 if said else 0), done.stderr
    assert (
        f"not for {tmp_path / said if said.startswith('other') else said}. Choose" in done.stderr
        or not said
    )


@pytest.mark.parametrize(
    ("windows", "fast", "minutes", "said"),
    [
        (100, 1, 20, ("configs/quickstart.py", 3.0)),
        (4_000, 1, 20, ("configs/quickstart.py", 2.0)),
        (7_000, 1, 20, ("configs/quickstart.py", 1.0)),
        (500_000, 1, 20, ("configs/quickstart.py", 1.0)),
        (9_000, 1, 600, ("configs/quickstart.py", 1.0)),
        (12_000, 1, 600, ("configs/curriculum.py", 1.7)),
        (500_000, 1, 120, ("configs/curriculum.py", 1.0)),
        (500_000, 20, 5, ("configs/curriculum.py", 1.0)),
        (500_000, 20, 600, ("configs/curriculum.py", 3.0)),
    ],
)
def test_a_size_fits_the_data_and_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    windows: int,
    fast: float,
    minutes: float,
    said: tuple[str, float],
) -> None:
    """Of few windows the smallest, read more often; more of them, time and machine take a larger one."""
    monkeypatch.setattr(size, "speed", lambda: fast)
    found = size.choose(Path("events.py"), windows, minutes)
    assert (found.path, found.epochs) == said
    assert f"{windows:,} training windows" in found.why
    least = configs.load(
        found.path, found.argument.rpartition("data=")[0].rstrip(",")
    ).encoder.epochs
    assert found.passes == (max(least, 30) if windows < 30_000 else least)


def test_a_copy_is_of_what_the_file_holds_now(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", ";")
    found = check(path, {}, configs.load("configs/quickstart.py"))
    own = save(found, tmp_path / "events", merge=True)[0]
    data = configs.load("configs/quickstart.py", f"data={own}").data
    flags = {"zone": "", "skip_bad_rows": False, "merge": True}
    check_asked(own, data, path, {}, **flags)
    path.write_text(path.read_text().replace("gym", "pool"))
    with pytest.raises(ConfigError, match=r"events\.py, .*events\.csv, .*events\.words\.json, so"):
        check_asked(own, data, path, {}, **flags)


def test_a_long_table_is_cut_on_the_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Labels", ("label",), [[f"b{i}"] for i in range(5)], most=3, rest="--html")
    shown = capsys.readouterr().out
    assert "b2" in shown
    assert "b3" not in shown
    assert "and 2 more, which --html have" in shown
