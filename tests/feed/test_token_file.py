"""Token records are tokenised once, and read back as they were."""

from pathlib import Path

import numpy as np
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.feed.batches import Batches
from bua_jax.feed.packing import plan_packing
from bua_jax.feed.records import Encoding, check_positions, kept_records, token_records
from bua_jax.feed.token_file import TokenFile
from tests.feed.made import STORE, Letters, dialogues


class Counting(Letters):
    """Counts texts; `shift` makes it another tokenizer."""

    def __init__(self, shift: int = 0) -> None:
        self.texts, self.shift = 0, shift

    def encode(self, text: str) -> list[int]:
        self.texts += 1
        return [(byte + self.shift) % 256 for byte in text.encode()]


def encoding(row_length: int = 200, shift: int = 0, soft_tokens: str = "sequence") -> Encoding:
    return Encoding(STORE, Counting(shift), soft_tokens, 0, row_length)


@pytest.mark.parametrize("soft_tokens", ["sequence", "none"])
def test_equals_the_records_it_was_made_of(tmp_path: Path, soft_tokens: str) -> None:
    made = encoding(soft_tokens=soft_tokens)
    expected = token_records(dialogues([5, 9, 1, 30]), made)
    found = kept_records(tmp_path / "t.arrow", dialogues([5, 9, 1, 30]), made)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ("tokens", "round_ids", "kinds", "soft_index", "events"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == np.int32
        assert one.task == other.task
    assert found[-1].tokens.tolist() == found[3].tokens.tolist()
    with pytest.raises(IndexError):
        found[4]
    options = {"row_length": 200, "batch_dialogues": 2, "seed": 0}
    plan = plan_packing(expected, **options)
    assert plan == plan_packing(found, **options)
    ours, theirs = next(Batches(found, plan, 0)), next(Batches(expected, plan, 0))
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_is_written_once_and_again_for_anything_else(tmp_path: Path, capsys) -> None:
    path, some = tmp_path / "t.arrow", dialogues([5] * 99 + [6])
    length = len(token_records(some[:1], encoding())[0].tokens)
    first = encoding(length)
    kept_records(path, some, first)
    assert f"skipped 1 of 100 dialogues longer than {length} tokens" in capsys.readouterr().err
    again = encoding(length)
    stamp = path.stat().st_mtime_ns
    assert len(kept_records(path, some, again)) == 99
    assert again.tokenizer.texts < first.tokenizer.texts / 5  # the probes alone
    assert path.stat().st_mtime_ns == stamp
    assert "skipped 1 of 100" in capsys.readouterr().err
    for other, new in (
        (some[:50], encoding(length)),
        (some, encoding(length, shift=1)),
        (some, encoding(length + 1)),
    ):
        kept_records(path, other, new)
        assert path.stat().st_mtime_ns > stamp
        stamp = path.stat().st_mtime_ns


def test_a_damaged_file_is_written_anew(tmp_path: Path, capsys) -> None:
    path, some = tmp_path / "t.arrow", dialogues([5] * 20)
    kept_records(path, some, encoding())
    whole = path.read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="damaged"):
            TokenFile(path)
        assert len(kept_records(path, some, encoding())) == 20
        assert "It is written anew" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_an_altered_token_is_noticed(tmp_path: Path, capsys) -> None:
    """Which Arrow's own reader does not see."""
    path, some = tmp_path / "t.arrow", dialogues([5] * 3)
    found = kept_records(path, some, encoding())
    whole, token = path.read_bytes(), found[0].tokens[:4].tobytes()
    path.write_bytes(whole.replace(token, bytes([token[0] ^ 1]) + token[1:], 1))
    with pytest.raises(DataError, match="damaged"):
        TokenFile(path)
    kept_records(path, some, encoding())
    assert "It is written anew" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_dialogues_longer_than_the_positions_of_the_model(tmp_path: Path) -> None:
    found = kept_records(tmp_path / "t.arrow", dialogues([5, 9, 1]), encoding())
    longest = max(len(record.tokens) for record in found)
    check_positions(found, longest)
    with pytest.raises(
        DataError, match=rf"has {longest} tokens, but the model has only {longest - 1} "
    ):
        check_positions(found, longest - 1)
