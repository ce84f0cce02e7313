"""What is known of an output before anything is made for it."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from bua_jax.basics.errors import ConfigError, WriteError
from bua_jax.basics.files import atomic_write, check_output, check_scratch


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("precious")
    return path


def test_an_output_that_is_an_input(given: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    link, hard, around = tmp_path / "link", tmp_path / "hard", tmp_path / "around"
    link.symlink_to(given)
    os.link(given, hard)
    around.symlink_to(tmp_path)
    for output in (given, "in.jsonl", "./in.jsonl", link, hard, around / "in.jsonl"):
        with pytest.raises(ConfigError, match=r"would overwrite .*, which is the input"):
            check_output(output, given)
        with pytest.raises(ConfigError, match="would overwrite"):
            check_output(given, output)
    check_output(tmp_path / "new" / "out.jsonl", given, "", tmp_path / "absent")
    check_output(link, tmp_path / "absent")
    assert not (tmp_path / "new").exists()


def test_what_is_kept_beside_an_output(given: Path) -> None:
    kept = given.rename(given.with_name("out.partial"))
    with pytest.raises(ConfigError, match=r"--output=.*out would overwrite .*out\.partial"):
        check_output(kept.with_name("out"), kept, beside=(".partial",))
    check_output(kept.with_name("out"), kept)


def test_an_output_that_is_no_file(given: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--json=.* is a folder\. Give the name of a file"):
        check_output(tmp_path, given, flag="--json")
    with pytest.raises(ConfigError, match=r"/dev/null is no ordinary file"):
        check_output("/dev/null", given)  # which would be replaced where one may
    with pytest.raises(ConfigError, match=r"in\.jsonl is a file\. Choose another path"):
        check_output(given / "below" / "out", given)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may always
    with pytest.raises(ConfigError, match="cannot be written"):
        check_output(tmp_path / "new" / "out")


def test_nowhere_to_write_temporary_files(monkeypatch) -> None:
    """As in a container that can only be read, where libraries would fail on import."""
    check_scratch()

    def absent() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", absent)
    with pytest.raises(
        WriteError, match=r"found in \['/tmp'\]\. Name such a folder in TMPDIR; .* --tmpfs"
    ):
        check_scratch()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, rf"Let user {os.geteuid()} write there or"),
        (errno.ENOSPC, "Free disk space or"),
    ],
)
def test_the_remedy_is_of_what_was_wrong(tmp_path: Path, number: int, remedy: str) -> None:
    with pytest.raises(WriteError, match=remedy), atomic_write(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
