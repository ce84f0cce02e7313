"""Fifty steps of stage 2 here and in torch + PEFT stay together at every step, as float64 lets them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bua_jax.agreement.ours import Stage
from tests.agreement import small, trajectory
from tests.agreement.trajectory import STEPS, Step
from tests.support.helpers import require

pytestmark = pytest.mark.long
WIDER = 4  # than the worst of three perturbed runs: they are few, and rounding is not random


class Exact(NamedTuple):
    """The float64 run, what all runs begin with, and what may lie between, float[STEPS, 2]."""

    stage: Stage
    folder: Path  # of the base
    data: list[Any]
    run: list[Step]
    budget: np.ndarray

    def apart(self, run: list[Step]) -> np.ndarray:
        return trajectory.apart(run, self.run, self.stage.trained)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Exact:
    require("peft")
    stage, folder = small.stage(settings=trajectory.SETTINGS), tmp_path_factory.mktemp("base")
    base, data = small.base_of(stage, folder), trajectory.batches(stage)
    run = list(trajectory.in_float64(stage, base, data))
    perturbed = [list(trajectory.in_float64(stage, base, data, seed)) for seed in range(3)]
    worst = np.max([trajectory.apart(one, run, stage.trained) for one in perturbed], axis=0)
    # Losses may cross, so theirs is the largest so far, beside the spacing of float32 between 2 and 4.
    worst[:, 0] = np.maximum.accumulate(worst[:, 0] + 2.0**-22)
    return Exact(stage, folder, data, run, WIDER * worst)


def test_every_step_is_within_the_budget(exact: Exact) -> None:
    """Packed here, a dialogue a row there: the same state, dialogues and rates."""
    packed, alone = exact.data[0]
    assert (packed["segments"].max(1) > 1).any()
    assert alone["segments"].max() == 1
    here = list(trajectory.here(exact.stage, exact.data))
    there = list(trajectory.in_torch(exact.stage, exact.folder, exact.data, {}))
    assert len(here) == len(there) == len(exact.run) == STEPS
    assert exact.run[-1].loss < exact.run[0].loss - 0.5  # they go somewhere
    for name, run in (("here", here), ("torch", there)):
        above = np.argwhere(exact.apart(run) > exact.budget)
        assert above.tolist() == [], name
    assert exact.budget[:, 1].max() < 1e-3  # a budget that lets all pass would be none
    assert exact.budget[:, 0].max() < 1e-4


@pytest.mark.parametrize(
    "changed",
    [{"weight_decay": 0.0}, {"clip_norm": 1e9}, {"loss": "token_mean"}],
    ids=["no decay", "no clipping", "mean over tokens"],
)
def test_another_recipe_leaves_it(exact: Exact, changed: dict[str, Any]) -> None:
    """Of parameters, at the latest at the tenth step, for good."""
    run = list(trajectory.in_torch(exact.stage, exact.folder, exact.data, changed))
    assert (exact.apart(run)[10:, 1] > exact.budget[10:, 1]).all()
