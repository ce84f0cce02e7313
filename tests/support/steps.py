"""The table of steps with builders that do next to nothing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.steps import Run, Step, ensure

Built = list[str]


def faked(built: Built, table: dict[str, Step] = STEPS) -> dict[str, Step]:
    """The real table of steps, with builders that only say that they were called, and write nothing."""

    def fake(name: str) -> Callable[[Run], dict[str, Any]]:
        def build(run: Run) -> dict[str, Any]:
            built.append(name)
            return {}

        return build

    return {n: dataclasses.replace(s, build=fake(n), files=()) for n, s in table.items()}


def config_of(arg: str = "", **fields: Any) -> ConfigDict:
    """The curriculum's config with some fields changed; `a__b` is `a.b`."""
    config = configs.load("configs/curriculum.py", arg)
    config.update_from_flattened_dict({n.replace("__", "."): v for n, v in fields.items()})
    return config


def ask(workdir: Path, name: str, **fields: Any) -> Built:
    """What is built when a command asks for a step."""
    built: Built = []
    ensure(Run(config_of(**fields), workdir), name, faked(built))
    return built
