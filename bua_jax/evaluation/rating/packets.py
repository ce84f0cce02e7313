"""Blinded packets for judges, and the key that says which text is whose.

A packet is one HTML page (offline, keyboard, keeps what was answered) and the same as CSV with empty scores.
The order of items, and of texts within an item, is each judge's own.
"""

import csv
import io
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from bua_jax.basics import files
from bua_jax.basics.console import notice, out
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.evaluation.rating.items import Item, check_tells, plain, uneven

SLOTS = "ABCDEFGH"
CRITERIA = {
    "rationality": "Does the text agree with the history?",
    "interpretability": "Does the text explain why the predicted behaviour comes next?",
}
ANCHORS = (
    "unrelated: nothing of it fits",
    "loose: a part of it fits",
    "fits, but could be said of many",
    "fits, specific and clear",
)
"""What the scores 0 to 3 mean, after Appendix Q."""
COLUMNS = ("packet", "item", "slot", *CRITERIA)
KEY = "key.json"
_TEMPLATE = Path(__file__).parent / "packet.html"
LEAST_ITEMS = 2
_SEED_BITS = 53  # as many as any reader of JSON keeps
_OWNER_ONLY = 0o600
_EVERY = 20  # items to each that shows whether a judge reads


@dataclass(frozen=True)
class Packet:
    """What one judge sees, and the sources that stand behind it."""

    name: str
    items: list[dict[str, Any]]  # item, history, predicted, texts by slot
    key: dict[str, dict[str, Any]]  # item -> {id, slots: {slot: source}} or {slot, expected}

    @property
    def id(self) -> str:
        """Of what is shown: what a judge sends back names it."""
        return files.sha256_json(self.items)[:16]


def packet_of(items: Sequence[Item], name: str, seed: int, judge: int) -> Packet:
    """Items and texts in an order of the judge's own, among them items that ask for a given score."""
    rng = np.random.default_rng([seed, judge])
    order: list[Item | None] = [items[i] for i in rng.permutation(len(items))]
    for _ in range(max(1, round(len(items) / _EVERY))):
        order.insert(int(rng.integers(1, len(order) + 1)), None)
    shown, key = [], {}
    for number, item in enumerate(order, 1):
        real = item or items[int(rng.integers(len(items)))]
        sources = sorted(real.texts)
        slots = {SLOTS[i]: sources[k] for i, k in enumerate(rng.permutation(len(sources)))}
        texts = {slot: plain(real.texts[source]) for slot, source in slots.items()}
        if item is None:
            slot, expected = str(rng.choice(list(slots))), int(rng.integers(len(ANCHORS)))
            texts[slot] = (
                f"This text is here to see whether texts are read: give it {expected} in both."
            )
            key[str(number)] = {"slot": slot, "expected": expected}
        else:
            key[str(number)] = {"id": real.id, "slots": slots}
        shown.append(
            {
                "item": number,
                "history": list(real.history),
                "predicted": real.predicted,
                "texts": texts,
            }
        )
    return Packet(name, shown, key)


def as_csv(packet: Packet) -> str:
    """The packet as a table with empty scores."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, "text", "predicted", "history"))
    for item in packet.items:
        for slot, said in item["texts"].items():
            history = "\n".join(item["history"])
            writer.writerow(
                (
                    packet.id,
                    item["item"],
                    slot,
                    *[""] * len(CRITERIA),
                    said,
                    item["predicted"],
                    history,
                )
            )
    return text.getvalue()


def as_html(packet: Packet) -> str:
    """The packet as a page that needs nothing else."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = {
        "packet": packet.id,
        "name": packet.name,
        "items": packet.items,
        "criteria": CRITERIA,
        "columns": COLUMNS,
        "scores": len(ANCHORS),
    }
    data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")  # it stands in a script
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        name=packet.name, data=data, criteria=CRITERIA, anchors=ANCHORS
    )


def export(items: Sequence[Item], judges: int, seed: int | None, folder: Path) -> None:
    """Writes and names FOLDER/packets/judgeN.html and .csv, and FOLDER/key.json, which no judge may see.

    seed: of the orders; by default a secret one, which stands in the key alone: who knows it can tell the
    sources. Raises `DataError` for one item, of which nothing can be said, and for texts that tell whose they
    are, `ConfigError` where a key is there already: what judges answered could not be read without it.
    """
    if len(items) < LEAST_ITEMS:
        raise DataError(
            f"There is one item; differences are tested over items: give {LEAST_ITEMS} or more."
        )
    if len(items[0].texts) > len(SLOTS):
        raise ConfigError(
            f"There are {len(items[0].texts)} sources; a judge compares at most {len(SLOTS)}."
        )
    check_tells(items)
    if said := uneven(items):
        notice(said)
    files.check_folder(folder, f"--output={folder}")
    if (folder / KEY).exists():
        raise ConfigError(
            f"{folder / KEY} is there already, and answers to its packets cannot be read without it. Choose "
            "another --output."
        )
    seed = secrets.randbits(_SEED_BITS) if seed is None else seed
    written, keys = [], {}
    for judge in range(1, judges + 1):
        packet = packet_of(items, f"judge{judge}", seed, judge)
        for end, text in (("html", as_html(packet)), ("csv", as_csv(packet))):
            path = folder / "packets" / f"{packet.name}.{end}"
            files.write_text(path, text)
            written.append(path)
        hashes = {path.name: files.sha256_file(path) for path in written[-2:]}
        keys[packet.name] = {"packet": packet.id, "files": hashes, "items": packet.key}
    about = {"seed": seed, "sources": sorted(items[0].texts), "items": [item.id for item in items]}
    files.write_sealed(folder / KEY, {**about, "packets": keys}, _OWNER_ONLY)
    for path in (*written, folder / KEY):
        out.print(str(path), markup=False)
