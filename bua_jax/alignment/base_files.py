"""The files that a language model comes from; known without loading it, or jax."""

from pathlib import Path

from bua_jax.basics.config import Settings

NANO = Path(__file__).resolve().parent.parent / "assets" / "nano"


def model_sources(config: Settings) -> dict[str, str]:
    """The files of the base, and of the adapter that training starts from, by config field.

    A hub's NAME@REVISION says itself what it holds, if that is a commit: nothing is fetched to know it.
    """
    model = config.model
    base = str(NANO) if model.name == "nano" and not model.path else model.path
    named = {"model.path": base, "model.adapter": model.adapter}
    return {field: path for field, path in named.items() if path}
