"""Items for judges out of a run."""

from collections import Counter
from pathlib import Path

from bua_jax.evaluation.rating.items import read_items
from tests.support.runs import verb


def test_items_of_a_run(quickstart: Path, tmp_path: Path) -> None:
    """By the verb: test people evenly, their histories in words, a text of each source."""
    flags = (f"--workdir={quickstart}", f"--output={tmp_path / 'items.jsonl'}", "--number=12")
    done = verb("rate", "items", "--sources=reference,bua", *flags)
    assert done.returncode == 0, done.stderr
    assert "that many items are written" not in done.stderr
    items = read_items(tmp_path / "items.jsonl")
    assert len(items) == 12
    people = Counter(item.id.rpartition(":")[0] for item in items)
    assert max(people.values()) - min(people.values()) <= 1
    assert all(item.texts.keys() == {"reference", "bua"} for item in items)
    assert all(":" in line for item in items for line in item.history if line != "...")
    assert len({item.texts["reference"] for item in items}) > 6
    done = verb("rate", "items", "--sources=reference,bua", *flags[:2], "--number=99999")
    all_there = len(read_items(tmp_path / "items.jsonl"))
    said = f"has {all_there} windows: that many items are written, not 99999."
    assert said in " ".join(done.stderr.split())


def test_sources_that_do_not_write(tmp_path: Path) -> None:
    output = f"--output={tmp_path / 'items.jsonl'}"
    done = verb("rate", "items", "--sources=markov", f"--workdir={tmp_path}", output)
    assert done.returncode == 2
    assert "'markov' is no method that describes" in done.stderr
    done = verb("rate", "items", "--sources=reference", f"--workdir={tmp_path}", output)
    assert done.returncode == 2
    assert "--sources=reference: judges compare texts; give two sources or more" in done.stderr
    done = verb("rate", "items", f"--workdir={tmp_path}", output)
    assert done.returncode == 2
    assert "lacks stage1" in done.stderr
    assert verb("rate").returncode == 2
