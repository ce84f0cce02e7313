"""SASRec (Kang & McAuley, 2018): self-attention over behaviours alone."""

from typing import Any

from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Whole
from bua_jax.methods import neural
from bua_jax.methods.behavegpt import FIELDS
from bua_jax.methods.protocol import About, Method

KIND = "sasrec"


def _sizes(config: Settings) -> dict[str, Any]:
    """In which it differs from the run's encoder."""
    return {"dim": config.methods.sasrec.dim}


METHOD = Method(
    KIND,
    About("SASRec", "Kang & McAuley (2018)", ("behaviour",), "events"),
    load=lambda site: neural.load(site, KIND),
    fit=lambda site, data: neural.fit(site, data, KIND, **_sizes(site.config)),
    files=(neural.FILE,),
    needs=lambda config: ("encoder",) if neural.is_the_runs(config, KIND, **_sizes(config)) else (),
    fit_reads=FIELDS,
    legal={
        "dim": Whole(1),
    },
)
