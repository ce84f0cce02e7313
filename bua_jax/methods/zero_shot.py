"""The base as it comes: no trained adapter, the history in words. Asked for a label, or for the rounds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.dialogue.tasks import zero_shot_instruction
from bua_jax.methods.protocol import About, Cases, Description, Kind, Method, Prediction, Site

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

    def describe(self, cases: Cases) -> Description:
        said = self.bua.understand(cases.histories())
        return Description([one.texts for one in said], [one.truncated for one in said])


def _load(site: Site) -> ZeroShot:
    from bua_jax.alignment.ask import Bua
    from bua_jax.alignment.parts import assemble
    from bua_jax.parallel.sharding import own_mesh

    config, how = site.config, site.config.execution
    model = ConfigDict({**config.model.to_dict(), "soft_tokens": "text", "adapter": ""})
    mesh = own_mesh(how.mesh)
    parts = assemble(model, how, site.inputs["encoder"].folder, config.seed, mesh)
    shares = np.zeros(len(parts.catalogue.behaviours))  # only the refine round's critic reads them
    batch = how.decode_batch
    bua = Bua(parts, config.decoding, shares, with_rounds=False, seed=config.seed, batch=batch)
    return ZeroShot(bua, 8 * batch)


_SEES = ("weekday", "slot", "place", "behaviour")


def _method(name: str, title: str, about: str, says: tuple[Kind, ...]) -> Method:
    return Method(
        name,
        About(title, about, _SEES, "nothing"),
        load=_load,
        says=says,
        needs=lambda config: ("encoder",),
        reads=("model", "decoding.max_new_tokens", "decoding.cache_dtype"),
    )


METHOD = _method("zero_shot", "Zero-shot", "the base as it comes, history in words", ("predict",))
BASE = _method(
    "base", "Untuned base", "likewise, asked for the understanding rounds", ("describe",)
)
