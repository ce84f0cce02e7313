"""Pretraining nano goes on exactly where it was cut; what it learns takes longer than CI has."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from bua_jax.basics.errors import CheckpointError, MismatchError
from bua_jax.interop.tokenizer import HFTokenizer
from bua_jax.models.qwen2 import Qwen2, Qwen2Config
from bua_jax.nano.pretraining import (
    examine,
    make_optimizer,
    newest,
    pretrain,
    restore_state,
    save_state,
    table,
    without_moments,
)
from bua_jax.nano.settings import LEVELS, Settings
from tests.nano.conftest import ROWS

TINY = Settings(steps=6, rows=2, length=192, vectors=100)


@pytest.fixture(scope="module")
def model() -> Qwen2:
    return Qwen2(Qwen2Config(ROWS, 32, 64, 2, 2, 1, 16, rope_theta=1e4))


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_a_cut_run_ends_where_a_whole_one_does(
    model: Qwen2,
    tokenizer: HFTokenizer,
    tmp_path: Path,
) -> None:
    whole = pretrain(model, tokenizer, TINY, tmp_path / "whole", every=3)
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    for path in sorted(cut.glob("*.safetensors"))[1:]:  # as if killed after the first
        path.unlink()
    resumed = pretrain(model, tokenizer, TINY, cut, every=3)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(whole), leaves(resumed), strict=True))


def test_a_longer_run_goes_on_from_before_the_rate_fell(
    model: Qwen2,
    tokenizer: HFTokenizer,
    tmp_path: Path,
) -> None:
    pretrain(model, tokenizer, TINY, tmp_path, every=3)
    longer = replace(TINY, steps=10)
    params = model.init(jax.random.key(0), np.zeros((1, 8), np.int32))["params"]
    state = (params, make_optimizer(longer).init(params))
    assert restore_state(tmp_path, state, longer)[0] == TINY.fall_begin
    assert restore_state(tmp_path, state, TINY)[0] == TINY.steps
    with pytest.raises(MismatchError, match=r"rate=0\.0025, but now it is 0\.1"):
        restore_state(tmp_path, state, replace(longer, rate=0.1))


def test_a_longer_run_keeps_its_own_checkpoints(model: Qwen2, tmp_path: Path) -> None:
    """Also while the finished shorter run's are of more steps."""
    params = model.init(jax.random.key(0), np.zeros((1, 8), np.int32))["params"]
    shorter, longer = replace(TINY, steps=20), replace(TINY, steps=40)
    state = (params, make_optimizer(longer).init(params))
    for step in (shorter.fall_begin, 18, 20):
        save_state(tmp_path, step, state, shorter)
    for step in (17, 19):
        save_state(tmp_path, step, state, longer)
        assert restore_state(tmp_path, state, longer)[0] == step
    assert restore_state(tmp_path, state, shorter)[0] == 20


def test_it_goes_on_from_parameters_alone(
    model: Qwen2, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    """On another machine: the parameters up to bfloat16 (2^-8), the schedule where it was."""
    pretrain(model, tokenizer, TINY, tmp_path / "here", every=3)
    params = model.init(jax.random.key(0), np.zeros((1, 8), np.int32))["params"]
    state = (params, make_optimizer(TINY).init(params))
    (tmp_path / "there").mkdir()
    begun = tmp_path / "here" / f"{TINY.fall_begin:07d}.safetensors"
    without_moments(begun, tmp_path / "there" / begun.name, len(leaves(params)))
    step, (had, optimizer) = restore_state(tmp_path / "there", state, TINY)
    _, (whole, other) = restore_state(
        tmp_path / "here", state, replace(TINY, steps=TINY.fall_begin)
    )
    assert step == TINY.fall_begin
    for one, two in zip(leaves(had), leaves(whole), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, two, rtol=2**-8)
    counts = [x for x in leaves(optimizer) if x.ndim == 0]
    assert counts
    assert counts == [x for x in leaves(other) if x.ndim == 0]
    for now, fresh in zip(leaves(optimizer), leaves(state[1]), strict=True):
        assert now.ndim == 0 or np.array_equal(now, fresh)  # moments of its own
    pretrain(model, tokenizer, TINY, tmp_path / "there", every=3)
    assert (tmp_path / "there" / "0000006.safetensors").is_file()


def test_what_is_held_out_is_shown_by_level(
    model: Qwen2, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        newest(model, tmp_path)
    last = pretrain(model, tokenizer, TINY, tmp_path, every=3)
    step, params = newest(model, tmp_path)
    assert step == TINY.steps
    assert all(np.array_equal(a, b) for a, b in zip(leaves(last), leaves(params), strict=True))
    found = examine(model, tokenizer, TINY, params)
    assert list(found) == [*LEVELS]
    assert all(2 < values["loss"] < 12 for values in found.values())  # ln(1024) = 6.9 knows nothing
    told = {"8 events in words": {"loss": 0.5, "last": 0.98, "nth": 1.0}}
    assert "| 8 events in words | 0.50 | 98 % | 100 % | not asked |" in table(told)
