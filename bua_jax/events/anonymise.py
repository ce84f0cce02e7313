"""Opaque ids and areas, before anything else sees the data (the paper's ethics statement).

What is kept of an event: day, weekday, slot, behaviour, and the area if it is among the person's
`KEPT_AREAS` most visited. What goes: the id, the name of the area, every column that is not mapped.
That is pseudonymous, not anonymous data: people can be told apart, and mostly told again, by what they
do when (`evaluation.linkage` measures it). `Hiding` blurs more.
"""

import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.basics.files import SEAL, atomic_write, read_json, unseal, write_sealed
from bua_jax.basics.legal import OneOf
from bua_jax.events.readers import ANONYMISED_KEY, anonymised_mark, read_frame
from bua_jax.events.rows import BadRows
from bua_jax.events.schema import SPLITS
from bua_jax.events.spec import DataSpec
from bua_jax.events.split import split_users

SLOT_HOURS = (0, 1, 2, 3, 4, 6, 8, 12)
SPLIT_BY = ("person", "period")
KEPT_AREAS = 10
PERIOD_DAYS = 90
"""Ids live this long (three months), counted from the first date of the whole data set."""
_KEY_BYTES = 32
_BLOCK = 1_000_000  # rows that are written at a time
_WEEKS = 52  # that days are shifted by, below


@dataclass(frozen=True)
class Hiding:
    """What is blurred beyond ids and areas. Raises `ConfigError` for values that it does not have."""

    date_shift: bool = False  # each id's days by whole weeks of its own; weekdays stay
    slot_hours: int = 0  # times rounded down to blocks of that many hours; 0: as they are
    split_by: str = "person"  # one split for a person, or one for each of the person's ids

    def __post_init__(self) -> None:
        for name, table in (("slot_hours", SLOT_HOURS), ("split_by", SPLIT_BY)):
            if wrong := OneOf(table).wrong(getattr(self, name)):
                raise ConfigError(f"config.anonymise.{name}={getattr(self, name)!r}{wrong}.")


@dataclass(frozen=True)
class Anonymised:
    """What was done, for the person who asked for it."""

    people: int
    ids: int
    events: int
    areas_kept_share: float | None  # of events with an area; None without places
    renewed: bool

    def lines(self) -> list[str]:
        """It in words."""
        found = [f"{self.events} events of {self.people} people"]
        renewed = f", renewed every {PERIOD_DAYS} days from the first date of the data"
        none = "; renewal skipped: the data has no dates"
        found.append(f"ids: {self.ids}{renewed if self.renewed else none}")
        if self.areas_kept_share is not None:
            share = f"{100 * self.areas_kept_share:.1f} % of visits"
            found.append(
                f"areas: each person's {KEPT_AREAS} most visited kept ({share}), the rest dropped"
            )
        return found


def _opaque(key: bytes, *parts: str | int) -> str:
    """16 hex digits that only the key holder can compute."""
    return hmac.new(key, json.dumps(parts).encode(), "sha256").hexdigest()[:16]


