"""The data card: what a data set holds, as JSON, as Markdown and as a heat map."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bua_jax.basics.console import in_markdown
from bua_jax.basics.files import atomic_write, write_json, write_text
from bua_jax.events.groups import behaviour_groups, training_shares
from bua_jax.events.schema import SPLITS, WEEKDAYS, EventStore
from bua_jax.events.windows import generation_windows, prediction_windows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORY = {"prediction": 40, "generation": 100}
"""Events of history in the window counts (Appendix H)."""
PAPERS = {"Behavior Dataset": (24_133, 37, 100_000), "Tencent Dataset": (2_000, 14, 320_516)}
"""Users, behaviour types and logs of the paper's private data sets, as Table 7 prints them."""


def _spread(values: np.ndarray) -> dict[str, float] | None:
    """Mean, median, smallest and largest; None of nothing."""
    if not len(values):
        return None
    return {
        "mean": round(float(values.mean()), 2),
        "median": float(np.median(values)),
        "min": int(values.min()),
        "max": int(values.max()),
    }


def hour_by_weekday(store: EventStore) -> np.ndarray:
    """int64[7, 24]: events per weekday (Monday first) and hour."""
    hour = store.slot.astype(np.int64) * 24 // store.catalogue.slots_per_day
    return np.bincount(store.weekday * np.int64(24) + hour, minlength=168).reshape(7, 24)


def _per_split(store: EventStore, split: str) -> dict[str, int]:
    users = store.users_of_split(split)
    prediction = prediction_windows(store, split, history_length=HISTORY["prediction"])
    generation = generation_windows(store, split, history_length=HISTORY["generation"])
    return {
        "users": len(users),
        "events": int((store.offsets[users + 1] - store.offsets[users]).sum()),
        "prediction_windows": len(prediction),
        "users_with_prediction_window": len(np.unique(prediction.user)),
        "generation_windows": len(generation),
    }


