"""The mapping `two_stage`: SASRec's items, aligned with words before they become soft tokens."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.alignment.parts import Parts
from bua_jax.events.schema import EventStore
from bua_jax.models import two_stage
from bua_jax.training.events import EncoderSettings, train
from bua_jax.training.networks import Encoder
from bua_jax.training.two_stage import Alignment


def aligned(
    parts: Parts, labels: np.ndarray, store: EventStore, settings: EncoderSettings, folder: Path
) -> Parts:
    """`parts` whose encoder gives items in the space that the first stage makes; goes on after a cut.

    parts: with a fresh mapping of that kind (`alignment.hybrid.with_mapping`); labels: float[C, E], of words.
    """
    joint = parts.model.encoder
    assert isinstance(joint, two_stage.Joint)
    sasrec, config = parts.variables["encoder"]["sasrec"], joint.config
    fresh = two_stage.init(jax.random.key(settings.seed), config.dim, labels.shape[1])
    variables = {"encoder": sasrec, "projector": fresh, "base": {"labels": jnp.asarray(labels)}}
    problem = Alignment(Encoder(config), store, settings)
    said = {**dataclasses.asdict(config), "encoder": parts.identity["encoder"]}
    best = train(problem, variables, {"projector": 1.0}, folder, said)
    encoder = {"sasrec": sasrec, "joint": best["projector"]["item"]["encode"]}
    return dataclasses.replace(parts, variables={**parts.variables, "encoder": encoder})
