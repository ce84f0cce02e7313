"""A small tokenizer of nano's kind."""

from pathlib import Path

import pytest

from bua_jax.interop.tokenizer import HFTokenizer, load_tokenizer
from bua_jax.nano.tokenizer import train_tokenizer

ROWS = 1024


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    folder: Path = tmp_path_factory.mktemp("nano")
    train_tokenizer(ROWS, count=60).save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder, ROWS)
