"""The length family, static weights and the mean over kinds, against loops in float64."""

from collections import defaultdict

import jax
import numpy as np
import pytest

from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.rounds import ROUND_KINDS, kind_id
from bua_jax.training import losses
from bua_jax.training.dialogues import (
    TrainSettings,
    as_good_as_untrained,
    counted,
    kind_weights,
    named,
    statistics,
)

KINDS = 4  # of the cases here


def case(seed: int, dialogues: int = 5):
    """(nll, round_ids, dialogue_ids, kinds), one dialogue or two to a row; rounds have one kind each."""
    rng = np.random.default_rng(seed)
    shape = (dialogues, 40)
    nll, ids = rng.exponential(2, shape), [np.zeros(shape, np.int32) for _ in range(3)]
    round_ids, dialogue_ids, kinds = ids
    for row in range(dialogues):
        at = 0
        for dialogue in range(1, 3):
            for number in range(1, rng.integers(2, 5)):
                size = int(rng.choice([1, 2, 5, 9]))
                part = slice(at + 1, at := min(at + 1 + size, 40))  # a token of a question before
                round_ids[row, part], dialogue_ids[row, part] = number, dialogue
                kinds[row, part] = rng.integers(1, KINDS + 1)
    nll[round_ids == 0] = np.nan
    return nll, round_ids, dialogue_ids, kinds


def rounds_of(nll, round_ids, dialogue_ids, kinds):
    """{(row, dialogue): [(kind, nll of its tokens), ...]}."""
    found = defaultdict(lambda: defaultdict(list))
    kind_of = {}
    for place in zip(*np.nonzero((round_ids > 0) & (dialogue_ids > 0)), strict=True):
        key = place[0], dialogue_ids[place]
        found[key][round_ids[place]].append(nll[place])
        kind_of[key, round_ids[place]] = kinds[place]
    return {
        key: [(kind_of[key, number], np.array(values)) for number, values in rounds.items()]
        for key, rounds in found.items()
    }


def by_hand(given, over: str, beta: float, static: np.ndarray) -> float:
    """L_d = sum_i u_i T_i^(1-beta) mean_i / sum_i u_i T_i^(1-beta), and what is made of it."""
    parts = []
    for rounds in rounds_of(*given).values():
        size = np.array([static[k] * len(v) ** (1 - beta) for k, v in rounds])
        parts.append((size @ [v.mean() for _, v in rounds], size.sum()))
    if over == "dialogues":
        return float(np.mean([total / whole for total, whole in parts if whole > 0]))
    if over == "batch":
        return sum(total for total, _ in parts) / sum(whole for _, whole in parts)
    tokens = defaultdict(list)
    for rounds in rounds_of(*given).values():
        for kind, values in rounds:
            tokens[kind] += list(values)
    there = [kind for kind in tokens if static[kind] > 0]
    means = [static[kind] * np.mean(tokens[kind]) for kind in there]
    return sum(means) / sum(static[kind] for kind in there)


def loss_of(given, name: str, **how) -> float:
    nll, *ids = given
    counted = losses.count(name, *ids, **how)
    return float(losses.numerator(nll, counted) / counted.denominators.sum())


U = np.array([1.0, 2.0, 0.5, 0.0, 3.0, *np.ones(len(ROUND_KINDS) - KINDS)])
ONES = np.ones(len(U))


@pytest.mark.parametrize("static", [ONES, U], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("name", "over", "beta"),
    [
        ("round_balanced", "dialogues", 1.0),
        ("dialogue_token_mean", "dialogues", 0.0),
        *[("dialogue_family", "dialogues", beta) for beta in (0.0, 0.5, 1.0, 1.7, -0.5)],
        ("token_mean", "batch", 0.0),
        *[("batch_family", "batch", beta) for beta in (0.0, 0.5, 1.0)],
        ("kind_mean", "kinds", 0.0),
    ],
)
def test_reductions_equal_float64_loops(name, over, beta, static) -> None:
    with jax.enable_x64(True):
        found = set()
        for seed in range(2):
            given = case(seed)
            expected = by_hand(given, over, beta, static)
            value = loss_of(given, name, beta=beta, static=static)
            np.testing.assert_allclose(value, expected, rtol=1e-12)
            found.add(round(expected, 6))
        assert len(found) == 2


