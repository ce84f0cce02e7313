"""Weights that follow from the products of the units' gradients (the Gram matrix).

The functions take gram float64[K, K], whose diagonal is positive, and give float64[K]; `training.
balancers.table` names them. Each solves its problem in the units' cosines where it can: norms of short
and long rounds differ by orders, and a ridge on the raw matrix would break what a method promises.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import nnls

from bua_jax.training.balancers.losses import stateless
from bua_jax.training.weighting import Balancer

_TRIES = 100  # of active sets, per unit: in practice it is a few


def of_gram(weigh: Callable[[np.ndarray], np.ndarray], signed: bool = False) -> Balancer:
    """The balancer of a function of the Gram matrix alone."""
    return stateless(lambda losses, gram, rng: weigh(gram), gram=True, signed=signed)


def cosines(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cosines float[K, K], norms float[K])."""
    norm = np.sqrt(np.diag(gram))
    return gram / np.outer(norm, norm), norm


def _root(matrix: np.ndarray) -> np.ndarray:
    """R with R^T R the positive semidefinite float[K, K]."""
    values, vectors = np.linalg.eigh(matrix)
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def _to_count(weights: np.ndarray) -> np.ndarray:
    """Scaled to the sum K, for methods that say a direction and no length."""
    return len(weights) * weights / weights.sum()


# ------------------------------------------------------------------------------ projecting conflicts


