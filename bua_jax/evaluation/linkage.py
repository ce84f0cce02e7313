"""How many renewed ids can be linked by who has an anonymised file alone, through what is done when.

The attacker compares ids by their shares of events per behaviour and hour (Hellinger affinity) and takes
the most alike for the same person. Who knows more, of areas or of somebody's calendar, links more.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from bua_jax.events.anonymise import Hiding, renamed
from bua_jax.events.readers import read_frame
from bua_jax.events.rows import BadRows
from bua_jax.events.spec import DataSpec

MOST = 1_000  # ids that are tried
_LABELS = 64  # most frequent ones that a profile tells apart
_BLOCK = 256  # ids that are compared with all others at a time


@dataclass(frozen=True)
class Linked:
    """What the attacker reached."""

    tried: int  # ids of people who have one in the period before, too
    found: int  # of them: whose most alike is of the same person
    chance: float  # share that guessing among the same candidates would find

    @property
    def rate(self) -> float:
        return self.found / self.tried if self.tried else 0.0

    def __str__(self) -> str:
        return (
            f"{self.found} of {self.tried} ids ({self.rate:.1%}) to another of their person, by behaviours "
            f"and hours alone; guessing finds {self.chance:.1%}"
        )


def audit(spec: DataSpec, output: Path, key: bytes, hiding: Hiding) -> Linked | None:
    """Links the ids of a file that was made of `spec` with this key; None where a person has one id."""
    if not spec.has_dates:
        return None
    people = renamed(read_frame(spec, BadRows()), key, renew=True)
    written = pl.read_parquet(output, glob=False, hive_partitioning=False)
    by_split = hiding.split_by == "person"
    return linked(
        written, people, spec.slots_per_day, dated=not hiding.date_shift, by_split=by_split
    )


def linked(
    result: pl.DataFrame,
    people: pl.DataFrame,
    slots_per_day: int,
    *,
    dated: bool,
    by_split: bool,
) -> Linked:
    """Links the ids of `anonymise`'s rows; people: `renamed`'s table, which says whose they are.

    dated: days are as they were, so that an id is compared with those of the period before alone, and else
    with all others; by_split: a person's ids have one split, so that it is compared within its own.
    """
    ids = result.group_by("user").agg(pl.col("split").first().cast(pl.String))
    ids = ids.with_columns(pl.col("user").cast(pl.String)).sort("user")
    owner = people.select(pl.col("opaque").cast(pl.String), pl.col("user").alias("of"), "period")
    ids = ids.join(owner, left_on="user", right_on="opaque", maintain_order="left")
    of, period = ids["of"].to_numpy(), ids["period"].to_numpy()
    split = ids["split"].cast(pl.Categorical).to_physical().to_numpy()
    earlier = set(zip(of.tolist(), (period + 1).tolist(), strict=True))
    tried = np.asarray(
        [
            i
            for i, key in enumerate(zip(of.tolist(), period.tolist(), strict=True))
            if key in earlier
        ],
        int,
    )
    if len(tried) > MOST:
        tried = np.sort(np.random.default_rng(0).choice(tried, MOST, replace=False))
    shares = profiles(result, ids["user"].to_list(), slots_per_day)
    found, chance = 0, 0.0
    for rows in np.split(tried, range(_BLOCK, len(tried), _BLOCK)):
        allowed = np.arange(len(of)) != rows[:, None]
        if dated:
            allowed &= period == period[rows, None] - 1
        if by_split:
            allowed &= split == split[rows, None]
        same = of == of[rows, None]
        alike = np.where(allowed, shares[rows] @ shares.T, -1)
        found += int(same[np.arange(len(rows)), alike.argmax(1)].sum())
        chance += float(((allowed & same).sum(1) / allowed.sum(1)).sum())
    return Linked(len(tried), found, chance / max(1, len(tried)))


def profiles(result: pl.DataFrame, ids: list[str], slots_per_day: int) -> np.ndarray:
    """float32[n, 24 * labels]: roots of each id's shares of events per hour and behaviour."""
    common = result["behaviour"].value_counts(sort=True)["behaviour"].cast(pl.String)[:_LABELS]
    codes = {label: code for code, label in enumerate(common.to_list())}
    label = result["behaviour"].cast(pl.String).replace_strict(codes, default=_LABELS)
    hour = result["slot"].cast(pl.Int32) * 24 // slots_per_day
    row = result["user"].cast(pl.Enum(ids)).to_physical()
    width = 24 * (_LABELS + 1)
    counts = pl.DataFrame({"row": row, "cell": hour * (_LABELS + 1) + label.cast(pl.Int32)})
    counts = counts.group_by("row", "cell").len()
    table = np.zeros((len(ids), width), np.float32)
    table[counts["row"].to_numpy(), counts["cell"].to_numpy()] = counts["len"].to_numpy()
    return np.sqrt(table / table.sum(1, keepdims=True))
