"""The folder for another framework: its script without this package, and the answers that are refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bua_jax.agreement import export, ours, plain
from bua_jax.agreement.run import Asked
from bua_jax.basics import files
from bua_jax.basics.errors import DataError, MismatchError
from tests.support.helpers import require


@pytest.fixture(scope="module")
def folder(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export."""
    path = tmp_path_factory.mktemp("export")
    export.write(Asked(made.stage, made.batch, {"base": "tiny"}), path, require("torch"))
    return path


def run_script(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """-I: nothing of this package is found."""
    command = [sys.executable, "-I", str(folder / "check.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def answered(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answer of a copy elsewhere that was computed with numpy alone."""
    there = tmp_path_factory.mktemp("there") / "copy"
    shutil.copytree(folder, there)
    done = run_script(there, "--without_torch")
    assert done.returncode == 0, done.stdout + done.stderr
    return there / "answer.json"


def test_the_script_needs_numpy_alone(folder: Path, answered: Path) -> None:
    found = export.check(answered, folder)
    assert found["computed_by"] == "numpy"
    assert found["above"] == []
    assert max(found["differences"].values()) < 1e-12  # the same float64
    assert {"layer 2", "nll", "loss kind_mean", "kl", "top10"} <= found["differences"].keys()
    assert {name.split()[0] for name in found["missing"]} == {
        *("kinds", "gradient", "clipped", "update")
    }
    assert ["kinds (1)", "-", "-", "not compared"] in export.table(found).rows
    source = (folder / "check.py").read_text()
    assert source == Path(plain.__file__).read_text()
    assert "bua_jax." not in "".join(x for x in source.splitlines() if "import" in x)


def test_what_another_framework_computed(made: Any, folder: Path, tmp_path: Path) -> None:
    """A right one passes; of a wrong one the first quantity that was changed is named."""
    arrays = {n: np.float32(v) for n, v in ours.updates(made.stage, gradient_of(made)).items()}
    arrays |= {n: np.float32(made.reference[n]) for n in ("layer 1", "logits", "nll")}
    shutil.copytree(folder, there := tmp_path / "copy")
    save_file(arrays, there / "mine.safetensors")
    done = run_script(there, "--given=mine.safetensors")
    assert done.returncode == 0, done.stdout + done.stderr
    assert export.check(there / "answer.json", folder)["computed_by"] == "given"
    save_file({"logit": arrays["logits"]}, there / "mine.safetensors")
    done = run_script(there, "--given=mine.safetensors")
    assert done.returncode == 1
    assert "holds logit: no quantity" in done.stderr
    arrays["logits"][0, 3] += 0.1
    arrays["nll"][:] = np.nan
    save_file(arrays, there / "mine.safetensors")
    done = run_script(there, "--given=mine.safetensors")
    assert done.returncode == 1
    assert "first above: ['logits']" in done.stdout
    found = export.check(there / "answer.json", folder)
    assert found["above"][0] == "logits"
    assert "layer 1" not in found["above"]
    assert found["differences"]["nll"] == np.inf


def gradient_of(made: Any) -> dict[str, Any]:
    prefix = "gradient "
    found = made.reference.items()
    return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}


def test_a_reference_that_was_changed(folder: Path, answered: Path, tmp_path: Path) -> None:
    """By hand, on our side or on theirs: neither is taken."""
    shutil.copytree(folder, mine := tmp_path / "mine")
    data = bytearray((mine / "reference.safetensors").read_bytes())
    data[-1] ^= 1
    (mine / "reference.safetensors").write_bytes(data)
    with pytest.raises(
        MismatchError, match=r"reference\.safetensors is not what was exported, in .*mine"
    ):
        export.check(answered, mine)
    done = run_script(mine, "--without_torch")
    assert done.returncode == 0, (
        done.stdout + done.stderr
    )  # it cannot know; its answer says the hash
    with pytest.raises(MismatchError, match=r"exported, in .*side, where check\.py was run"):
        export.check(mine / "answer.json", folder)


def resealed(answered: Path, path: Path, **changes: Any) -> Path:
    said = {**files.read_sealed(answered), **changes}
    files.write_sealed(path, said)
    return path


def test_answers_that_are_refused(folder: Path, answered: Path, tmp_path: Path) -> None:
    said = json.loads(answered.read_text())
    said["differences"]["nll"] = 1e-5
    (tmp_path / "by_hand.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match="was altered"):
        export.check(tmp_path / "by_hand.json", folder)
    other = {"python": "3.11", "numpy": "2", "torch": "1.0.0+cpu"}
    with pytest.raises(MismatchError, match=r"computed with torch 1\.0\.0\+cpu, but the reference"):
        export.check(resealed(answered, tmp_path / "torch.json", versions=other), folder)
    with pytest.raises(MismatchError, match="about another export"):
        export.check(resealed(answered, tmp_path / "other.json", manifest="0" * 16), folder)
    for wrong in ({"speed": 1.0}, {"nll": -1.0}, {"nll": "0"}):
        with pytest.raises(DataError, match="is no difference of a quantity"):
            export.check(resealed(answered, tmp_path / "x.json", differences=wrong), folder)
    with pytest.raises(DataError, match="compares nothing"):
        export.check(resealed(answered, tmp_path / "z.json", differences={}), folder)
    with pytest.raises(DataError, match="is no answer"):
        export.check(resealed(answered, tmp_path / "y.json", more=1), folder)
    with pytest.raises(MismatchError, match=r"is no export: it has no manifest\.json"):
        export.check(answered, tmp_path)


@pytest.mark.long
def test_gradients_where_torch_is(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, there := tmp_path / "copy")
    done = run_script(there)
    assert done.returncode == 0, done.stdout + done.stderr
    found = export.check(there / "answer.json", folder)
    assert found["computed_by"] == "torch"
    assert found["missing"] == []
