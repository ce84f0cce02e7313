"""Files that are either complete or absent: temporary name, fsync, rename. And content hashes.

What is read back and believed has a hash: JSON objects one of their values (`seal`), other files one of
their bytes in a file beside them (`write_hash`), or one in the record of the step that wrote them.
"""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.basics.console import notice, waiting
from bua_jax.basics.errors import ConfigError, DataError, WriteError, first_remedy

_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)
_MODE = 0o666 & ~_UMASK


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: int = _MODE) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it onto `path` if the block succeeds.

    On any error the temporary file is removed and an existing `path` is left untouched.
    mode: permissions, whatever the library that writes chooses; by default those of every new file.
    Raises `WriteError` for a full disk or a missing permission.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(
            f"Could not write {path}: {error.strerror or error}. Nothing was replaced. "
            f"{first_remedy(error)} or choose another --workdir, then run the same command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # such as of storage that can only be read
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def where_writable() -> Iterator[None]:
    """What the block cannot write to storage that can only be read is left out, which is said."""
    try:
        yield
    except WriteError as error:
        read_only = (errno.EROFS, errno.EACCES, errno.EPERM)
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in read_only):
            raise
        notice(str(error))


def check_output(
    output: str | Path, *inputs: str | Path, beside: Iterable[str] = (), flag: str = "--output"
) -> None:
    """To be asked before anything is made that is to be written to `output`, a file; nothing: no file.

    beside: endings of files that are written next to it. Raises `ConfigError` for a folder or a device,
    a path that leads through a file, a folder that may not be written, and for one of `inputs`, also
    through links.
    """
    if not output:
        return
    output = Path(output)
    if output.exists() and not output.is_file():
        kind = "a folder" if output.is_dir() else "no ordinary file"
        raise ConfigError(f"{flag}={output} is {kind}. Give the name of a file to write.")
    check_folder(output.parent, f"{flag}={output}")
    for path in (output, *(output.with_name(output.name + ending) for ending in beside)):
        for given in (given for given in inputs if given):
            if path.exists() and Path(given).exists() and path.samefile(given):
                raise ConfigError(
                    f"{flag}={output} would overwrite {path}, which is the input {given}. Choose another "
                    f"{flag}."
                )


def check_folder(folder: str | Path, named: str) -> None:
    """Raises `ConfigError` for a folder that cannot be made or written into; named: how it was given."""
    folder = Path(folder)
    there = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not there.is_dir():
        raise ConfigError(f"{named}: {there} is a file. Choose another path.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{named}: the folder {there} cannot be written. Choose another path.")


def check_scratch() -> None:
    """Raises `WriteError` where no temporary file can be written, as libraries do on import."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise WriteError(
            f"No temporary file can be written: {error.strerror}. Name such a folder in TMPDIR; for a "
            "container that is read-only, add --tmpfs /tmp."
        ) from error


def write_text(path: str | Path, text: str, mode: int = _MODE) -> None:
    """Writes `text` as UTF-8, atomically; at no moment may more people read it than mode says."""
    with atomic_write(path, mode) as temporary:
        temporary.touch(mode)
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, mode: int = _MODE) -> None:
    """Writes `value` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", mode)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file. Raises `DataError` naming the file and what is wrong with it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        wrong = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except RecursionError:
        wrong = "nested too deep"
    except ValueError as error:  # not UTF-8, NaN, or a number with too many digits
        wrong = str(error).partition(";")[0]
    raise DataError(f"{path} is not valid JSON ({wrong}).")


SEAL = "sha256"


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a JSON object with a hash over them."""
    return {**values, SEAL: sha256_json(dict(values))}


def unseal(values: Any, where: str | Path) -> dict[str, Any]:
    """What was sealed. Raises `DataError` naming `where` if the values are not those."""
    if not isinstance(values, dict) or values.get(SEAL) != sha256_json(
        rest := {name: value for name, value in values.items() if name != SEAL}
    ):
        raise DataError(
            f"{where} was altered or damaged after it was written (or an older version wrote it): the "
            "hash of its content is another."
        )
    return rest


def write_sealed(path: str | Path, values: Mapping[str, Any], mode: int = _MODE) -> None:
    """Writes JSON values with a hash over them, atomically."""
    write_json(path, seal(json.loads(json.dumps(values))), mode)


def read_sealed(path: str | Path) -> dict[str, Any]:
    """What `write_sealed` wrote. Raises `DataError` if the file holds anything else."""
    return unseal(read_json(path), path)


def _hash_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def write_hash(path: Path) -> None:
    """Writes the hash of a file's bytes beside it."""
    write_text(_hash_of(path), sha256_file(path) + "\n")


def is_whole(path: Path) -> bool:
    """Whether a file is there, and is the one of which `write_hash` wrote the hash."""
    beside = _hash_of(path)
    if not (path.is_file() and beside.is_file()):
        return False
    return beside.read_bytes() == f"{sha256_file(path)}\n".encode()


def sha256_text(text: str) -> str:
    """First 16 hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_json(value: Any) -> str:
    """`sha256_text` of JSON values, whatever the order of their keys."""
    return sha256_text(json.dumps(value, sort_keys=True))


_LARGE = 2**28  # bytes of a file that may take seconds to hash


def sha256_file(path: str | Path) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes."""
    large = os.path.getsize(path) > _LARGE
    said = waiting(f"hashing {Path(path).name}") if large else contextlib.nullcontext()
    with said, open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


_READ_OF_A_FOLDER = (  # with a model, an adapter or a tokenizer
    "*config.json",
    "*.index.json",
    "tokenizer.json",
    "*.safetensors",
    "*.tiktoken",
)


def sha256_of(path: Path) -> str | None:
    """Hash of a file, or of what is read of a folder; None where there is neither.

    What has the size and the time of change that it had is not read again.
    """
    if path.is_file():
        return _once(path)
    if not path.is_dir():
        return None
    parts = sorted({p for kind in _READ_OF_A_FOLDER for p in path.glob(kind) if p.is_file()})
    return sha256_json([(p.name, _once(p)) for p in parts])


def _once(path: Path) -> str:
    stat = path.stat()
    return _hash_once(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _hash_once(path: Path, size: int, changed: int) -> str:
    return sha256_file(path)


def sha256_arrays(
    arrays: Mapping[str, Any], to_host: Callable[[Any], np.ndarray] = np.asarray
) -> str:
    """First 16 hex digits of the SHA-256 over names, dtypes, shapes and bytes, sorted by name.

    Arrays may lie on devices: the host then holds about 16 MiB of them at a time, through `to_host`.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype}|{array.shape}|".encode())
        array = array.reshape(1) if array.ndim == 0 else array
        rows = max(1, 2**24 // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
        for first in range(0, len(array), rows):
            whole = rows >= len(array)  # of arrays of jax every slice is compiled
            some = array if whole else array[first : first + rows]
            part = np.ascontiguousarray(to_host(some))
            text = part.dtype.kind in "OUS"
            digest.update(part.tobytes() if text else part.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]
