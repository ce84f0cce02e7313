"""SASRec (Kang & McAuley, 2018): self-attention over behaviours alone."""

from bua_jax.basics.legal import Whole
from bua_jax.methods import neural
from bua_jax.methods.behavegpt import FIELDS
from bua_jax.methods.protocol import About, Method

KIND = "sasrec"

METHOD = Method(
    KIND,
    About("SASRec", "Kang & McAuley (2018)", ("behaviour",), "events"),
    load=lambda site: neural.load(site, KIND),
    fit=lambda site, data: neural.fit(site, data, KIND, dim=site.config.methods.sasrec.dim),
    files=(neural.FILE,),
    needs=lambda config: ("encoder",) if neural.is_the_runs(config, KIND) else (),
    fit_reads=FIELDS,
    legal={
        "dim": Whole(1),
    },
)
