"""The base as it comes, asked for a label: no trained adapter, the history in words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.dialogue.tasks import zero_shot_instruction
from bua_jax.methods.protocol import About, Cases, Method, Prediction, Site

if TYPE_CHECKING:
    from bua_jax.alignment.ask import Bua


@dataclass(frozen=True)
class ZeroShot:
    """A base that is asked about histories in words."""

    bua: "Bua"
    rows: int

    @property
    def facts(self) -> dict[str, Any]:
        return {"training_windows": 0}

    def predict(self, cases: Cases) -> Prediction:
        final = [zero_shot_instruction(self.bua.catalogue)] * len(cases)
        log_p, _ = self.bua.probabilities(cases.histories(), final)
        return Prediction(log_p.argmax(1).astype(np.int16), np.exp(log_p.astype(np.float64)))


def untuned(site: Site) -> "Bua":
    """The base as it comes, which reads histories in words and was taught no rounds."""
    from bua_jax.alignment.ask import Bua
    from bua_jax.alignment.parts import assemble
    from bua_jax.parallel.sharding import own_mesh

    config, how = site.config, site.config.execution
    model = ConfigDict({**config.model.to_dict(), "soft_tokens": "text", "adapter": ""})
    mesh = own_mesh(how.mesh)
    parts = assemble(model, how, site.inputs["encoder"].folder, config.seed, mesh)
    shares = np.zeros(len(parts.catalogue.behaviours))  # only the refine round's critic reads them
    batch = how.decode_batch
    return Bua(parts, config.decoding, shares, with_rounds=False, seed=config.seed, batch=batch)


def _load(site: Site) -> ZeroShot:
    return ZeroShot(untuned(site), 8 * site.config.execution.decode_batch)


READS = ("model", *(f"decoding.{x}" for x in ("max_new_tokens", "cache_dtype", "weight_dtype")))
"""What asking the base as it comes reads of the config."""


METHOD = Method(
    "zero_shot",
    About(
        "Zero-shot",
        "the base as it comes, history in words",
        ("weekday", "slot", "place", "behaviour"),
        "nothing",
    ),
    load=_load,
    needs=lambda config: ("encoder",),
    reads=READS,
)
