"""Steps `windows/SET`: the sets of windows that training draws from and that every method is asked about.

They are drawn by `windows.seed`, apart from `seed`: runs with several seeds share their test windows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import (
    WindowSet,
    freeze,
    generation_windows,
    prediction_windows,
    read_set,
    sample_windows,
    write_set,
)
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run

FILE = "windows.parquet"


@dataclass(frozen=True)
class Drawn:
    """What a set is drawn from."""

    split: str
    task: str  # prediction or generation: what follows the history
    count: str = ""  # field of the config's part `windows`: their number; empty: all there are
    among: str = ""  # set that they are drawn of; empty: all windows of the split


SETS = {
    "train": Drawn("train", "prediction", "train"),
    "validation": Drawn("validation", "prediction", "validation"),
    "days_train": Drawn("train", "generation"),
    "days_validation": Drawn("validation", "generation"),
    "test": Drawn("test", "prediction", "test"),
    "texts": Drawn("test", "prediction", "texts", among="test"),
    "edited": Drawn("test", "prediction", "edited", among="texts"),
    "days": Drawn("test", "generation", "generation_test"),
    "cross": Drawn("train", "prediction", "cross"),
    "fit_train": Drawn("train", "prediction", "fit_train"),
    "fit_validation": Drawn("validation", "prediction", "fit_validation"),
    "days_hybrid": Drawn("train", "generation", "days_hybrid"),
    "match": Drawn("validation", "prediction", "match", among="fit_validation"),
}
"""`cross`: of training people whom `train` and `days_train` leave out, for methods that read what a model
wrote which was trained on those. The encoder is pretrained on all training people. `fit_train`,
`fit_validation`: what methods other than BUA are fitted and chosen on. `days_hybrid`: training people's next
days that generators write, for a model that is fitted on them too. `match`: validation windows that
BUA is asked about, for methods that are matched to its accuracy. `texts`: test windows that descriptions are
held against; `edited`: of these, whose cases are about an edited history (`evaluation.understanding`).
"""


def step_of(name: str) -> str:
    """`test` -> `windows/test`: a set is a step of its own, so that more test windows change no other."""
    return f"windows/{name}"


def fields_of(name: str) -> tuple[str, ...]:
    """The config fields that a set depends on."""
    drawn = SETS[name]
    own = ["seed", "min_history", f"{drawn.task}_history"]
    own += [drawn.count] if drawn.count else []
    own += ["cross"] if drawn.split == "train" and drawn.count != "cross" else []
    more = fields_of(drawn.among) if drawn.among else ()
    return tuple(dict.fromkeys((*(f"windows.{field}" for field in own), *more)))


def draw_set(config: Settings, store: EventStore, name: str) -> WindowSet:
    """The set `name`; config: the part `windows`. Raises `DataError` for predictions about nobody."""
    drawn = SETS[name]
    if drawn.among:
        windows = draw_set(config, store, drawn.among).windows
    else:
        every = prediction_windows if drawn.task == "prediction" else generation_windows
        length, least = config[f"{drawn.task}_history"], config.min_history
        windows = every(store, drawn.split, history_length=length, min_history=least)
    if drawn.split == "train" and config.cross:
        apart = _apart(store, config.cross, config.min_history, config.seed)
        windows = windows.take(np.flatnonzero(np.isin(windows.user, apart) == (name == "cross")))
    elif name == "cross":
        raise ConfigError(
            "config.windows.cross=0 sets nobody apart: give the number of windows of people on whom "
            "the model that describes them is not trained."
        )
    windows = sample_windows(windows, config[drawn.count] if drawn.count else 0, config.seed)
    if drawn.task == "prediction" and not len(windows):
        raise DataError(
            f"There is no window for the set {name}: no person of the {drawn.split} split has more than "
            f"{config.min_history} events (windows.min_history)"
            f"{' beside those set apart by windows.cross' * (drawn.split == 'train')}."
        )
    return freeze(store, windows, config.seed)


def _apart(store: EventStore, count: int, min_history: int, seed: int) -> np.ndarray:
    """Training users, in an order drawn by `seed`, until they have `count` windows; two at least.

    So that each of them is another person to somebody.
    """
    users = np.random.default_rng(seed).permutation(store.users_of_split("train"))
    windows = np.maximum(0, np.diff(store.offsets)[users] - min_history)
    return users[: max(2, 1 + int(np.searchsorted(np.cumsum(windows), count)))]


def build_set(run: Run, name: str) -> dict[str, Any]:
    """Writes windows/NAME/windows.parquet."""
    store = load_store(run)
    frozen = draw_set(run.config.windows, store, name)
    write_set(run.folder(step_of(name)) / FILE, store, frozen)
    people = len(np.unique(frozen.windows.user))
    notice(f"{step_of(name)}: {len(frozen)} windows of {people} people, {frozen.fingerprint}")
    return {"fingerprint": frozen.fingerprint, "windows": len(frozen), "people": people}


def load_set(run: Run, name: str, store: EventStore) -> WindowSet:
    """A frozen set of the run. Raises `DataError` and `MismatchError`, see `read_set`."""
    return read_set(run.file(step_of(name), FILE), store)