def data_card(store: EventStore, duplicates: int | None = None) -> dict[str, Any]:
    """Counts of a data set. Groups and shares come from the training users alone.

    duplicates: rows of the file that repeat an earlier one exactly, where that is known.
    Keys: fingerprint, users, events, duplicates, behaviours, slots_per_day, has_places, has_dates, gaps,
    days_spanned, events_per_user, events_per_active_day, areas_per_user, splits (users, events and
    windows of each), groups (head, medium, tail: labels with their share of training events),
    hour_by_weekday (7 rows from Monday, 24 hours). What does not apply is null.
    """
    catalogue = store.catalogue
    owner = np.repeat(np.arange(len(store.users), dtype=np.int64), np.diff(store.offsets))
    new_day = np.ones(len(store.day), bool)
    new_day[1:] = (np.diff(owner) != 0) | (np.diff(store.day) != 0)
    per_day = np.diff(np.append(np.flatnonzero(new_day), len(store.day)))
    areas = None
    if catalogue.has_places:
        known = store.location >= 0
        width = int(store.location.max(initial=0)) + 1
        pairs = np.unique(owner[known] * width + store.location[known])
        areas = _spread(np.bincount(pairs // width, minlength=len(store.users)))
    share = training_shares(store)
    groups = {
        name: {catalogue.behaviours[i]: round(float(share[i]), 5) for i in members}
        for name, members in behaviour_groups(store).items()
    }
    span = (
        int(store.day.max() - store.day.min()) + 1
        if catalogue.has_dates and len(store.day)
        else None
    )
    return {
        "fingerprint": store.fingerprint,
        "users": len(store.users),
        "events": len(store.day),
        "duplicates": duplicates,
        "behaviours": len(catalogue.behaviours),
        "slots_per_day": catalogue.slots_per_day,
        "has_places": catalogue.has_places,
        "has_dates": catalogue.has_dates,
        "gaps": int(store.gap.sum()),
        "days_spanned": span,
        "events_per_user": _spread(np.diff(store.offsets)),
        "events_per_active_day": _spread(per_day),
        "areas_per_user": areas,
        "splits": {split: _per_split(store, split) for split in SPLITS},
        "groups": groups,
        "hour_by_weekday": hour_by_weekday(store).tolist(),
    }


def _table(header: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def _words(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "none"
    return (
        f"mean {spread['mean']}, median {spread['median']:g}, from {spread['min']:g} to "
        f"{spread['max']:g}"
    )


def card_markdown(card: dict[str, Any]) -> str:
    """A data card as Markdown; refers to heatmap.png beside it."""
    facts = [
        ["users", card["users"]],
        ["events", card["events"]],
        ["exact duplicates", "not counted" if card["duplicates"] is None else card["duplicates"]],
        ["behaviour types", card["behaviours"]],
        ["slots per day", card["slots_per_day"]],
        ["places", "yes" if card["has_places"] else "none"],
        ["dates", f"{card['days_spanned']} days" if card["has_dates"] else "none"],
        ["unknown gaps", card["gaps"]],
        ["events per user", _words(card["events_per_user"])],
        ["events per active day", _words(card["events_per_active_day"])],
        ["areas per user", _words(card["areas_per_user"])],
        ["fingerprint", card["fingerprint"]],
    ]
    columns = list(card["splits"]["train"])
    splits = [[name, *part.values()] for name, part in card["splits"].items()]
    own = ["this one", card["users"], card["behaviours"], card["events"]]
    papers = [[name, *counts] for name, counts in PAPERS.items()]
    groups = [
        [name, in_markdown(label), f"{100 * share:.2f} %"]
        for name, members in card["groups"].items()
        for label, share in sorted(members.items(), key=lambda item: -item[1])
    ]
    lengths = f"up to {HISTORY['prediction']} events before a prediction, {HISTORY['generation']}"
    return "\n".join(
        [
            "# Data card",
            "",
            *_table(["", ""], facts),
            "",
            "## Beside the paper's data (Table 7)",
            "",
            "Theirs are private. The 100,000 are samples, drawn of over 50 million events (Appendix C).",
            "",
            *_table(["data set", "users", "behaviour types", "logs"], [own, *papers]),
            "",
            "## Splits (by person)",
            "",
            f"Windows: at least 10 and {lengths} before a generated day.",
            "",
            *_table(["split", *(c.replace("_", " ") for c in columns)], splits),
            "",
            "## Behaviour types",
            "",
            "Share of the training users' events: head above 5 %, medium 1 to 5 %, tail the rest.",
            "",
            *_table(["group", "behaviour", "share"], groups),
            "",
            "## When",
            "",
            "![events by weekday and hour](heatmap.png)",
            "",
        ]
    )


def heat_map(counts: np.ndarray) -> "Figure":
    """Events by weekday (rows, Monday first) and hour; `counts` int[7, 24]."""
    from matplotlib.figure import Figure  # most of a second, which most verbs need not wait for

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(counts, aspect="auto", cmap="viridis")
    axes.set_yticks(range(7), [name[:3] for name in WEEKDAYS])
    axes.set_xticks(range(0, 24, 2), [f"{hour:02d}:00" for hour in range(0, 24, 2)])
    axes.set_xlabel("hour of day")
    axes.set_title("events by weekday and hour")
    figure.colorbar(image, ax=axes, label="events")
    return figure


def write_card(
    store: EventStore, folder: str | Path, duplicates: int | None = None
) -> dict[str, Any]:
    """Writes card.json, card.md and heatmap.png into `folder`; returns the card (see `data_card`)."""
    folder = Path(folder)
    card = data_card(store, duplicates)
    write_json(folder / "card.json", card)
    write_text(folder / "card.md", card_markdown(card))
    with atomic_write(folder / "heatmap.png") as temporary:
        heat_map(np.asarray(card["hour_by_weekday"])).savefig(temporary, format="png", dpi=120)
    return card
