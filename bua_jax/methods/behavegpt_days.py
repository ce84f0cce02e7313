"""BehaveGPT as a generator of Table 2: rollouts of the encoder that BUA reads, behaviour by behaviour.

As published it has a head for behaviours alone, so `behavegpt_days` takes clock and places of the last day,
and is scored on behaviours; `behavegpt_timed_days` has heads for time and place too, and ends its days.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Real, Whole
from bua_jax.events.groups import training_mask
from bua_jax.events.schema import NUM_PLACES, EventStore
from bua_jax.events.windows import Day, by_appearance
from bua_jax.methods import behavegpt, neural
from bua_jax.methods.protocol import About, Cases, Data, Generation, Histories, Method, Site

if TYPE_CHECKING:
    import jax

    from bua_jax.decoding.rollouts import Seen
    from bua_jax.models.rollouts import Rollouts

ROWS = 16  # days drawn together; the last ones are filled up, so that a batch changes nothing
TIMED, FILE = "behavegpt_timed_days", "heads.safetensors"
_SEES = ("weekday", "slot", "place", "behaviour")
_EVENTS = 16  # a day's events are drawn in multiples of so many, or each length would be compiled
_LONGEST = 99.9  # percentile of training people's days, in events: none is drawn longer


def keys_of(seed: int, names: tuple[str, ...]) -> "jax.Array":
    """A random key of each case, by its name alone."""
    import jax
    import jax.numpy as jnp

    ids = jnp.asarray([crc32(name.encode()) for name in names], jnp.uint32)
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(ids)


def longest_day(store: EventStore) -> int:
    """Events of the longest day of training people but for one in a thousand; at least 1."""
    events = np.flatnonzero(training_mask(store))
    pairs = np.stack([store.user_of(events), store.day[events]])
    counts = np.unique(pairs, axis=1, return_counts=True)[1]
    return max(1, int(np.ceil(np.percentile(counts, _LONGEST)))) if len(counts) else 1


def shortened(cases: Cases, length: int) -> Cases:
    """The last `length` events of every history, their places in the order of first appearance there."""
    seen = cases.arrays
    cut = np.maximum(0, seen.n_events - length)
    at = np.minimum(cut[:, None] + np.arange(length), seen.fields.shape[1] - 1)
    rank, day, gap = (
        np.take_along_axis(x, at, axis=1) for x in (seen.place_rank, seen.day, cases.gap)
    )
    fields, n_events = np.take_along_axis(seen.fields, at[..., None], axis=1), seen.n_events - cut
    inside = np.arange(length) < n_events[:, None]
    fields[:, :, 2] = by_appearance(np.where(inside, fields[:, :, 2], 0))
    return dataclasses.replace(cases, arrays=Histories(fields, rank, day, n_events), gap=gap)


def _rank_of(cases: Cases) -> np.ndarray:
    """int32[n, 11]: the rank by visits of each place by order of first appearance; 0 = other."""
    seen = cases.arrays
    found = np.zeros((len(cases), NUM_PLACES + 1), np.int32)
    inside = np.arange(seen.fields.shape[1]) < seen.n_events[:, None]
    row, event = np.nonzero(inside & (seen.fields[:, :, 2] > 0))
    found[row, seen.fields[row, event, 2]] = seen.place_rank[row, event]
    return found


def _last_days(cases: Cases) -> tuple[np.ndarray, ...]:
    """(slots, places by first appearance int32[n, E], events of each int[n]) of the last days."""
    seen = cases.arrays
    inside = np.arange(seen.fields.shape[1]) < seen.n_events[:, None]
    last = inside & (seen.day == 0)
    counts = last.sum(1)
    width = -(-int(counts.max()) // _EVENTS) * _EVENTS
    slots, places = np.zeros((2, len(cases), width), np.int32)
    row, event = np.nonzero(last)
    at = event - (seen.n_events - counts)[row]
    slots[row, at], places[row, at] = seen.fields[row, event, 1], seen.fields[row, event, 2]
    return slots, places, counts


@dataclass(frozen=True)
class Rolled:
    """A pretrained encoder, with heads or without, that draws days; from histories of `length` events."""

    network: "Rollouts"
    variables: Mapping[str, Any]
    facts: Mapping[str, Any]
    seed: int
    length: int  # of histories: the encoder knows no position beyond it
    most: int = 0  # events of a day with times of its own; 0: it has the last day's
    rows: int = ROWS

    def generate(self, cases: Cases) -> Generation:
        parts = [self._batch(cases[i : i + ROWS]) for i in range(0, len(cases), ROWS)]
        return Generation([day for part in parts for day in part])

    def _batch(self, cases: Cases) -> list[Day]:
        count = len(cases)
        full = shortened(cases.take(np.arange(ROWS) % count), self.length)
        slots, behaviours, places, counts = (self._timed if self.most else self._clocked)(full)
        ranks = np.take_along_axis(_rank_of(full), places, axis=1)
        days = []
        for row in range(count):
            found = (x[row, : counts[row]] for x in (slots, ranks, behaviours))
            days.append(Day(int(full.weekday[row]), *(tuple(x.tolist()) for x in found)))
        return days

    def _seen(self, cases: Cases) -> "tuple[Seen, np.ndarray, jax.Array]":
        """Histories, weekdays and keys."""
        import jax.numpy as jnp

        from bua_jax.decoding.rollouts import Seen

        seen, keys = cases.arrays, keys_of(self.seed, cases.sample_id)
        histories = Seen(jnp.asarray(seen.fields), jnp.asarray(seen.n_events))
        return histories, cases.weekday.astype(np.int32), keys

    def _clocked(self, cases: Cases) -> tuple[np.ndarray, ...]:
        """(slots, behaviours, places, events of each day), the clock and places of the last day."""
        from bua_jax.decoding.rollouts import draw_behaviours

        slots, places, counts = _last_days(cases)
        seen, weekday, keys = self._seen(cases)
        drawn = draw_behaviours(self.network, self.variables, seen, weekday, slots, places, keys)
        return slots, np.asarray(drawn), places, counts

    def _timed(self, cases: Cases) -> tuple[np.ndarray, ...]:
        """The same, all of it drawn."""
        from bua_jax.decoding.rollouts import draw_days

        seen, weekday, keys = self._seen(cases)
        events, inside = draw_days(
            self.network, self.variables, seen, weekday, keys, most=self.most
        )
        slots, places, behaviours = np.moveaxis(np.asarray(events), -1, 0)
        return slots, behaviours, places, np.asarray(inside).sum(1)


# -------------------------------------------------------------------------------- rows of the table


def _needs(config: Settings) -> tuple[str, ...]:
    return (f"fit/{behavegpt.KIND}", *behavegpt.METHOD.needs(config))


def _encoder_folder(site: Site) -> Path:
    return site.inputs.get("encoder", site.inputs[f"fit/{behavegpt.KIND}"]).folder


def _length(site: Site) -> int:
    windows = site.inputs[f"fit/{behavegpt.KIND}"].settings.windows
    return int(windows.prediction_history)


def _load(site: Site) -> Rolled:
    from bua_jax.alignment.encoder import load_encoder
    from bua_jax.models.rollouts import Rollouts

    config, params, _ = load_encoder(_encoder_folder(site))
    facts = site.inputs[f"fit/{behavegpt.KIND}"].result
    return Rolled(Rollouts(config), {"encoder": params}, facts, site.config.seed, _length(site))


def _fit_timed(site: Site, data: Data) -> Mapping[str, Any]:
    from bua_jax.alignment.encoder import load_encoder
    from bua_jax.interop.huggingface import save_tree
    from bua_jax.models.rollouts import Rollouts
    from bua_jax.training.events import train
    from bua_jax.training.generators.rollouts import Heads

    page = site.config.methods[TIMED]
    config, params, said = load_encoder(_encoder_folder(site))
    network = Rollouts(config, page.hidden)
    problem = Heads(network, data.store, neural.settings_of(site.config, page))
    variables = {"encoder": params, "heads": network.init(site.config.seed)}
    identity = {"encoder": said["hash"], "hidden": page.hidden}
    profile = site.config.execution.profile
    best = train(problem, variables, {"heads": 1.0}, site.folder, identity, profile=profile)
    save_tree(site.folder / FILE, best["heads"], {"hidden": str(page.hidden)})
    return {
        "training_windows": int(training_mask(data.store).sum()),
        "longest_day": longest_day(data.store),
    }


def _load_timed(site: Site) -> Rolled:
    from bua_jax.alignment.encoder import load_encoder
    from bua_jax.interop.huggingface import load_tree
    from bua_jax.models.rollouts import Rollouts

    config, params, _ = load_encoder(_encoder_folder(site))
    heads, said = load_tree(site.folder / FILE)
    facts, seed = site.inputs[f"fit/{TIMED}"].result, site.inputs[f"fit/{TIMED}"].settings.seed
    network = Rollouts(config, int(said["hidden"]))
    variables = {"encoder": params, "heads": heads}
    return Rolled(network, variables, facts, seed, _length(site), facts["longest_day"])


METHODS = (
    Method(
        "behavegpt_days",
        About(
            "BehaveGPT, rollouts",
            "behaviours drawn one after another, at the last day's times and places",
            _SEES,
            "events",
            writes=("behaviour",),
        ),
        load=_load,
        says=("generate",),
        needs=_needs,
    ),
    Method(
        TIMED,
        About(
            "BehaveGPT, rollouts with heads",
            "behaviours, times and places drawn one after another",
            _SEES,
            "events",
        ),
        load=_load_timed,
        says=("generate",),
        fit=_fit_timed,
        files=(FILE,),
        needs=_needs,
        fit_reads=(*neural.TRAINING, "encoder.kind"),
        legal={
            "hidden": Whole(1),
            "peak_lr": Real(0, 1, above=True),
            "weight_decay": Real(0),
        },
    ),
)
