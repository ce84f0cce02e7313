"""All balancers by name, with the settings that a config may give them; and files of one's own.

A config says `NAME` or `NAME:SETTING=VALUE,...`, for example `cagrad:c=1`; NAME may be a Python file.
Adding one is a function in this folder and a line below.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bua_jax.basics.config import module_of
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.files import sha256_file
from bua_jax.basics.legal import Legal, Real, Whole
from bua_jax.training import weighting
from bua_jax.training.balancers import gram, host, losses, norms
from bua_jax.training.weighting import Balancer


class Entry(NamedTuple):
    """A balancer of the table."""

    build: Callable[..., Balancer]  # its settings by name, each with a default
    legal: Mapping[str, Legal] = {}  # of each setting
    traced: bool = False  # a part of the compiled step; else numpy on the host


_RATE, _DECAY, _ABOVE = Real(0, 1), Real(0, 1, below=True), Real(0, above=True)

BALANCERS: dict[str, Entry] = {
    "equal": Entry(weighting.equal, traced=True),
    "appendix_k": Entry(
        weighting.appendix_k, {"alpha": Real(), "decay": _RATE, "floor": _RATE}, traced=True
    ),
    # -- from losses
    "uncertainty": Entry(losses.uncertainty, {"rate": _RATE}),
    "imtl_l": Entry(losses.imtl_l, {"rate": _RATE}),
    "log_loss": Entry(losses.log_loss),
    "gls": Entry(losses.gls),
    "rlw": Entry(losses.rlw),
    "dwa": Entry(losses.dwa, {"temperature": _ABOVE, "window": Whole(1)}),
    "stch": Entry(losses.stch, {"mu": _ABOVE}),
    "famo": Entry(losses.famo, {"rate": _RATE, "decay": _RATE}),
    "coba": Entry(losses.coba, {"window": Whole(2, 1000), "warmup": Whole(1), "tau": Real(0)}),
    # -- from gradients' norms
    "gradnorm": Entry(norms.gradnorm, {"alpha": Real(0), "rate": _RATE}),
    "norm_ema": Entry(norms.norm_ema, {"decay": _DECAY}),
    "encodec": Entry(norms.encodec, {"norm": _ABOVE, "decay": _DECAY}),
    # -- from gradients' products
    "pcgrad": Entry(lambda: losses.stateless(lambda _, g, rng: gram.pcgrad(g, rng), gram=True)),
    "gradvac": Entry(gram.gradvac, {"rate": _RATE}),
    "mgda": Entry(lambda: gram.of_gram(gram.mgda)),
    "cagrad": Entry(lambda c=0.5: gram.of_gram(lambda g: gram.cagrad(g, c)), {"c": Real(0)}),
    "nash": Entry(lambda: gram.of_gram(lambda g: gram.fairgrad(g, 1.0))),
    "fairgrad": Entry(
        lambda gamma=2.0: gram.of_gram(lambda g: gram.fairgrad(g, gamma)),
        {"gamma": Real(0.1, 100)},
    ),
    "imtl_g": Entry(lambda: gram.of_gram(gram.imtl_g, signed=True)),
    "aligned_mtl": Entry(lambda: gram.of_gram(gram.aligned_mtl, signed=True)),
    "dualproj": Entry(lambda: gram.of_gram(gram.dualproj)),
    "upgrad": Entry(lambda: gram.of_gram(gram.upgrad)),
    "conflict_free": Entry(lambda: gram.of_gram(gram.conflict_free, signed=True)),
}


def parse(text: str) -> tuple[str, Entry, dict[str, float]]:
    """(name, entry, settings) of `NAME:SETTING=VALUE,...`. Raises `ConfigError` for what is not legal.

    A NAME that ends in .py is a file with `balancer(**settings) -> Balancer`, in numpy.
    """
    name, _, given = text.partition(":")
    if not name.endswith(".py") and name not in BALANCERS:
        raise ConfigError(f"{name!r} is none of {', '.join(BALANCERS)}, nor a Python file")
    entry = _own(name) if name.endswith(".py") else BALANCERS[name]
    known = inspect.signature(entry.build).parameters
    settings: dict[str, float] = {}
    for item in filter(None, given.split(",")):
        key, _, value = item.partition("=")
        if key not in known:
            raise ConfigError(
                f"{name} has no setting {key!r}; there are: {', '.join(known) or 'none'}"
            )
        settings[key] = _number(f"{name}: {key}", value)
        if key in entry.legal and (wrong := entry.legal[key].wrong(settings[key])):
            raise ConfigError(f"{name}: {key}={value}{wrong}")
    return name, entry, settings


def _number(name: str, text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is no number") from error


def _own(path: str) -> Entry:
    """The balancer of a user's file."""
    if not Path(path).is_file():
        raise ConfigError(
            f"there is no file {path}; it should have a function balancer() -> Balancer"
        )
    build = getattr(module_of(path), "balancer", None)
    if not callable(build):
        raise ConfigError(
            f"{path} has no function balancer() -> bua_jax.training.weighting.Balancer"
        )
    return Entry(build)


def identity(text: str) -> dict[str, str]:
    """What else than the text makes a balancer, for the identity of a run: the hash of its file."""
    name, _, _ = parse(text)
    return {"balancer_hash": sha256_file(name)} if name.endswith(".py") else {}


def balancer(text: str) -> Balancer:
    """The method that a text names, as a part of a compiled step."""
    name, entry, settings = parse(text)
    method = entry.build(**settings)
    return method if entry.traced else host.on_device(method, name)


def check(text: str) -> None:
    """Raises `ConfigError` for a text that names no balancer, or one that cannot weigh three units."""
    name, entry, settings = parse(text)
    if not name.endswith(".py"):
        return
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((3, 5))
    try:
        method = entry.build(**settings)
        products = gradients @ gradients.T if method.gram else None
        host.asked(method, np.array([1.0, 2.0, 0.5]), products, method.init(3), rng)
    except Exception as error:  # whatever a user's code raises
        said = str(error) if type(error) is ValueError else f"raised {error!r}"
        raise ConfigError(f"the balancer {name} {said}") from error
