"""Tokenizers from `tokenizer.json` or `qwen.tiktoken`, as dialogues need them."""

import base64
import binascii
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from bua_jax.basics.errors import CheckpointError
from bua_jax.basics.files import sha256_file
from bua_jax.interop.model_config import json_object

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
_QWEN_SPLIT = (  # of Qwen's published tokenizer: contractions, words, single digits, symbols, spaces
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# Qwen2.5's added tokens in the order of their ids, which follow the last rank of qwen.tiktoken.
_QWEN_SPECIAL = (
    *("<|endoftext|>", IM_START, IM_END, "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
_QWEN_PLAIN = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
)


def _qwen2() -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
    split = pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return normalizers.NFC(), pre_tokenizers.Sequence([split, byte_level])


def _smollm() -> tuple[normalizers.Normalizer | None, pre_tokenizers.PreTokenizer]:
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return None, pre_tokenizers.Sequence([digits, byte_level])


# (normalizer, pre-tokenizer) by llama.cpp's names, for tokenizers that come without tokenizer.json.
PRE_TOKENIZERS = {"qwen2": _qwen2, "smollm": _smollm}


@dataclass(frozen=True)
class HFTokenizer:
    """A `tokenizers` tokenizer with the ids of ChatML and of the soft tokens.

    The three soft-token ids are rows of the embedding table that the tokenizer does not use, so the
    table is not resized (design, decision 6); where it uses all (SmolLM2), they are its last special
    tokens, which no text can make.
    """

    tokenizer: tokenizers.Tokenizer
    im_start: int
    im_end: int
    soft_start: int
    soft: int
    soft_end: int
    vocab_size: int
    fingerprint: str = ""  # hash of the file that it was read from

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; special tokens written out in it stay text.

        Raises `CheckpointError` where a regular expression of the tokenizer gives up on the text.
        """
        try:
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        except BaseException as error:  # the library panics, which is no Exception
            if type(error).__name__ != "PanicException":
                raise
            raise CheckpointError(
                f"The tokenizer fails on the text {text[:80]!r} ({error}). Use the model's published "
                "tokenizer."
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; ids that the tokenizer does not use are left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)


def load_tokenizer(folder: str | Path, vocab_size: int) -> HFTokenizer:
    """Reads `folder`/tokenizer.json (else qwen.tiktoken) for a model with `vocab_size` embedding rows.

    Raises `CheckpointError` if both are missing, and for one that is damaged, lacks the ChatML tokens, uses
    ids beyond the table, or has fewer than three rows and special tokens to spare.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        path = Path(folder) / "qwen.tiktoken"
    if not path.is_file():
        raise CheckpointError(f"{folder} has neither tokenizer.json nor qwen.tiktoken.")
    try:
        json_file = path.suffix == ".json"
        if json_file:
            _check_expressions(path)
            _check_beginnings(path)
        tokenizer = tokenizers.Tokenizer.from_file(str(path)) if json_file else from_tiktoken(path)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise CheckpointError(f"{path} is not a tokenizer ({error}).") from error
    tokenizer.encode_special_tokens = True  # written-out special tokens stay text
    # What files keep of how they were trained or last used is not for the pieces of a dialogue.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
    used = set(tokenizer.get_vocab(with_added_tokens=True).values())
    if max(used) >= vocab_size:
        raise CheckpointError(
            f"{path} uses id {max(used)}, but the model's table has only {vocab_size} rows."
        )
    im_start, im_end = tokenizer.token_to_id(IM_START), tokenizer.token_to_id(IM_END)
    if im_start is None or im_end is None:
        raise CheckpointError(f"{path} lacks {IM_START} or {IM_END}; a ChatML model is needed.")
    free = [i for i in range(vocab_size - 1, -1, -1) if i not in used]
    added = sorted(tokenizer.get_added_tokens_decoder().items(), reverse=True)
    # <|endoftext|> and the like may stand for the end of a text elsewhere.
    spare = [i for i, token in added if token.special and not token.content.startswith("<|")]
    if len(free + spare) < 3:
        raise CheckpointError(
            f"{path} leaves {len(free)} of {vocab_size} table rows free and has {len(spare)} special "
            "tokens to spare; the soft tokens need three."
        )
    soft_end, soft, soft_start = (free + spare)[:3]
    ids = im_start, im_end, soft_start, soft, soft_end
    return HFTokenizer(tokenizer, *ids, vocab_size, sha256_file(path))


_MOST_REPEATS = 3
"""Unbounded repetitions in one alternative: those of the published tokenizers have two."""
_REGEX_PARTS = re.compile(
    r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|\{\d+,?\d*\}|\{,\d+\}|.", re.DOTALL
)


def _slow(expression: str) -> bool:
    """Whether a regular expression may take time out of proportion to the text.

    So may repeated groups, back references, and many repetitions in a row.
    """
    depth = repeats = 0
    for before, part in itertools.pairwise(["", *_REGEX_PARTS.findall(expression)]):
        depth += (part == "(") - (part == ")")
        repeated = part in ("*", "+") or (part[0] == "{" and len(part) > 1)
        if part == "|" and not depth:
            repeats = 0
        if re.fullmatch(r"\\[1-9k]", part) or (repeated and before == ")"):
            return True
        if repeated and before not in ("*", "+", "?"):  # such a second sign makes it possessive
            repeats += part in ("*", "+") or part.endswith(",}")
        if repeats > _MOST_REPEATS:
            return True
    return False


def _check_expressions(path: Path) -> None:
    """Raises `CheckpointError` for regular expressions in tokenizer.json that may never end."""

    def expressions(value: Any) -> Iterator[str]:
        if isinstance(value, dict) and isinstance(value.get("Regex"), str):
            yield value["Regex"]
        inner = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
        for item in inner:
            yield from expressions(item)

    values = json_object(path)
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        for expression in expressions(values.get(name)):
            if len(expression) > 2_000 or _slow(expression):
                raise CheckpointError(
                    f"{path}: the regular expression {expression[:200]!r} of the {name} can take time "
                    "out of proportion to the text (repeated groups). Use the model's published tokenizer."
                )


def _check_beginnings(path: Path) -> None:
    """Raises `CheckpointError` for a tokenizer that adds or removes space at the ends of each text.

    The pieces of a dialogue, which are encoded one by one, would not be those of the whole.
    """

    def parts(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            yield value
            inner = value.get("normalizers") or value.get("pretokenizers") or []
            for item in inner if isinstance(inner, list) else []:
                yield from parts(item)

    values = json_object(path)
    for name in ("normalizer", "pre_tokenizer"):
        for part in parts(values.get(name)):
            kind = part.get("type")
            scheme = part.get(
                "prepend_scheme", "always" if part.get("add_prefix_space") else "never"
            )
            if (
                kind in ("Prepend", "Strip", "BertNormalizer")
                or (kind == "ByteLevel" and part.get("add_prefix_space"))
                or (kind == "Metaspace" and scheme != "never")
            ):
                raise CheckpointError(
                    f"{path}: the {name} ({kind}) adds or removes space at the ends of every text, so that "
                    "the pieces of a dialogue would not be those of the whole. Use a base whose tokenizer "
                    "does not (Qwen2.5, SmolLM2)."
                )


def from_tiktoken(path: str | Path) -> tokenizers.Tokenizer:
    """Qwen2.5's tokenizer from its ranks: a line per token, its bytes in base64 and its rank.

    The merge that makes a token is the last one when its bytes are merged by the lower ranks alone.
    Raises `CheckpointError` naming the line if the file is malformed.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            encoded, expected = line.split()
            if int(expected) != len(ranks):
                raise ValueError(f"rank {int(expected)}, expected {len(ranks)}")
            ranks[base64.b64decode(encoded, validate=True)] = len(ranks)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(
                f"{path}, line {number}: {error}; expected a token in base64 and its rank."
            ) from error
    text = {byte: character for character, byte in byte_of_character().items()}

    def spelled(token: bytes) -> str:
        return "".join(text[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        parts = _merged(token, ranks, rank)
        if len(parts) == 2:
            merges.append((spelled(parts[0]), spelled(parts[1])))
    vocab = {spelled(token): rank for token, rank in ranks.items()}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _qwen2()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [AddedToken(t, special=True, normalized=False) for t in _QWEN_SPECIAL]
        + [AddedToken(t, normalized=False) for t in _QWEN_PLAIN]
    )
    return tokenizer


def _merged(token: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """Byte-pair encoding of `token` by the ranks under `below`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        pairs = [ranks.get(a + b, below) for a, b in itertools.pairwise(parts)]
        best = min(pairs)
        if best >= below:
            break
        at = pairs.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def byte_of_character() -> dict[str, int]:
    """Inverse of the byte-level alphabet: printable Latin-1 stands for itself, the rest is shifted."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [b for b in range(256) if b not in kept]
    table = {chr(b): b for b in kept}
    return table | {chr(256 + i): b for i, b in enumerate(shifted)}


def token_bytes(tokenizer: HFTokenizer) -> list[bytes | None]:
    """Bytes that each embedding row stands for; None for special tokens and unused rows."""
    table = byte_of_character()
    found: list[bytes | None] = [None] * tokenizer.vocab_size
    added = set(tokenizer.tokenizer.get_added_tokens_decoder())
    for text, number in tokenizer.tokenizer.get_vocab(with_added_tokens=True).items():
        if number not in added and all(c in table for c in text):
            found[number] = bytes(table[c] for c in text)
    return found
