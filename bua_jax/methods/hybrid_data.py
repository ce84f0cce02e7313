"""SASRec on real windows and generated days (Figure 2, Appendix H): what synthetic behaviour is worth.

A generator writes the next days of training people (the set `days_hybrid`); the last events of each day
are a sequence beside the real ones. What it is chosen on and asked about is real. All generators, and
real windows drawn again in their place, give as many sequences as there are days in that set.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.basics.legal import Flag, OneOf, Real, Whole
from bua_jax.evaluation import results
from bua_jax.events.windows import Day
from bua_jax.methods import neural
from bua_jax.methods.protocol import (
    About,
    Counted,
    Data,
    Histories,
    Labelled,
    Method,
    Site,
)

if TYPE_CHECKING:
    from bua_jax.models.encoders import EncoderConfig

NAME, FILE, SET = "hybrid_data", "encoder.safetensors", "days_hybrid"
NONE, BOOTSTRAP = "none", "bootstrap"
"""What may stand beside real windows but a generator's days: nothing, or real ones drawn again."""

# ----------------------------------------------------------------------------------- sequences


def latest(histories: Histories, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32[n, length] behaviours of the last events, left-aligned; int32[n] how many there are)."""
    count = np.minimum(histories.n_events, length)
    at = np.maximum(histories.n_events - length, 0)[:, None] + np.arange(length)
    inside = np.arange(length) < count[:, None]
    at = np.where(inside, at, 0)
    found = np.take_along_axis(histories.fields[:, :, 3], at, axis=1)
    return np.where(inside, found, 0).astype(np.int32), count.astype(np.int32)


def real_sequences(given: Labelled, length: int) -> np.ndarray:
    """int32[n, length + 1]: histories and what came next, of those that are long enough."""
    behaviours, count = latest(given.cases.arrays, length)
    whole = np.concatenate([behaviours, given.target[:, None].astype(np.int32)], axis=1)
    return whole[count == length]


def day_sequences(days: Sequence[Day], length: int) -> np.ndarray:
    """int32[n, length + 1]: the last behaviours of the days that have as many."""
    kept = [day.behaviour[-length - 1 :] for day in days if len(day) > length]
    return np.asarray(kept, np.int32).reshape(-1, length + 1)


def as_many(sequences: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the sequences: all, and then some again, drawn by `seed`."""
    again = np.random.default_rng(seed).integers(0, len(sequences), count - len(sequences))
    return np.concatenate([sequences, sequences[again]])