def test_reductions_are_others() -> None:
    """A table whose entries were one would pass."""
    found = {round(loss_of(case(0), name, beta=0.5), 4) for name in losses.LOSSES}
    assert len(found) == len(losses.LOSSES)


def test_members_of_the_family() -> None:
    """beta = 1 is Eq. 5 and beta = 0 the token mean, of dialogues and of the batch."""
    for own, family, beta in [
        ("round_balanced", "dialogue_family", 1.0),
        ("dialogue_token_mean", "dialogue_family", 0.0),
        ("token_mean", "batch_family", 0.0),
    ]:
        assert loss_of(case(1), own) == loss_of(case(1), family, beta=beta)


def test_static_weights_shift_shares_only() -> None:
    """A common factor changes nothing, for they are in the denominator too."""
    for name in losses.LOSSES:
        one = loss_of(case(2), name, static=U)
        assert loss_of(case(2), name, static=7 * U) == pytest.approx(one, rel=1e-5)
        assert abs(one - loss_of(case(2), name)) > 1e-3


@pytest.mark.parametrize("name", losses.LOSSES)
def test_units_add_up_to_the_loss(name: str) -> None:
    """sum_k p_k l_k is the loss exactly; with the kinds' token means in their place it is not."""
    with jax.enable_x64(True):
        nll, *ids = case(3)
        counted = losses.count(name, *ids, beta=0.5)
        total, number = np.asarray(losses.by_unit(nll, counted, ids[2], KINDS + 1))
        whole = float(counted.denominators.sum())
        own = total[1:] / number[1:]
        np.testing.assert_allclose(own @ number[1:] / whole, loss_of(case(3), name, beta=0.5))
        np.testing.assert_allclose(number.sum() / whole, 1)
        means = [nll[ids[2] == kind].mean() for kind in range(1, KINDS + 1)]
        same = abs(np.array(means) @ number[1:] / whole - own @ number[1:] / whole) < 1e-9
        assert same == (name in ("token_mean", "kind_mean"))


def test_all_that_weighs_nothing() -> None:
    nothing = np.where(np.arange(len(U)) > KINDS, 1.0, 0.0)
    for name in losses.LOSSES:
        counted = losses.count(name, *case(0)[1:], static=nothing)
        assert counted.denominators.sum() == 0
        assert losses.numerator(case(0)[0], counted) == 0


def test_kind_weights_of_a_config() -> None:
    weights = kind_weights("summary=0.5,prediction=2")
    assert weights[kind_id("summary")] == 0.5
    assert weights[kind_id("prediction")] == 2
    assert (np.delete(weights, [kind_id("summary"), kind_id("prediction")]) == 1).all()
    assert (kind_weights("") == 1).all()
    assert as_good_as_untrained("summary=0,patterns=0.01,prediction=11") == {
        "summary": 0,
        "patterns": 0.01,
    }
    assert as_good_as_untrained("patterns=0.01") == {}
    for text, said in [
        ("sumary=1", "'sumary' is none of the round kinds reconstruction, "),
        ("summary=-1", "summary='-1': expected a finite number from 0"),
        ("summary", "summary='': expected"),
        ("summary=nan", "summary='nan': expected"),
        (",".join(f"{kind}=0" for kind in ROUND_KINDS), "all round kinds weigh 0"),
    ]:
        with pytest.raises(ConfigError, match=said):
            kind_weights(text)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_what_is_minimised_is_what_is_logged(name: str) -> None:
    """`validation/loss` of two batches is the loss of both as one; kinds are pooled over both."""
    settings = TrainSettings(loss=name, length_beta=0.5, kind_weights="current_scene=9")
    static = kind_weights(settings.kind_weights)

    def sums_of(given):
        nll, round_ids, segments, kinds = given
        nll = np.nan_to_num(nll).astype(np.float32)
        batch = {"round_ids": round_ids, "segments": segments, "kinds": kinds, "tokens": round_ids}
        per_dialogue = losses.dialogue_losses(nll, round_ids, segments)
        return statistics(nll, per_dialogue, counted(settings, batch), batch)

    both = [np.concatenate(parts) for parts in zip(case(5), case(6), strict=True)]
    added = jax.tree.map(
        lambda a, b: np.asarray(a) + np.asarray(b), *map(sums_of, (case(5), case(6)))
    )
    found = named(added, "validation", settings)["validation/loss"]
    expected = loss_of(both, name, beta=0.5, static=static)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(loss_of(both, name, beta=0.5), rel=1e-4)
