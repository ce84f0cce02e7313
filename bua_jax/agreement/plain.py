"""The training step of a BUA stage in plain numpy, float64: what any framework's port can be held against.

This file needs numpy alone, and torch for gradients where it is installed. `python -m bua_jax.parity export`
copies it as check.py beside a batch, the trained parameters, the base and a reference. There:

  python check.py                            computes all of it here, and compares it with the reference
  python check.py --without_torch            without gradients
  python check.py --given=mine.safetensors   compares what another framework computed

and writes answer.json, which `python -m bua_jax.parity check` reads. A file that is given holds float32
arrays by the names of reference.safetensors, as many of them as one has; manifest.json says what each may
differ by and why. [B, T] are the batch's rows and tokens, n its supervised tokens row by row:

  supervised [B, T]            1 where a token counts in the loss; an answer's stop token does
  embedding [B, T, H]          of tokens, soft tokens in their places
  norm, projection q|k|v, rotation q|k, attention    of the first layer; attention after o_proj
  layer 1..N [B, T, H]         after each layer, divided by its root mean square
  logits [n, V]                that predict the supervised tokens; nll [n] of them
  loss NAME                    every reduction
  kinds [K, K]                 products of the gradients of the parts of the loss by round kind (id 1..K)
  gradient PART/NAME           of the stage's loss; clipped and update: of the reference's gradient
"""

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]
FILES = ("batch.safetensors", "trained.safetensors", "reference.safetensors")
BASE, SCRIPT = "base/model.safetensors", "check.py"
MODULE = {"q": "self_attn", "k": "self_attn", "v": "self_attn", "o": "self_attn"}
DECAYED = ("kernel", "embedding", "a", "b")  # leaves that decay
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


def _norm(xp: Any, x: Any, eps: float) -> Any:
    return x / xp.sqrt((x * x).mean(-1)[..., None] + eps)


def _projector(xp: Any, params: Mapping[str, Any], states: Any) -> Any:
    """W2 gelu(W1 norm(state) + b1) + b2 (Eq. 1), with the tanh form of gelu."""
    x = states - states.mean(-1)[..., None]
    x = _norm(xp, x, 1e-6) * params["norm/scale"] + params["norm/bias"]
    x = x @ params["hidden/kernel"] + params["hidden/bias"]
    x = 0.5 * x * (1 + xp.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)))
    return x @ params["out/kernel"] + params["out/bias"]


def _below(tree: Mapping[str, Any], prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in tree.items() if k.startswith(prefix)}


def _embedded(
    xp: Any, recipe: Mapping[str, Any], table: Any, trained: Arrays, batch: Arrays
) -> Any:
    """[B, T, H]: the table's rows, and projected states in the places of the soft token."""
    x = table[xp.asarray(batch["tokens"])]
    if "states" not in batch:
        return x
    states = xp.asarray(np.float64(batch["states"]))
    if recipe["soft_tokens"] == "pooled":
        last = xp.asarray((batch["event_segments"] > 0).sum(1) - 1)
        states = states[xp.arange(len(last)), last][:, None] + 0 * states
    params = _below(trained, "projector/")
    soft = [_projector(xp, params, states)]
    if "recalled/norm/scale" in params:
        soft.append(_projector(xp, _below(params, "recalled/"), states))
    vectors = xp.concatenate(soft, 1)
    here = batch["tokens"] == recipe["soft_id"]
    index = np.where(here, batch["soft_index"], 0)
    index = np.where(index < 0, states.shape[1] - 1 - index, index)
    chosen = vectors[xp.arange(len(index))[:, None], xp.asarray(index)]
    return xp.where(xp.asarray(here)[..., None], chosen, x)