def pcgrad(gram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each gradient loses its part against others that it meets, in a random order; their sum.

    Yu et al., 2001.06782. The order is drawn afresh for each, as the paper says and its code does not.
    """
    parts = np.eye(len(gram))
    for i, part in enumerate(parts):
        for j in rng.permutation([j for j in range(len(gram)) if j != i]):
            product = gram[j] @ part
            if product < 0:
                part[j] -= product / gram[j, j]
    return parts.sum(0)


def gradvac(rate: float = 0.5) -> Balancer:
    """Gradient vaccine (Wang et al., 2010.05874): cosines below their own average are raised to it.

    State: (average float[K, K], of the cosines that were met, from 0; the units' numbers float[K]).
    """

    def combine(losses: Any, gram: np.ndarray, state: Any, rng: Any, validation: Any) -> Any:
        whole, units = state
        here = units.astype(int)
        goal = whole[:, here]
        norm, parts = np.sqrt(np.diag(gram)), np.eye(len(gram))
        for i, part in enumerate(parts):
            for j in rng.permutation([j for j in range(len(gram)) if j != i]):
                length = np.sqrt(max(part @ gram @ part, 0))
                cosine = np.clip(gram[j] @ part / max(length * norm[j], 1e-300), -1, 1)
                wanted, sine = goal[i, j], np.sqrt(1 - cosine**2)
                if cosine < wanted:
                    other = np.sqrt(1 - wanted**2) + 1e-8
                    part[j] += length * (wanted * sine - cosine * other) / (norm[j] * other)
                goal[i, j] = (1 - rate) * wanted + rate * cosine
        whole = np.array(whole)
        whole[:, here] = goal
        return parts.sum(0), (whole, units)

    return Balancer(
        lambda count: (np.zeros((count, count)), np.arange(count, dtype=float)), combine, gram=True
    )


def _projected(gram: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The v >= wanted with the least v^T G v: G v >= 0, so no unit is made worse."""
    matrix, norm = cosines(gram)
    root, least = _root(matrix), wanted * norm
    more, _ = nnls(root, -root @ least, maxiter=_TRIES * len(gram))
    return (least + more) / norm


def dualproj(gram: np.ndarray) -> np.ndarray:
    """The sum of the gradients, projected onto the cone that harms none (Lopez-Paz & Ranzato, 1706.08840)."""
    return _projected(gram, np.ones(len(gram)))


def upgrad(gram: np.ndarray) -> np.ndarray:
    """The sum of the gradients, each projected onto the cone that harms none (Quinton & Rey, 2406.16232)."""
    return np.sum([_projected(gram, unit) for unit in np.eye(len(gram))], axis=0)


# ------------------------------------------------------------------------------------ least norms


def mgda(gram: np.ndarray) -> np.ndarray:
    """The shortest mean of the gradients (Desideri 2012; Sener & Koltun, 1810.04650), times K.

    min a^T G a on the simplex is, up to the scale of a, min |R a|^2 + (1^T a - 1)^2 over a >= 0, which
    active sets solve exactly.
    """
    matrix, norm = cosines(gram)
    share = norm.min() / norm
    found, _ = nnls(
        np.vstack([_root(matrix), share]),
        np.append(np.zeros(len(gram)), 1),
        maxiter=_TRIES * len(gram),
    )
    return _to_count(found / norm)


def cagrad(gram: np.ndarray, c: float) -> np.ndarray:
    """The best worst unit within c |mean| of the mean gradient (Liu et al., 2110.14048), times K.

    Least w^T h + phi sqrt(w^T A w) on the simplex, with A = G / tr G, b = 1 / K, h = A b and
    phi = c sqrt(b^T A b): on each support its minimum is in closed form, and the least of all 2^K - 1 is
    taken. c = 0: the mean; from 1 on no unit is made worse.
    """
    count = len(gram)
    matrix = gram / np.trace(gram)
    mean = np.full(count, 1 / count)
    target, radius = matrix @ mean, c * np.sqrt(max(mean @ matrix @ mean, 0))
    if radius == 0:
        return np.ones(count)
    weights = _on_supports(matrix, target, radius)
    length = np.sqrt(np.maximum(np.einsum("si,ij,sj->s", weights, matrix, weights), 0))
    best = np.argmin(weights @ target + radius * length)
    return count * (mean + radius / max(length[best], 1e-150) * weights[best])


def _on_supports(matrix: np.ndarray, target: np.ndarray, radius: float) -> np.ndarray:
    """float[S, K], points of the simplex: on each support the minimum of `cagrad`, where there is one."""
    count = len(matrix)
    chosen = np.array(list(itertools.product([0.0, 1.0], repeat=count)))[1:]
    both = chosen[:, :, None] * chosen[:, None, :]
    # A singular support has its minimum on a smaller one too; 1e-13 keeps the solver going. Whatever it
    # gives then is a point of the simplex, judged by its own value.
    ridge = 1e-13 * np.diag(matrix) * chosen + (1 - chosen)
    system = both * matrix + np.eye(count) * ridge[:, None, :]
    sides = np.stack([chosen, chosen * target], axis=2)
    ones, other = np.moveaxis(np.linalg.solve(system, sides), 2, 0)
    a, p, q = ones.sum(1), other.sum(1), (other * target).sum(1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        level = (p + np.sqrt(p**2 - a * (q - radius**2))) / a
        found = (ones * level[:, None] - other) / (level * a - p)[:, None]
    good = np.isfinite(found).all(1) & (found >= 0).all(1)
    found = np.vstack([found[good], np.eye(count)])
    return found / found.sum(1, keepdims=True)


# --------------------------------------------------------------------------------------- bargaining


def fair(gram: np.ndarray, gamma: float) -> np.ndarray:
    """The w > 0 with G w = w^(-1 / gamma) (FairGrad, Ban & Ji, 2402.15638); gamma = 1 is Nash-MTL's.

    Newton's method in y = w |g|: C y = q y^(-1 / gamma), q = |g|^(1 / gamma - 1), the minimum of a convex
    function, with C the cosines. Where gradients cancel there is none: a ridge of 1e-12 on C bounds it.
    """
    matrix, norm = cosines(gram)
    matrix, power = matrix + 1e-12 * np.eye(len(gram)), 1 / gamma
    scale = np.exp(
        (power - 1) * (np.log(norm) - np.log(norm).mean())
    )  # a common factor moves w alone

    def slope(y: np.ndarray) -> np.ndarray:
        return matrix @ y - scale * y**-power

    y = np.ones(len(gram))
    for _ in range(200):
        now = slope(y)
        if np.max(np.abs(y * now)) <= 1e-13 * max(float(np.max(np.abs(y * (matrix @ y)))), 1):
            break
        move = -np.linalg.solve(matrix + np.diag(power * scale * y ** (-power - 1)), now)
        size = min(1.0, 0.9 / max(float(np.max(-move / y)), 1e-300))
        # Convex: along a descent direction a step is short enough if it does not pass the minimum much.
        while size > 1e-12 and move @ slope(y + size * move) > 0.5 * abs(move @ now):
            size /= 2
        y = y + size * move
    common = np.exp(np.log(norm).mean() * (power - 1) / (power + 1))
    return common * y / norm


def fairgrad(gram: np.ndarray, gamma: float) -> np.ndarray:
    """`fair`, scaled to the sum K: Nash-MTL (Navon et al., 2202.01017) for gamma = 1.

    A larger gamma is nearer to the best worst unit.
    """
    return _to_count(fair(gram, gamma))


# -------------------------------------------------------------------------- equal and orthogonal parts


def imtl_g(gram: np.ndarray) -> np.ndarray:
    """IMTL-G (Liu et al., ICLR 2021): an update with equal projections onto all gradients; sum K.

    Weights may be negative. Where the sum is 0, which has no scale, all are 1.
    """
    weights = np.linalg.pinv(gram, hermitian=True) @ np.sqrt(np.diag(gram))
    total = weights.sum()
    return np.ones(len(gram)) if abs(total) < 1e-12 * np.abs(weights).sum() else _to_count(weights)


def aligned_mtl(gram: np.ndarray) -> np.ndarray:
    """Aligned-MTL (Senushkin et al., 2305.19000): principal directions of an equal, the least, length.

    w = sqrt(least) V L^(-1/2) V^T 1, over eigenvalues that are not 0. Weights may be negative.
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > values.max() * len(gram) * np.finfo(float).eps
    values, vectors = values[kept], vectors[:, kept]
    return np.sqrt(values.min()) * (vectors / np.sqrt(values)) @ vectors.sum(0)


def conflict_free(gram: np.ndarray) -> np.ndarray:
    """ConFIG (Liu et al., 2408.11104): an update with equal cosines to all gradients.

    As long as the gradients' projections onto it in sum. Weights may be negative.
    """
    matrix, norm = cosines(gram)
    weights = np.linalg.pinv(matrix, hermitian=True).sum(1) / norm
    products = gram @ weights
    return weights * products.sum() / max(weights @ products, 1e-300)
