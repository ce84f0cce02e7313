"""The composed model of a run: base, encoder, projector, adapter, and what they must agree on."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bua_jax.alignment.bases import load_base
from bua_jax.alignment.encoder import load_encoder
from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.console import waiting
from bua_jax.basics.errors import CheckpointError, ConfigError, MismatchError
from bua_jax.dialogue.prompts import Tokenizer, label_tokens
from bua_jax.events.schema import Catalogue
from bua_jax.interop import huggingface, peft
from bua_jax.interop.tokenizer import HFTokenizer
from bua_jax.models import lora, projector
from bua_jax.models.aligned import Aligned
from bua_jax.models.encoders import EncoderConfig, build
from bua_jax.models.kernels import cpu
from bua_jax.models.lora import LoraConfig
from bua_jax.models.projector import Projector
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config

TRAINED = "trained.safetensors"
"""What a stage leaves in its folder."""


@dataclass(frozen=True)
class Parts:
    """A model ready to be trained or asked, with the hashes of what it was put together from."""

    model: Aligned
    variables: dict[str, Any]
    tokenizer: HFTokenizer
    catalogue: Catalogue
    identity: dict[str, Any]
    mesh: Mesh | None = None  # over which the base is spread
    trained: str = ""  # hash of the file that a finished stage left, where it is of one


def training_attention(name: str, sizes: Qwen2Config) -> str:
    """`name`, and what "auto" is here: "cpu" where its kernels run, else "xla". Raises `ConfigError`."""
    if name not in ("auto", "cpu"):
        return name
    if cpu.attends_within(sizes.dtype, sizes.head_dim) and cpu.available():
        return "cpu"
    if name == "auto":
        return "xla"
    raise ConfigError(
        "execution.attention='cpu' takes a CPU, a C++ compiler, a base in float32 and heads of a multiple of "
        f"32, but here it is {jax.default_backend()}, {sizes.dtype} and {sizes.head_dim}: set "
        "--config.execution.attention=xla."
    )


def computed(llm: Qwen2Config) -> str:
    """What a base computes beside its weights: `rope_theta 10000.0, ...`."""
    how = ("dtype", "attention", "remat", "max_positions")
    said = dataclasses.asdict(llm).items()
    return ", ".join(f"{name} {value}" for name, value in said if name not in how)


def label_ids(tokenizer: Tokenizer, catalogue: Catalogue) -> tuple[int, ...]:
    """The tokens that labels are spelled with, at the beginning of a text or within, ascending."""
    labels = catalogue.behaviours
    spelled = [
        *map(tokenizer.encode, labels),
        *(label_tokens(tokenizer, label) for label in labels),
    ]
    return tuple(sorted({i for ids in spelled for i in ids}))


def lora_of(config: Settings, labels: tuple[int, ...]) -> LoraConfig:
    """The adapter's shape; config: the part `model`; labels: the tokens of labels."""
    tokens = labels if config.train_label_tokens else ()
    return LoraConfig(config.lora_rank, config.lora_alpha, tuple(config.lora_targets), tokens)


def compose(
    config: Settings,
    how: Settings,
    llm: Qwen2Config,
    adapter: LoraConfig,
    encoder: EncoderConfig,
    soft_id: int,
) -> Aligned:
    """The model of a config, without parameters; config, how: the parts `model` and `execution`."""
    return Aligned(
        llm=Qwen2(llm, adapter),
        encoder=build(encoder),
        projector=Projector(llm.hidden_size),
        soft_tokens=config.soft_tokens,
        soft_id=soft_id,
        merge_adapter=how.merge_adapter,
        recall=config.recall,
    )