def _added(site: Site, real: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """What stands beside the real sequences, and facts about it.

    Raises `DataError` where no generated day is long enough.
    """
    page, seed = site.config.methods[NAME], site.config.seed
    if page.added == NONE:
        return real[:0], {}
    count = site.inputs[f"windows/{SET}"].result["windows"]
    if page.added == BOOTSTRAP:
        rows = np.random.default_rng(seed).integers(0, len(real), count)
        return real[rows], {"added_windows": count}
    said = results.read(site.inputs[_days_step(page.added)].folder / results.FILE)
    found = day_sequences(said.days, page.length)
    facts = {"added_windows": count, "days": count, "days_too_short": count - len(found)}
    if not len(found):
        raise DataError(
            f"None of the {count} days of {page.added} has more than {page.length} events: lower "
            f"--config.methods.{NAME}.length, or raise --config.windows.{SET}."
        )
    return as_many(found, count, seed), facts


# ------------------------------------------------------------------------------------- the method


def _network(config: Settings, data: Data) -> "EncoderConfig":
    from bua_jax.models.encoders import EncoderConfig

    page, catalogue = config.methods[NAME], data.store.catalogue
    return EncoderConfig(
        "sasrec",
        len(catalogue.behaviours),
        catalogue.slots_per_day,
        dim=page.dim,
        num_layers=page.layers,
        num_heads=page.heads,
        dropout=page.dropout,
        max_events=page.length,
    )


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    from bua_jax.training.events import EncoderSettings, fresh, train
    from bua_jax.training.networks import Encoder
    from bua_jax.training.systems.sequences import Sequences, fields_of

    page, network = site.config.methods[NAME], Encoder(_network(site.config, data))
    real = real_sequences(data.train, page.length)
    if not len(real):
        raise DataError(
            f"No training window has {page.length} events before its target: lower "
            f"--config.methods.{NAME}.length, or raise --config.windows.prediction_history."
        )
    added, facts = _added(site, real)
    sequences = np.concatenate([real if page.real else real[:0], added])
    behaviours, count = latest(data.validation.cases.arrays, page.length)
    held = {"fields": fields_of(behaviours), "n_events": count}
    settings = EncoderSettings(
        history_length=page.length,
        epochs=page.epochs,
        batch=page.batch,
        peak_lr=page.peak_lr,
        weight_decay=0.0,
        patience=page.patience,
        seed=site.config.seed,
    )
    held |= {"target_behaviour": data.validation.target}
    problem = Sequences(network, data.store, settings, sequences, held, page.l2_emb)
    variables = {"encoder": fresh(network.config, settings)}
    digest = hashlib.sha256(sequences.tobytes()).hexdigest()[:16]
    said = {"network": network.config.to_json(), "sequences": digest, "l2_emb": page.l2_emb}
    profile = site.config.execution.profile
    best = train(problem, variables, {"encoder": 1.0}, site.folder, said, profile=profile)
    neural.save(site.folder / FILE, network, best)
    real_count = len(real) if page.real else 0
    told = {"real_windows": real_count, "real_too_short": len(data.train.target) - len(real)}
    return {**told, **facts, "training_windows": len(sequences)}


@dataclass(frozen=True)
class _Latest:
    """A network that reads the last `length` events of a history."""

    network: neural.Predicted
    length: int

    def __call__(self, histories: Histories) -> np.ndarray:
        from bua_jax.training.systems.sequences import fields_of

        behaviours, count = latest(histories, self.length)
        rest = np.zeros_like(behaviours)
        return self.network(Histories(fields_of(behaviours), rest, rest, count))


def _load(site: Site) -> Counted:
    from bua_jax.models.encoders import EncoderConfig
    from bua_jax.training.networks import Encoder

    fitted = site.inputs[f"fit/{NAME}"]
    network = neural.saved(
        site.folder / FILE, lambda sizes: Encoder(EncoderConfig(**sizes["config"]))
    )
    return Counted(_Latest(network, fitted.settings.methods[NAME].length), fitted.result)


def _days_step(generator: str) -> str:
    return f"generate/{generator}/{SET}"


def _needs(config: Settings, generators: Sequence[str]) -> tuple[str, ...]:
    added = config.methods[NAME].added
    if added == NONE:
        return ()
    days = (
        (_days_step(added),) if added in generators else ()
    )  # keys come before `legal` refuses it
    return (f"windows/{SET}", *days)


def _check(config: Settings) -> None:
    page, windows = config.methods[NAME], config.windows
    where = f"config.methods.{NAME}"
    if page.added == NONE and not page.real:
        raise ConfigError(
            f"{where}.added='none' and {where}.real=False leave nothing to learn from; set one of them back."
        )
    if page.dim % page.heads:
        raise ConfigError(
            f"{where}.heads={page.heads} does not divide {where}.dim={page.dim}; change one of them."
        )
    if page.length > windows.prediction_history:
        raise ConfigError(
            f"{where}.length={page.length} is more than config.windows.prediction_history="
            f"{windows.prediction_history}, the events of a history; lower it or raise the other."
        )
    if page.added == "bua" and not config.dialogues.generation_share:
        raise ConfigError(
            f"{where}.added='bua' asks for days, which config.dialogues.generation_share=0 does not teach; "
            "set one of them back."
        )


def method(generators: Sequence[str]) -> Method:
    """The row; generators: the methods whose days may be added."""
    return Method(
        NAME,
        About(
            "SASRec on hybrid data",
            "Kang & McAuley (2018), on real windows and generated days",
            ("behaviour",),
            "windows",
        ),
        load=_load,
        fit=_fit,
        fit_sets=("fit_train", "fit_validation"),
        files=(FILE,),
        needs=functools.partial(_needs, generators=tuple(generators)),
        check=_check,
        legal={
            "real": Flag(),
            "added": OneOf((NONE, BOOTSTRAP, *generators)),
            "length": Whole(1),
            "dim": Whole(1),
            "layers": Whole(1),
            "heads": Whole(1),
            "dropout": Real(0, 1, below=True),
            "batch": Whole(1),
            "peak_lr": Real(0, 1),
            "l2_emb": Real(0),
            "epochs": Whole(1),
            "patience": Whole(0),
        },
    )
