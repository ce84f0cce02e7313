"""Finding, composing and overriding the config files in `configs/`; the view that a step has of one.

A config file is a Python file with `get_config(arg: str = "") -> ConfigDict`. On the command line:
`--config=configs/stage2.py:model=nano,data=foursquare_nyc --config.stage2.peak_lr=1e-3`.
The same files are found from a checkout and from an installed wheel.
"""

import difflib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from bua_jax.basics.errors import ConfigError, UndeclaredError

Settings: TypeAlias = "ConfigDict | View"
_PACKAGE = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """The folder of the shipped configs: beside the package in a checkout, inside it in a wheel."""
    beside = _PACKAGE.parent / "configs"
    return beside if (beside / "base.py").exists() else _PACKAGE / "configs"


def resolve(path: str) -> Path:
    """Path of a config file: as given, or else among the shipped ones.

    Raises `ConfigError` naming the shipped configs.
    """
    given = Path(path)
    if given.is_file():
        return given
    relative = Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    shipped = folder() / relative
    if shipped.is_file():
        return shipped
    names = {p.stem: f"configs/{p.name}" for p in sorted(folder().glob("[a-z]*.py"))}
    tables = {p.stem: f"configs/experiments/{p.name}" for p in folder().glob("experiments/*.py")}
    raise ConfigError(
        f"There is no config file {path}. The shipped ones are {', '.join(names.values())}."
        f"{_near(given.stem, tables | names)}"
    )


def _near(name: str, known: Mapping[str, str]) -> str:
    """` Did you mean ...?` of the nearest known name and what it stands for, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {known[near[0]]}?" if near else ""


def module_of(path: str) -> ModuleType:
    """A config file, evaluated: as given, or else among the shipped ones. Raises `ConfigError`."""
    return _module(resolve(path))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bua_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file, as configs are: their names end in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _config_in(path: Path, arg: str) -> ConfigDict:
    """Evaluates a file's `get_config`. Raises `ConfigError` where it has none."""
    get_config = getattr(_module(path), "get_config", None)
    if get_config is None:
        raise ConfigError(f"{path} has no function get_config(arg), so it is no config.")
    return get_config(arg)


def load(path: str, arg: str = "") -> ConfigDict:
    """Evaluates a config file (`configs/stage2.py`) with its argument (`data=foursquare_nyc`).

    Raises `ConfigError` for a file that is not there or no config.
    """
    config = _config_in(resolve(path), arg)
    config.lock()
    return config


def based_on(path: str, arg: str) -> ConfigDict:
    """A config file's config to be changed: unlocked, its references resolved."""
    config = load(path, arg).copy_and_resolve_references()
    config.unlock()
    return config


def of_stage(stage: str, arg: str) -> ConfigDict:
    """The curriculum's config for one stage, whose part is also called `config.train`."""
    config = based_on("configs/curriculum.py", arg)
    config.step = stage
    config.train = config[stage]
    return config


def part(kind: str, name: str, arg: str = "") -> ConfigDict:
    """Loads the shipped `configs/KIND/NAME.py`, e.g. `part("data", "foursquare_nyc")`, or a file of
    one's own by its path: `part("data", "mine.py")`.

    Raises `ConfigError` naming the parts there are.
    """
    own = name.endswith(".py")
    path = Path(name) if own else folder() / kind / f"{name}.py"
    if not path.is_file():
        if own:
            raise ConfigError(f"There is no {kind} config {path}.")
        known = sorted(p.stem for p in (folder() / kind).glob("[a-z]*.py"))
        raise ConfigError(
            f"There is no {kind} config named {name!r}; there are: {', '.join(known)}, and files of your own "
            f"such as {kind.removesuffix('s')}=mine.py, a copy of one in {folder() / kind}."
            f"{_near(name, dict(zip(known, known, strict=True)))}"
        )
    return _config_in(path, arg)


def pages(kind: str) -> ConfigDict:
    """All of `configs/KIND/`, by name: `pages("methods").lightgbm`."""
    names = sorted(path.stem for path in (folder() / kind).glob("[a-z]*.py"))
    return ConfigDict({name: part(kind, name) for name in names})


def parse_arg(arg: str, defaults: dict[str, str]) -> dict[str, str]:
    """Parses `"model=nano,data=simulated"` over `defaults`; the keys of `defaults` are the legal ones."""
    values = dict(defaults)
    for item in filter(None, arg.split(",")):
        key, _, value = item.partition("=")
        if key not in defaults or not value:
            raise ConfigError(
                f"Config argument {item!r} is not KEY=VALUE with KEY among {', '.join(defaults)}; "
                "for example --config=configs/stage2.py:model=nano,data=foursquare_nyc."
            )
        values[key] = value
    return values


def plain(config: Settings) -> Any:
    """The config, or a part of it, as JSON values (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def settings(config: Settings, fields: Iterable[str]) -> dict[str, Any]:
    """The values of `fields`, flattened to dotted names, as JSON values."""
    found: dict[str, Any] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                collect(f"{name}.{key}", value[key])
        else:
            found[name] = value

    for field in fields:
        value: Any = config
        for key in field.split("."):
            value = value[key]
        whole = value.to_dict() if hasattr(value, "to_dict") else value
        collect(field, json.loads(json.dumps(whole)))
    return found


def nested(values: Mapping[str, Any]) -> ConfigDict:
    """The config that `settings` flattened."""
    config: dict[str, Any] = {}
    for name, value in values.items():
        *parts, last = name.split(".")
        place = config
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return ConfigDict(config)


class View:
    """The part of a config that a step declared: reading any other field raises `UndeclaredError`.

    Attributes and items give values; a part gives a view of itself. Iterating over a part, `items`,
    `keys`, `in`, `**` and `to_dict` count as reading all of it, so they take a part that is declared as
    a whole. References and writing have no place here.
    """

    def __init__(
        self, config: ConfigDict, fields: Iterable[str], reader: str, prefix: str = ""
    ) -> None:
        """fields: dotted names of fields or of whole parts; reader: who declared them, for errors."""
        self._config, self._fields = config, tuple(fields)
        self._reader, self._prefix = reader, prefix

    def narrowed(self, fields: Iterable[str], reader: str) -> "View":
        """The view of another reader, who declared fewer of the fields."""
        kept = [field for field in fields if self._is_whole(field)]
        return View(self._config, kept, reader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling look for such before there is a config
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        full = self._prefix + name
        below = any(field.startswith(f"{full}.") for field in self._fields)
        if not (self._is_whole(full) or below):
            raise self._undeclared(full)
        value = self._config[name]
        if isinstance(value, ConfigDict):
            return View(value, self._fields, self._reader, f"{full}.")
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise TypeError(f"A view is read, not written: {self._prefix}{name}.")
        object.__setattr__(self, name, value)

    def keys(self) -> list[str]:
        return list(self._whole().keys())

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self.keys()]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._whole() else default

    def to_dict(self) -> dict[str, Any]:
        return self._whole().to_dict()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._whole()

    def _whole(self) -> ConfigDict:
        part = self._prefix.removesuffix(".")
        if not self._is_whole(part):
            raise self._undeclared(part or "the whole config")
        return self._config

    def _is_whole(self, name: str) -> bool:
        return any(name == field or name.startswith(f"{field}.") for field in self._fields)

    def _undeclared(self, name: str) -> UndeclaredError:
        return UndeclaredError(
            f"{self._reader} reads {name}, which it did not declare; it declared "
            f"{', '.join(self._fields) or 'nothing'}."
        )
