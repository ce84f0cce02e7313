"""The plan: targets, collectives in HLO, FLOPs, the search, and the verb on the CPU's compiler."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.models import lora
from bua_jax.models.lora import LoraConfig
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2
from bua_jax.parallel import sharding
from bua_jax.planning import roofline
from bua_jax.planning.collectives import collectives
from bua_jax.planning.plan import ASSUMED, _resolved, compile_step, largest, make_plan, packing_plan
from bua_jax.planning.roofline import Work
from bua_jax.planning.step import Lowered
from bua_jax.planning.targets import DEVICES, parse_target
from tests.support import tiny
from tests.support.helpers import ROOT

HLO = """
HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %x.1 = f32[4]{0} get-tuple-element(%p), index=1
  ROOT %permute = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%x.1), channel_id=1, \
source_target_pairs={{0,1},{1,0}}
}

%inner_condition (p: (s32[], f32[4])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %five), direction=LT
}

%body (p: (s32[], bf16[2,8])) -> (s32[], bf16[2,8]) {
  %w = bf16[2,8]{1,0} get-tuple-element(%p), index=1
  %gather = ((bf16[2,8]{1,0}, f32[3]{0}), (bf16[16,8]{1,0}, /*index=1*/f32[24]{0})) \
all-gather-start(%w, %w), channel_id=2, replica_groups=[1,8]<=[8], dimensions={0}
  %loop = (s32[], f32[4]) while(%t), condition=%inner_condition, body=%inner
  ROOT %r = (s32[], bf16[2,8]) tuple(%i, %w)
}

%anything (p: (s32[], bf16[2,8])) -> pred[] {
  ROOT %less = pred[] custom-call(%p)
}

ENTRY %main (w: bf16[2,8]) -> f32[10] {
  %loop = (s32[], bf16[2,8]) while(%t), condition=%anything, body=%body, \
backend_config={"known_trip_count":{"n":"28"}}
  %scatter = f32[10]{0} reduce-scatter(%g), channel_id=3, \
replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %one = f32[10]{0} all-reduce(%g), replica_groups={{0},{1}}, to_apply=%add
  ROOT %reduce = f32[10]{0} all-reduce(%g), channel_id=4, \
replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
}
"""


def test_collectives_count_as_often_as_their_loops_run() -> None:
    found, unknown = collectives(HLO, 8)
    assert unknown == 0
    assert {(one.kind, one.devices, one.times, one.payload, one.wire) for one in found} == {
        ("all-gather", 8, 28, 16 * 8 * 2 + 24 * 4, (16 * 8 * 2 + 24 * 4) * 7 / 8),
        ("collective-permute", 8, 28 * 5, 16, 16.0),
        ("reduce-scatter", 2, 1, 2 * 40, 40.0),
        ("all-reduce", 4, 1, 40, 2 * 40 * 3 / 4),
    }


def test_a_loop_of_unknown_length_is_said() -> None:
    text = HLO.replace(', backend_config={"known_trip_count":{"n":"28"}}', "")
    found, unknown = collectives(text, 8)
    assert unknown == 1
    assert {one.times for one in found if one.kind == "all-gather"} == {1}


def test_parts_of_a_fused_collective_count_once() -> None:
    """libtpu repeats it in the fusions that start it, run beside it and end it."""
    part = (
        'all-gather(%p), channel_id=7, replica_groups={{0,1}}, frontend_attributes={chain_id="3"}'
    )
    fused = "\n".join(
        f"%f{i} (p: f32[2]) -> f32[4] {{\n  ROOT %g{i} = f32[4]{{0}} {part}\n}}\n" for i in range(3)
    )
    calls = "\n".join(f"  %c{i} = f32[4]{{0}} fusion(%w), calls=%f{i}" for i in range(3))
    found, _ = collectives(f"{fused}\nENTRY %main (w: f32[2]) -> f32[4] {{\n{calls}\n}}\n", 2)
    assert [(one.kind, one.times, one.payload) for one in found] == [("all-gather", 1, 16)]


def test_unrolled_loops_step_by_two() -> None:
    """As libtpu writes the products of arrays whose parts go round: no note of the length."""
    step = """  %two = s32[] constant(2)
  %counter = s32[] get-tuple-element(%p), index=0
  %next = s32[] add(%counter, %two)
  %copied = s32[] copy(%next)
  ROOT %state = (s32[], f32[4]) tuple(%copied, %permute)
}

