"""A run's step as a folder that another framework is checked with, and the answer that comes back.

The folder holds a batch, the trained parameters, the base, float64's reference, tolerances, and check.py: the
text of `plain`, which needs numpy alone.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bua_jax.agreement import ours, plain
from bua_jax.agreement.quantities import above, tolerances
from bua_jax.agreement.run import Asked, asked
from bua_jax.basics import files
from bua_jax.basics.environment import versions
from bua_jax.basics.errors import ConfigError, DataError, MismatchError
from bua_jax.evaluation.report import Section
from bua_jax.interop import huggingface

MANIFEST = "manifest.json"
_KEYS = {"manifest", "files", "computed_by", "versions", "differences"}


def export_step(run: str | Path, folder: str | Path, *, dialogues: int = 8) -> None:
    """Writes the folder of a run; manifest.json, with a hash of each other file, is written last.

    Raises `ConfigError` without torch, of which the gradients are, and as `run.asked` does.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigError(
            f"parity export needs torch for the gradients ({error}). Install it: pip install torch."
        ) from error
    write(asked(Path(run), dialogues), Path(folder), torch)


def write(one: Asked, folder: Path, torch: Any) -> None:
    """The folder of a stage and a batch."""
    config, recipe = one.stage.model.llm.config, ours.recipe(one.stage)
    reference = one.reference(torch)
    trees = (one.batch, one.stage.trained, reference)
    for name, tree in zip(plain.FILES, trees, strict=True):
        huggingface.save_tree(folder / name, tree, one.identity)
    huggingface.save((folder / plain.BASE).parent, config, one.stage.variables["base"])
    script = Path(plain.__file__).read_text(encoding="utf-8")
    files.write_text(folder / plain.SCRIPT, script)
    manifest = {
        "recipe": recipe,
        "dtype": config.dtype,
        "tolerances": tolerances(config.dtype),
        "quantities": list(reference),
        "files": _hashes(folder),
        "versions": {**versions(), "torch": torch.__version__},
    }
    files.write_sealed(folder / MANIFEST, manifest)


def _hashes(folder: Path) -> dict[str, str]:
    names = (*plain.FILES, plain.BASE, plain.SCRIPT)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise MismatchError(
            f"{folder} lacks {', '.join(missing)}. Make the folder anew: python -m bua_jax.parity export "
            f"--model=RUN --output={folder}"
        )
    return {name: plain.sha256_file(folder / name) for name in names}


def check(answer: str | Path, folder: str | Path) -> dict[str, Any]:
    """What an answer.json says of the export in `folder`, judged by the tolerances of that export.

    Keys: computed_by (given, numpy or torch), differences, above (names, in the order of computation),
    missing (names that were not compared), tolerances. Raises `DataError` for a file that was altered,
    `MismatchError` where export, answer or torch do not belong together.
    """
    answer, folder = Path(answer), Path(folder)
    if not (folder / MANIFEST).is_file():
        raise MismatchError(
            f"--folder={folder} is no export: it has no {MANIFEST}. Make one: python -m bua_jax.parity "
            f"export --model=RUN --output={folder}"
        )
    manifest = files.read_sealed(folder / MANIFEST)
    _same_files(manifest["files"], _hashes(folder), f"{folder}, which was changed after the export")
    said = _read(answer, manifest)
    if said["manifest"] != files.sha256_json(manifest):
        raise MismatchError(
            f"{answer} is about another export than {folder} (manifest {said['manifest']}, not "
            f"{files.sha256_json(manifest)}). Give the folder that its check.py lay in."
        )
    _same_files(manifest["files"], said["files"], f"{answer}'s side, where check.py was run")
    _same_torch(answer, said["versions"].get("torch"), manifest["versions"]["torch"])
    order = list(manifest["tolerances"])  # of computation
    found = {n: math.inf if v is None else float(v) for n, v in said["differences"].items()}
    found = dict(sorted(found.items(), key=lambda item: order.index(item[0].split()[0])))
    known = {*manifest["quantities"], "kl", "top10"}
    return {
        "computed_by": said["computed_by"],
        "differences": found,
        "above": above(found, manifest["tolerances"]),
        "missing": [name for name in manifest["quantities"] if name not in found],
        "tolerances": {name: manifest["tolerances"][name.split()[0]] for name in known},
    }


def _read(answer: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What check.py wrote. Raises `DataError` for anything else, also under a hash that fits."""
    said = files.read_sealed(answer)
    known = {*manifest["quantities"], "kl", "top10"}
    if said.keys() != _KEYS or not all(
        isinstance(said[k], dict) for k in ("files", "versions", "differences")
    ):
        raise DataError(f"{answer} is no answer of check.py: expected {', '.join(sorted(_KEYS))}.")
    wrong = [
        name
        for name, value in said["differences"].items()
        if name not in known
        or not (value is None or (isinstance(value, int | float) and not value < 0))
    ]
    if not said["differences"]:
        raise DataError(f"{answer} compares nothing. Run its check.py again.")
    if wrong:
        raise DataError(
            f"{answer}: {wrong[0]}={said['differences'][wrong[0]]!r} is no difference of a quantity of the "
            "export. Run its check.py again."
        )
    return said


def _same_files(expected: Mapping[str, str], found: Mapping[str, Any], where: str) -> None:
    for name, digest in expected.items():
        if found.get(name) != digest:
            raise MismatchError(
                f"{name} is not what was exported, in {where}: its hash is {found.get(name)}, expected "
                f"{digest}. Copy it from the export again, or export anew, and run check.py once more."
            )


def _same_torch(answer: Path, used: Any, reference: str) -> None:
    """Autograd of another release is another reference: what differs could be either's."""
    if used is not None and str(used).split("+")[0] != reference.split("+")[0]:
        raise MismatchError(
            f"{answer} was computed with torch {used}, but the reference with torch {reference}. Run "
            f"check.py where torch {reference} is installed, or with --without_torch (all but gradients), or "
            "export anew with the other torch."
        )


def judged(answer: str, folder: str) -> tuple[list[Section], bool]:
    """What `check` says as a table, and whether something is above its tolerance."""
    found = check(answer, folder)
    return [table(found)], bool(found["above"])


def table(found: Mapping[str, Any]) -> Section:
    """What `check` found."""
    rows = []
    for name, value in found["differences"].items():
        limit = found["tolerances"][name]
        said = "above the tolerance" if name in found["above"] else "ok"
        rows.append([name, f"{value:.1e}", f"{limit['value']:.0e}", said])
    missing = Counter(name.split()[0] for name in found["missing"])
    rows += [[f"{name} ({n})", "-", "-", "not compared"] for name, n in missing.items()]
    header = ("what", "difference", "tolerance", "")
    return Section(f"Distance from the reference ({found['computed_by']})", header, rows)