def _rotated(xp: Any, x: Any, positions: np.ndarray, theta: float) -> Any:
    """x [B, T, heads, D]: pairs (i, i + D/2) turned by position / theta^(2i/D)."""
    half = x.shape[-1] // 2
    angle = np.asarray(positions)[..., None, None] * theta ** (-np.arange(half) / half)
    cos, sin = xp.asarray(np.cos(angle)), xp.asarray(np.sin(angle))
    first, second = x[..., :half], x[..., half:]
    return xp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _attended(xp: Any, q: Any, k: Any, v: Any, segments: np.ndarray) -> Any:
    """One row: q [T, N, D], k and v [T, K, D] -> [T, N D]; causal within segments."""
    t, heads, width = q.shape
    owner = np.arange(heads) // (heads // k.shape[1])
    same = (segments[:, None] == segments[None]) & (segments > 0)[None]
    mask = xp.asarray(same & np.tri(t, dtype=bool))
    scores = xp.einsum("qnd,snd->nqs", q, k[:, owner]) / width**0.5
    scores = xp.where(mask, scores, xp.asarray(-1e30))
    weights = xp.exp(scores - xp.amax(scores, -1)[..., None])
    weights = weights / weights.sum(-1)[..., None]
    return xp.einsum("nqs,snd->qnd", weights, v[:, owner]).reshape(t, -1)


def _layer(
    xp: Any, recipe: Mapping[str, Any], weight: Any, trained: Arrays, x: Any, rows: Arrays
) -> tuple[Any, Arrays]:
    """(x [B, T, H] after a layer, what it computed on the way); weight: name -> the layer's array."""
    eps, size = recipe["eps"], (*x.shape[:2], -1, recipe["head_dim"])

    def project(name: str, x: Any) -> Any:
        module = MODULE.get(name, "mlp")
        y = x @ weight(f"{module}.{name}_proj.weight").T
        if (bias := weight(f"{module}.{name}_proj.bias")) is not None:
            y = y + bias
        pair = _below(trained, f"adapter/layers/{module}/{name}_proj/")
        if pair:
            n = rows["layer"]
            y = y + (x @ pair["a"][n]) @ pair["b"][n] * recipe["lora_scale"]
        return y

    normed = _norm(xp, x, eps) * weight("input_layernorm.weight")
    q, k, v = (project(name, normed) for name in "qkv")
    turned = [_rotated(xp, y.reshape(size), rows["positions"], recipe["theta"]) for y in (q, k)]
    parts = zip(*turned, v.reshape(size), rows["segments"], strict=True)
    attention = project("o", xp.stack([_attended(xp, *row) for row in parts]))
    seen = {"norm": normed, "projection q": q, "projection k": k, "projection v": v}
    seen |= {"rotation q": turned[0], "rotation k": turned[1], "attention": attention}
    x = x + attention
    normed = _norm(xp, x, eps) * weight("post_attention_layernorm.weight")
    gate, up = project("gate", normed), project("up", normed)
    return x + project("down", 0.5 * gate * (1 + xp.tanh(gate / 2)) * up), seen


def forward(
    xp: Any,
    recipe: Mapping[str, Any],
    base: Mapping[str, np.ndarray],
    trained: Arrays,
    batch: Arrays,
) -> Arrays:
    """From tokens to nll, in order; xp: numpy or torch. base: by Hugging Face's names; trained: by ours."""

    def weight(name: str) -> Any:
        return xp.asarray(np.float64(base[name])) if name in base else None

    table = weight("model.embed_tokens.weight")
    if recipe["lora_tokens"]:
        at = xp.asarray(np.asarray(recipe["lora_tokens"]))
        table = xp.concatenate([table, trained["adapter/rows"]], 0)
        order = np.arange(len(table) - len(at))
        order[recipe["lora_tokens"]] = np.arange(len(order), len(table))
        table = table[xp.asarray(order)]
    x = _embedded(xp, recipe, table, trained, batch)
    supervised = np.asarray(batch["round_ids"]) > 0
    after = np.roll(supervised, 1, 1) & (np.asarray(batch["tokens"]) == recipe["stop_id"])
    found = {"supervised": np.float64(supervised | after), "embedding": x}
    for n in range(recipe["layers"]):
        rows = {"positions": batch["positions"], "segments": batch["segments"], "layer": n}
        prefix = f"model.layers.{n}."
        x, seen = _layer(xp, recipe, lambda name, p=prefix: weight(p + name), trained, x, rows)
        found |= seen if n == 0 else {}
        found[f"layer {n + 1}"] = _norm(xp, x, recipe["eps"])
    final = found[f"layer {recipe['layers']}"] * weight("model.norm.weight")
    row, token = np.nonzero(supervised)
    head = table if recipe["tied"] else weight("lm_head.weight")
    logits = final[row, token - 1] @ head.T
    shifted = logits - xp.amax(logits, -1)[..., None]
    labels = np.asarray(batch["tokens"])[row, token]
    nll = xp.log(xp.exp(shifted).sum(-1)) - shifted[np.arange(len(row)), labels]
    return {**found, "logits": logits, "nll": nll}