def assemble(
    config: Settings,
    how: Settings,
    encoder_folder: Path,
    seed: int,
    mesh: Mesh | None = None,
    *,
    trained: Path | None = None,
) -> Parts:
    """Loads base and encoder, and makes a fresh projector and adapter, or takes those of a finished stage.

    config, how: the parts `model` and `execution`; mesh: over which the base is spread; trained: what that
    stage left, see `with_trained`.
    Raises `CheckpointError` or `ConfigError`.
    """
    base = load_base(config, mesh)
    attention = training_attention(how.attention, base.config)
    llm_config = dataclasses.replace(base.config, remat=how.remat, attention=attention)
    encoder_config, encoder, metadata = load_encoder(encoder_folder)
    catalogue = Catalogue.from_json(metadata["catalogue"])
    lora_config = lora_of(config, label_ids(base.tokenizer, catalogue))
    soft_id = base.tokenizer.soft
    model = compose(config, how, llm_config, lora_config, encoder_config, soft_id)
    table = base.params["embed_tokens"]["embedding"]
    make = functools.partial(
        _fresh, config, encoder_config.state_dim, lora_config, llm_config, seed=seed
    )
    with waiting("making projector and adapter"):  # of which some parts are compiled
        fresh = jax.eval_shape(make, table) if trained else make(table)
    variables = {"base": base.params, "encoder": encoder, **fresh}
    identity = {
        "base": base.digest,
        "base_config": computed(llm_config),
        "tokenizer": base.tokenizer.fingerprint,
        "encoder": metadata["hash"],
        "catalogue": metadata["catalogue"],
        "data": metadata["data"],
        "soft_tokens": config.soft_tokens,
        "recall": str(config.recall),
        "base_quantization": config.base_quantization,
        "lora": f"rank {config.lora_rank}, alpha {config.lora_alpha}, {tuple(config.lora_targets)}"
        + (", tokens of labels" if config.train_label_tokens else ""),
    }
    if config.adapter and not trained:  # the file has what became of it
        variables |= _imported(Path(config.adapter), llm_config, lora_config, identity)
    parts = Parts(model, variables, base.tokenizer, catalogue, identity, mesh)
    if not trained:
        return parts
    parts = with_trained(parts, trained)
    leaves = {name: jax.tree.leaves(parts.variables[name])[0] for name in fresh}
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves.values()):  # a file without it
        return with_trained(
            dataclasses.replace(parts, variables={**variables, **make(table)}), trained
        )
    return parts


def _fresh(
    config: Settings,
    width: int,
    adapter: LoraConfig,
    llm: Qwen2Config,
    table: jax.Array,
    *,
    seed: int,
) -> dict[str, Any]:
    """A projector of states [..., width] and an adapter; table: the base's embeddings [V, H]."""
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "projector": projector.init(first, width, table, recall=config.recall > 0),
        "adapter": lora.init(second, adapter, llm, table),
    }


def _said(lora: LoraConfig) -> str:
    rows = f" with the embeddings of {len(lora.tokens)} tokens" if lora.tokens else ""
    return f"rank {lora.rank}, alpha {lora.alpha:g} on {lora.targets}{rows}"


def _imported(
    folder: Path, llm: Qwen2Config, expected: LoraConfig, identity: dict[str, str]
) -> dict[str, Any]:
    """The adapter of a PEFT folder, and the projector beside it if there is one.

    Raises `CheckpointError` if the folder is damaged, `MismatchError` if the adapter has another shape
    than the config's or belongs to another base, or the projector to another encoder or label set.
    """
    found, adapter = peft.load(folder, llm, base_hash=identity["base"])
    if dataclasses.replace(found, targets=tuple(sorted(found.targets))) != dataclasses.replace(
        expected, targets=tuple(sorted(expected.targets))
    ):
        raise MismatchError(
            f"{folder} holds an adapter of {_said(found)}, but the config says {_said(expected)}. Set "
            "--config.model.lora_rank, lora_alpha, lora_targets and train_label_tokens to the adapter's."
        )
    path = folder / "projector.safetensors"
    if not path.is_file():
        return {"adapter": adapter}
    tree, metadata = huggingface.load_tree(path)
    said = {name: identity[name] for name in ("base_config", "tokenizer")} | metadata
    for name in ("base_config", "tokenizer", "encoder", "catalogue", "soft_tokens", "recall"):
        if said.get(name) != identity[name]:
            raise MismatchError(
                f"{path} was trained with {name} {said.get(name)!r}, but here it is "
                f"{identity[name]!r}. Use the base, encoder and labels that it was trained with, or move the "
                "file away to train a projector of your own."
            )
    return {"adapter": adapter, "projector": tree["projector"]}


def with_trained(parts: Parts, path: Path) -> Parts:
    """`parts` with the projector and adapter of a finished stage.

    Raises `MismatchError` naming both values if they were trained with another base (its weights, what it
    computes, its tokenizer), encoder, label set, adapter shape or kind of soft token.
    """
    tree, metadata = huggingface.load_tree(path)
    for name, value in parts.identity.items():
        if metadata.get(name) != value:
            raise MismatchError(
                f"{path} was trained with {name} {metadata.get(name)!r}, but here it is {value!r}. Use "
                "the config that it was trained with, or another --workdir."
            )
    for name, value in tree.items():
        fresh = jax.tree.map(lambda x: x.shape, parts.variables[name])
        if jax.tree.map(lambda x: x.shape, value) != fresh:
            raise CheckpointError(f"{path}: the shapes of {name} do not fit the model.")
    variables = {**parts.variables, **tree}
    return dataclasses.replace(parts, variables=variables, trained=files.sha256_of(path) or "")
