"""Answers to many histories: what is finished stays on disk, and a rerun goes on after it."""

import json
from pathlib import Path

import pytest

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


def write(output: Path, asked: Asked, identity: str = "this") -> None:
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


@pytest.mark.parametrize("cut", [0, 5])
def test_interrupted_and_run_again(tmp_path: Path, cut: int, capsys) -> None:
    """With a cut the last line of the first run is half written, as by a killed process."""
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    output.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        write(output, Asked(stop=2))
    assert output.read_text() == "earlier"
    data = partial.read_bytes()
    partial.write_bytes(data[: len(data) - cut])
    again = Asked()
    write(output, again)
    assert again.parts[0] == ((6, 3) if cut == 0 else (5, 3))
    assert output.read_text() == expected()
    assert not partial.exists()
    assert "going on after them" in capsys.readouterr().err


def test_another_model_or_input_begins_anew(tmp_path: Path, capsys) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.jsonl", Asked(stop=2), identity="other")
    asked = Asked()
    write(tmp_path / "out.jsonl", asked)
    assert asked.parts[0] == (0, 3)
    assert "beginning anew" in capsys.readouterr().err