def losses(nll: Any, recipe: Mapping[str, Any], batch: Arrays) -> Arrays:
    """Every reduction of nll [n] (Eq. 4, Eq. 5, those between, the mean over kinds), in plain loops."""
    row, token = np.nonzero(np.asarray(batch["round_ids"]) > 0)
    weights, beta = recipe["kind_weights"], recipe["beta"]
    kinds = np.asarray(batch["kinds"])[row, token]
    names = ("segments", "round_ids")
    keys = [tuple(k) for k in np.stack([row, *(batch[n][row, token] for n in names)], 1).tolist()]
    rounds: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        rounds.setdefault(key, []).append(i)

    def fraction(of: Sequence[Any], beta: float) -> tuple[Any, float]:
        """(sum_i u_i T_i^-beta sum nll, sum_i u_i T_i^(1 - beta)) of some rounds."""
        u = [weights[kinds[rounds[key][0]]] for key in of]
        size = [len(rounds[key]) for key in of]
        total: Any = sum(
            a * n**-beta * nll[rounds[k]].sum() for a, n, k in zip(u, size, of, strict=True)
        )
        return total, sum(a * n ** (1 - beta) for a, n in zip(u, size, strict=True))

    def dialogues(beta: float) -> Any:
        whole = {key[:2]: [k for k in rounds if k[:2] == key[:2]] for key in rounds}
        parts = [fraction(of, beta) for of in whole.values()]
        parts = [(a, b) for a, b in parts if b > 0]
        return sum(a / b for a, b in parts) / len(parts)

    def together(beta: float) -> Any:
        total, count = fraction(list(rounds), beta)
        return total / count

    there = [k for k in np.unique(kinds).tolist() if weights[k] > 0]
    mean: Any = sum(weights[k] * nll[np.flatnonzero(kinds == k)].mean() for k in there)
    found = {"round_balanced": dialogues(1.0), "dialogue_token_mean": dialogues(0.0)}
    found |= {"dialogue_family": dialogues(beta), "token_mean": together(0.0)}
    found |= {"batch_family": together(beta), "kind_mean": mean / sum(weights[k] for k in there)}
    return found


def gradients(
    torch: Any, nll: Any, leaves: Mapping[str, Any], recipe: Mapping[str, Any], batch: Arrays
) -> tuple[Arrays, np.ndarray]:
    """The stage's loss of nll [n] by leaves: (its gradients, products by round kind [K, K]), by autograd."""
    row, token = np.nonzero(np.asarray(batch["round_ids"]) > 0)
    kinds = np.asarray(batch["kinds"])[row, token]

    def gradient(nll: Any) -> list[np.ndarray]:
        loss, of = losses(nll, recipe, batch)[recipe["loss"]], list(leaves.values())
        parts = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
        pairs = zip(parts, of, strict=True)
        return [np.zeros(x.shape) if g is None else g.double().numpy() for g, x in pairs]

    whole = gradient(nll)
    flat = np.zeros((len(recipe["kind_weights"]) - 1, sum(g.size for g in whole)))
    for kind in np.unique(kinds[kinds > 0]).tolist():
        part = gradient(torch.where(torch.asarray(kinds == kind), nll, 0 * nll))
        flat[kind - 1] = np.concatenate([g.ravel() for g in part])
    return dict(zip(leaves, whole, strict=True)), flat @ flat.T