%inner_condition"""
    text = HLO.replace("  ROOT %permute", "  %permute").replace("}\n\n%inner_condition", step)
    found, _ = collectives(text, 8)
    assert {one.times for one in found if one.kind == "collective-permute"} == {28 * 3}


def test_targets() -> None:
    assert parse_target("a100-40g:8").count == 8
    v5e = parse_target("v5e:2x4")
    assert v5e.count == 8
    assert v5e.wire == 2 * v5e.device.link
    assert all(device.source for device in DEVICES.values())
    for wrong, said in (("a100", "a100-40g:8"), ("b200:8", "v5p"), ("h100:16", "one node")):
        with pytest.raises(ConfigError, match=said):
            parse_target(wrong)


@pytest.mark.parametrize(
    ("most", "first", "trials"), [(19, 2, 6), (1, 1, 6), (0, 4, 6), (7, 64, 6)]
)
def test_the_largest_batch_is_found(most: int, first: int, trials: int) -> None:
    asked = []

    def total_of(n: int) -> float:
        asked.append(n)
        return math.inf if n > 40 else 3 + n + 0.01 * n**2  # about linear; refused beyond 40

    limit = total_of(most) + 0.5 if most else 1.0
    asked.clear()
    assert largest(total_of, limit, (first, total_of(first)), trials) == (most, True)
    assert len(asked) <= trials + 1


@pytest.mark.parametrize(
    ("said", "gib"),
    [
        ("Used 18.50G of 15.75G hbm", 18.5),
        ("the total memory required for HLO temporaries (832.00G) exceeds", 832.0),
        ("no number", math.inf),
    ],
)
def test_a_refused_step_does_not_fit(said: str, gib: float) -> None:
    def refuse() -> None:
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {said}")

    found = compile_step(Lowered(SimpleNamespace(compile=refuse), {"base": 2**30}))
    assert found.total == gib * 2**30
    assert not found.text


def test_few_trials_give_a_lower_bound() -> None:
    assert largest(lambda n: n, 1000.0, (1, 1.0), 1) == (2, False)


@pytest.mark.parametrize("length", [64, 320])
def test_flops_equal_xla_s_on_one_unrolled_layer(length: int) -> None:
    """XLA counts a loop's body once, so with one layer and no remat its count is right."""
    config = dataclasses.replace(tiny.QWEN, num_layers=1, hidden_size=64, intermediate_size=256)
    aligned, _ = tiny.model(config)
    tokens = jnp.ones((2, length), jnp.int32)
    base = jax.eval_shape(Qwen2(config).init, jax.random.key(0), tokens)
    forward = jax.jit(Qwen2(config).apply).lower(base, tokens).compile().cost_analysis()
    work = Work(2 * length, length, 0, 2 * length, 0, 0)
    ours = roofline.flops(aligned, (), work)["executed"]
    # frozen: forward; and backward: the same once more, attention 2.5 times, the head thrice in all
    head = 2.0 * 2 * length * config.hidden_size * config.vocab_size
    pairs = {64: 64 * 64, 320: 128 * 128 + 128 * 256 + 64 * 320}[length]
    attention = 4.0 * 2 * pairs * config.num_heads * config.head_dim
    low = 2.0 * 2 * length * tiny.LORA.rank * sum(map(sum, lora.kernel_shapes(config).values()))
    mine = (ours - 2 * low - 1.5 * attention - head) / 2
    assert mine == pytest.approx(forward["flops"], rel=0.1)


def test_seven_billion_parameters_cost_six_flops_each() -> None:
    """A trained token costs 2 forward, 2 for the inputs' gradient, 2 for the parameters'."""
    config = PRESETS["qwen2.5-7b"]
    aligned = dataclasses.replace(tiny.model()[0], llm=Qwen2(config, LoraConfig()))
    work = Work(1024, 1, 0, 1024, 0, 0)
    found = roofline.flops(aligned, ("base",), work)["model"] / 1024
    parameters = 7.07e9  # without the embedding table, which is looked up
    assert found == pytest.approx(6 * parameters, rel=0.03)


