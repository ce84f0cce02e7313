"""Finding, composing and overriding the config files in `configs/`.

A config file is a Python file with `get_config(arg: str = "") -> ConfigDict`. On the command line:
`--config=configs/stage2.py:model=nano,data=foursquare_nyc --config.stage2.peak_lr=1e-3`.
The same files are found from a checkout and from an installed wheel.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from bua_jax.basics.errors import ConfigError

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
    names = ", ".join(sorted(f"configs/{p.name}" for p in folder().glob("[a-z]*.py")))
    raise ConfigError(f"There is no config file {path}. The shipped ones are {names}.")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bua_config_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(path: str, arg: str = "") -> ConfigDict:
    """Evaluates a config file (`configs/stage2.py`) with its argument (`data=foursquare_nyc`)."""
    config = _module(resolve(path)).get_config(arg)
    config.lock()
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
        names = ", ".join(sorted(p.stem for p in (folder() / kind).glob("[a-z]*.py")))
        raise ConfigError(
            f"There is no {kind} config named {name!r}; there are: {names}, and files of your own such "
            f"as {kind}=mine.py, a copy of one in {folder() / kind}."
        )
    return _module(path).get_config(arg)


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
