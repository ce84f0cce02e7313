"""Methods of weighting in numpy, as a part of a compiled step.

They solve K x K problems in float64 on the host; their state is float32 on the device, and lies in
checkpoints. What is common to all is here: units that are not in the batch, bad answers, the device.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.training.weighting import Balancer


def _here(losses: np.ndarray, gram: np.ndarray | None, validation: np.ndarray | None) -> np.ndarray:
    """int[P]: the units that a method is asked about, those with a loss and, of gradients, with one."""
    known = losses if validation is None else validation
    return np.flatnonzero(~np.isnan(known) & (True if gram is None else np.diag(gram) > 0))


def _wrong(weights: np.ndarray, count: int, signed: bool) -> str:
    """What is wrong with the weights of `count` units; empty if nothing is."""
    if weights.shape != (count,):
        return (
            f"gave weights of shape {weights.shape}, expected ({count},), one for each unit it saw"
        )
    if not np.isfinite(weights).all():
        return f"gave weights that are not finite: {weights.tolist()}"
    if not weights.any():
        return "gave weights that are all 0"
    if not signed and (weights < 0).any():
        return (
            f"gave negative weights: {weights.tolist()} (a method that means it says `signed=True`)"
        )
    return ""


def asked(
    method: Balancer,
    losses: np.ndarray,
    gram: np.ndarray | None,
    state: Any,
    rng: np.random.Generator,
    validation: np.ndarray | None = None,
) -> tuple[np.ndarray, Any]:
    """(weights float64[K], state) of a method in numpy, asked about the units that are there.

    losses: float[K], NaN of those that are not; their weight is NaN (it stays as it is), and their state
    stays. So do all where a loss or a product is infinite, which the loop stops for. Raises `ValueError`
    for weights of another number, not finite, all 0, or negative without being `signed`.
    """
    here = _here(losses, gram, validation)
    weights = np.full(len(losses), np.nan)
    given = (losses[here], 0 if gram is None else gram)
    if not len(here) or not all(np.isfinite(x).all() for x in given if validation is None):
        return weights, state
    part = jax.tree.map(lambda x: x[here] if np.ndim(x) else x, state)
    products = None if gram is None else gram[np.ix_(here, here)]
    measured = None if validation is None else validation[here]
    found, part = method.combine(losses[here], products, part, rng, measured)
    found = np.asarray(found, float)
    if wrong := _wrong(found, len(here), method.signed):
        raise ValueError(wrong)
    weights[here] = found
    return weights, _put_back(state, part, here)


def afterwards(method: Balancer, losses: np.ndarray, state: Any) -> Any:
    """The state of a method after it saw the losses float[K] that the step left."""
    assert method.after is not None
    here = np.flatnonzero(np.isfinite(losses))
    if not len(here):
        return state
    part = jax.tree.map(lambda x: x[here] if np.ndim(x) else x, state)
    return _put_back(state, method.after(losses[here], part), here)


def _put_back(state: Any, part: Any, here: np.ndarray) -> Any:
    def one(whole: Any, new: Any) -> np.ndarray:
        if not np.ndim(whole):
            return np.asarray(new)
        changed = np.array(whole)
        changed[here] = new
        return changed

    return jax.tree.map(one, state, part)


def on_device(method: Balancer, name: str) -> Balancer:
    """The method as a part of a compiled step, float32 outside.

    A callback must not raise: devices that wait for its answer would wait for ever. So what it raises,
    and an answer that is wrong, are noted in `faults`; infinite weights then stop the loop.
    """
    faults: list[str] = []

    def wide(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x, float), tree)

    def guarded(losses: Any, state: Any, call: Any) -> tuple[np.ndarray, Any]:
        try:
            weights, new = call(wide(losses), wide(state))
        except Exception as error:
            said = str(error) if type(error) is ValueError else f"raised {error!r}"
            faults.append(f"The balancer {name} {said}.")
            weights, new = np.full(np.shape(losses), np.inf), state
        return np.asarray(weights, np.float32), jax.tree.map(
            lambda x, like: np.asarray(x, like.dtype), new, state
        )

    def answer(losses: Any, gram: Any, state: Any, seed: Any, validation: Any) -> Any:
        measured = None if np.isnan(validation).all() else wide(validation)
        products, rng = (
            (None if gram is None else wide(gram)),
            np.random.default_rng(np.array(seed)),
        )
        return guarded(losses, state, lambda own, s: asked(method, own, products, s, rng, measured))

    def looked(losses: Any, state: Any) -> Any:
        return guarded(losses, state, lambda own, s: (own, afterwards(method, own, s)))

    def shapes(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

    def combine(losses: Any, gram: Any, state: Any, key: Any, validation: Any) -> tuple[Any, Any]:
        like = shapes((jnp.asarray(losses, jnp.float32), state))
        seed = jax.random.key_data(key)
        return jax.pure_callback(answer, like, losses, gram, state, seed, validation)

    def after(losses: Any, state: Any) -> Any:
        like = shapes((jnp.asarray(losses, jnp.float32), state))
        return jax.pure_callback(looked, like, losses, state)[1]

    def init(count: int) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), method.init(count))

    return method._replace(
        init=init, combine=combine, after=after if method.after else None, faults=faults
    )
