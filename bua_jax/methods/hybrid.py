"""TALLRec, CoLLM, LLaRA and A-LLMRec as methods: fitted and asked by the four switches of their pages.

Whatever is not on a page is as for BUA: the base, the adapter's shape, how stage 2 batches and is optimised,
the windows' lengths. The windows are those that all other methods are fitted on (`fit_train`).
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.legal import Legal, OneOf, Real, Whole, keys_of
from bua_jax.dialogue.hybrid import SOURCES, TARGETS, Known, Prompts, distribution
from bua_jax.dialogue.text import parse_label
from bua_jax.methods import neural, sasrec
from bua_jax.methods.behavegpt import FIELDS
from bua_jax.methods.protocol import (
    NO_NOTES,
    About,
    Cases,
    Data,
    Labelled,
    Method,
    Notes,
    Prediction,
    Site,
)

if TYPE_CHECKING:
    from bua_jax.alignment.hybrid import Switches
    from bua_jax.alignment.parts import Parts
    from bua_jax.decoding.dialogue import Decoder

TRAINED = "trained.safetensors"
_STAGE = (
    *("batch_dialogues", "row_length", "microbatches", "initial_lr", "final_lr", "warmup_share"),
    *("weight_decay", "clip_norm", "evaluations", "checkpoints"),
)
"""Of stage 2: how these are trained too."""


@dataclass(frozen=True)
class AskedHybrid:
    """A trained model that reads hybrid prompts."""

    decoder: "Decoder"
    prompts: Prompts
    target: str
    negatives: int  # candidates that it saw in training beside each true one
    facts: Mapping[str, Any]
    rows: int

    def predict(self, cases: Cases) -> Prediction:
        """Exact distributions over all labels; and where labels are written, what is written freely."""
        from bua_jax.alignment.hybrid import label_scores, yes_logits

        asked = self.decoder, self.prompts, cases.histories(), _summaries(cases)
        if TARGETS[self.target]:
            p = distribution(yes_logits(*asked), self.negatives)
            return Prediction(p.argmax(1).astype(np.int16), p)
        log_p, written = label_scores(*asked)
        catalogue = self.prompts.catalogue
        read = [-1 if cut else parse_label(text, catalogue) for text, cut in written]
        names = ["" if label < 0 else catalogue.behaviours[label] for label in read]
        texts = [{"free": said[0], "free_label": n} for said, n in zip(written, names, strict=True)]
        p = np.exp(log_p.astype(np.float64))
        p /= p.sum(1, keepdims=True)
        cuts = [int(cut) for _, cut in written]
        return Prediction(log_p.argmax(1).astype(np.int16), p, texts, cuts)


# ------------------------------------------------------------------------------------------ fitting


def _encoder_folder(site: Site, kind: str) -> Path:
    """Of the encoder that a source names: SASRec's own, or else the run's, which may be a SASRec."""
    own = site.inputs.get("fit/sasrec")
    if kind == "sasrec" and own is not None and (own.folder / neural.FILE).is_file():
        return own.folder
    return site.inputs["encoder"].folder


def _assembled(site: Site, page: Settings, had: Settings) -> "tuple[Parts, Switches]":
    """The model before training. had: with the parts `model` and `seed` as it is, or was, trained."""
    from bua_jax.alignment.hybrid import Switches, with_mapping
    from bua_jax.alignment.parts import assemble
    from bua_jax.parallel.sharding import own_mesh

    switches, how = Switches.of(page), site.config.execution
    own = {"soft_tokens": switches.soft_tokens, "recall": 0, "adapter": ""}
    model = ConfigDict({**had.model.to_dict(), **own})
    folder = _encoder_folder(site, SOURCES[switches.source].encoder)
    parts = assemble(model, how, folder, had.seed, own_mesh(how.mesh))
    return with_mapping(parts, switches, had.seed), switches


def _aligned(site: Site, data: Data, parts: "Parts") -> "Parts":
    """After A-LLMRec's first stage. The words of a label are the base's embeddings of it."""
    from bua_jax.alignment.encoder import encoder_settings
    from bua_jax.alignment.two_stage import aligned

    labels = neural.label_vectors(neural.base_of(site.config), parts.catalogue.behaviours)
    settings = dataclasses.replace(encoder_settings(site.config), dro_lambda=0.0)
    return aligned(parts, labels, data.store, settings, site.folder / "alignment")


def _named(given: Labelled, most: int) -> dict[str, Known]:
    """At most so many of the cases, the first; 0 = all."""
    some = given.cases[: most or None]
    known = map(Known, some.histories(), given.target.tolist(), _summaries(some))
    return dict(zip(some.sample_id, known, strict=True))


def _summaries(cases: Cases) -> list[str]:
    """What stands before each log: the notes' summary, or nothing."""
    notes = cases.notes or ({},) * len(cases)
    return [one.get("summary", "") for one in notes]


