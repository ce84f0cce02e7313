"""PITuning (Gong et al., 2024): a language model tuned to a population, then unlearnt where it overdid it.

Test people are nobody whom it may be tuned to: the stage that is each person's in the original corrects
the population's model on the training people once more.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Real, Whole
from bua_jax.events.groups import training_mask
from bua_jax.events.schema import Catalogue
from bua_jax.methods import neural
from bua_jax.methods.protocol import About, Counted, Data, Labelled, Method, Site

if TYPE_CHECKING:
    from bua_jax.models.pituning import PITuning

NAME, FILE = "pituning", "pituning.safetensors"


def overlearnt(
    predicted: np.ndarray, targets: np.ndarray, classes: int, above: float
) -> np.ndarray:
    """bool[C]: behaviours that are said `above` times as often as they come, both int[n]."""
    said = np.bincount(predicted, minlength=classes)
    return said > above * np.bincount(targets, minlength=classes)


def _begun(config: Settings, catalogue: Catalogue) -> tuple["PITuning", dict[str, Any]]:
    """The network on the first blocks of the run's base, and its variables before training."""
    import jax
    import jax.numpy as jnp

    from bua_jax.models.pituning import PITuning

    base, page = neural.base_of(config), config.methods.pituning
    count = min(page.layers or base.config.num_layers, base.config.num_layers)
    layers = jax.tree.map(lambda x: np.asarray(x[:count], np.float32), base.params["layers"])
    norm = jax.tree.map(lambda x: np.asarray(x, np.float32), base.params["norm"])
    blocks = dataclasses.replace(base.config, num_layers=count, dtype="float32")
    table = base.params["embed_tokens"]["embedding"]
    network = PITuning(
        len(catalogue.behaviours),
        catalogue.slots_per_day,
        blocks,
        page.hidden,
        scale=float(jnp.std(table, dtype=jnp.float32)) / 2,  # four of them are summed to a word's
    )
    labels = jnp.asarray(neural.label_vectors(base, catalogue.behaviours))
    return network, network.init({"layers": layers, "norm": norm}, labels, config.seed)


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    from bua_jax.training import events
    from bua_jax.training.pituning import Population, Tuning, Unlearning

    train = functools.partial(events.train, profile=site.config.execution.profile)
    page, store = site.config.methods.pituning, data.store
    network, variables = _begun(site.config, store.catalogue)
    settings, sizes = neural.settings_of(site.config, page), dataclasses.asdict(network)
    rates = {"encoder": 1.0, "base": page.block_lr / page.peak_lr}
    given = network, store, settings
    population = Population(*given, reconstruction=page.reconstruction, masked=page.masked)
    teacher = train(population, variables, rates, site.folder / "population", sizes)
    forgotten = _overlearnt(network, teacher, data.validation, page.overlearnt)
    once = network, store, dataclasses.replace(settings, epochs=1)
    unlearning = Unlearning(*once, forgotten, page.forget, page.forget_cap)
    student, said = {**teacher, "teacher": teacher}, {**sizes, "forgotten": forgotten}
    student = train(unlearning, student, rates, site.folder / "unlearning", said)
    trained = train(Tuning(*given), student, rates, site.folder / "tuning", said)
    neural.save(site.folder / FILE, network, trained)
    facts = {"blocks": network.blocks.num_layers, "forgotten_behaviours": sum(forgotten)}
    return {**facts, "training_windows": int(training_mask(store).sum())}


def _overlearnt(
    network: "PITuning", variables: Mapping[str, Any], held: Labelled, above: float
) -> tuple[bool, ...]:
    """What the population's model says too often of validation people."""
    predicted = neural.predictor_of(network, variables)(held.cases.arrays).argmax(1)
    return tuple(overlearnt(predicted, held.target, network.classes, above).tolist())


def _load(site: Site) -> Counted:
    from bua_jax.models.pituning import PITuning
    from bua_jax.models.qwen2_config import Qwen2Config

    def build(sizes: dict[str, Any]) -> PITuning:
        return PITuning(**{**sizes, "blocks": Qwen2Config(**sizes["blocks"])})

    return Counted(neural.saved(site.folder / FILE, build), site.inputs[f"fit/{NAME}"].result)


METHOD = Method(
    NAME,
    About(
        "PITuning",
        "Gong et al. (2024), on the first blocks of the base",
        ("weekday", "slot", "place", "behaviour"),
        "events",
    ),
    load=_load,
    fit=_fit,
    fit_sets=("fit_validation",),
    files=(FILE,),
    fit_reads=(*neural.TRAINING, "model"),
    legal={
        "layers": Whole(0),
        "hidden": Whole(1),
        "reconstruction": Real(0),
        "masked": Real(0, 1, below=True),
        "forget": Real(0),
        "forget_cap": Real(0, above=True),
        "overlearnt": Real(1),
        "peak_lr": Real(0, 1, above=True),
        "block_lr": Real(0, 1),
        "weight_decay": Real(0),
    },
)
