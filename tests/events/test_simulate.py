"""The simulated population: deterministic, spread as in the paper, learnable from context alone."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bua_jax.basics import config as configs
from bua_jax.basics.errors import DataError
from bua_jax.events.groups import behaviour_groups, training_shares
from bua_jax.events.readers import read_store
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import (
    BEHAVIOURS,
    SLOTS,
    TAIL,
    TRIGGERS,
    people,
    read_personas,
    simulated_store,
    write_population,
)
from bua_jax.events.spec import DataSpec
from bua_jax.events.windows import prediction_windows
from bua_jax.methods import neural
from bua_jax.methods.markov_counts import fit_markov_counts
from bua_jax.methods.window_majority import fit_window_majority
from bua_jax.models.encoders import EncoderConfig
from bua_jax.training.events import EncoderSettings, train_encoder
from tests.support.histories import histories_of

NAMES = {name: i for i, name in enumerate(BEHAVIOURS)}


@pytest.fixture(scope="module")
def store() -> EventStore:
    """The default population (configs/data/simulated.py)."""
    return simulated_store(500, 60, 1)


def test_same_seed_same_population_and_a_larger_one_begins_with_the_smaller() -> None:
    small, large, other = (list(people(n, 7, seed)) for n, seed in ((3, 5), (6, 5), (3, 6)))
    for (one, events), (two, more) in zip(small, large[:3], strict=True):
        assert one == two
        assert all(np.array_equal(events[name], more[name]) for name in events)
    assert [p for p, _ in small] != [p for p, _ in other]


def test_spread_of_the_paper_and_enough_test_windows_per_tail_type(store: EventStore) -> None:
    groups = behaviour_groups(store)
    assert len(BEHAVIOURS) == 37
    assert 3 <= len(groups["head"]) <= 6
    assert 13 <= len(groups["medium"]) <= 17
    assert {BEHAVIOURS[i] for i in groups["tail"]} == set(TAIL)
    windows = prediction_windows(store, "test")
    found = np.bincount(store.behaviour[windows.end], minlength=37)
    assert found[groups["tail"]].min() >= 100


def test_tail_follows_from_context_but_not_from_frequency(store: EventStore) -> None:
    shares = training_shares(store)
    b = store.behaviour.astype(int)
    late = store.weekday[2:] >= 3
    for (first, second), rare in TRIGGERS.items():
        pair = (b[:-2] == NAMES[first]) & (b[1:-1] == NAMES[second])
        for half, name in enumerate(rare):
            called = pair & (late == bool(half))
            hit = (b[2:][called] == NAMES[name]).mean()
            assert hit > 0.5, name  # given the pair and the half of the week
            assert shares[NAMES[name]] < 0.01
            after_second = (b[1:-1] == NAMES[second]) & (late == bool(half))
            assert (b[2:][after_second] == NAMES[name]).mean() < 0.3, name  # the last event alone


def test_ground_truth_shows_in_the_events() -> None:
    night = []
    for persona, events in people(20, 28, 3):
        assert events["location"].min() >= persona.home - persona.home % 10
        assert len(np.unique(events["location"])) <= 10
        at_night = events["location"][events["slot"] >= 44]
        night.append((at_night == persona.home).mean())
        for hobby in persona.hobbies:
            assert hobby in BEHAVIOURS
    assert np.mean(night) > 0.8


def test_personas_are_kept_apart_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "personas.parquet"
    simulated_store(7, 9, 4, personas=path)
    assert read_personas(path) == {one.user: one for one, _ in people(7, 9, 4)}
    for content in (path.read_bytes()[:-9], b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no file of personas"):
            read_personas(path)
    pl.DataFrame({"user": ["p1"]}).write_parquet(path)
    with pytest.raises(DataError, match="no file of personas"):
        read_personas(path)


def test_streamed_file_reads_back_as_the_same_events(tmp_path: Path) -> None:
    path, truth = tmp_path / "events.parquet", tmp_path / "personas.jsonl"
    count = write_population(path, 7, 9, 4, personas=truth, chunk=3)
    made = simulated_store(7, 9, 4)
    columns = {name: name for name in ("user", "time", "location", "behaviour")}
    spec = DataSpec("streamed", str(path), columns=columns, behaviours=BEHAVIOURS)
    read = read_store(spec)
    assert count == len(made.day) == len(read.day)
    first = np.repeat(read.day[read.offsets[:-1]], np.diff(read.offsets))
    start = np.repeat(made.day[made.offsets[:-1]], np.diff(made.offsets))
    assert np.array_equal(read.day - first, made.day - start)
    for name in ("weekday", "slot", "behaviour", "offsets", "split"):
        assert np.array_equal(getattr(read, name), getattr(made, name)), name
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    assert [line["user"] for line in lines] == made.users.tolist()
    assert pl.read_parquet(path)["time"][0].startswith("2024-01-0")
    assert read.catalogue.slots_per_day == SLOTS


def test_a_failed_stream_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def broken(*_):
        yield from people(2, 5, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr("bua_jax.events.simulate.people", broken)
    with pytest.raises(KeyboardInterrupt):
        write_population(tmp_path / "e.parquet", 5, 5, 1, personas=tmp_path / "p.jsonl", chunk=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_ladder(store: EventStore) -> None:
    """Window majority < Markov mixed with window counts < trained encoder, with a gap each."""
    windows = prediction_windows(store, "test")
    seen, targets = histories_of(store, windows, 40)
    held = histories_of(store, prediction_windows(store, "validation"), 40)
    config = EncoderConfig("behavegpt", 37, SLOTS, dim=32, num_layers=2, num_heads=4)
    pages = configs.load("configs/base.py").methods
    methods = (
        fit_window_majority(store, pages.window_majority),
        fit_markov_counts(store, *held, pages),
        neural.predictor(config, train_encoder(config, store, EncoderSettings(epochs=3))[0]),
    )
    found = [(m(seen).argmax(1) == targets).mean() for m in methods]
    print("window majority, Markov + counts, BehaveGPT:", [f"{x:.1%}" for x in found])
    assert found[1] > found[0] + 0.05
    assert found[2] > found[1] + 0.05
