"""BUA (Behavior Understanding Alignment) in JAX/Flax.

Five lines of Python:

    import bua_jax
    bua = bua_jax.load("runs/quickstart")
    history = bua_jax.read_history("histories.jsonl", bua)
    print(bua.describe(history))
    print(bua.predict([history])[0], bua.generate([history])[0], sep="\n")
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bua_jax.basics import interrupts
from bua_jax.basics.version import __version__

if TYPE_CHECKING:
    from bua_jax.alignment.ask import Bua
    from bua_jax.events.histories import People
    from bua_jax.events.schema import History

__all__ = ["__version__", "load", "read_history", "read_people"]

if interrupts.is_verb():  # its imports take seconds; `cli.run` ends this
    interrupts.quiet_while_importing()


def load(
    folder: str | Path, *, refine: bool = False, mesh: str = "1", weights: str | None = None
) -> "Bua":
    """The trained model of a run's folder, after its last finished stage, or of a stage's folder.

    refine: whether it is asked a refinement round too. mesh: devices to ask it on, N (fsdp=N) or
    DATAxFSDPxTENSOR. weights: float32, bfloat16 or int8, in which a CPU reads them, if not as the run says.
    Raises `MismatchError` for a folder without a finished stage or of another version,
    `DataError` and `CheckpointError` for damaged files, `ConfigError` for devices or a base that are not
    there.
    """
    from bua_jax.pipeline import finished  # jax is imported only when it is needed

    return finished.load(folder, refine=refine, mesh=mesh, weights=weights)


def read_people(
    events: Any,
    bua: "Bua",
    *,
    columns: Mapping[str, str] | None = None,
    only: str = "",
) -> "People":
    """Histories of people (`ids`, `histories`, `places`, `dates`), for `bua.predict` and `bua.generate`.

    events: the path of a file (csv, tsv, parquet), a frame of polars, pandas or pyarrow, or tuples (user,
    time, behaviour[, location]). columns: field -> column where names and contents would mislead; only: the
    one person who is wanted. Raises `DataError` and `ConfigError` naming column, value and what was expected.
    """
    from bua_jax.planning.people import people_of

    return people_of(
        events, bua.catalogue, bua.windows.prediction_history, columns=columns, only=only
    )


def read_history(path: str | Path, bua: "Bua") -> "History":
    """The first history of a JSONL file; `python -m bua_jax.predict --help` gives the format.

    Of a longer one than the model was trained on the oldest events are left out. Raises `DataError` naming
    file, line, event and what was expected.
    """
    from bua_jax.events.histories import read_histories

    limit = max(bua.windows.prediction_history, bua.windows.generation_history)
    return read_histories(path, bua.catalogue, limit)[1][0]
