"""The real table of steps, in which what learns and what is asked is drawn: an experiment in seconds.

Sets, cases, notes, altered histories, result files, records and keys are the real ones; no model is.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np

from bua_jax.dialogue.rounds import TASKS, UNDERSTANDING
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.methods.last_day import last_day
from bua_jax.methods.protocol import Cases, Description, Generation, Kind, Method, Prediction
from bua_jax.methods.table import METHODS
from bua_jax.pipeline import methods as built
from bua_jax.pipeline.chain import STAGES, STEPS
from bua_jax.pipeline.data import EVENTS, load_store
from bua_jax.pipeline.steps import Run, Step
from bua_jax.training.writers import MetricWriter

Build = Callable[[Run], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Answers drawn from the names of cases; a seed's own are somewhat other ones."""

    classes: int
    seed: int
    facts: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"training_windows": 0})
    rows: int = 4096

    def predict(self, cases: Cases) -> Prediction:
        p = np.stack([self._of(name) for name in cases.sample_id])
        return Prediction(p.argmax(1).astype(np.int16), p, self._texts(cases))

    def generate(self, cases: Cases) -> Generation:
        return Generation([last_day(seen) for seen in cases.histories()])

    def describe(self, cases: Cases) -> Description:
        return Description(self._texts(cases))

    def _of(self, name: str) -> np.ndarray:
        """float64[C]: a distribution."""
        drawn = np.random.default_rng([self.seed, crc32(name.encode())]).exponential(
            size=self.classes
        )
        return drawn / drawn.sum()

    def _texts(self, cases: Cases) -> list[dict[str, str]]:
        return [{kind: f"{kind} of {name}" for kind in UNDERSTANDING} for name in cases.sample_id]


def table() -> dict[str, Step]:
    """The steps with builders that draw."""
    found = {}
    for name, step in STEPS.items():
        build = _builder(name, step)
        found[name] = dataclasses.replace(step, build=build, files=_files(name, step))
    return found


def _builder(name: str, step: Step) -> Build:
    kind, _, rest = name.partition("/")
    if name == "data":
        return _data
    if kind == "windows":
        return step.build
    if kind in ("predict", "generate", "describe"):
        method, _, of = rest.partition("/")
        return functools.partial(_said, method=METHODS[method], kind=kind, name=of)
    return _losses if name in STAGES else lambda run: {}


def _files(name: str, step: Step) -> tuple[str, ...]:
    """What others read of a step: nothing of what is not really trained."""
    made = ("data", "windows", "predict", "generate", "describe")
    return step.files if name.partition("/")[0] in made else ()


def _data(run: Run) -> dict[str, Any]:
    """Few people, of whatever data the config names."""
    store = simulated_store(20, 10, 0)
    store.save(run.folder("data") / EVENTS)
    return {"fingerprint": store.fingerprint, "shares": training_shares(store).tolist()}


def _losses(run: Run) -> dict[str, Any]:
    """What a stage leaves for those who draw its course."""
    with MetricWriter(run.folder(run.step)) as writer:
        for step in (1, 2):
            writer.write_scalars(step, {f"validation/task/{task}": 1 / step for task in TASKS})
    return {}


def _said(run: Run, method: Method, kind: Kind, name: str) -> dict[str, Any]:
    classes = len(load_store(run).catalogue.behaviours)
    seed = crc32(f"{method.name} {run.workdir / run.places.get(run.step, '')}".encode())
    stub = dataclasses.replace(method, load=lambda site: Drawn(classes, seed))
    return built._build_result(run, stub, kind, name)
