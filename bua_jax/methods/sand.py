"""SAND (Yuan et al., KDD 2023): a day as what three needs lead to, drawn as a point process.

Learnt from the days of training people; a person is who has lived the days before the one that is drawn.
It knows no places.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.legal import Flag, OneOf, Read, Real, Whole
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day
from bua_jax.methods.behavegpt_days import keys_of, longest_day
from bua_jax.methods.protocol import About, Case, Cases, Data, Generation, Method, Site

if TYPE_CHECKING:
    from bua_jax.models.sand import Sand
    from bua_jax.training.generators.sand import Reading
    from bua_jax.training.generators.sand_days import Known

NAME, FILE = "sand", "sand.safetensors"
ROWS = 16  # days drawn together; the last ones are filled up
STEPS = (48, 96, 120, 240, 480, 720, 1440)
"""Of RK4 in a day: whole parts of its hours."""


def _labels(value: Any) -> None:
    """Raises `ConfigError` for what is no list of labels."""
    if not all(isinstance(label, str) for label in value):
        raise ConfigError("expected a tuple of labels, for example \"('cook', 'pay')\".")


def levels_of(labels: tuple[str, ...], page: Settings) -> tuple[int, ...]:
    """The need level of each label; those of no list have `default_level`. Raises `ConfigError` for two."""
    lists = [page.level0, page.level1, page.level2]
    for label in labels:
        if sum(label in one for one in lists) > 1:
            raise ConfigError(
                f"config.methods.{NAME}: {label!r} stands in more than one of level0, level1 and "
                "level2; keep it in one."
            )
    found = {label: level for level, one in enumerate(lists) for label in one}
    return tuple(int(found.get(label, page.default_level)) for label in labels)


@dataclass(frozen=True)
class Simulated:
    """A trained policy that draws days behind people's histories."""

    network: "Sand"
    policy: Any
    reading: "Reading"
    steps: int
    has_places: bool
    seed: int
    facts: Mapping[str, Any]
    rows: int = ROWS

    def generate(self, cases: Cases) -> Generation:
        parts = [self._batch(cases[i : i + ROWS]) for i in range(0, len(cases), ROWS)]
        return Generation([day for part in parts for day in part])

    def _batch(self, cases: Cases) -> list[Day]:
        import jax

        from bua_jax.models.sand import SIZE, draw_days

        count = len(cases)
        full = cases.take(np.arange(ROWS) % count)
        past = self.reading.knots([known(case) for case in full], whole=False)
        weekday, keys = full.weekday.astype(np.int32), keys_of(self.seed, full.sample_id)
        begins = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (SIZE,)))(keys)
        given = self.network, self.policy, begins, past, weekday, keys
        drawn = draw_days(*given, steps=self.steps, most=self.reading.most)
        times, events, counts = (np.asarray(x)[:count] for x in drawn)
        slots = np.minimum(times * self.reading.slots, self.reading.slots - 1).astype(int)
        days = []
        for row in range(count):
            inside = slice(0, int(counts[row]))
            slot, behaviour = (tuple(x[row, inside].tolist()) for x in (slots, events))
            days.append(Day(int(weekday[row]), slot, (1 - self.has_places,) * len(slot), behaviour))
        return days


def known(case: Case) -> "Known":
    """What is known of the day after a history: its weekday, and what was before, from the last gap on."""
    from bua_jax.training.generators.sand_days import Known, Past

    seen, weekday = case.history, case.weekday
    assert weekday is not None
    start = int(np.flatnonzero(seen.gap)[-1]) if seen.gap.any() else 0
    past = Past(seen.day[start:], seen.slot[start:], seen.behaviour[start:])
    return Known(weekday, np.zeros(0), np.zeros(0, int), past)


# --------------------------------------------------------------------------------- the row of the table


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    import jax

    from bua_jax.interop.huggingface import save_tree
    from bua_jax.models.sand import Sand
    from bua_jax.training.events import EncoderSettings, train
    from bua_jax.training.generators.gail import Adversaries, GailSettings, play
    from bua_jax.training.generators.sand import Days, Reading, rates_of

    page, store, seed = site.config.methods.sand, data.store, site.config.seed
    catalogue = store.catalogue
    levels = levels_of(catalogue.behaviours, page)
    network = Sand(levels, page.substeps)
    length = site.config.windows.generation_history
    reading = Reading(catalogue.slots_per_day, page.replay_days, length, longest_day(store))
    settings = EncoderSettings(
        epochs=page.epochs,
        batch=page.batch,
        peak_lr=page.peak_lr,
        weight_decay=0.0,
        patience=site.config.encoder.patience,
        validation=page.validation,
        seed=seed,
    )
    problem = Days(network, store, settings, reading, page.days)
    begun = network.init(jax.random.key(seed), rates_of(problem.days, network.classes))
    said = {"levels": list(levels), "reading": list(reading), "substeps": page.substeps}
    policy = train(
        problem,
        {"policy": begun},
        {"policy": 1.0},
        site.folder / "pretraining",
        said,
        profile=site.config.execution.profile,
    )["policy"]
    if page.gail:
        how = GailSettings(page.rounds, page.batch, page.steps, seed)
        identity = {**said, "gail": dataclasses.asdict(how), "data": store.fingerprint}
        adversaries = Adversaries(network, problem.known, reading, how)
        policy = play(adversaries, policy, site.folder / "gail", identity)
    sizes = {"levels": json.dumps(levels), "reading": json.dumps(reading)}
    save_tree(site.folder / FILE, policy, {**sizes, "catalogue": catalogue.to_json()})
    return {
        "training_windows": len(problem.known),
        "gail_rounds": page.rounds if page.gail else 0,
        "levels_version": page.levels_version,
        "behaviours_by_level": np.bincount(levels, minlength=3).tolist(),
        "longest_day": reading.most,
    }


def _load(site: Site) -> Simulated:
    from bua_jax.interop.huggingface import load_tree
    from bua_jax.models.sand import Sand
    from bua_jax.training.generators.sand import Reading

    had, facts = site.inputs[f"fit/{NAME}"].settings, site.inputs[f"fit/{NAME}"].result
    policy, said = load_tree(site.folder / FILE)
    network = Sand(tuple(json.loads(said["levels"])), had.methods.sand.substeps)
    reading = Reading(*json.loads(said["reading"]))
    places = Catalogue.from_json(said["catalogue"]).has_places
    return Simulated(network, policy, reading, had.methods.sand.steps, places, had.seed, facts)


METHOD = Method(
    NAME,
    About(
        "SAND",
        "Yuan et al. (2023), needs that flow and jump; behind each person's last days",
        ("weekday", "slot", "behaviour"),
        "events",
        writes=("slot", "behaviour"),
    ),
    load=_load,
    says=("generate",),
    fit=_fit,
    files=(FILE,),
    fit_reads=("encoder.patience", "windows.generation_history"),
    legal={
        "levels_version": Whole(1),
        **dict.fromkeys(("level0", "level1", "level2"), Read(_labels, tuple)),
        "default_level": Whole(0, 2),
        "replay_days": Whole(0, 366),
        "days": Whole(0),
        "validation": Whole(0),
        "epochs": Whole(1),
        "batch": Whole(1),
        "peak_lr": Real(0, 1, above=True),
        "substeps": Whole(1),
        "gail": Flag(),
        "rounds": Whole(0),
        "steps": OneOf(STEPS),
    },
)
