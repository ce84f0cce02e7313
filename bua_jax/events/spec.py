"""What a data config says: a file, what its columns mean, and how its rows are checked."""

import dataclasses
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bua_jax.basics.errors import ConfigError
from bua_jax.events.schema import SLOTS_PER_DAY

ROLES = (
    "user",
    "time",
    "day",
    "week",
    "order",
    "weekday",
    "slot",
    "hour",
    "minute",
    "location",
    "behaviour",
    "split",
    "gap",
)
"""Fields that a column can be mapped to (`--config.data.columns.ROLE=COLUMN`)."""
FORMATS = ("csv", "tsv", "parquet")
ON_BAD_ROW = ("error", "skip")


def check_time_zone(name: str) -> None:
    """Raises `ConfigError` for a time zone that is not known; nothing means that times are local."""
    if name and name not in zoneinfo.available_timezones():
        raise ConfigError(
            f"data.time_zone is {name!r}, expected a name such as Asia/Shanghai, or nothing where times "
            "are local."
        )


@dataclass(frozen=True)
class DataSpec:
    """What `configs/data/*.py` describe.

    `columns` maps roles to column names. Time takes one of four forms:

    * `time`: ISO 8601 text, a timestamp type, or epoch seconds;
    * `day` (elapsed days), `slot` or `hour` [and `minute`]; without `weekday`, day 0 is a Monday;
    * `week`, `weekday` and `slot` or `hour`: weeks in order, an unknown gap before each new one;
    * `order`, `weekday` and `slot` or `hour`: rows in order, less than a week between two of them.

    `order` may accompany every form. `has_dates` says that day numbers are true calendar distances.
    There are places where `has_places` says so and a column is mapped to `location`; either alone
    leaves them out.

    Raises `ConfigError` naming the field, its value and what was expected.
    """

    name: str
    path: str
    format: str = "parquet"
    columns: Mapping[str, str] = field(default_factory=dict)
    slots_per_day: int = 48
    has_dates: bool = True
    has_places: bool = True
    behaviours: tuple[str, ...] = ()
    on_bad_row: str = "error"
    split_seed: int = 42
    time_zone: str = ""
    cite: str = ""

    def __post_init__(self) -> None:
        self._expect("format", self.format, FORMATS)
        self._expect("on_bad_row", self.on_bad_row, ON_BAD_ROW)
        self._expect("slots_per_day", self.slots_per_day, SLOTS_PER_DAY)
        for role in self.columns:
            self._expect("columns", role, ROLES)
        check_time_zone(self.time_zone)
        for role in ("user", "behaviour"):
            if role not in self.columns:
                raise ConfigError(
                    f"Data set {self.name!r} maps no column for the field {role!r}; give "
                    f"--config.data.columns.{role}=COLUMN."
                )
        has_places = self.has_places and "location" in self.columns
        columns = {k: v for k, v in self.columns.items() if has_places or k != "location"}
        object.__setattr__(self, "has_places", has_places)
        object.__setattr__(self, "columns", columns)
        if self.time_form() in ("week", "order") and self.has_dates:
            raise ConfigError(
                f"Data set {self.name!r} takes its days from {self.time_form()!r} and weekdays, "
                "which are no dates; set --config.data.has_dates=False."
            )

    def _expect(self, name: str, value: Any, legal: tuple[Any, ...]) -> None:
        if value not in legal:
            raise ConfigError(
                f"Data set {self.name!r}: data.{name} has {value!r}, expected one of "
                f"{', '.join(map(str, legal))}."
            )

    def time_form(self) -> str:
        """How days are known: `time`, `day`, `week` or `order`. Raises `ConfigError` for none or two."""
        if "time" in self.columns:
            parts = ("day", "week", "weekday", "slot", "hour", "minute")
            if others := [role for role in parts if role in self.columns]:
                raise ConfigError(
                    f"Data set {self.name!r} maps time and {others[0]}, which say the same twice: leave one "
                    f"out, for example --config.data.columns.{others[0]}="
                )
            return "time"
        clock = "slot" in self.columns or "hour" in self.columns
        if clock and "day" in self.columns:
            return "day"
        if clock and "weekday" in self.columns:
            for form in ("week", "order"):
                if form in self.columns:
                    return form
        raise ConfigError(
            f"Data set {self.name!r} does not say when events happen. Map a time column "
            "(--config.data.columns.time=COLUMN), or a day column with a slot or hour column, or a "
            "weekday column with a slot or hour column and a week or order column."
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "DataSpec":
        """Builds it from the plain-dict form of a config.

        Fields that only the config knows are ignored; columns mapped to "" are absent.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        known = {k: v for k, v in values.items() if k in names}
        known["behaviours"] = tuple(known.get("behaviours", ()))
        known["columns"] = {k: v for k, v in dict(known.get("columns", {})).items() if v}
        return cls(**known)
