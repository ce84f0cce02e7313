"""How fast text is decoded and labels are scored here, beside transformers and llama.cpp on the same weights.

All pairs run in alternation in one process, so that what else the machine does falls on both.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bua_jax.alignment.ask import Bua
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks import llama
from bua_jax.benchmarks.timing import alternate, peak_mib, ratio
from bua_jax.benchmarks.train import random_variables
from bua_jax.decoding import engine
from bua_jax.decoding.cache import (
    Weights,
    empty_rows,
    extend,
    forward,
    logits,
    prepare,
    with_room,
)
from bua_jax.decoding.engine import Engine, Turn
from bua_jax.decoding.labels import LabelTree, build_tree, score_labels
from bua_jax.dialogue.prompts import next_turn
from bua_jax.events.windows import history, prediction_windows, sample_windows
from bua_jax.interop import gguf, huggingface
from bua_jax.models import aligned
from bua_jax.models.aligned import Aligned
from bua_jax.models.presets import PRESETS
from bua_jax.models.projector import Projector
from bua_jax.models.qwen2 import Qwen2, causal_mask
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.parallel.sharding import make_mesh, shardings
from bua_jax.pipeline import export, finished
from bua_jax.planning import roofline

_NEVER = -1  # a stop token that no row writes
# Published peaks: dense bfloat16 FLOP/s.
PEAKS = {"A100": 312e12, "H100": 989e12}


def transformers_or_none() -> Any:
    """(torch, transformers), or None where the extra `parity` is not installed."""
    try:
        import torch
        import transformers
    except ImportError:
        return None
    return torch, transformers


def stream_bandwidth() -> float:
    """Bytes per second at which 512 MiB are read once."""
    x = jnp.ones(2**27, jnp.float32)
    total = jax.jit(jnp.sum)
    (times,) = alternate(5, lambda: total(x).block_until_ready())
    return x.nbytes / min(times)


def write_random(folder: Path, preset: str, dtype: str) -> None:
    """A Hugging Face directory of the preset's shape, with random weights: enough for speed."""
    config = dataclasses.replace(PRESETS[preset], dtype=dtype)
    one = jnp.ones((1, 1), jnp.int32)
    shapes = jax.eval_shape(lambda: Qwen2(config).init(jax.random.key(0), one)["params"])
    huggingface.save(folder, config, random_variables(shapes, 0))


def text_model(
    folder: Path, dtype: str = "float32", mesh: Mesh | None = None, weight_dtype: str = "float32"
) -> tuple[Aligned, Weights]:
    """A base that reads text alone, and its weights as decoding reads them."""
    placement = (lambda shapes: shardings({"base": shapes}, mesh)["base"]) if mesh else None
    config, base = huggingface.load(folder, dtype, placement)
    model = Aligned(Qwen2(config), None, Projector(config.hidden_size), "none", _NEVER - 1)
    return model, prepare(model, {"base": base, "encoder": {}, "projector": {}}, weight_dtype)


