"""How long a stage takes on the paper's machine, and what memory it takes, in a few numbers."""

from typing import Any

from ml_collections import ConfigDict

from bua_jax.planning.plan import make_plan

TARGET = "a100-40g:8"  # Appendix G


def _plan(config: ConfigDict, stage: str, target: str) -> dict[str, Any]:
    one = config.copy_and_resolve_references()
    one.unlock()
    one.step = stage
    return make_plan(one, target, trials=0)


def on_the_papers_machine(config: ConfigDict, stage: str) -> dict[str, float]:
    """Hours of a stage and GiB of a device, by the roofline: it can only take longer."""
    found = _plan(config, stage, TARGET)
    hours = found["hours_per_epoch"]["in turn"] * found["epochs"]
    return {"hours": hours, "gib": (found["memory"]["total"] or float("inf")) / 2**30}


def memory_of(config: ConfigDict, stage: str) -> float | None:
    """GiB of a stage's arrays on one device: weights, optimizer, and what its compiled step holds.

    The process itself takes some hundred MiB besides. None where the compiler does not say.
    """
    total = _plan(config, stage, "a100-40g:1")["memory"]["total"]
    return None if total is None else total / 2**30