def _fit(site: Site, data: Data, page_name: str, sets: tuple[str, str]) -> Mapping[str, Any]:
    from bua_jax.alignment.hybrid import MAPPINGS, Learning, train
    from bua_jax.interop.huggingface import save_tree
    from bua_jax.parallel import sharding

    config, page = site.config, site.config.methods[page_name]
    parts, switches = _assembled(site, page, config)
    if MAPPINGS[switches.mapping].aligned:
        parts = _aligned(site, data, parts)
    prompts = Prompts(
        parts.tokenizer, parts.catalogue, SOURCES[switches.source], config.model.drill
    )
    cases = {
        "train": _named(data.draw(sets[0]), 0),
        "validation": _named(data.draw(sets[1]), config.windows.validation),
    }
    learning = Learning(config.stage2, page.epochs, page.peak_lr, page.negatives, config.seed)
    parts, measured = train(parts, prompts, switches, cases, learning, site.folder)
    kept = ["adapter"] + ["projector"] * (switches.source != "none")
    kept += ["encoder"] * MAPPINGS[switches.mapping].aligned
    trained = sharding.to_host({part: parts.variables[part] for part in kept})
    save_tree(site.folder / TRAINED, trained, parts.identity)
    said = {"switches": dataclasses.asdict(switches), "training_windows": len(cases["train"])}
    return {**said, **measured}


# ------------------------------------------------------------------------------------------- asking


def _load(site: Site, name: str, page_name: str, sets: tuple[str, str]) -> AskedHybrid:
    from bua_jax.alignment.hybrid import longest_label
    from bua_jax.alignment.parts import with_trained
    from bua_jax.decoding.dialogue import Decoder

    fitted, how = site.inputs[f"fit/{name}"], site.config.execution
    page = fitted.settings.methods[page_name]
    parts, switches = _assembled(site, page, fitted.settings)
    parts = with_trained(parts, site.folder / TRAINED)
    drill, source = fitted.settings.model.drill, SOURCES[switches.source]
    prompts = Prompts(parts.tokenizer, parts.catalogue, source, drill)
    decoder = Decoder(
        parts.model,
        parts.variables,
        parts.tokenizer,
        parts.catalogue,
        (),  # it writes no days
        how.decode_batch,
        longest_label(prompts),
        site.config.decoding.cache_dtype,
        site.config.decoding.weight_dtype,
        parts.mesh,
    )
    shown = ("training_windows", "switches", *(f"notes_refused_{name}" for name in sets))
    facts = {key: fitted.result[key] for key in shown if key in fitted.result}
    return AskedHybrid(
        decoder, prompts, switches.target, page.negatives, facts, 8 * how.decode_batch
    )


# ------------------------------------------------------------------------------ the rows of the table


def _needs(config: Settings, page: str) -> tuple[str, ...]:
    source = SOURCES.get(config.methods[page].source)  # keys come before `legal` refuses it
    items = source is not None and source.encoder == "sasrec"
    own = ("fit/sasrec", *sasrec.METHOD.needs(config)) if items else ()
    return own or ("encoder",)


def _check(config: Settings, name: str, page: str, sets: tuple[str, str]) -> None:
    from bua_jax.alignment.hybrid import Switches

    Switches.of(config.methods[page])
    if "cross" in sets:
        check_cross(config, name)


def check_cross(config: Settings, name: str) -> None:
    """Raises `ConfigError` where nobody is set apart for a method that reads what others wrote."""
    if not config.windows.cross:
        raise ConfigError(
            f"config.windows.cross=0 sets no training people apart, on whose windows {name} is fitted: give "
            "their number, for example --config.windows.cross=2000."
        )


_LEGAL: dict[str, Legal] = {
    "source": OneOf(SOURCES),
    "mapping": OneOf(keys_of("alignment.hybrid", "MAPPINGS")),
    "schedule": OneOf(keys_of("alignment.hybrid", "SCHEDULES")),
    "target": OneOf(TARGETS),
    "negatives": Whole(1),
    "epochs": Real(0, above=True),
    "peak_lr": Real(0, 1, above=True),
}
FIT_SETS = ("fit_train", "fit_validation")


def method(
    name: str,
    title: str,
    source: str,
    *,
    page: str = "",
    sets: tuple[str, str] = FIT_SETS,
    notes: Notes = NO_NOTES,
) -> Method:
    """A row that is a page of switches. source: paper and venue.

    page: that of another row, where this one differs in the sets that it is fitted and chosen on and in
    the notes before its logs alone.
    """
    own = page or name
    return Method(
        name,
        About(title, source, ("weekday", "slot", "place", "behaviour"), "dialogues"),
        load=functools.partial(_load, name=name, page_name=own, sets=sets),
        fit=functools.partial(_fit, page_name=own, sets=sets),
        fit_sets=sets,
        page=page,
        files=(TRAINED,),
        needs=functools.partial(_needs, page=own),
        check=functools.partial(_check, name=name, page=own, sets=sets),
        notes=notes,
        fit_reads=(*FIELDS, "model", "windows.validation", *(f"stage2.{n}" for n in _STAGE)),
        reads=("decoding.cache_dtype", "decoding.weight_dtype"),
        legal={} if page else _LEGAL,
    )
