"""AlphaFuse (Hu et al., 2025): ids are learned in the directions that language leaves empty."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bua_jax.basics.legal import Real, Whole
from bua_jax.events.groups import training_mask
from bua_jax.methods import neural
from bua_jax.methods.protocol import About, Counted, Data, Method, Site

NAME, FILE = "alphafuse", "alphafuse.safetensors"
_SMALLEST = 1e-6
"""Of the largest variance: below it a direction is of rounding, which whitening would blow up."""


def language_part(vectors: np.ndarray, share: float, most: int) -> np.ndarray:
    """float32[C, d]: label vectors float[C, H], centred, in their d first principal directions, whitened.

    d: as few as hold `share` of the variance, and not more than `most`. C centred vectors span C - 1
    directions at most. With U S V' their singular value decomposition, the covariance is
    V S^2 V' / (C - 1), so that what is whitened of them is sqrt(C - 1) U.
    """
    wide = vectors.astype(np.float64)
    left, sizes, _ = np.linalg.svd(wide - wide.mean(0), full_matrices=False)
    variance = sizes**2
    there = int(np.sum(variance > _SMALLEST * np.max(variance)))
    enough = 1 + int(np.searchsorted(np.cumsum(variance), share * variance.sum()))
    kept = left[:, : min(there, enough, most)]
    return (np.sqrt(max(1, len(vectors) - 1)) * kept).astype(np.float32)


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    from bua_jax.models.alphafuse import AlphaFuse
    from bua_jax.training.events import Events, train

    page, labels = site.config.methods.alphafuse, data.store.catalogue.behaviours
    vectors = neural.label_vectors(neural.base_of(site.config), labels)
    language = language_part(vectors, page.variance_share, page.language_dims)
    network = AlphaFuse(
        classes=len(labels),
        language_dims=language.shape[1],
        id_dims=page.id_dims,
        max_events=site.config.windows.prediction_history,
        dropout=page.dropout,
        temperature=page.temperature,
    )
    settings = neural.settings_of(site.config, page)
    variables, sizes = network.init(language, settings.seed), dataclasses.asdict(network)
    problem = Events(network, data.store, settings)
    profile = site.config.execution.profile
    best = train(problem, variables, {"encoder": 1.0}, site.folder, sizes, profile=profile)
    trained = {**variables, **best}
    neural.save(site.folder / FILE, network, trained)
    said = {"language_dims": language.shape[1], "id_dims": page.id_dims}
    return {**said, "training_windows": int(training_mask(data.store).sum())}


def _load(site: Site) -> Counted:
    from bua_jax.models.alphafuse import AlphaFuse

    predicted = neural.saved(site.folder / FILE, lambda sizes: AlphaFuse(**sizes))
    return Counted(predicted, site.inputs[f"fit/{NAME}"].result)


METHOD = Method(
    NAME,
    About(
        "AlphaFuse",
        "Hu et al. (2025), label vectors of the base's embeddings",
        ("behaviour",),
        "events",
    ),
    load=_load,
    fit=_fit,
    files=(FILE,),
    fit_reads=(*neural.TRAINING, "model"),
    legal={
        "language_dims": Whole(1),
        "variance_share": Real(0, 1, above=True),
        "id_dims": Whole(1),
        "temperature": Real(0, above=True),
        "dropout": Real(0, 1, below=True),
        "peak_lr": Real(0, 1),
        "weight_decay": Real(0),
    },
)
