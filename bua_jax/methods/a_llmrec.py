"""A-LLMRec (Kim et al., 2024): SASRec's items are aligned with their words, then read by a frozen model."""

import dataclasses
from typing import TYPE_CHECKING

from bua_jax.methods import hybrid, neural
from bua_jax.methods.protocol import Data, Site

if TYPE_CHECKING:
    from bua_jax.alignment.parts import Parts


def aligned(site: Site, data: Data, parts: "Parts") -> "Parts":
    """`parts` whose encoder gives items in the space that the first stage made; goes on after a cut.

    parts: with a fresh `two_stage` mapping. The words of an item are its label's, by the base's embeddings:
    the original tunes a sentence encoder along.
    """
    import jax
    import jax.numpy as jnp

    from bua_jax.alignment.encoder import encoder_settings
    from bua_jax.models import two_stage
    from bua_jax.training.events import train
    from bua_jax.training.networks import Encoder
    from bua_jax.training.two_stage import Alignment

    joint = parts.model.encoder
    assert isinstance(joint, two_stage.Joint)
    sasrec, config = parts.variables["encoder"]["sasrec"], joint.config
    labels = neural.label_vectors(neural.base_of(site.config), parts.catalogue.behaviours)
    key = jax.random.key(site.config.seed)
    fresh = two_stage.init(key, config.dim, labels.shape[1])
    variables = {"encoder": sasrec, "projector": fresh, "base": {"labels": jnp.asarray(labels)}}
    settings = dataclasses.replace(encoder_settings(site.config), dro_lambda=0.0)
    problem = Alignment(Encoder(config), data.store, settings)
    said = {**dataclasses.asdict(config), "encoder": parts.identity["encoder"]}
    best = train(problem, variables, {"projector": 1.0}, site.folder / "alignment", said)
    encoder = {"sasrec": sasrec, "joint": best["projector"]["item"]["encode"]}
    return dataclasses.replace(parts, variables={**parts.variables, "encoder": encoder})


METHOD = hybrid.method(
    "a_llmrec", "A-LLMRec", "Kim et al. (2024), KDD: items aligned with words, the base as it comes"
)
