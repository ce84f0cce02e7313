"""What `check` found of a file of events, as a data config that runs read, and whether it still fits."""

import filecmp
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError
from bua_jax.planning.columns import Layout, layout_of, plain_copy

_CONFIG = '''"""A file of events as `check` found it, for --config=configs/quickstart.py:data=FILE.py."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
{lines}
    return config
'''


def save(found: Mapping[str, Any], name: Path, *, merge: bool) -> list[Path]:
    """Writes NAME.py, a data config for `--config=FILE:data=NAME.py`; returns what was written.

    Beside it NAME.csv, where the file is not written as the readers take it, and with `merge`
    NAME.words.json, which makes one label of those that may be one. Raises `ConfigError` for files that
    are there.
    """
    own, copy, words = (
        name.with_name(f"{name.name}{end}") for end in (".py", ".csv", ".words.json")
    )
    layout = Layout(**{**found["layout"], "names": tuple(found["layout"]["names"])})
    values = dict(found["config"], path=str(Path(found["path"]).absolute()))
    written = [own]
    if not layout.as_read:
        written.append(copy)
        values |= {"path": str(copy.absolute()), "format": "csv"}
    if merge:  # also of none, so that the config says that they were asked for
        written.append(words)
        values["words"] = str(words.absolute())
    for path in written:
        files.check_output(str(path), flag="--save")
        if path.exists():
            raise ConfigError(
                f"--save={name}: {path} is there already; remove it, or choose another name."
            )
    if copy in written:
        with files.atomic_write(copy) as temporary:
            plain_copy(Path(found["path"]), layout, temporary)
    if words in written:
        files.write_json(words, found["alike"])
    lines = []
    for key, value in values.items():
        if key == "columns":
            lines.append("    config.columns = ConfigDict()")
            lines += [f"    config.columns.{role} = {column!r}" for role, column in value.items()]
        else:
            lines.append(
                f"    config.{key} = {tuple(value) if isinstance(value, list) else value!r}"
            )
    files.write_text(own, _CONFIG.format(lines="\n".join(lines)))
    return written


def check_asked(
    own: Path,
    data: ConfigDict,
    path: Path,
    columns: Mapping[str, str],
    *,
    zone: str,
    skip_bad_rows: bool,
    merge: bool,
) -> None:
    """Refuses another file, or other flags, than a saved config was written for.

    own: the config's file, whose values are `data`. path: the file of events that is given now, with the
    flags of `fit`; those that are not given say nothing. Raises `ConfigError` naming what differs.
    """
    kept = data.columns.to_dict()
    differs = [f"--columns={r}={name}" for r, name in columns.items() if kept.get(r, "") != name]
    differs += [f"--time_zone={zone}"] if zone not in ("", data.time_zone) else []
    differs += ["--skip_bad_rows"] if skip_bad_rows and data.on_bad_row != "skip" else []
    differs += ["--merge"] if merge and not data.get("words") else []
    copy = own.with_suffix(".csv")
    if not _same_events(path, Path(data.path), copy):
        differs.insert(0, f"{path} as it is now")
    if differs:
        there = [str(one) for one in (own, copy, own.with_suffix(".words.json")) if one.is_file()]
        raise ConfigError(
            f"{own} was written before, not for {', '.join(differs)}. Choose another --workdir, or remove "
            f"{', '.join(there)}, so that the file is looked at anew."
        )


def _same_events(path: Path, read: Path, copy: Path) -> bool:
    """Whether a file is what a config reads: that very file, or what its copy was made of."""
    if path.exists() and read.exists() and path.samefile(read):
        return True
    if read != copy.absolute() or not read.is_file():
        return False
    with tempfile.TemporaryDirectory() as folder:
        anew = Path(folder) / "events.csv"
        plain_copy(path, layout_of(path), anew)
        return filecmp.cmp(anew, read, shallow=False)
