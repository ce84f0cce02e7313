"""What transformers needs beside a model's weights to talk to it: tokenizer, template, where to stop."""

from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.interop.tokenizer import IM_END, HFTokenizer

TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
_OF_THE_BASE = ("name_or_path", "chat_template", "special_tokens_map_file", "tokenizer_file")
# A dialogue as it was trained on: without the system message that the templates of bases add.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def save_tokenizer(folder: str | Path, tokenizer: HFTokenizer, base: str | Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into a model's folder.

    base: the folder that the tokenizer came from, whose settings are kept but for the end of a text,
    which is that of an answer, the template of dialogues, and the paths that it was saved from.
    """
    folder, source = Path(folder), Path(base) / TOKENIZER_CONFIG
    found: dict[str, Any] = files.read_json(source) if source.is_file() else {}
    values = {key: value for key, value in found.items() if key not in _OF_THE_BASE}
    values.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    values |= {"eos_token": IM_END, "chat_template": CHAT_TEMPLATE}
    with files.atomic_write(folder / "tokenizer.json") as temporary:
        tokenizer.tokenizer.save(str(temporary))
    files.write_json(folder / TOKENIZER_CONFIG, values)


def save_generation(folder: str | Path, tokenizer: HFTokenizer) -> None:
    """Writes generation_config.json: greedy, and an answer ends where ours do."""
    stop = {"eos_token_id": tokenizer.im_end, "pad_token_id": tokenizer.im_end}
    files.write_json(Path(folder) / GENERATION_CONFIG, {**stop, "do_sample": False})
