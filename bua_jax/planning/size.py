"""How much a run of somebody's own events does, so that it fits the data and the machine: its config."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.environment import hardware
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.planning.check import minutes_of
from bua_jax.planning.saved import save

SIZES = (
    ("configs/quickstart.py", ""),
    ("configs/curriculum.py", "scale=laptop"),
    ("configs/curriculum.py", "scale=paper"),
)
"""Configs that are chosen among, and their arguments, the smallest first."""
MOST_EPOCHS = 3.0
"""The paper's (Appendix G): fewer windows than a size takes are read more often, up to this."""
_ENCODED = 276_948  # training windows of the population that configs' encoder.epochs are for
_MOST_PASSES = 30  # of the encoder over few events; its patience may end them before
_FEWER = 1.25  # times fewer windows than that: so many that it is worth a change
_ACCELERATOR = 20.0
_MOST_CORES = 8
_CONFIG = '''"""The run of events.py beside this.

{why}
{command}
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import based_on


def get_config(arg: str = "") -> ConfigDict:
    config = {base}
{lines}    return config
'''


class Size(NamedTuple):
    """A config file, its argument, and what a run changes of it."""

    path: str
    argument: str
    epochs: float = 1.0  # of stages 1 and 2; 1 = as there
    passes: int = 0  # of the encoder over its events; 0 = as there
    why: str = "As --config said."


def speed() -> float:
    """How many times the two CPU cores of `Step.minutes` this machine is taken to be: a guess."""
    cores = hardware()["cores"]
    return _ACCELERATOR if cores is None else min(cores, _MOST_CORES) / 2


def choose(own: Path, windows: int, minutes: float) -> Size:
    """The largest size that fits, or the smallest there is.

    own: the data's config, which need not be there yet. windows: training windows that it has. A size fits
    if they are half of what it takes, or more, and this machine is expected to need `minutes` at most.
    """
    fast = speed()
    fitting: list[Size] = []
    for path, argument in SIZES:
        config = configs.based_on(path, argument)
        asked = config.windows.train
        epochs = config.stage2.epochs
        if asked >= _FEWER * windows:
            epochs = min(MOST_EPOCHS, max(epochs, round(asked / max(1, windows), 1)))
        config.stage1.epochs = config.stage2.epochs = epochs
        least = config.encoder.epochs
        passes = max(least, min(_MOST_PASSES, round(least * _ENCODED / max(1, windows))))
        expected = sum(minutes_of(config, windows).values()) / fast
        if not fitting or (2 * windows >= asked and expected <= minutes):
            said = f"{min(windows, asked):,} of {windows:,} training windows"
            said += f", each {epochs:g} times" if epochs > 1 else ""
            said += f", the encoder {passes} times over all events" if passes > least else ""
            why = f"{said}; about {expected:.0f} minutes here, chosen within {minutes:g}."
            argument = ",".join(filter(None, (argument, f"data={own}")))
            fitting.append(Size(path, argument, epochs, passes, why))
    return fitting[-1]


def _base(size: Size) -> str:
    return f'based_on({size.path!r}, ",".join(filter(None, ({size.argument!r}, arg))))'


def save_size(file: Path, size: Size) -> None:
    """Writes a run's config."""
    epochs = (f"    config.{stage}.epochs = {size.epochs!r}\n" for stage in ("stage1", "stage2"))
    lines = "".join(epochs) if size.epochs > 1 else ""
    lines += f"    config.encoder.epochs = {size.passes}\n" if size.passes else ""
    flags = f"--config={file}", f"--workdir={file.parent}"
    command = shlex.join(["python", "-m", "bua_jax.curriculum", *flags])
    files.write_text(
        file, _CONFIG.format(why=size.why, command=command, base=_base(size), lines=lines)
    )


def check_size(file: Path, size: Size | None, minutes: float | None) -> None:
    """Refuses another size than a run's config was written for; None: not given. Raises `ConfigError`."""
    text = file.read_text(encoding="utf-8")
    other = [f"--config={size.path}"] if size and _base(size) not in text else []
    if minutes is not None and f"within {minutes:g}." not in text:
        other.append(f"--minutes={minutes:g}")
    if other:
        raise ConfigError(
            f"{file} was written before, not for {', '.join(other)}. Choose another --workdir, or remove "
            f"{file}, so that the size is chosen anew."
        )


def prepare(
    found: Mapping[str, Any],
    own: Path,
    file: Path,
    named: Size | None,
    minutes: float,
    *,
    skip_bad_rows: bool,
    merge: bool,
) -> Size:
    """Writes the configs of a file's data (`own`, unless it is there) and run (`file`); what was chosen.

    found: what `check` says. named: the size, if somebody named it. Raises `DataError` for the first of what
    keeps a run from working.
    """
    if found["first_bad"] and not skip_bad_rows:
        raise DataError(found["first_bad"])
    if problems := [said for said in found["problems"] if said != found["first_bad"]]:
        raise DataError(f"{problems[0]} `bua check {found['path']}` shows all that the file holds.")
    if skip_bad_rows:
        found = {**found, "config": {**found["config"], "on_bad_row": "skip"}}
    windows = found["card"]["splits"]["train"]["prediction_windows"]
    size = named or choose(own, windows, minutes)
    save_size(file, size)
    if not own.is_file():
        save(found, own.with_suffix(""), merge=merge)
    return size