def test_the_verb_plans_on_fake_devices(tmp_path: Path) -> None:
    """Nano on eight: every collective is a parameter's, its gradient's or a token's; no device sums
    activations of all rows (which `by_rows` prevents), and the temporaries are called an estimate."""
    path = tmp_path / "plan.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bua_jax.plan", "--config=configs/stage2.py:mesh=8"),
            *("--target=v5e:2x4", "--rows=64", "--trials=0", f"--json={path}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert found["packing"]["rows_per_batch"] == 64
    assert found["memory"]["fits"]
    given = [found["memory"][g] for g in ("base", "adapter", "projector", "optimizer state")]
    assert all(given)
    assert found["memory"]["total"] >= sum(given) + found["memory"]["activations and temporaries"]
    assert found["collectives"]
    nano = PRESETS["nano"]
    largest_parameter = (
        nano.vocab_size * nano.hidden_size * 4
    )  # the embedding table, widened to float32
    activations = 64 * 448 * nano.hidden_size * 4
    assert largest_parameter < activations
    sizes = {row["kind"]: row["largest"] for row in found["collectives"]}
    assert max(v for k, v in sizes.items() if k != "all-to-all") <= largest_parameter
    assert "jax[tpu]" in done.stderr or found["compiler"] == "tpu"
    assert "model.dtype=bfloat16" in done.stderr


def test_splash_is_planned_with_the_compiler_of_tpus_only() -> None:
    config = configs.load("configs/stage2.py").copy_and_resolve_references()
    config.unlock()
    config.execution.attention, config.stage2.row_length = "splash", 512
    for own, attention in ((True, "splash"), (False, "xla")):
        notes: list[str] = []
        resolved = _resolved(config, "stage2", "tpu", own, notes)
        assert resolved.execution.attention == attention
        assert any("attention by xla: splash" in note for note in notes) != own
    with pytest.raises(ConfigError, match="on cuda"):
        _resolved(config, "stage2", "cuda", True, [])
    config.stage2.row_length = 448
    with pytest.raises(ConfigError, match="to 512"):
        _resolved(config, "stage2", "tpu", False, [])


@pytest.mark.parametrize(("attention", "said"), [("auto", False), ("xla", False), ("cpu", True)])
def test_an_accelerator_is_planned_without_a_cpu_s_kernels(attention: str, said: bool) -> None:
    config = configs.load("configs/stage2.py").copy_and_resolve_references()
    config.execution.attention = attention
    notes: list[str] = []
    assert _resolved(config, "stage2", "cuda", True, notes).execution.attention == "xla"
    assert any("attention by xla: cpu" in note for note in notes) == said


def test_splash_s_backward_pass_costs_two_products_more() -> None:
    """Of two scores and two gradients of scores it needs one each: 3.5 times the forward, not 2.5."""
    work = Work(2 * 384, 384, 0, 1, 0, 0)  # rows that splash divides into blocks like xla's
    found = {}
    for attention in ("xla", "splash"):
        llm = Qwen2(dataclasses.replace(tiny.QWEN, attention=attention), tiny.LORA)
        aligned = dataclasses.replace(tiny.model()[0], llm=llm)
        found[attention] = roofline.flops(aligned, ("projector",), work)["executed"]
    pairs = 128 * (128 + 256 + 384)
    heads = tiny.QWEN.num_layers * tiny.QWEN.num_heads * tiny.QWEN.head_dim
    assert found["splash"] - found["xla"] == 4.0 * 2 * pairs * heads


def test_what_cannot_be_planned_is_refused() -> None:
    config = configs.load("configs/stage2.py", "mesh=4")
    with pytest.raises(ConfigError, match="mesh=8"):
        make_plan(config, "a100-40g:8")
    config.stage2.microbatches = 0
    with pytest.raises(ConfigError, match=r"config\.stage2\.microbatches=0: expected a whole"):
        make_plan(config, "a100-40g:4")
    with pytest.raises(ConfigError, match="A plan is of a stage"):
        make_plan(configs.load("configs/curriculum.py"), "a100-40g:1")
    config.stage2.microbatches = 2
    with pytest.raises(ConfigError, match="give 4"):
        packing_plan(config, "stage2", ASSUMED["stage2"], sharding.make_mesh("1"), rows=3)
