"""BehaveGPT: the paper's behaviour encoder, as a predictor of its own."""

from bua_jax.methods import neural
from bua_jax.methods.protocol import About, Method

KIND = "behavegpt"
FIELDS = (
    "encoder",
    "windows.prediction_history",
    "windows.generation_history",
    "windows.min_history",
)
"""What training an encoder reads of the config."""

METHOD = Method(
    KIND,
    About(
        "BehaveGPT",
        "a causal transformer over events, pretrained on the training people",
        ("weekday", "slot", "place", "behaviour"),
        "events",
    ),
    load=lambda site: neural.load(site, KIND),
    fit=lambda site, data: neural.fit(site, data, KIND),
    files=(neural.FILE,),
    needs=lambda config: ("encoder",) if neural.is_the_runs(config, KIND) else (),
    fit_reads=FIELDS,
)
