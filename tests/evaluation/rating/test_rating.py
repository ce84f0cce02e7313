"""Human evaluation: what judges see, what is read of their answers, and its statistics."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.evaluation.rating.agreement import best_share, krippendorff_ordinal, over_items, paired
from bua_jax.evaluation.rating.items import (
    Item,
    check_tells,
    plain,
    read_items,
    uneven,
    write_items,
)
from bua_jax.evaluation.rating.packets import CRITERIA, export
from bua_jax.evaluation.rating.scores import read_ratings, report, score
from bua_jax.evaluation.report import render
from tests.support.browser import measured, written_by
from tests.support.helpers import ROOT

SOURCES = ("human", "ours", "untuned")
NAN = np.nan
KRIPPENDORFF = np.array(  # four observers about twelve units
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


def items(count: int = 6) -> list[Item]:
    return [
        Item(
            f"u{i}",
            ("Mon 08:00 L1 pay", f"Tue 09:00 L{i} <b>walk</b>"),
            "pay",
            {source: f"{source[:2]}-{i} pays at {i} and walks." for source in SOURCES},
        )
        for i in range(count)
    ]


def answer(
    folder: Path, judge: str, scores: dict[str, tuple[int, int]], careless: bool = False
) -> Path:
    """Fills a judge's CSV in: scores by source, and what texts ask for."""
    key = json.loads((folder / "key.json").read_text())["packets"][judge]["items"]
    with (folder / "packets" / f"{judge}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        said = key[row["item"]]
        given = scores[said["slots"][row["slot"]]] if "slots" in said else (0, 0)
        if row["slot"] == said.get("slot"):
            given = (said["expected"],) * 2 if not careless else ((said["expected"] + 1) % 4,) * 2
        row.update(zip(CRITERIA, map(str, given), strict=True))
    path = folder / f"{judge}-back.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_agreement_is_the_published_one() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section E: 0.815 for ordinal data."""
    assert krippendorff_ordinal(KRIPPENDORFF) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_ordinal(np.tile([0.0, 1, 2, 3], (3, 1))) == 1
    assert np.isnan(krippendorff_ordinal(np.ones((3, 4))))
    assert np.isnan(krippendorff_ordinal(np.array([[1.0, NAN], [NAN, 2.0]])))


def test_agreement_by_pairs_of_values() -> None:
    """The definition, pair by pair, on two hundred random tables."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        ratings = rng.integers(0, 4, (3, 8)).astype(float)
        ratings[rng.random(ratings.shape) < 0.2] = NAN
        units = [u[~np.isnan(u)] for u in ratings.T]
        units = [u for u in units if len(u) > 1]
        pooled = np.concatenate(units)
        if len(set(pooled)) < 2:
            continue

        def apart(a: float, b: float, pooled: np.ndarray = pooled) -> float:
            low, high = min(a, b), max(a, b)
            inside = ((pooled >= low) & (pooled <= high)).sum()
            return (
                (inside - ((pooled == a).sum() + (pooled == b).sum()) / 2) ** 2 if a != b else 0.0
            )

        seen = sum(
            apart(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)
        ) / len(pooled)
        chance = sum(apart(a, b) for a, b in itertools.permutations(pooled, 2)) / (
            len(pooled) * (len(pooled) - 1)
        )
        assert krippendorff_ordinal(ratings) == pytest.approx(1 - seen / chance, abs=1e-9)


def test_ties_are_shared() -> None:
    scores = np.array([[3.0, 1, 0], [2, 2, 0], [1, 1, 1]])
    assert best_share(scores) == pytest.approx(
        [(1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3) / 3, 1 / 9]
    )


def test_a_difference_and_what_it_takes_to_see_it() -> None:
    """Of all 2**6 sign flips 2 are as far off as six equal signs; n = ((1.96 + 0.84) sd / d)**2."""
    y = np.array([1.0, 2, 1, 2, 1, 2])
    found = paired(y, np.zeros(6), seed=0)
    assert found.difference.value == 1.5
    assert found.p == pytest.approx(2 / 2**6)
    assert found.items_needed == int(np.ceil((2.8016 * y.std(ddof=1) / 1.5) ** 2))
    assert found.detectable == pytest.approx(2.8016 * y.std(ddof=1) / 6**0.5, rel=1e-4)
    assert paired(y, y, seed=0).items_needed is None
    nothing = paired(np.array([-1, 1 / 3, 2 / 3]), np.zeros(3), seed=0)  # a mean of 1e-17
    assert nothing.items_needed is None
    assert nothing.detectable > 1
    same = paired(np.ones(4), np.zeros(4), seed=0)  # no spread to reckon with
    assert same.p == pytest.approx(2 / 2**4)
    assert same.items_needed is None
    assert np.isnan(same.detectable)


def test_intervals_over_items_cover() -> None:
    """95 % intervals of means of 40 normal scores hold the truth in 90 to 98 of 100 cases."""
    rng = np.random.default_rng(1)
    held = 0
    for i in range(100):
        x = rng.normal(size=40)
        (one,) = over_items(lambda rows, x=x: np.asarray([x[rows].mean()]), 40, i)
        held += one.low <= 0 <= one.high
    assert 90 <= held <= 98


def test_packets_are_blind(tmp_path: Path) -> None:
    """No source, id or key is in them, orders differ between judges, the same seed gives the same files."""
    export(items(), 3, 42, tmp_path / "a")
    export(items(), 3, 42, tmp_path / "b")
    export(items(), 3, 43, tmp_path / "c")
    texts = {p.name: p.read_text() for p in (tmp_path / "a" / "packets").iterdir()}
    assert texts == {p.name: p.read_text() for p in (tmp_path / "b" / "packets").iterdir()}
    assert texts != {p.name: p.read_text() for p in (tmp_path / "c" / "packets").iterdir()}
    for name, text in texts.items():
        assert not any(word in text for word in ("human", "untuned", "u3", "expected")), name
        assert "<b>walk" not in text or name.endswith(".csv")
    assert texts["judge1.csv"].split("\n", 2)[1] != texts["judge2.csv"].split("\n", 2)[1]
    key = json.loads((tmp_path / "a" / "key.json").read_text())["packets"]
    slots = [
        one["slots"]["A"] for j in key.values() for one in j["items"].values() if "slots" in one
    ]
    assert {*slots} == {*SOURCES}
    with pytest.raises(ConfigError, match=r"key\.json is there already"):
        export(items(), 3, 42, tmp_path / "a")
    with pytest.raises(DataError, match="There is one item"):
        export(items(1), 3, 42, tmp_path / "d")


def test_orders_are_secret(tmp_path: Path) -> None:
    """Without a seed each export has its own, in the key, which its owner alone may read."""
    for name in "ab":
        export(items(), 1, None, tmp_path / name)
        assert (tmp_path / name / "key.json").stat().st_mode & 0o777 == 0o600
    keys = [json.loads((tmp_path / name / "key.json").read_text()) for name in "ab"]
    assert keys[0]["seed"] != keys[1]["seed"]
    export(items(), 1, keys[0]["seed"], tmp_path / "c")
    assert json.loads((tmp_path / "c" / "key.json").read_text()) == keys[0]


def test_what_tells_the_source_is_removed_or_refused() -> None:
    assert plain("## Summary\n- **Pays** often\n* walks `daily`\n1. snake_case") == (
        "Summary Pays often walks daily snake_case"
    )
    assert plain(
        "> a ~~b~~ [c](http://x) ![d](e.png)\n| f | g |\n|---|:--|\n### h ## i\n> - j"
    ) == ("a b c d f g h i j")
    assert plain("A\n===\n```json\n<b>k</b> 3 < 4 > 2\n```\nC# #1") == "A k 3 < 4 > 2 C# #1"
    assert plain("***") == plain("---\n> ~~") == ""
    (first, *_) = items()
    models = ("Claude", "Gemma", "Kimi", "mixtral", "Phi-3", "ChatGPT", "o5-mini", "grok", "GLM-4")
    told_by = [f"as {model} wrote." for model in models]
    for told in ("As an AI, I see", "Qwen2.5-7B says", "BUA thinks", "my language model", *told_by):
        with pytest.raises(DataError, match="tells a judge whose"):
            check_tells([Item("x", first.history, "pay", {**first.texts, "human": told})])
    for said, text in (
        ("ask Gemini", "asks Gemini."),
        ("pay", "palms in Egypt, a bualo, Claudette"),
    ):
        check_tells([Item("x", (f"Mon 08:00 {said}",), "pay", {**first.texts, "human": text})])
    long = [Item(i.id, i.history, i.predicted, {**i.texts, "ours": "word " * 30}) for i in items()]
    assert "'ours' have 30 words" in uneven(long)
    assert uneven(items()) == ""


def test_scores_come_back_to_their_sources(tmp_path: Path) -> None:
    export(items(), 3, 42, tmp_path)
    given = {"human": (3, 2), "ours": (2, 2), "untuned": (0, 1)}
    other = {"human": (3, 3), "ours": (2, 1), "untuned": (1, 1)}
    paths = [answer(tmp_path, "judge1", given), answer(tmp_path, "judge2", other)]
    paths.append(answer(tmp_path, "judge3", dict.fromkeys(SOURCES, (0, 0)), careless=True))
    said = score(read_ratings(tmp_path / "key.json", paths))
    assert said["judges"] == ["judge1", "judge2"]
    assert said["left_out"] == {"judge3": "missed 1 of 1 texts that ask for a score"}
    first, second = (said["criteria"][c] for c in CRITERIA)
    assert [first["sources"][s]["mean"]["value"] for s in SOURCES] == [3.0, 2.0, 0.5]
    assert [second["sources"][s]["mean"]["value"] for s in SOURCES] == [2.5, 1.5, 1.0]
    assert first["sources"]["human"]["best_share"]["value"] == 1
    assert first["pairs"]["human - ours"]["difference"]["value"] == 1
    assert first["pairs"]["human - ours"]["p"] == pytest.approx(2 / 2**6)
    assert first["pairs"]["human - ours"]["p_holm"] == pytest.approx(6 * 2 / 2**6)
    assert 0 < first["alpha"]["value"] < 1
    page = render(report(said))
    assert "judge3 is left out" in page
    assert "3.00 (3.00 to 3.00)" in page
    alone = score(read_ratings(tmp_path / "key.json", paths[:1]))
    assert alone["criteria"]["rationality"]["alpha"] is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",3,2,", ",4,2,", "column rationality: value '4', expected a whole number from 0 to 3"),
        (",3,2,", ",,2,", "column rationality: value '', expected"),
        (",3,2,", ",1.5,2,", "value '1.5'"),
        ("packet,", "batch,", "no column 'packet'"),
        ("KEY", "0123", "value '0123' is none of the key's packets"),
    ],
)
def test_answers_that_are_not_whole(tmp_path: Path, old: str, new: str, said: str) -> None:
    export(items(), 1, 42, tmp_path)
    path = answer(tmp_path, "judge1", dict.fromkeys(SOURCES, (3, 2)))
    packet = json.loads((tmp_path / "key.json").read_text())["packets"]["judge1"]["packet"]
    text = path.read_text()
    path.write_text(text.replace(old.replace("KEY", packet), new, 1))
    with pytest.raises(DataError, match=said.replace("(", r"\(")):
        read_ratings(tmp_path / "key.json", [path])
    path.write_text(text.rsplit("\n", 3)[0] + "\n")
    with pytest.raises(DataError, match="is missing"):
        read_ratings(tmp_path / "key.json", [path])
    path.write_text(text)
    with pytest.raises(DataError, match="given twice"):
        read_ratings(tmp_path / "key.json", [path, path])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_as_spreadsheets_save_them(tmp_path: Path, encoding: str, separator: str) -> None:
    made = items()
    made[0] = made[0].__class__("u0", made[0].history, "café; pay", made[0].texts)
    export(made, 1, 42, tmp_path)
    path = answer(tmp_path, "judge1", {"human": (3, 2), "ours": (1, 0), "untuned": (2, 2)})
    found = read_ratings(tmp_path / "key.json", [path])
    with path.open(newline="", encoding="utf-8") as file:
        rows = [*csv.reader(file)]
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    again = read_ratings(tmp_path / "key.json", [path])
    assert (again.scores == found.scores).all()
    assert found.scores[0, :, :, 0].mean(0).tolist() == [3, 1, 2]


def test_answers_about_what_was_not_asked(tmp_path: Path) -> None:
    export(items(), 1, 42, tmp_path)
    path = answer(tmp_path, "judge1", dict.fromkeys(SOURCES, (3, 2)))
    packet = json.loads((tmp_path / "key.json").read_text())["packets"]["judge1"]["packet"]
    path.write_text(path.read_text() + f"{packet},99,Z,0,1\n")
    with pytest.raises(DataError, match="the packet has no item 99, text Z"):
        read_ratings(tmp_path / "key.json", [path])
    key = files.read_sealed(tmp_path / "key.json")
    files.write_sealed(tmp_path / "old.json", {**key, "items": key["items"][:1]})
    with pytest.raises(DataError, match="is of one item"):
        read_ratings(tmp_path / "old.json", [path])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a"}', "line 2: expected an object with the fields"),
        (
            '{"id": "b", "history": ["x"], "predicted": "p", "texts": {"a": "x", "b": "y"}}',
            "sources a, b",
        ),
        ('{"id": "", "history": ["x"], "predicted": "p", "texts": {}}', "field 'id'"),
        ('{"id": "b", "history": [], "predicted": "p", "texts": {}}', "field 'history'"),
        (
            '{"id": "b", "history": ["x"], "predicted": "p", "texts": {"a": "x"}}',
            "two sources or more",
        ),
        (
            '{"id": "b", "history": ["x"], "predicted": "p", "texts": {"a": "x", "b": " "}}',
            "no text",
        ),
        (
            '{"id": "b", "history": ["x"], "predicted": "p", "texts": {"a": "x", "b": "***"}}',
            "no text",
        ),
    ],
)
def test_items_that_cannot_be_rated(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "items.jsonl"
    write_items(path, items(1))
    assert read_items(path) == items(1)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=said):
        read_items(path)


def test_a_judge_in_a_browser(chromium: str, tmp_path: Path) -> None:
    """Three items by keyboard, a reload, the rest, the file that is saved, and its scores."""
    export(items(), 1, 42, tmp_path)
    page = tmp_path / "packets" / "judge1.html"
    program = (ROOT / "tests" / "programs" / "rate_packet.html").read_text(encoding="utf-8")
    (tmp_path / "frame.html").write_text(program.replace("PAGE", page.as_uri()), encoding="utf-8")
    flags = ("--allow-file-access-from-files",)
    found = json.loads(written_by(chromium, tmp_path / "frame.html", tmp_path / "profile", *flags))
    assert found["empty"].startswith("Item 1 of 7, 0 done.")
    assert found["back"].startswith("Item 3 of 7, 3 done.")
    assert found["kept"].startswith("Item 4 of 7, 3 done.")
    assert "All are done" in found["done"]
    saved = tmp_path / "judge1.csv"
    saved.write_text(found["file"])
    ratings = read_ratings(tmp_path / "key.json", [saved])
    expected = [[len(one.texts[source]) % 4 for source in SOURCES] for one in items()]
    assert ratings.left_out == {}
    assert (ratings.scores == np.asarray(expected)[None, :, :, None]).all()


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True)])
def test_a_packet_can_be_read(chromium: str, tmp_path: Path, width: int, dark: bool) -> None:
    export(items(), 1, 42, tmp_path)
    page = (tmp_path / "packets" / "judge1.html").read_text(encoding="utf-8")
    found = measured(chromium, tmp_path, page, width, dark)
    assert found["overflow"] == 0
    assert found["pale"] == []
    assert found["stuck"] == 0
    assert found["texts"] > 20