def clipped(gradient: Arrays, recipe: Mapping[str, Any]) -> Arrays:
    """Scaled to the norm `clip_norm` over all leaves where it is above."""
    norm = float(np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gradient.values())))
    scale = recipe["clip_norm"] / max(norm, 1e-300)
    scale = scale if recipe["unit_gradient"] else min(1.0, scale)
    return {name: np.float64(g) * scale for name, g in gradient.items()}


def updates(gradient: Arrays, trained: Arrays, recipe: Mapping[str, Any]) -> Arrays:
    """Of a gradient: clipped NAME, and update NAME, the first of AdamW at the peak rate.

    In the first step its means are the gradient and its square (Loshchilov and Hutter, 2019).
    """
    found, moved = {}, {}
    for name, g in clipped(gradient, recipe).items():
        found[f"clipped {name}"] = g
        move = g / (np.abs(g) + 1e-8)
        if name.rsplit("/", 1)[-1] in DECAYED:
            move = move + recipe["weight_decay"] * np.float64(trained[name])
        rate = recipe["rate"] * recipe["rates"].get(name.split("/")[0], 1.0)
        moved[f"update {name}"] = -rate * move
    return found | moved


def compute(
    recipe: Mapping[str, Any], base: Any, trained: Arrays, batch: Arrays, torch: Any = None
) -> Arrays:
    """All quantities by their names, float64; those of gradients with torch alone."""
    found = forward(np, recipe, base, {k: np.float64(v) for k, v in trained.items()}, batch)
    of = losses(found["nll"], recipe, batch)
    found |= {f"loss {name}": np.float64(value) for name, value in of.items()}
    if torch is None:
        return found
    leaves = {name: torch.tensor(np.float64(value)) for name, value in trained.items()}
    used = {k: v.requires_grad_() for k, v in leaves.items() if k.split("/")[0] in recipe["trains"]}
    nll = forward(torch, recipe, base, leaves, batch)["nll"]
    gradient, kinds = gradients(torch, nll, used, recipe, batch)
    found |= {"kinds": kinds} | {f"gradient {name}": g for name, g in gradient.items()}
    return found | updates(gradient, trained, recipe)


def measure(name: str, mine: Any, reference: Any, batch: Arrays) -> float:
    """How far a quantity is from the reference's; what padding holds does not count.

    supervised: tokens that differ; logits, nll, losses: the largest difference; gradients and updates: the
    norm of the difference over the norm; kinds: the largest difference of cosines; all before: the largest
    difference over the root mean square. What has another shape, or is not finite, is infinitely far.
    """
    kind, (x, y) = name.split()[0], (np.atleast_1d(np.float64(z)) for z in (mine, reference))
    if x.shape != y.shape or not np.isfinite(x).all():
        return float("inf")
    if kind == "supervised":
        return float((x != y).sum())
    if kind in ("logits", "nll", "loss"):
        return float(np.abs(x - y).max())
    if kind in ("gradient", "clipped", "update"):
        return float(np.linalg.norm(x - y) / max(float(np.linalg.norm(y)), 1e-300))
    if kind == "kinds":
        norm = np.sqrt(np.diag(y))
        length = np.outer(norm, norm)
        return float((np.abs(x - y) / np.where(length > 0, length, 1)).max())
    valid = np.asarray(batch["segments"]) > 0
    return float(np.abs(x - y)[valid].max() / np.sqrt((y[valid] ** 2).mean()))


