"""A trained run's step in float64, here, and in transformers + PEFT, on dialogues of its own."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from bua_jax.agreement import ours, peer, plain
from bua_jax.agreement.ours import Arrays, Stage
from bua_jax.agreement.quantities import above, tolerances
from bua_jax.basics import files
from bua_jax.basics.environment import versions
from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.prompts import WITHOUT_ENCODER
from bua_jax.evaluation.report import Section
from bua_jax.feed.batches import one_per_row
from bua_jax.feed.packing import PackingPlan
from bua_jax.feed.records import Encoding, token_records
from bua_jax.interop import huggingface
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import load_dialogues
from bua_jax.pipeline.finished import finished_stage, load
from bua_jax.pipeline.stages import train_settings
from bua_jax.pipeline.steps import Run

SHOWN_TOGETHER = ("gradient", "clipped", "update")  # the worst of them is shown


class Asked(NamedTuple):
    """A run's last stage, its settings of stage 2, and a batch with the encoder's states."""

    stage: Stage
    batch: Arrays
    identity: Mapping[str, str]

    def reference(self, torch: Any = None) -> Arrays:
        """All quantities in float64; those of gradients with torch alone."""
        config, base = self.stage.model.llm.config, self.stage.variables["base"]
        tensors = huggingface.tensors_of(config, base)  # as the run holds them
        recipe, trained = ours.recipe(self.stage), self.stage.trained
        return plain.compute(recipe, tensors, trained, self.batch, torch)


def asked(run: Path, dialogues: int) -> Asked:
    """The first validation dialogues of a run's stage 2, one to a row.

    Raises `MismatchError` without a finished stage, `ConfigError` for a base that is quantized or trained.
    """
    config = ConfigDict(finished_stage(run)[1]["config"])
    if config.model.base_quantization != "none":
        raise ConfigError(
            f"{run} has model.base_quantization={config.model.base_quantization}: its base is rounded as no "
            "other framework rounds it. Compare a run with model.base_quantization=none."
        )
    if config.stage2.full_finetuning:
        raise ConfigError(
            f"{run} trained the base itself (stage2.full_finetuning); compared is a step of projector "
            "and adapter. Compare a run with an adapter."
        )
    parts, whole = load(run).parts, Run(config, run)
    store = load_store(whole)
    chosen = [d for d in load_dialogues(whole, "stage2", store) if d.split == "validation"]
    shape = (config.model.soft_tokens, config.model.recall, config.stage2.row_length)
    records = token_records(chosen[:dialogues], Encoding(store, parts.tokenizer, *shape))
    batch: Arrays = one_per_row(records, max(len(record.tokens) for record in records))
    reads_soft = config.model.soft_tokens not in WITHOUT_ENCODER
    trains = ("projector", "adapter") if reads_soft else ("adapter",)
    stop = parts.tokenizer.im_end
    settings = train_settings(config, "stage2", PackingPlan(1, 1, 1, 1.0, 1.0, 1, 1.0))
    variables = {n: tree for n, tree in parts.variables.items() if reads_soft or n != "projector"}
    stage = ours.computable(Stage(parts.model, variables, trains, settings, stop))
    batch |= ours.states(stage, batch)
    return Asked(stage, batch, parts.identity)


def compare(
    run: str | Path, output: str | Path, *, dialogues: int = 8, tolerance: float | None = None
) -> dict[str, Any]:
    """How far this package and transformers + PEFT are from float64, quantity by quantity.

    Keys: dtype (of the run's base), differences (name -> bua_jax, transformers; null: not finite), tolerances
    (or `tolerance` of all), above (names, by side), versions. `output` gets them as parity.json, with
    batch.safetensors and reference.safetensors (float64's). Raises `ConfigError` without torch, and as
    `asked` does.
    """
    torch, _, _ = peer.libraries()
    one = asked(Path(run), dialogues)
    reference = one.reference(torch)
    sides = {
        "bua_jax": ours.ours(one.stage, one.batch, reference),
        "transformers": peer.theirs(one.stage, ours.recipe(one.stage), one.batch, reference),
    }
    huggingface.save_tree(Path(output) / "batch.safetensors", one.batch, one.identity)
    huggingface.save_tree(Path(output) / "reference.safetensors", reference, one.identity)
    found = {n: plain.differences(side, reference, one.batch) for n, side in sides.items()}
    dtype = one.stage.model.llm.config.dtype
    limits = {"bua_jax": tolerances(dtype), "transformers": tolerances("float32")}
    if tolerance is not None:
        limits = {
            side: {n: {"value": tolerance, "reason": "given"} for n in of}
            for side, of in limits.items()
        }
    said = {
        "dtype": dtype,
        "differences": {
            name: {side: _finite(of.get(name)) for side, of in found.items()}
            for name in found["bua_jax"]
        },
        "tolerances": limits["bua_jax"],
        "above": {side: above(of, limits[side]) for side, of in found.items()},
        "versions": versions(),
    }
    files.write_json(Path(output) / "parity.json", said)
    return said


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def judged(
    run: str, output: str, dialogues: int, tolerance: float | None
) -> tuple[list[Section], bool]:
    """What `compare` found as a table, and whether something is above its tolerance."""
    found = compare(run, output, dialogues=dialogues, tolerance=tolerance)
    return [table(found)], any(found["above"].values())


def table(found: Mapping[str, Any]) -> Section:
    """What `compare` found, and who is nearer to float64."""
    worst: dict[str, dict[str, float]] = {}
    for name, of in found["differences"].items():
        sides = {side: math.inf if value is None else value for side, value in of.items()}
        short = name.split()[0] if name.split()[0] in SHOWN_TOGETHER else name
        old = worst.get(short, sides)
        worst[short] = {side: max(value, old[side]) for side, value in sides.items()}
    wrong = {*found["above"]["bua_jax"], *found["above"]["transformers"]}
    wrong |= {name.split()[0] for name in wrong}
    rows = []
    for name, sides in worst.items():
        limit = found["tolerances"][name.split()[0]]["value"]
        a, b = sides["bua_jax"], sides["transformers"]
        nearer = "both" if a == b else "bua_jax" if a < b else "transformers"
        said = "above the tolerance" if name in wrong else "ok"
        rows.append([name, f"{a:.1e}", f"{b:.1e}", f"{limit:.0e}", nearer, said])
    header = ("what", "bua_jax", "transformers", "tolerance", "nearer", "")
    return Section("Distance from float64", header, rows)
