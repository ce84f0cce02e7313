"""SAND as a method: levels by lists, one person with one day, places that it has none of."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import BEHAVIOURS
from bua_jax.events.windows import generation_windows
from bua_jax.methods.protocol import Built, Data, Site, cases_of
from bua_jax.methods.sand import METHOD, known, levels_of
from tests.events.stores import store_of


def config_of() -> ConfigDict:
    config = configs.load("configs/base.py").copy_and_resolve_references()
    config.windows.generation_history = 8
    # shapes are those of tests/training/generators, so that nothing is compiled twice
    tiny = {"replay_days": 1, "epochs": 1, "batch": 4, "rounds": 1, "steps": 48, "validation": 2}
    config.methods.sand.update({**tiny, "level0": ("chat",), "level1": ("pay",)})
    return config


def store_of_one() -> EventStore:
    """One training person with one day; a test person with three, of which a gap cuts off the first."""
    day = [(0, 16, 5, 0), (0, 20, 6, 2)]
    test = [(d, s, p, b, d == 1 and s == 16) for d in range(3) for _, s, p, b in day]
    return store_of([day, test], split=[0, 2])


@pytest.mark.long
def test_one_person_with_one_day_is_enough(tmp_path: Path) -> None:
    store, config = store_of_one(), config_of()
    site = Site(config, tmp_path, {})
    assert METHOD.fit is not None
    facts = METHOD.fit(site, Data(store, pytest.fail))
    assert (facts["training_windows"], facts["gail_rounds"], facts["longest_day"]) == (1, 1, 2)
    assert facts["behaviours_by_level"] == [1, 1, 1]  # subway is in no list
    built = {"fit/sand": Built(tmp_path, config, facts)}
    windows = generation_windows(store, "test", history_length=8, min_history=1)
    cases = cases_of(store, windows, 8, told="weekday")
    assert len(cases) == 1
    assert known(cases[0]).past.day.tolist() == [0, 0]  # what was before the gap is not read
    many = cases.take(np.zeros(20, int))
    method = METHOD.load(Site(config, tmp_path, built))
    days = method.generate(many).days
    assert days[0].weekday == 2
    assert len({*days}) == 1  # of one name
    assert {place for day in days for place in day.place} <= {0}
    assert METHOD.about.writes == ("slot", "behaviour")


def test_labels_of_no_list_have_the_default_level() -> None:
    page = config_of().methods.sand
    labels = ("pay", "mine", "chat", "yours")
    assert levels_of(labels, page) == (1, 2, 0, 2)
    page.default_level = 1
    assert levels_of(labels, page) == (1, 1, 0, 1)
    page.level2 = ("mine", "pay")
    with pytest.raises(
        ConfigError, match=r"methods\.sand: 'pay' stands in more than one of level0"
    ):
        levels_of(labels, page)


def test_the_shipped_lists_name_labels_once_and_most_of_the_built_in_ones() -> None:
    page = configs.load("configs/base.py").methods.sand
    listed = [*page.level0, *page.level1, *page.level2]
    assert len(listed) == len({*listed})
    counts = np.bincount(levels_of(BEHAVIOURS, page), minlength=3)
    assert counts.min() >= 8  # each need has behaviours of its own
    assert {"Food", "Residence"} <= {*listed}
