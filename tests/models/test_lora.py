"""LoRA against PEFT (torch, float32): forward, gradients of A and B, merging."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.interop import huggingface
from bua_jax.models import lora
from bua_jax.models.lora import LoraConfig
from bua_jax.models.qwen2 import Qwen2
from tests.support.helpers import require


@pytest.fixture(scope="module")
def peft_model(tmp_path_factory):
    torch, transformers, peft = require("torch"), require("transformers"), require("peft")
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    base = transformers.Qwen2ForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("base")
    base.save_pretrained(folder)
    names = [f"{target}_proj" for target in lora.TARGETS]
    wrapped = peft.get_peft_model(
        base, peft.LoraConfig(r=4, lora_alpha=12, target_modules=names, lora_dropout=0.0)
    )
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.normal_(0, 0.2)
    return wrapped.eval(), folder


def adapter_of(model, attribute: str):
    """PEFT's A and B (or their gradients) in our layout."""
    tree: dict = {"layers": {}}
    layers = model.base_model.model.model.layers
    for target in lora.TARGETS:
        module = lora.MODULE_OF[target]
        pairs = [getattr(getattr(layer, module), f"{target}_proj") for layer in layers]

        def stack(which, pairs=pairs):
            weights = [getattr(p, f"lora_{which}")["default"].weight for p in pairs]
            arrays = [(w if attribute == "data" else w.grad).detach().numpy().T for w in weights]
            return jnp.asarray(np.stack(arrays))

        tree["layers"].setdefault(module, {})[f"{target}_proj"] = {"a": stack("A"), "b": stack("B")}
    return tree


def test_forward_gradients_and_merge_equal_peft(peft_model):
    """1e-4: float32 rounding through two layers; gradients are relative to their largest entry."""
    torch = require("torch")
    model, folder = peft_model
    tokens = np.random.default_rng(0).integers(0, 61, (2, 11))
    out = model(torch.tensor(tokens), labels=torch.tensor(tokens))
    out.loss.backward()
    adapter, settings = adapter_of(model, "data"), LoraConfig(4, 12.0)
    config, base = huggingface.load(folder)
    ours = Qwen2(config, settings)

    def loss(adapter):
        logits = ours.apply({"params": base, "lora": adapter}, jnp.asarray(tokens, jnp.int32))
        log_p = jax.nn.log_softmax(logits[:, :-1])
        picked = jnp.take_along_axis(log_p, jnp.asarray(tokens[:, 1:, None]), axis=-1)
        return -picked.mean(), logits

    (value, logits), grads = jax.value_and_grad(loss, has_aux=True)(adapter)
    assert np.abs(logits - out.logits.detach().numpy()).max() <= 1e-4
    assert abs(float(value) - out.loss.item()) <= 1e-5
    expected = adapter_of(model, "grad")
    for ours_grad, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        assert np.abs(ours_grad - theirs).max() <= 1e-4 * max(1.0, np.abs(theirs).max())

    merged = Qwen2(config).apply(
        {"params": lora.merge(base, adapter, settings)}, jnp.asarray(tokens, jnp.int32)
    )
    assert np.abs(merged - logits).max() <= 1e-4


def test_a_fresh_adapter_changes_nothing_and_has_only_its_targets(peft_model):
    config, base = huggingface.load(peft_model[1])
    settings = LoraConfig(4, 8.0, ("q", "down"))
    adapter = lora.init(jax.random.key(0), settings, config)
    assert set(adapter["layers"]) == {"self_attn", "mlp"}
    assert set(adapter["layers"]["mlp"]) == {"down_proj"}
    tokens = jnp.arange(8, dtype=jnp.int32)[None]
    plain = Qwen2(config).apply({"params": base}, tokens)
    adapted = Qwen2(config, settings).apply({"params": base, "lora": adapter}, tokens)
    assert np.array_equal(plain, adapted)


def test_unknown_targets_are_refused():
    with pytest.raises(ValueError, match="targets"):
        LoraConfig(4, 8.0, ("query",))


def test_rows_stand_in_the_place_of_the_embeddings(peft_model):
    """As merged, and with gradients for them that are those of merged rows; 1e-5: float32 rounding."""
    config, base = huggingface.load(peft_model[1])
    config = dataclasses.replace(config, tie_word_embeddings=True)
    base = {name: value for name, value in base.items() if name != "lm_head"}
    settings = LoraConfig(4, 8.0, tokens=(3, 9))
    adapter = lora.init(jax.random.key(0), settings, config, base["embed_tokens"]["embedding"])
    tokens = jnp.asarray([[1, 3, 2, 9, 9, 5]])
    plain = Qwen2(config).apply({"params": base}, tokens)
    fresh = Qwen2(config, settings).apply({"params": base, "lora": adapter}, tokens)
    assert np.abs(plain - fresh).max() <= 1e-5
    changed = {**adapter, "rows": adapter["rows"] + 0.3}

    def apart(adapter):
        return jnp.sum(
            Qwen2(config, settings).apply({"params": base, "lora": adapter}, tokens)[:, ::2]
        )

    def merged(adapter):
        one = lora.merge(base, adapter, settings)
        return jnp.sum(Qwen2(config).apply({"params": one}, tokens)[:, ::2])

    (one, of_one), (two, of_two) = (
        jax.jit(jax.value_and_grad(f))(changed) for f in (apart, merged)
    )
    assert abs(one - two) <= 1e-5 * abs(two)
    scale = np.abs(of_two["rows"]).max()
    assert scale > 0
    assert np.abs(of_one["rows"] - of_two["rows"]).max() <= 1e-5 * scale