def generate(model: Aligned, weights: Weights, tokens: np.ndarray, new: int) -> list[list[int]]:
    """`new` greedy tokens after every row of tokens int32[B, T]."""

    def job(row: np.ndarray) -> engine.Job:
        answer = yield Turn(row.tolist())
        return answer.tokens

    slots = -(-(tokens.shape[1] + new + 1) // 32) * 32
    ready = Engine(model, weights, _NEVER, len(tokens), slots, new, model.llm.config.dtype)
    jobs = [functools.partial(job, row) for row in tokens]
    return [answer for _, answer in sorted(engine.run(ready, jobs))]


def step_seconds(whole: Sequence[float], prefill: Sequence[float], steps: int) -> float | None:
    """Seconds of a decode step: median over rounds of what `steps` of them add to the prefill.

    None where that is not above 0: the steps are too few to be seen beside the noise.
    """
    added = float(np.median(np.subtract(whole, prefill)))
    return added / steps if added > 0 else None


def compare_generate(
    folder: Path,
    *,
    batches: Sequence[int],
    prompt: int,
    new: int,
    repeats: int,
    dtype: str = "float32",
    mesh: str = "1",
) -> list[dict[str, float | None]]:
    """Greedy decoding of random prompts, per batch size: ours, and each peer that is installed.

    `bandwidth_share` is that of the bytes of weights which a decode step reads over what the step's
    time would stream; it is None on several devices and, with the decode rate, where noise hides the
    steps. `minutes_for_20000` is for as many rows. A peer's name has the median of its seconds over
    ours, `same_as_` it the share of rows whose tokens are all equal.
    """
    devices = make_mesh(mesh)
    model, weights = text_model(folder, dtype, devices)
    read = {name: weights[name] for name in ("layers", "head")}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(read))
    bandwidth, peers = stream_bandwidth(), _peers(folder, dtype)
    found = []
    for batch in batches:
        notice(f"decoding {batch} rows at once")
        vocabulary = min(model.llm.config.vocab_size, 1000)
        tokens = np.random.default_rng(batch).integers(0, vocabulary, (batch, prompt), np.int32)
        theirs = {name: functools.partial(peer, tokens, new) for name, peer in peers.items()}
        with jax.set_mesh(devices):
            ours = functools.partial(generate, model, weights, tokens, new)
            prefill = functools.partial(generate, model, weights, tokens, 1)
            seconds, prefills, *others = alternate(repeats, ours, prefill, *theirs.values())
            written = ours()
        step = step_seconds(seconds, prefills, new - 1)
        row: dict[str, float | None] = {
            "batch": batch,
            "prefill_tokens_per_second": batch * prompt / float(np.median(prefills)),
            "decode_tokens_per_second": batch / step if step else None,
            "minutes_for_20000": 20_000 / batch * float(np.median(seconds)) / 60,
            "bandwidth_share": size / step / bandwidth if step and devices.size == 1 else None,
        }
        for (name, run), times in zip(theirs.items(), others, strict=True):
            row[name] = ratio(times, seconds)
            row[f"same_as_{name}"] = float(
                np.mean([a == b for a, b in zip(written, run(), strict=True)])
            )
        found.append({**row, "peak_mib": peak_mib()})
    return found


def _peers(folder: Path, dtype: str) -> dict[str, Callable[[np.ndarray, int], list[list[int]]]]:
    """What is installed of transformers and llama.cpp: `new` greedy tokens after int32[B, T].

    Both run on the CPU, so there are none beside another device; llama.cpp in float32 only.
    """
    peers: dict[str, Callable[[np.ndarray, int], list[list[int]]]] = {}
    if jax.default_backend() != "cpu":
        return peers
    if (peer := transformers_or_none()) is not None:
        torch, transformers = peer
        kind = getattr(torch, dtype)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
        peers["transformers"] = functools.partial(_their_generate, peer, loaded)
    if dtype == "float32" and (llama_cpp := llama.llama_cpp_or_none()) is not None:
        with tempfile.TemporaryDirectory() as scratch:  # the file stays mapped
            gguf.write(Path(scratch) / "model.gguf", folder)
            model = llama.load(llama_cpp, Path(scratch) / "model.gguf")
        peers["llama_cpp"] = functools.partial(llama.generate, llama_cpp, model)
    return peers


def compare_types(folder: Path, *, batch: int, prompt: int, new: int) -> list[dict[str, Any]]:
    """How often a whole forward ranks first what the engine wrote, in float32 and bfloat16.

    `same` is the share of the tokens that the engine wrote after random prompts, in weights and cache
    of the type `engine`, to which a forward over all of them in the type `forward` gives the highest
    logit: every token is judged after the same tokens. In one type it is the agreement of cached with
    uncached decoding.
    """
    models = {dtype: text_model(folder, dtype) for dtype in ("float32", "bfloat16")}
    vocabulary = min(models["float32"][0].llm.config.vocab_size, 1000)
    tokens = np.random.default_rng(0).integers(0, vocabulary, (batch, prompt), np.int32)
    found = []
    for dtype, (model, weights) in models.items():
        answers = np.array(generate(model, weights, tokens, new), np.int32)
        for other, (judge, judging) in models.items():
            whole = np.concatenate([tokens, answers], axis=1)
            first = following_logits(judge, judging, whole, new).argmax(-1)
            same = float((first == answers).mean())
            found.append({"engine": dtype, "forward": other, "tokens": answers.size, "same": same})
    return found