def of_logits(mine: Any, reference: Any) -> dict[str, float]:
    """kl: the largest of any token (nats); top10: by how much the best ten are in another order.

    That is the largest lead that one of the reference's ten best has over another which is before it here:
    ties that rounding decides cost as little as they mean.
    """
    x, y = np.float64(mine), np.float64(reference)
    log_p, log_q = (z - z.max(-1)[:, None] for z in (y, x))
    log_p, log_q = (z - np.log(np.exp(z).sum(-1))[:, None] for z in (log_p, log_q))
    best = np.argsort(-y, axis=-1)[:, :10]
    ours, theirs = np.take_along_axis(x, best, -1), np.take_along_axis(y, best, -1)
    lead = theirs[:, :, None] - theirs[:, None]
    wrong = (lead > 0) & (ours[:, :, None] < ours[:, None])
    kl = (np.exp(log_p) * (log_p - log_q)).sum(-1).max()
    return {"kl": float(kl), "top10": float(np.where(wrong, lead, 0).max())}


def differences(mine: Arrays, reference: Arrays, batch: Arrays) -> dict[str, float]:
    """`measure` of all that both have, in the reference's order; kl and top10 after the logits."""
    found: dict[str, float] = {}
    for name in (name for name in reference if name in mine):
        found[name] = measure(name, mine[name], reference[name], batch)
        if name == "logits":
            same = np.shape(mine[name]) == np.shape(reference[name])
            far = dict.fromkeys(("kl", "top10"), float("inf"))
            found |= of_logits(mine[name], reference[name]) if same else far
    return found


def read_safetensors(path: Path) -> Arrays:
    """Name -> array; bfloat16 becomes float32. Raises `ValueError` for a damaged file."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path} is damaged: its header would be longer than the file")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    data, found = np.memmap(path, np.uint8, "r", 8 + size), {}
    for name, said in header.items():
        begin, end = said["data_offsets"]
        array = np.frombuffer(data[begin:end].tobytes(), _TYPES[said["dtype"]])
        if said["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        found[name] = array.reshape(said["shape"])
    return found


def sha256_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def main() -> None:
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--given", type=Path, help="safetensors of another framework")
    parser.add_argument("--without_torch", action="store_true", help="no gradients")
    given = parser.parse_args()
    folder = Path(__file__).parent
    manifest = json.loads((folder / "manifest.json").read_text())
    batch, trained, reference = (read_safetensors(folder / name) for name in FILES)
    torch = None if given.given or given.without_torch else _torch()
    if given.given is not None:
        mine = read_safetensors(given.given)
    else:
        base = read_safetensors(folder / BASE)
        mine = compute(manifest["recipe"], base, trained, batch, torch)
    if unknown := sorted(mine.keys() - reference.keys()) or ([] if mine else ["nothing"]):
        sys.exit(f"{given.given} holds {', '.join(unknown)}: no quantity of the reference")
    found = differences(mine, reference, batch)
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    hashes = {n: sha256_file(folder / n) for n in (*FILES, BASE, SCRIPT)}
    answer = {
        "manifest": manifest["sha256"],
        "files": hashes,
        "computed_by": "given" if given.given else "torch" if torch else "numpy",
        "versions": versions | ({"torch": torch.__version__} if torch else {}),
        "differences": {k: v if np.isfinite(v) else None for k, v in found.items()},
    }
    content = hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:16]
    sealed = json.dumps({**answer, "sha256": content}, indent=2)
    (folder / "answer.json").write_text(sealed + "\n")
    order, wrong = list(manifest["tolerances"]), []
    for name in sorted(found, key=lambda name: order.index(name.split()[0])):
        limit = manifest["tolerances"][name.split()[0]]["value"]
        wrong += [name] * (not found[name] <= limit)
        print(f"{name:60} {found[name]:9.1e} {'ABOVE' if name in wrong else 'of'} {limit:.0e}")
    print(
        f"{len(reference.keys() - found.keys())} not compared; first above: {wrong[:1] or 'none'}"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
