"""Safetensors files: which of a folder's hold a model, and their tensors, checked as they are read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bua_jax.basics.console import notice
from bua_jax.basics.errors import CheckpointError
from bua_jax.interop.model_config import json_object

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OTHERS = ("adapter_model", "consolidated")  # beginnings of files that belong to other programs


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, by its header."""

    path: Path
    name: str
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Its values. Raises `CheckpointError` if they can't be read or are not finite."""
        with open_safetensors(self.path) as file:
            try:
                value = file.get_tensor(self.name)
            except (SafetensorError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{self.path}: tensor {self.name} can't be read ({error})."
                ) from error
        check_finite(self.path, self.name, value)
        return value


def check_finite(path: Path, name: str, value: np.ndarray) -> None:
    """Raises `CheckpointError` for NaN and infinities; `value`: any type."""
    if value.dtype.name == "bfloat16":  # by its exponent's bits, as fast as memory
        finite = bool(((value.view(np.uint16) & 0x7F80) != 0x7F80).all())
    else:
        finite = value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if not finite:
        raise CheckpointError(f"{path}: tensor {name} holds values that are not finite.")


def open_safetensors(path: Path) -> Any:
    """A safetensors file for numpy. Raises `CheckpointError` if it is damaged or none."""
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}).") from error


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """A safetensors file, the same for the same content; the library's metadata has a random order."""
    data = memoryview(save(dict(tensors)))
    start = 8 + int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(bytes(data[8:start]))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(data[start:])


def _model_files(folder: Path) -> list[Path]:
    """The files of the model, in the order of precedence of transformers: one file, then an index.

    Other safetensors files beside it are named in a notice. Raises `CheckpointError`.
    """
    there = sorted(folder.glob("*.safetensors"))
    index = folder / _INDEX
    if folder / _WHOLE in there:
        used, ignored = [folder / _WHOLE], [index] if index.is_file() else []
    elif index.is_file():
        named = json_object(index).get("weight_map")
        named = set(named.values()) if isinstance(named, dict) else {None}
        if not all(isinstance(name, str) and name == Path(name).name for name in named):
            raise CheckpointError(f"{index} has no weight_map from tensors to files beside it.")
        used, ignored = sorted(folder / name for name in named), []
    else:
        used, ignored = [p for p in there if not p.name.startswith(_OTHERS)], []
    if not used:
        other = ", ".join(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt")])
        hint = f" Only safetensors are read, not {other}." if other else ""
        raise CheckpointError(f"{folder} has no *.safetensors.{hint}")
    ignored += [path for path in there if path not in used]
    if ignored:
        names = ", ".join(path.name for path in ignored)
        hint = ""
        if any(path.name.startswith("adapter_model") for path in ignored):
            hint = f"; --config.model.adapter={folder} starts from the adapter"
        notice(f"{folder}: the model is {', '.join(p.name for p in used)}; ignored: {names}{hint}")
    return used


def find_tensors(folder: Path) -> dict[str, Stored]:
    """A model's tensors by name. Raises `CheckpointError` for missing or damaged files and duplicates."""
    found: dict[str, Stored] = {}
    for path in _model_files(folder):
        if not path.is_file():
            raise CheckpointError(f"{path} is named in {_INDEX} but missing.")
        with open_safetensors(path) as file:
            for name in file.keys():  # noqa: SIM118 (a safetensors handle is no dict)
                if name in found:
                    raise CheckpointError(
                        f"Tensor {name} is in {found[name].path.name} and {path.name}."
                    )
                found[name] = Stored(path, name, tuple(file.get_slice(name).get_shape()))
    return found
