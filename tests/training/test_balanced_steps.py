"""Methods of weighting inside compiled steps: what they are told, what is kept, what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.rounds import kind_id, task_id
from bua_jax.parallel import sharding
from bua_jax.training import checkpoint, loop
from bua_jax.training.balancers import host, table
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import OptimizerSettings, make_optimizer
from bua_jax.training.problem import GramSums, UnitSums
from bua_jax.training.weighting import SCALES, Balancer
from tests.support import tiny, toy
from tests.support.balancing import NAMES, method
from tests.support.helpers import on_eight_devices
from tests.support.readme import tagged

(OWN,) = [
    body for body in tagged("python", "long") if "def balancer(" in body
]  # as the docs show it
STATEFUL = [n for n in NAMES if jax.tree.leaves(method(n).init(2))]


def generator(state) -> np.random.Generator:
    """What a method on the host draws from in the next step."""
    own = jax.random.split(jax.random.wrap_key_data(state.key))[1]
    return np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(own, 1))))


@pytest.mark.parametrize(("name", "microbatches"), [("cagrad", 1), ("pcgrad", 2)])
def test_gradients_are_weighed_in_the_same_step(name: str, microbatches: int) -> None:
    trainer, own = toy.Trainer(name, microbatches), method(name)
    state = own.init(toy.UNITS)
    for seed in range(3):
        given, x, rng = toy.batch(seed), trainer.x, generator(trainer.state)
        losses, rows = toy.by_hand(x, given)
        weights, state = host.asked(own, losses, rows @ rows.T, state, rng)
        trainer.step(given)
        np.testing.assert_allclose(trainer.state.weights, weights, rtol=2e-3)
        np.testing.assert_allclose(trainer.x, x - toy.RATE * weights @ rows, rtol=1e-3, atol=1e-5)
        plain = x - toy.RATE * rows.sum(0)
        assert np.abs(trainer.x - plain).max() > 1e-3


def test_losses_weigh_the_next_step() -> None:
    trainer, expected = toy.Trainer("log_loss", 2), np.ones(toy.UNITS)
    for seed in range(3):
        given, x = toy.batch(seed, absent=1 if seed == 1 else None), trainer.x
        losses, rows = toy.by_hand(x, given)
        trainer.step(given)
        np.testing.assert_allclose(trainer.x, x - toy.RATE * expected @ rows, rtol=1e-5, atol=1e-6)
        expected = np.where(np.isnan(losses), expected, 1 / losses)  # who is away keeps its weight
        np.testing.assert_allclose(trainer.state.weights, expected, rtol=1e-5)


def test_famo_sees_what_the_step_left() -> None:
    trainer, own = toy.Trainer("famo", 2), method("famo")
    state = own.init(toy.UNITS)
    for seed in range(3):
        given = toy.batch(seed)
        losses, _ = toy.by_hand(trainer.x, given)
        _, state = host.asked(own, losses, None, state, np.random.default_rng())
        trainer.step(given)
        state = host.afterwards(own, toy.by_hand(trainer.x, given)[0], state)
        np.testing.assert_allclose(trainer.state.weighting.logits, state.logits, rtol=1e-3)
    assert np.ptp(state.logits) > 0.01


@pytest.mark.parametrize("name", ["equal", "log_loss", "rlw", "imtl_g", "upgrad"])
def test_weights_of_equal_sums(name: str) -> None:
    """Of the units that are there; the one that is away keeps its weight."""
    balancer = SCALES["sum"].of(table.balancer(name))
    rows = jnp.asarray(np.random.default_rng(3).normal(size=(4, 6)), jnp.float32).at[2].set(0)
    losses = jnp.array([0.2, 1.0, jnp.nan, 5.0])
    gram = rows @ rows.T if balancer.gram else None
    given = losses, gram, balancer.init(4), jax.random.key(0), jnp.full(4, jnp.nan)
    weights, _ = balancer.combine(*given)
    own, _ = table.balancer(name).combine(*given)
    there = np.array([0, 1, 3])
    np.testing.assert_allclose(np.abs(weights[there]).sum(), 3, rtol=1e-5)
    ratio = weights[there] / own[there]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)  # shares and signs are the method's
    np.testing.assert_array_equal(weights[2], own[2])


def test_by_direction_alone_a_common_factor_says_nothing() -> None:
    """Also from step to step, which AdamW by itself would remember; zero stays zero."""
    params = {"projector": {"kernel": jnp.ones((2, 3))}}
    gradient = {"projector": {"kernel": jnp.arange(6.0).reshape(2, 3) / 100}}

    def updates(unit_gradient: bool, *factors: float) -> np.ndarray:
        settings = OptimizerSettings(peak_lr=1e-2, unit_gradient=unit_gradient)
        optimizer, found = make_optimizer(params, settings, 10), []
        state = optimizer.init(params)
        for factor in factors:
            scaled = jax.tree.map(lambda g, f=factor: f * g, gradient)
            update, state = optimizer.update(scaled, state, params)
            found.append(np.asarray(update["projector"]["kernel"]))
        return np.array(found)

    np.testing.assert_allclose(updates(True, 1, 50, 0.1), updates(True, 1, 1, 1), rtol=1e-4)
    own = updates(False, 1, 50, 0.1), updates(False, 1, 1, 1)
    assert not np.allclose(*own, rtol=1e-2)
    assert np.isfinite(updates(True, 0)).all()


def test_validation_losses_are_seen_once() -> None:
    trainer = toy.Trainer("coba:warmup=1,window=3")
    for round_ in range(4):
        told = jnp.array([1.0, 0.9**round_, 0.5**round_, jnp.nan])
        trainer.state = trainer.state._replace(validation=told)
        for seed in range(2):
            trainer.step(toy.batch(seed))
        assert np.isnan(trainer.state.validation).all()
        assert np.isfinite(trainer.state.weighting.ratio).sum() == 3 * min(round_ + 1, 3)
    weights = np.asarray(trainer.state.weights)
    assert weights[0] > weights[1] > weights[2]  # who converges slower weighs more
    assert weights[3] == 1  # was never validated


def test_the_loop_tells_validation_losses_to_who_asks() -> None:
    def told(balancer: str, unit: str) -> np.ndarray:
        settings = TrainSettings(balancer=balancer, balancer_unit=unit)
        problem = Dialogues(tiny.model()[0], tiny.plan(tiny.records(4)), settings)
        state = toy.Trainer("equal").state
        measured = {"validation/kind/summary": 1.5, "validation/task/hobbies": 2.5}
        mesh = sharding.make_mesh("1")
        state = loop._validated(state, problem, measured, sharding.replicated(mesh))
        return np.asarray(state.validation)

    kinds, tasks = told("coba", "round"), told("coba", "task")
    assert kinds[kind_id("summary")] == 1.5
    assert tasks[task_id("hobbies")] == 2.5
    assert np.isfinite(kinds).sum() == np.isfinite(tasks).sum() == 1
    assert np.isnan(told("dwa", "round")).all()


@pytest.mark.parametrize("name", ["rlw", "pcgrad", *STATEFUL])
def test_state_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    """Whoever begins anew in the middle, with the state of a checkpoint, weighs as if nothing had been."""
    text = f"{name}:window=2" if name == "dwa" else name

    def step(balancer: Balancer, state: Any, seed: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        losses, told = jnp.asarray(rng.uniform(0.1, 3, (2, 4)), jnp.float32)
        rows = jnp.asarray(rng.normal(size=(4, 6)), jnp.float32).at[seed % 4].set(0)
        losses = losses.at[seed % 4].set(jnp.nan)  # another one is away in each step
        told = told if balancer.validated and seed % 2 else jnp.full(4, jnp.nan)
        gram = rows @ rows.T if balancer.gram else None
        weights, state = balancer.combine(losses, gram, state, jax.random.key(seed), told)
        return weights, balancer.after(0.9 * losses, state) if balancer.after else state

    data = SimpleNamespace(get_state=dict, set_state=lambda state: None)
    manager, first = checkpoint.open_manager(tmp_path), table.balancer(text)
    state = first.init(4)
    for seed in range(8):
        if seed == 4:
            checkpoint.save(manager, 4, {"weighting": state, "step": jnp.int32(4)}, data, {})
        expected, state = step(first, state, seed)
    second = table.balancer(text)
    begun = second.init(4)
    assert name not in STATEFUL or not same(begun, state)  # with that it would be another run
    like = {"weighting": begun, "step": jnp.int32(0)}
    _, found = checkpoint.restore(manager, like, data, {})
    for seed in range(4, 8):
        weights, found["weighting"] = step(second, found["weighting"], seed)
    np.testing.assert_array_equal(weights, expected)
    assert same(found["weighting"], state)
    assert not first.faults
    assert not second.faults


def same(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("name", ["famo"])
def test_a_step_goes_on_bit_for_bit(name: str) -> None:
    whole = toy.Trainer(name)
    for seed in range(6):
        if seed == 3:
            kept = jax.device_get(whole.state)
        whole.step(toy.batch(seed, absent=seed % toy.UNITS))
    resumed = toy.Trainer(name)
    resumed.state = jax.device_put(kept)
    for seed in range(3, 6):
        resumed.step(toy.batch(seed, absent=seed % toy.UNITS))
    assert same(resumed.state, whole.state)


# ------------------------------------------------------------------------------- a user's own method


def own_file(folder: Path, answer: str, init: str = "()") -> str:
    path = folder / "mine.py"
    path.write_text(
        "import numpy as np\nfrom bua_jax.training.weighting import Balancer\n\n\ndef balancer():\n"
        f"    return Balancer(lambda count: {init}, lambda losses, *rest: ({answer}, rest[1]))\n"
    )
    return str(path)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    assert len(OWN.strip().splitlines()) <= 15
    table.check(f"{path}:power=2")
    trainer, given = toy.Trainer(f"{path}:power=2"), toy.batch(0)
    _, rows = toy.by_hand(trainer.x, given)
    trainer.step(given)
    expected = 1 / (rows**2).sum(1)
    found = np.asarray(trainer.state.weights)
    np.testing.assert_allclose(found, 4 * expected / expected.sum(), rtol=1e-4)
    before = table.identity(str(path))
    path.write_text(f"{OWN}\n")
    assert table.identity(str(path)) != before  # another file is another method
    assert table.identity("cagrad") == {}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("losses * np.nan", "weights that are not finite"),
        ("-losses", "gave negative weights"),
        ("0 * losses", "gave weights that are all 0"),
        ("losses[:1]", r"gave weights of shape \(1,\), expected \(\d,\)"),
        ("1 / 0", "raised ZeroDivisionError"),
        ("losses.no_such_thing", "raised AttributeError"),
    ],
)
def test_wrong_answers_are_named(answer: str, said: str, tmp_path: Path) -> None:
    """Before training where it always answers so, and by the loop where it does in the middle."""
    path = own_file(tmp_path, answer)
    with pytest.raises(ConfigError, match=rf"the balancer .*mine\.py .*{said}"):
        table.check(path)
    balancer = table.balancer(path)
    loop.check_faults(balancer)
    given = jnp.ones(3), None, balancer.init(3), jax.random.key(0), jnp.full(3, jnp.nan)
    weights, _ = balancer.combine(*given)
    assert np.isinf(weights).all()
    with pytest.raises(loop.TrainingStopped, match=rf"The balancer .*mine\.py .*{said}"):
        loop.check_faults(balancer)


def test_a_wrong_answer_stops_the_loop(tmp_path: Path) -> None:
    trainer = toy.Trainer(own_file(tmp_path, "losses * np.nan"))
    for seed in range(2):
        trainer.step(toy.batch(seed))
    assert trainer.sums.step.compute()["not_finite"] > 0  # nothing of it would be saved
    assert "mine.py" in trainer.problem.balancer.faults[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gradnrom", "'gradnrom' is none of equal, appendix_k, uncertainty, "),
        ("cagrad:d=1", "cagrad has no setting 'd'; there are: c"),
        ("mgda:c=1", "mgda has no setting 'c'; there are: none"),
        ("cagrad:c=much", "cagrad: c='much' is no number"),
        ("cagrad:c=-1", "cagrad: c=-1 is negative"),
        ("dwa:window=2.5", "dwa: window=2.5: expected a whole number from 1"),
        ("nowhere.py", "there is no file nowhere.py"),
    ],
)
def test_names_and_settings_that_are_not_there(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        table.check(text)


def test_a_file_without_a_balancer(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"mine\.py has no function balancer\(\)"):
        table.check(str(tmp_path / "mine.py"))


# -------------------------------------------------------------------------------------- what is logged


def test_shares_by_hand() -> None:
    trainer = toy.Trainer("upgrad")
    given = toy.batch(0, absent=2)
    losses, rows = toy.by_hand(trainer.x, given)
    trainer.step(given)
    found = loop.unit_scalars(trainer.problem.units, jax.device_get(trainer.sums.units))
    here = [0, 1, 3]
    weights = np.asarray(trainer.state.weights, np.float64)[here]
    parts, rows = weights * losses[here] / 3, rows[here]
    update, norm = weights @ rows, np.linalg.norm(rows, axis=1)
    names = [f"unit{i}" for i in here]
    expected = {
        **dict(zip([f"train/weight/{n}" for n in names], weights, strict=True)),
        **dict(zip([f"train/share/{n}" for n in names], parts / parts.sum(), strict=True)),
        **dict(zip([f"train/gradient_norm/{n}" for n in names], norm, strict=True)),
    }
    pull = weights * (rows @ update)
    expected |= dict(
        zip([f"train/gradient_share/{n}" for n in names], pull / pull.sum(), strict=True)
    )
    for i, j in ((0, 1), (0, 2), (1, 2)):
        cosine = rows[i] @ rows[j] / norm[i] / norm[j]
        expected[f"train/cosine/{names[i]}/{names[j]}"] = cosine
    assert found.keys() == expected.keys()  # nothing of the one that was away
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    np.testing.assert_allclose(pull.sum(), update @ update)


def test_a_unit_that_weights_make_vanish_is_said() -> None:
    one = np.ones(3)
    plain, weight = np.array([1.0, 1.0, 1e-5]), np.array([1.0, 1e-4, 1.0])
    said = loop.vanished(("a", "b", "c"), UnitSums(one, weight, plain, weight * plain, None))
    assert list(said) == ["b"]  # c is small by itself
    assert said["b"] == (
        "b has 0.0001 of the loss, 0.5 if all weighed the same (its weight is 0.0001), so it is as good "
        "as not trained"
    )
    assert loop.vanished(("a", "b", "c"), UnitSums(one, one, plain, plain, None)) == {}


def test_nothing_is_logged_of_a_run_without_units() -> None:
    zero = np.zeros(2)
    gram = GramSums(zero, zero, np.zeros((2, 2)), np.zeros((2, 2)))
    assert loop.unit_scalars(("a", "b"), UnitSums(zero, zero, zero, zero, gram)) == {}


def test_eight_devices_weigh_as_one_does() -> None:
    for line in on_eight_devices("balance_on_meshes", "upgrad", "famo").splitlines():
        name, difference, spread = line.split()
        assert float(difference) <= 1e-5, name
        assert float(spread) > 0.01, name
