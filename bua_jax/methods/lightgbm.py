"""LightGBM on features of the history: what a careful practitioner tries first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.console import bar
from bua_jax.basics.legal import Real, Whole
from bua_jax.methods.protocol import (
    About,
    Counted,
    Data,
    Histories,
    Method,
    Site,
    window_counts,
)

_RECENT = 5
_PARAMETERS = (
    "learning_rate",
    "num_leaves",
    "min_data_in_leaf",
    "feature_fraction",
    "bagging_fraction",
    "bagging_freq",
    "lambda_l2",
)


def features(histories: Histories, classes: int, slots: int) -> np.ndarray:
    """float32[n, F]: counts in the window, in the last ten events, at the last event's place, of the
    successors of the last behaviour and of this time of day on earlier days; how many events ago
    each behaviour was last seen; the last five events; clock and weekday; days that the window spans,
    events of its last day. Every history has an event."""
    n, length = histories.fields.shape[:2]
    rows, index = np.arange(n), np.arange(length)
    inside = index < histories.n_events[:, None]
    slot, behaviour = (histories.fields[:, :, i] for i in (1, 3))

    def counted(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
        flat = rows[:, None] * classes + values
        return np.bincount(flat[mask], minlength=n * classes).reshape(n, classes)

    recent = inside & (index >= histories.n_events[:, None] - 10)
    last, last_slot = histories.last(3), histories.last(1)
    follows = np.zeros_like(inside)
    follows[:, 1:] = inside[:, 1:] & (behaviour[:, :-1] == last[:, None])
    width = 2 * slots // 24
    ahead = slot - last_slot[:, None]
    later = inside & (histories.day < 0) & (ahead >= 0) & (ahead <= width)
    final = histories.n_events - 1
    here = inside & (histories.place_rank == histories.place_rank[rows, final][:, None])
    ago = np.full((n, classes), length)  # where a behaviour is not in the history
    for back in range(length - 1, -1, -1):  # nearer events overwrite farther ones
        at = final - back
        seen = at >= 0
        ago[rows[seen], behaviour[rows[seen], at[seen]]] = back
    columns = [
        window_counts(histories, classes),
        counted(recent, behaviour),
        counted(follows, behaviour),
        counted(later, behaviour),
        counted(here, behaviour),
        ago,
        (histories.day[rows, final] - histories.day[:, 0])[:, None],
        (inside & (histories.day == histories.day[rows, final][:, None])).sum(1)[:, None],
    ]
    for back in range(1, _RECENT + 1):
        at = np.maximum(histories.n_events - back, 0)
        there = histories.n_events >= back
        for values in (behaviour, slot, histories.place_rank, histories.day):
            columns.append(np.where(there, values[rows, at], -1)[:, None])
    columns += [histories.last(0)[:, None], histories.n_events[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class LightGBM:
    """A fitted booster."""

    booster: Any
    classes: int
    slots: int

    def __call__(self, histories: Histories) -> np.ndarray:
        return self.booster.predict(features(histories, self.classes, self.slots))


def fit(
    training: tuple[Histories, np.ndarray],
    validation: tuple[Histories, np.ndarray],
    classes: int,
    slots: int,
    seed: int,
    settings: Settings,
) -> LightGBM:
    """Boosts until the validation users' log-loss stops falling. Deterministic.

    settings: `config.methods.lightgbm`.
    """
    import lightgbm  # takes a second, which only those wait for who use it

    parameters = {
        "objective": "multiclass",
        "num_class": classes,
        **{name: settings[name] for name in _PARAMETERS},
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 2,
        "verbosity": -1,
    }
    train = lightgbm.Dataset(features(training[0], classes, slots), training[1])
    held = lightgbm.Dataset(features(validation[0], classes, slots), validation[1], reference=train)
    with bar() as display:
        task = display.add_task("lightgbm rounds", total=settings.rounds)
        booster = lightgbm.train(
            parameters,
            train,
            settings.rounds,
            valid_sets=[held],
            callbacks=[
                lightgbm.early_stopping(settings.patience, verbose=False),
                lambda _: display.advance(task),
            ],
        )
    return LightGBM(booster, classes, slots)


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    catalogue, settings = data.store.catalogue, site.config.methods.lightgbm
    sizes = len(catalogue.behaviours), catalogue.slots_per_day
    training, held = ((cases.arrays, target) for cases, target in (data.train, data.validation))
    made = fit(training, held, *sizes, site.config.seed, settings)
    files.write_text(site.folder / "booster.txt", made.booster.model_to_string())
    files.write_json(site.folder / "sizes.json", sizes)
    return {"training_windows": len(data.train.target)}


def _load(site: Site) -> Counted:
    import lightgbm

    text = (site.folder / "booster.txt").read_text(encoding="utf-8")
    sizes = files.read_json(site.folder / "sizes.json")
    made = LightGBM(lightgbm.Booster(model_str=text), *sizes)
    return Counted(made, site.inputs["fit/lightgbm"].result)


METHOD = Method(
    "lightgbm",
    About(
        "LightGBM",
        "counts, recency and successors of the history",
        ("weekday", "slot", "place", "behaviour"),
        "windows",
    ),
    load=_load,
    fit=_fit,
    fit_sets=("fit_train", "fit_validation"),
    files=("booster.txt", "sizes.json"),
    legal={
        "rounds": Whole(1),
        "patience": Whole(1),
        "learning_rate": Real(0, 1, above=True),
        "num_leaves": Whole(2, 2**17),  # LightGBM's own bound
        "min_data_in_leaf": Whole(0),
        "feature_fraction": Real(0, 1, above=True),
        "bagging_fraction": Real(0, 1, above=True),
        "bagging_freq": Whole(0),
        "lambda_l2": Real(0),
    },
)