def _distinct(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The distinct rows of some columns, in no order; streamed, so it needs no second copy of them."""
    return frame.lazy().select(columns).unique().collect(engine="streaming")


def _kept_areas(frame: pl.DataFrame) -> pl.DataFrame:
    """(user, location) of each person's most visited areas; ties go to the earlier first visit."""
    visits = (
        frame.lazy()
        .select("user", "location")
        .with_row_index("position")
        .drop_nulls("location")
        .group_by("user", "location")
        .agg(pl.len().alias("visits"), pl.col("position").min())
        .collect(engine="streaming")
    )
    ranked = visits.sort("user", "visits", "position", descending=[False, True, False])
    return ranked.group_by("user", maintain_order=True).head(KEPT_AREAS).select("user", "location")


def renamed(frame: pl.DataFrame, key: bytes, *, renew: bool) -> pl.DataFrame:
    """Columns user, id, period, opaque: the new id of each person in each period; see `anonymise`."""
    people = _distinct(_with_period(frame, renew), "user", "id", "period")
    prefix = "renewed" if renew else "person"
    opaque = [
        f"{prefix}-{_opaque(key, 'id', *row)}" for row in people.select("id", "period").rows()
    ]
    # An Enum of sorted ids sorts as they do, at 4 bytes a row.
    return people.with_columns(pl.Series("opaque", opaque, pl.Enum(sorted(opaque))))


def _with_period(frame: pl.DataFrame, renew: bool) -> pl.DataFrame:
    period = (pl.col("day") - pl.col("day").min()) // PERIOD_DAYS if renew else pl.lit(0)
    return frame.with_columns(period=period.cast(pl.Int32))


def _split(people: pl.DataFrame, seed: int, by: str) -> pl.DataFrame:
    """`renamed`'s table with the split of each row: of its person, or of itself."""
    name = pl.col("id").cast(pl.String)
    if by == "period":
        name = pl.format("{} {}", name, pl.col("period"))
    names = people.select(name.alias("name")).to_series().to_list()
    sides = split_users(sorted(set(names)), seed)
    return people.with_columns(
        pl.Series("split", [SPLITS[sides[name]] for name in names], pl.Enum(SPLITS))
    )


def _weeks(key: bytes, opaque: Iterable[str]) -> list[int]:
    """Days of whole weeks that each id's are shifted by."""
    return [7 * (int(_opaque(key, "shift", name), 16) % _WEEKS) for name in opaque]


def anonymise(
    frame: pl.DataFrame,
    key: bytes,
    *,
    renew: bool,
    split_seed: int = 42,
    slots_per_day: int = 48,
    hiding: Hiding = Hiding(),
) -> pl.DataFrame:
    """Anonymises `read_frame`'s rows. The split is decided here, by person unless `hiding` says otherwise.

    Returns columns user, split, day, weekday, slot, [location,] behaviour, gap, sorted by the new
    id (a random order, so that the ids of one person do not stand together) and time; texts are
    categorical. With `renew` a person gets another id in each period of `PERIOD_DAYS` days from the
    data's first date. Area codes hold within one id only: the same area of another person or period
    has another code. The most visited areas are counted over the person's whole record. The same key
    gives the same output. Raises `ConfigError` for a split to draw where the data brings its own.
    """
    people = renamed(frame, key, renew=renew)
    if "split" not in frame.columns:
        people = _split(people, split_seed, hiding.split_by)
    elif hiding.split_by != "person":
        raise ConfigError(
            f"config.anonymise.split_by={hiding.split_by!r} draws a split, but the data brings its own; set "
            "--config.data.columns.split= to draw one."
        )
    people = people.drop("id")
    if hiding.date_shift:
        people = people.with_columns(pl.Series("shift", _weeks(key, people["opaque"]), pl.Int32))
    frame = _with_period(frame, renew)
    tables = [people]
    kept = ("split", "day", "weekday", "slot", "behaviour", "gap")
    columns = [pl.col("opaque").alias("user"), *map(pl.col, kept)]
    if hiding.date_shift:
        columns[2] = pl.col("day") + pl.col("shift")
    if block := hiding.slot_hours * slots_per_day // 24:
        columns[4] = pl.col("slot") // block * block
    if "location" in frame.columns:
        areas = _distinct(frame, "user", "period", "location").join(people, on=["user", "period"])
        areas = areas.join(_kept_areas(frame), on=["user", "location"])
        codes = [f"area-{_opaque(key, 'area', *row)}" for row in areas["opaque", "location"].rows()]
        areas = areas.with_columns(pl.Series("area", codes, pl.Categorical)).drop("opaque")
        tables.append(areas)
        columns.insert(5, pl.col("area").alias("location"))
    parts = frame.iter_slices(_BLOCK)  # joined in parts: a join's own tables grow with its rows
    out = pl.concat([_joined(part, tables).select(columns) for part in parts])
    first = (pl.col("user") != pl.col("user").shift(1)).fill_null(True)
    return out.sort("user", maintain_order=True).with_columns(gap=pl.col("gap") & ~first)


def _joined(frame: pl.DataFrame, tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Left joins on all columns that the frame and a table share; rows keep their order."""
    for table in tables:
        shared = [name for name in table.columns if name in frame.columns]
        frame = frame.join(table, on=shared, how="left", maintain_order="left")
    return frame


def load_key(key_file: str | Path | None, output: str | Path) -> bytes:
    """The secret key: of `key_file`, which is made if it is absent, or a random one kept nowhere.

    Raises `DataError` if the key file would lie in the output's folder or holds no key.
    """
    if not key_file:
        return secrets.token_bytes(_KEY_BYTES)
    key_file, folder = Path(key_file), Path(output).resolve().parent
    if folder in key_file.resolve().parents:
        raise DataError(
            f"The key file {key_file} would lie in the folder of the output ({folder}): whoever "
            "gets the folder could undo the ids. Choose a path outside of it."
        )
    if not key_file.exists():
        key = secrets.token_bytes(_KEY_BYTES)
        write_sealed(key_file, {"key": key.hex()}, 0o600)
        return key
    value = read_json(key_file)
    if isinstance(value, dict) and SEAL in value:  # one that was made by hand has none
        value = unseal(value, key_file)
    try:
        key = bytes.fromhex(value["key"])
    except (KeyError, TypeError, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise DataError(
            f'{key_file} holds no key: expected {{"key": "{_KEY_BYTES * 2} hex digits"}}. Name a '
            "file that does not exist to have one made."
        )
    return key


def _write(frame: pl.DataFrame, path: Path, mark: dict[str, Any]) -> None:
    """Writes parquet with texts as strings, `_BLOCK` rows at a time: spelled out, ids are the most of it."""
    texts = pl.col(pl.Categorical, pl.Enum).cast(pl.String)
    metadata = {ANONYMISED_KEY: json.dumps(mark).encode()}
    schema = frame.head(0).with_columns(texts).to_arrow().schema.with_metadata(metadata)
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in frame.iter_slices(_BLOCK):
            writer.write_table(part.with_columns(texts).to_arrow().cast(schema))


def anonymise_file(
    spec: DataSpec,
    output: str | Path,
    key: bytes,
    report: BadRows | None = None,
    *,
    hiding: Hiding = Hiding(),
) -> Anonymised:
    """Reads `spec`, anonymises it and writes `output` (parquet, marked as anonymised), atomically.

    Ids are renewed where the data has dates. Skipped rows are counted in `report`.
    Raises `DataError` for bad rows, an input that is anonymised already, or a non-parquet output,
    `ConfigError` for dates to shift where there are none.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise DataError(f"--output is {output}, expected a name that ends with .parquet.")
    if output.exists() and Path(spec.path).exists() and output.samefile(spec.path):
        raise DataError(f"--output is the input {output}; choose another file.")
    if Path(spec.path).is_file() and anonymised_mark(Path(spec.path)) is not None:
        raise DataError(f"{spec.path} is anonymised already; give the original file.")
    if hiding.date_shift and not spec.has_dates:
        raise ConfigError(
            f"config.anonymise.date_shift=True, but data set {spec.name!r} has no dates to shift; leave it "
            "out."
        )
    report = report if report is not None else BadRows()
    frame = read_frame(spec, report)
    result = anonymise(
        frame,
        key,
        renew=spec.has_dates,
        split_seed=spec.split_seed,
        slots_per_day=spec.slots_per_day,
        hiding=hiding,
    )
    has_places = "location" in result.columns
    mark = {
        "slots_per_day": spec.slots_per_day,
        "has_dates": spec.has_dates,
        "has_places": has_places,
        "duplicates": report.duplicates,
        "renewed_every_days": PERIOD_DAYS if spec.has_dates else None,
        **{name: value for name, value in vars(hiding).items() if value != getattr(Hiding, name)},
    }
    _write(result, output, mark)
    before = frame["location"].count() if has_places else 0
    return Anonymised(
        people=frame["user"].n_unique(),
        ids=result["user"].n_unique(),
        events=len(result),
        areas_kept_share=result["location"].count() / before if before else None,
        renewed=spec.has_dates,
    )
