"""Two runs of one config: where they part, by how much, and whether it is more than seeds do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bua_jax.agreement.machines import machines, sections
from bua_jax.basics import files
from bua_jax.basics.errors import MismatchError
from tests.support.runs import verb

Copy = Callable[..., Path]


@pytest.fixture
def copied(quickstart: Path, tmp_path: Path) -> Copy:
    """A copy of the run as another machine, or with another seed, would have left it."""

    def of(name: str, *, scalars: float = 1.0, metric: float = 0.0, **fields: Any) -> Path:
        folder = Path(shutil.copytree(quickstart, tmp_path / name))
        command = files.read_sealed(folder / "run.json")
        files.write_sealed(folder / "run.json", {**command, "config": command["config"] | fields})
        metrics = files.read_json(folder / "evaluation" / "metrics.json")
        for row in metrics["prediction"].values():
            row["log_loss"] += metric
        files.write_json(folder / "evaluation" / "metrics.json", metrics)
        of_file = {"metrics.json": files.sha256_file(folder / "evaluation" / "metrics.json")}
        rewrite(folder / "evaluation", lambda record: {**record, "files": of_file})
        if scalars != 1:
            path = folder / "stage2" / "metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                line.pop("sha256")
                if line["step"] == 2 and "train/loss" in line:
                    line["train/loss"] *= scalars
                    line["train/tokens_per_second"] *= 2
            path.write_text("".join(json.dumps(files.seal(line)) + "\n" for line in lines))
            rewrite(folder / "stage2", lambda r: r | {"versions": r["versions"] | {"jax": "0"}})
            rewrite(folder / "evaluation", lambda r: r | {"versions": r["versions"] | {"jax": "0"}})
        return folder

    return of


def rewrite(step: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = step / "record.json"
    files.write_sealed(path, change(files.read_sealed(path)))


def test_where_two_machines_part(quickstart: Path, copied: Copy) -> None:
    there = copied("there", scalars=1.01, metric=0.02)
    found = machines(quickstart, there)
    parted = {step: of for step, of in found["steps"].items() if "first" in of or not of["same"]}
    assert parted.keys() == {"stage2"}
    assert parted["stage2"]["first"] == 2
    assert parted["stage2"]["what"] == "train/loss"  # not the time that it took
    assert parted["stage2"]["by"] == pytest.approx(0.01 / 1.01)
    assert list(found["steps"]).index("encoder") < list(found["steps"]).index("stage2")
    assert found["environment"].keys() == {"jax"}
    assert found["metrics"]["log_loss"]["difference"] == pytest.approx(0.02)
    assert found["metrics"]["rec_w"]["difference"] == 0
    shown = sections(found, ("here", "there"))
    assert "The first step that differs is stage2." in shown[1].title
    assert ["stage2", "the same", "2", "train/loss", "9.9e-03", "9.9e-03"] in shown[1].rows
    assert machines(quickstart, quickstart)["environment"] == {}


@pytest.mark.parametrize(("metric", "more"), [(0.02, False), (2.0, True)])
def test_whether_it_is_more_than_seeds_do(
    metric: float, more: bool, quickstart: Path, copied: Copy
) -> None:
    """The bound by hand: two normal draws of one spread, which three runs tell."""
    there = copied("there", metric=metric)
    seeds = [copied(f"seed{seed}", metric=0.1 * seed, seed=seed) for seed in (1, 2)]
    found = machines(quickstart, there, seeds)["metrics"]["log_loss"]
    spread = np.std([0.0, 0.1, 0.2], ddof=1)
    assert found["limit"] == pytest.approx(stats.t(2).ppf(0.975) * spread * np.sqrt(2))
    assert found["more"] is more
    flags = (f"--runs={quickstart},{there}", f"--seeds={','.join(map(str, seeds))}")
    done = verb("parity", "machines", *flags)
    assert done.returncode == int(more), done.stdout + done.stderr


def test_runs_of_other_configs_are_refused(quickstart: Path, copied: Copy) -> None:
    other = copied("other", seed=7)
    with pytest.raises(MismatchError, match=r"differ in seed, expected in nothing but execution"):
        machines(quickstart, other)
    with pytest.raises(MismatchError, match="differ in nothing, expected in the seed alone"):
        machines(quickstart, quickstart, [quickstart])
    stages = copied("stages", stages=[2])
    with pytest.raises(MismatchError, match="differ in stages, expected"):
        machines(quickstart, stages)
    done = verb("parity", "machines", f"--runs={quickstart}")
    assert done.returncode == 2
    assert "give two" in done.stderr
