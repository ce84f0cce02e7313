"""SASRec on real and generated days: which sequences, how many, and what it learns of them."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.evaluation import results
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import Day
from bua_jax.methods import hybrid_data
from bua_jax.methods.hybrid_data import as_many, day_sequences, latest, real_sequences
from bua_jax.methods.protocol import Built, Data, Labelled, Site
from bua_jax.methods.table import METHODS
from bua_jax.models.encoders import EncoderConfig
from bua_jax.training.events import EncoderSettings, fresh
from bua_jax.training.networks import Encoder
from bua_jax.training.systems.sequences import SequenceBatches, Sequences
from tests.methods.sites import cases_about, data_of, labelled
from tests.support.histories import of

LENGTH = 3
LABELS = 4


def day(*behaviours: int) -> Day:
    count = len(behaviours)
    return Day(0, tuple(range(count)), (1,) * count, behaviours)


def config_of(**page: Any) -> ConfigDict:
    config = configs.load("configs/curriculum.py").copy_and_resolve_references()
    config.methods.hybrid_data.update(length=LENGTH, epochs=2, batch=4, dim=8, **page)
    return config


# ---------------------------------------------------------------------------------- sequences


def test_the_last_events_of_days_and_histories_by_hand() -> None:
    days = [day(0, 1, 2), day(3, 2, 1, 0), day(1, 0, 1, 2, 3), day()]
    assert day_sequences(days, LENGTH).tolist() == [[3, 2, 1, 0], [0, 1, 2, 3]]
    assert day_sequences(days[:1], LENGTH).shape == (0, LENGTH + 1)
    histories = of([[0, 1], [3, 2, 1], [0, 0, 1, 2, 3]])
    behaviours, count = latest(histories, LENGTH)
    assert behaviours.tolist() == [[0, 1, 0], [3, 2, 1], [1, 2, 3]]
    assert count.tolist() == [2, 3, 3]
    behaviours, count = latest(histories, 9)  # longer than all that there is
    assert [row[:n].tolist() for row, n in zip(behaviours, count, strict=True)] == [
        [0, 1], [3, 2, 1], [0, 0, 1, 2, 3],
    ]  # fmt: skip


def test_too_few_are_drawn_again_and_none_is_lost() -> None:
    rows = np.arange(6).reshape(3, 2)
    found = as_many(rows, 7, 0)
    assert found[:3].tolist() == rows.tolist()
    assert len(found) == 7
    assert {*map(tuple, found.tolist())} == {*map(tuple, rows.tolist())}
    assert as_many(rows, 3, 0).tolist() == rows.tolist()


def test_every_epoch_has_each_sequence_once_and_goes_on_after_a_cut(store: EventStore) -> None:
    rows = np.arange(28).reshape(7, 4)
    settings = EncoderSettings(history_length=3, batch=4, seed=1)

    def batches() -> SequenceBatches:
        return SequenceBatches(store, settings, 2, rows)

    data = batches()
    first, second = next(data), next(data)
    seen = np.concatenate([first["fields"][..., 3], second["fields"][:3, :, 3]])
    assert sorted(seen[:, 0].tolist()) == rows[:, 0].tolist()
    assert (first["targets"] == first["fields"][..., 3] + 1).all()
    assert not first["fields"][..., :3].any()
    third, state = next(data), data.get_state()
    assert third["targets"].tolist() != first["targets"].tolist()  # another order
    again = batches()
    again.set_state(state)
    np.testing.assert_array_equal(next(again)["targets"], next(data)["targets"])


# ------------------------------------------------------------------------------------ the loss


def test_the_loss_is_cross_entropy_at_every_event_and_a_penalty_on_two_tables(
    store: EventStore,
) -> None:
    """Against optax and numpy; no other parameter is penalised."""
    sizes = EncoderConfig("sasrec", LABELS, 48, dim=8, num_layers=1, num_heads=1, max_events=3)
    settings = EncoderSettings(history_length=3, batch=2, peak_lr=0.1)
    network, rows = Encoder(sizes), np.asarray([[0, 1, 2, 3], [3, 3, 1, 0]])
    variables = {"encoder": fresh(sizes, settings)}

    def loss_of(l2_emb: float) -> Any:
        problem = Sequences(network, store, settings, rows, {}, l2_emb)
        batch = {**next(problem.data())}
        weights = jnp.ones((1, len(problem.units)))

        def loss(trained: Any) -> jax.Array:
            return problem.numerators(trained, batch, weights, jax.random.key(0))[0][0]

        return jax.jit(jax.value_and_grad(loss))(variables), batch

    ((plain, slope), batch), ((found, other), _) = loss_of(0.0), loss_of(0.5)
    with jax.default_matmul_precision("float32"):
        logits = jax.jit(network.logits)(
            variables, batch["fields"], batch["mask"], jax.random.key(0)
        )
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
    assert float(plain) == pytest.approx(float(nll.mean()), abs=1e-5)
    tables = {
        name: np.asarray(variables["encoder"][name]["embedding"])
        for name in ("behaviour", "position")
    }
    penalty = 0.25 * sum((x**2).sum() for x in tables.values())
    assert float(found - plain) == pytest.approx(penalty, abs=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 1e-6, slope, other)["encoder"]
    assert {name for name, tree in moved.items() if any(jax.tree.leaves(tree))} == {*tables}
    rates = Sequences(network, store, settings, rows).optimizer(100)
    assert {rates.peak_lr, rates.initial_lr, rates.final_lr} == {0.1}


# ------------------------------------------------------------------------------------ the method


@pytest.fixture(scope="module")
def store() -> EventStore:
    from bua_jax.events.simulate import simulated_store

    return simulated_store(20, 10, 0)


def site_of(folder: Path, config: ConfigDict, days: list[Day]) -> Site:
    """A site with what a generator wrote about a set of as many days."""
    (folder / "own").mkdir(parents=True)
    said = results.day_columns(days)
    rows = {**said, "written": None, "invalid": None, **results.text_columns(None, None)}

    def ask(some: slice) -> results.Rows:
        return {n: v if v is None else v[some] for n, v in rows.items()}

    names = [str(number) for number in range(len(days))]
    ready = results.Ready({}, 100, ask)
    results.write(folder / results.FILE, "generate", {}, "one", names, ready)
    inputs = {
        "generate/bua/days_hybrid": Built(folder, config, {}),
        "windows/days_hybrid": Built(folder, config, {"windows": len(days)}),
    }
    return Site(config, folder / "own", inputs)


def fitted(site: Site, data: Data) -> tuple[dict[str, Any], Any]:
    fit = METHODS["hybrid_data"].fit
    assert fit is not None
    facts = dict(fit(site, data))
    own = {"fit/hybrid_data": Built(site.folder, site.config, facts)}
    return facts, METHODS["hybrid_data"].load(dataclasses.replace(site, inputs=own))


DAYS = [day(5, 6, 5, 6, 5), day(6, 5, 6, 5, 6)] * 15 + [day(5)] * 10


def turning(store: EventStore) -> Data:
    """Validation people who do two things in turn, as in `DAYS`: it is them that the best is chosen by."""
    data = data_of(store, 12)
    cases = data.validation.cases
    arrays = of([[6, 5, 6, 5], [5, 6, 5, 6]] * (len(cases) // 2))
    held = Labelled(
        dataclasses.replace(cases, arrays=arrays), np.asarray([6, 5] * (len(cases) // 2))
    )
    return Data(store, lambda name: held if name == "fit_validation" else data.draw(name))


def test_what_is_added_is_counted_and_learnt(store: EventStore, tmp_path: Path) -> None:
    """Alone, days of two behaviours in turn teach just that."""
    config = config_of(real=False)
    config.methods.hybrid_data.update(epochs=7, batch=1, patience=0, peak_lr=5e-3, dim=16)
    facts, asked = fitted(site_of(tmp_path, config, DAYS), turning(store))
    assert (facts["days"], facts["days_too_short"], facts["added_windows"]) == (40, 10, 40)
    assert (facts["real_windows"], facts["training_windows"]) == (0, 40)
    p = asked.probabilities(of([[6, 5, 6, 5], [1, 5, 6, 5, 6], [6, 5]]))
    assert p.argmax(1).tolist() == [6, 5, 6]  # after 5, 6, 5 and after 6, 5, 6 and after 6, 5
    cases = cases_about(store)
    np.testing.assert_allclose(asked.predict(cases).probability.sum(1), 1, atol=1e-6)


def test_rows_have_as_many_sequences(store: EventStore, tmp_path: Path, monkeypatch: Any) -> None:
    """Of every kind of row; validation is real whatever is added."""
    seen: dict[str, Sequences] = {}
    real = real_sequences(labelled(store, "train", 12), LENGTH)

    def train(problem: Sequences, variables: Any, *rest: Any, **named: Any) -> Any:
        seen[problem.settings.seed] = problem
        return variables

    monkeypatch.setattr("bua_jax.training.events.train", train)
    for seed, (added, alone) in enumerate(
        [("none", False), ("bua", False), ("bootstrap", False), ("bua", True)]
    ):
        config = config_of(added=added, real=not alone)
        config.seed = seed
        facts, _ = fitted(site_of(tmp_path / str(seed), config, DAYS), data_of(store, 12))
        assert facts["training_windows"] == len(seen[seed].sequences)
    assert [len(one.sequences) for one in seen.values()] == [12, 52, 52, 40]
    for one in seen.values():
        held = seen[0].validation_arrays()
        for name, values in one.validation_arrays().items():
            np.testing.assert_array_equal(values, held[name])
    assert seen[1].sequences[:12].tolist() == real.tolist() == seen[2].sequences[:12].tolist()
    drawn = {*map(tuple, seen[2].sequences[12:].tolist())}
    assert drawn <= {*map(tuple, real.tolist())}
    assert {*map(tuple, seen[3].sequences.tolist())} == {(6, 5, 6, 5), (5, 6, 5, 6)}


def test_what_cannot_be_is_said(store: EventStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None of the 3 days of bua has more than 3 events: lower"):
        fitted(site_of(tmp_path / "short", config_of(), [day(1, 2, 3)] * 3), data_of(store, 12))
    too_long = config_of()
    too_long.methods.hybrid_data.length = 40
    with pytest.raises(DataError, match="No training window has 40 events before its target"):
        fitted(site_of(tmp_path / "long", too_long, DAYS), data_of(store, 12))
    check = METHODS["hybrid_data"].check
    for page, said in (
        ({"added": "none", "real": False}, "leave nothing to learn from"),
        ({"heads": 3}, "heads=3 does not divide .*dim=8"),
    ):
        with pytest.raises(ConfigError, match=said):
            check(config_of(**page))
    untaught = config_of()
    untaught.dialogues.generation_share = 0.0
    with pytest.raises(ConfigError, match="generation_share=0 does not teach"):
        check(untaught)
    check(config_of())


def test_it_needs_what_is_added() -> None:
    needs = METHODS["hybrid_data"].needs
    assert needs(config_of(added="none")) == ()
    assert needs(config_of(added="bootstrap")) == ("windows/days_hybrid",)
    added = METHODS["hybrid_data"].legal["added"]
    for name, method in METHODS.items():
        if "generate" in method.says:
            assert needs(config_of(added=name))[1:] == (f"generate/{name}/days_hybrid",)
        assert (added.wrong(name) == "") == ("generate" in method.says)
    assert hybrid_data.SET == "days_hybrid"
