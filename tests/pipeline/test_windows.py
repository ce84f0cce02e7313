"""The sets of windows that a run freezes."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.simulate import simulated_store
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.steps import Run
from bua_jax.pipeline.windows import SETS, draw_set, load_set, step_of

SIZES = {"train": 30, "validation": 8, "test": 9, "generation_test": 3}


@pytest.fixture(scope="module")
def store():
    return simulated_store(30, 8, 5)


def windows_of(**fields: int) -> ConfigDict:
    config = configs.load("configs/curriculum.py").windows
    config.update({**SIZES, **fields})
    return config


def people(store, name: str, **fields: int) -> set[int]:
    return set(draw_set(windows_of(**fields), store, name).windows.user.tolist())


def test_sets_are_drawn_of_their_split_in_their_number(store) -> None:
    for name, count in (("train", 30), ("validation", 8), ("test", 9), ("days", 3)):
        frozen = draw_set(windows_of(), store, name)
        assert len(frozen) == count
        split = SETS[name].split
        assert set(frozen.windows.user.tolist()) <= set(store.users_of_split(split).tolist())
    days = draw_set(windows_of(), store, "days_train")
    assert (days.windows.target_end - days.windows.end).max() > 1
    assert len(days) > 30  # all of them


def test_another_seed_draws_others(store) -> None:
    one, same, other = (draw_set(windows_of(seed=s), store, "test") for s in (1, 1, 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.windows.end.tolist() != other.windows.end.tolist()


def test_people_set_apart_are_in_no_set_that_stages_are_trained_on(store) -> None:
    with pytest.raises(ConfigError, match=r"windows\.cross=0"):
        people(store, "cross")
    apart = people(store, "cross", cross=200)
    assert apart
    assert len(draw_set(windows_of(cross=200), store, "cross")) == 200
    for name in ("train", "days_train"):
        assert not apart & people(store, name, train=0, cross=200)
        assert apart <= people(store, name, train=0)
    trained = people(store, "train", train=0, cross=200)
    assert trained | apart == people(store, "train", train=0)
    everybody = 10**6
    with pytest.raises(DataError, match=r"set train: .* beside those set apart"):
        people(store, "train", cross=everybody)


def test_sets_of_nobody_are_said(store) -> None:
    with pytest.raises(DataError, match=r"no window for the set test: .* more than 9999 events"):
        people(store, "test", min_history=9999, prediction_history=10**4)
    assert people(store, "days", min_history=9999, generation_history=10**4) == set()


def test_the_step_writes_what_is_drawn(store, tmp_path: Path) -> None:
    config = configs.load("configs/curriculum.py")
    config.windows.update(SIZES)
    run = Run(config, tmp_path)
    store.save(tmp_path / "data" / "events.parquet")
    step = STEPS[step_of("test")]
    said = step.build(step.run(run))
    frozen = load_set(run, "test", store)
    assert said == {
        "fingerprint": frozen.fingerprint,
        "windows": 9,
        "people": len(np.unique(frozen.windows.user)),
    }
    assert frozen.fingerprint == draw_set(config.windows, store, "test").fingerprint