def following_logits(model: Aligned, weights: Weights, tokens: np.ndarray, count: int) -> jax.Array:
    """Logits float32[B, count, V] of the last `count` of tokens int32[B, T], each after all before it."""
    rows = empty_rows(model, len(tokens), 1, model.llm.config.dtype)

    @jax.jit
    def whole(weights: Weights) -> jax.Array:
        embeddings = aligned.embed(model, weights, jnp.asarray(tokens))
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        mask = causal_mask(jnp.ones(tokens.shape, jnp.int32))
        hidden, _ = forward(model, weights, rows, embeddings, positions, mask)
        return logits(weights, hidden[:, -count - 1 : -1])

    return whole(weights)


def _their_generate(peer: Any, model: Any, tokens: np.ndarray, new: int) -> list[list[int]]:
    torch, _ = peer
    ids = torch.tensor(tokens).long()
    length = {"max_new_tokens": new, "min_new_tokens": new}
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **length
        )
    return out[:, ids.shape[1] :].tolist()


def _label_programs(model: Aligned, prompt: int) -> tuple[Callable[..., Any], ...]:
    """Compiled: the prompt read, a tree scored on rows, both at once, a plain forward on rows."""

    def read(weights, rows, tokens):
        embedded = aligned.embed(model, weights, tokens)
        return extend(model, weights, rows, embedded, jnp.asarray([prompt]))

    def score(weights, rows, tree):
        return score_labels(model, weights, rows, tree, stop=0).log_p

    def scratch(weights, rows, tokens, tree):
        return score(weights, read(weights, rows, tokens), tree)

    def plain(weights, rows, tokens):
        count = tokens.shape[1]
        embedded = aligned.embed(model, weights, tokens)
        room = with_room(rows, count)
        return extend(model, weights, room, embedded, jnp.asarray([count])).hidden

    return jax.jit(read), jax.jit(score), jax.jit(scratch), jax.jit(plain)


