"""How long a stage takes on the paper's machine, in two numbers."""

from ml_collections import ConfigDict

from bua_jax.planning.plan import make_plan

TARGET = "a100-40g:8"  # Appendix G


def on_the_papers_machine(config: ConfigDict, stage: str) -> dict[str, float]:
    """Hours of a stage and GiB of a device, by the roofline: it can only take longer."""
    one = config.copy_and_resolve_references()
    one.unlock()
    one.step = stage
    found = make_plan(one, TARGET, trials=0)
    hours = found["hours_per_epoch"]["in turn"] * found["epochs"]
    return {"hours": hours, "gib": (found["memory"]["total"] or float("inf")) / 2**30}
