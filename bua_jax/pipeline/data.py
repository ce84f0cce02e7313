"""Step `data`: events read or simulated, split by person, and described."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.card import write_card
from bua_jax.events.groups import training_shares
from bua_jax.events.readers import DataSpec, read_store
from bua_jax.events.rows import BadRows
from bua_jax.events.schema import SPLITS, EventStore
from bua_jax.events.simulate import Persona, read_personas, simulated_store, write_personas
from bua_jax.pipeline.steps import Run

EVENTS = "events.parquet"
PERSONAS = "personas.parquet"  # of simulated people


def data_sources(config: Settings) -> dict[str, str]:
    """The files that events and words for their labels are read from."""
    named = {f"data.{name}": config.data.get(name) for name in ("path", "words")}
    return {field: path for field, path in named.items() if path}


def read_words(path: Path, labels: Sequence[str]) -> dict[str, str]:
    """label -> words of a JSON file, of some or all labels.

    Raises `DataError` for a file that is none, and for a label that the data does not have.
    """
    if not path.is_file():
        raise DataError(f"There is no file config.data.words={str(path)!r}.")
    words = files.read_json(path)
    if not isinstance(words, dict) or not all(isinstance(text, str) for text in words.values()):
        raise DataError(f'{path} is no JSON object of texts by label: {{"label": "words", ...}}.')
    for label in words:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, n=1, cutoff=0.6)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{path} names {label!r}, which is no label of the data.{hint}")
    return words


def _say_merges(labels: Sequence[str], words: Mapping[str, str]) -> None:
    """A notice for labels that become one by their words."""
    merged: dict[str, list[str]] = {}
    for label in labels:
        merged.setdefault(words.get(label, label), []).append(label)
    for word, names in merged.items():
        if len(names) > 1:
            notice(f"data.words makes one label, {word!r}, of {', '.join(map(repr, names))}")


def load_store(run: Run) -> EventStore:
    """The events of a run's finished `data` step. Raises `DataError` for others than it wrote."""
    return EventStore.load(run.file("data", EVENTS))


def load_personas(run: Run) -> dict[str, Persona] | None:
    """Who the people of a run are, by user; None of people who are not simulated.

    Raises `DataError` for others than the step wrote.
    """
    path = run.file("data", PERSONAS)
    return read_personas(path) if path.is_file() else None


def _rename_hobbies(path: Path, words: Mapping[str, str]) -> None:
    """Hobbies are labels, which are called otherwise now."""
    write_personas(
        path,
        (
            dataclasses.replace(
                one, hobbies=tuple(dict.fromkeys(words.get(name, name) for name in one.hobbies))
            )
            for one in read_personas(path).values()
        ),
    )


def check_events(store: EventStore, min_history: int) -> None:
    """Raises `DataError` unless each split has a person with a window, and training people two labels.

    min_history: events before a window's target.
    """
    count = np.diff(store.offsets)
    for split in SPLITS:
        users = store.users_of_split(split)
        longest = int(count[users].max(initial=0))
        if longest <= min_history:
            among = f"of whom none has more than {longest} events" if len(users) else "so no events"
            raise DataError(
                f"The {split} split has {len(users)} people, {among}; expected at least one with "
                f"{min_history + 1}: config.windows.min_history={min_history} and the one that follows. Give "
                "longer records or more people (of fewer than 6 the split by person leaves a split "
                "empty), or lower --config.windows.min_history."
            )
    labels = np.flatnonzero(training_shares(store))
    if len(labels) < 2:
        only = store.catalogue.behaviours[labels[0]]
        raise DataError(
            f"The training people's events have one label only, {only!r}; expected at least two, or "
            "there is nothing to predict. Map the column that says what people do with "
            "--config.data.columns.behaviour=COLUMN."
        )


def build_data(run: Run) -> dict[str, Any]:
    """Writes data/events.parquet and the data card; simulated sets also data/personas.parquet."""
    data = run.config.data
    folder, report = run.folder("data"), BadRows()
    if data.name == "simulated":
        if "num_users" not in data:
            raise ConfigError(
                "config.data.name='simulated' is the built-in population, whose config is data=simulated: "
                "--config=configs/curriculum.py:data=simulated."
            )
        store = simulated_store(
            data.num_users, data.num_days, data.seed, personas=folder / PERSONAS
        )
    else:
        store = read_store(DataSpec.from_mapping(data.to_dict()), report)
    if words := data.get("words"):
        mapping = read_words(Path(words), store.catalogue.behaviours)
        _say_merges(store.catalogue.behaviours, mapping)
        store = store.renamed(mapping)
        if (path := folder / PERSONAS).is_file():
            _rename_hobbies(path, mapping)
    store.save(folder / EVENTS)
    EventStore.load(folder / EVENTS)  # what cannot be read again is said now
    write_card(store, folder, report.duplicates)
    return {
        "fingerprint": store.fingerprint,
        "catalogue": store.catalogue.fingerprint(),
        "shares": training_shares(store).tolist(),
    }