def compare_labels(
    folder: Path, *, labels: int, prompt: int, repeats: int
) -> dict[str, dict[str, float]]:
    """What scoring all labels costs, batch 1: each entry has the milliseconds of two runs and their ratio.

    `with_prefill`: all labels over one label, each with an uncached prompt; `floor` is the ratio of their
    multiplications. `tree`: the label tree on a
    cached prompt over a plain forward of as many tokens. `separate`: that many scorings of one label on
    the cached prompt over one of the tree.
    """
    model, weights = text_model(folder)
    rng = np.random.default_rng(0)
    vocabulary = min(model.llm.config.vocab_size, 1000)
    words = [rng.integers(0, vocabulary, rng.integers(1, 4)).tolist() for _ in range(labels)]
    words = [[number % vocabulary, *word] for number, word in enumerate(words)]
    whole, ones = build_tree(words), [build_tree([word]) for word in words]
    tokens = jnp.asarray(rng.integers(0, vocabulary, (1, prompt)), jnp.int32)
    slots = -(-prompt // 32) * 32

    read, score, scratch, plain = _label_programs(model, prompt)
    empty = empty_rows(model, 1, slots, "float32")
    rows = read(weights, empty, tokens)
    as_many = jnp.asarray(whole.tokens)[None]

    def each() -> None:
        for one in ones:
            score(weights, rows, one).block_until_ready()

    runs: dict[str, Callable[[], Any]] = {
        "all, uncached": lambda: scratch(weights, empty, tokens, whole).block_until_ready(),
        "one, uncached": lambda: scratch(weights, empty, tokens, ones[0]).block_until_ready(),
        "tree": lambda: score(weights, rows, whole).block_until_ready(),
        "forward": lambda: plain(weights, rows, as_many).block_until_ready(),
        "separate": each,
    }
    times = dict(zip(runs, alternate(repeats, *runs.values()), strict=True))

    def pair(a: str, b: str) -> dict[str, float]:
        milliseconds = {name: 1e3 * float(np.median(times[name])) for name in (a, b)}
        return {**milliseconds, "ratio": ratio(times[a], times[b])}

    return {
        "with_prefill": {
            **pair("all, uncached", "one, uncached"),
            "floor": _after_prompt(model.llm.config, prompt, whole)
            / _after_prompt(model.llm.config, prompt, ones[0]),
        },
        "tree": pair("tree", "forward"),
        "separate": pair("separate", "tree"),
    }


def _after_prompt(config: Qwen2Config, prompt: int, tree: LabelTree) -> float:
    """FLOPs of a prompt and a tree after it, each token attending to what is before or above it."""
    nodes = len(tree.tokens)
    keys = prompt * (prompt + 1) // 2 + nodes * prompt + int(tree.ancestors.sum())
    return roofline.inference_flops(config, prompt + nodes, nodes + 1, keys)


def compare_predictions(
    run: Path, merged: Path, *, count: int, batch: int, repeats: int
) -> dict[str, float]:
    """Full predictions of a trained run (three understanding rounds and the answer) for test users.

    The peer is transformers on the run merged into `merged`: the same rounds in batches, its cache
    within a round, re-prefilled between rounds, and the answer decoded greedily. `same` is the share
    of histories whose understanding texts are all equal.
    """
    bua = dataclasses.replace(finished.load(run), batch=batch)
    store = finished.events_of(run)
    windows = sample_windows(prediction_windows(store, "test"), count, 0)
    spans = zip(windows.start, windows.end, strict=True)
    histories = [history(store, int(start), int(end)) for start, end in spans]
    if len(histories) < count:
        raise ConfigError(f"{run} has {len(histories)} test windows, fewer than --count={count}.")

    def ours() -> list[dict[str, str]]:
        return [said.texts for said in bua.probabilities(histories)[1]]

    peer = transformers_or_none()
    if peer is None:
        (times,) = alternate(repeats, ours)
        return {"per_second": count / float(np.median(times)), "peak_mib": peak_mib()}
    torch, transformers = peer
    export.export(run, merged, merge=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    theirs = functools.partial(_their_predictions, peer, loaded, bua, histories, batch)
    times, their_times = alternate(repeats, ours, theirs)
    same = np.mean([a == b for a, b in zip(ours(), theirs(), strict=True)])
    rate = count / float(np.median(times))
    return {
        "per_second": rate,
        "their_per_second": count / float(np.median(their_times)),
        "speedup": ratio(their_times, times),
        "same": float(same),
        "minutes_for_20000": 20_000 / rate / 60,
        "peak_mib": peak_mib(),
    }


def _their_predictions(
    peer: Any, model: Any, bua: Bua, histories: Sequence[Any], batch: int
) -> list[dict[str, str]]:
    """The understanding texts by transformers; the answer (8 tokens at most) is decoded after them."""
    torch, _ = peer
    tokenizer, embed = bua.parts.tokenizer, model.get_input_embeddings()
    rounds = bua.rounds(histories)
    instructions = [str(text) for _, text in rounds] + [bua.final_instruction]
    texts: list[dict[str, str]] = []
    for begin in range(0, len(histories), batch):
        some = histories[begin : begin + batch]
        prompts = [torch.tensor(bua.first_turn(seen, instructions[0])) for seen in some]
        said: list[dict[str, str]] = [{} for _ in some]
        for (kind, _), following in zip(rounds, instructions[1:], strict=True):
            answers = _greedy(torch, model, prompts, bua.decoding.max_new_tokens, tokenizer.im_end)
            for i, answer in enumerate(answers):
                said[i][kind] = tokenizer.decode(answer)
                ids = [*answer, tokenizer.im_end, *next_turn(tokenizer, following)]
                prompts[i] = torch.cat([prompts[i], embed(torch.tensor(ids)).detach()])
        _greedy(torch, model, prompts, 8, tokenizer.im_end)
        texts += said
    return texts


def _greedy(torch: Any, model: Any, prompts: Sequence[Any], new: int, stop: int) -> list[list[int]]:
    """Greedy answers to prompts of embeddings [T, H], padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    rows = torch.zeros(len(prompts), longest, prompts[0].shape[1])
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        rows[i, longest - len(prompt) :], mask[i, longest - len(prompt) :] = prompt, 1
    with torch.no_grad():
        out = model.generate(
            inputs_embeds=rows,
            attention_mask=mask,
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=stop,
        )
    return [row[: row.index(stop)] if stop in row else row for row in out.tolist()]
