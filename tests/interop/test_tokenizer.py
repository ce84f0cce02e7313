"""Tokenizers without tokenizer.json, and the rows that soft tokens take, against HF and tiktoken."""

import base64
import importlib.util
import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from bua_jax.alignment.base_files import NANO
from bua_jax.basics.errors import CheckpointError
from bua_jax.dialogue.critic import refinement_dialogue, reviewed
from bua_jax.dialogue.prompts import encode_dialogue
from bua_jax.dialogue.rounds import STAGE1_TASKS, TASKS
from bua_jax.dialogue.tasks import Writer, stage1_dialogue, stage2_dialogue
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import generation_windows, history, prediction_windows
from bua_jax.interop.tokenizer import from_tiktoken, load_tokenizer
from bua_jax.models.presets import PRESETS
from tests.support.helpers import require

# Scripts, digits, emoji (with joiners), code, composed and decomposed accents, runs of spaces, and
# special tokens written out.
TEXT = (
    "Home cooking at 12:30, it's 42\u00b0; caf\u00e9 cafe\u0301 \u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8 "
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467 def f(x):\n\treturn x**2  \n\n "
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940   end WE'LL"
)


@pytest.fixture(scope="module")
def ranks() -> Path:
    """Qwen's published ranks, as the package dashscope ships them (a file of it is all we use)."""
    found = importlib.util.find_spec("dashscope")
    if found is None or not found.submodule_search_locations:
        require("dashscope")
        raise AssertionError
    return Path(found.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"


@pytest.fixture(scope="module")
def qwen(ranks) -> tokenizers.Tokenizer:
    return from_tiktoken(ranks)


def test_qwen_ids_equal_hugging_face(qwen):
    transformers = require("transformers")
    model = json.loads(qwen.to_str())["model"]
    theirs = transformers.Qwen2Tokenizer(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]]
    )
    assert qwen.encode(TEXT).ids == theirs(TEXT)["input_ids"]
    assert qwen.encode("Hello world").ids == [9707, 1879]  # Qwen2.5's published ids
    assert qwen.token_to_id("<|im_start|>") == 151644
    assert qwen.token_to_id("<|im_end|>") == 151645
    assert qwen.token_to_id("<|file_sep|>") == 151664
    assert qwen.encode("a<|im_end|>b").ids == [64, 151645, 65]


def test_nano_ids_equal_hugging_face() -> None:
    """As docs/language-models.md says to read them; AutoTokenizer splits as Qwen2 does."""
    transformers = require("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(NANO, local_files_only=True)
    ours = load_tokenizer(NANO, PRESETS["nano"].vocab_size)
    for text in (TEXT, "Monday 18:30, at L3: eat", "  12  "):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)


def test_qwen_merges_equal_tiktoken(qwen, ranks):
    """tiktoken merges by rank, without a list of merges: it checks that ours were found again."""
    tiktoken = require("tiktoken")
    split = json.loads(qwen.to_str())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    lines = [line.split() for line in ranks.read_bytes().splitlines()]
    table = {base64.b64decode(token): int(rank) for token, rank in lines}
    theirs = tiktoken.Encoding("qwen", pat_str=split, mergeable_ranks=table, special_tokens={})
    text = qwen.normalizer.normalize_str(TEXT)
    assert qwen.encode(TEXT).ids == theirs.encode(text)
    assert qwen.decode(qwen.encode(TEXT).ids) == text


def test_a_folder_with_ranks_alone_is_enough(ranks, tmp_path):
    (tmp_path / "qwen.tiktoken").write_bytes(ranks.read_bytes())
    found = load_tokenizer(tmp_path, 151936)
    assert (found.im_start, found.im_end) == (151644, 151645)
    assert (found.soft_start, found.soft, found.soft_end) == (151933, 151934, 151935)
    assert found.im_end not in found.encode("<|im_end|>"), "a user's text makes no special token"


@pytest.mark.parametrize("name", ["nano", "qwen"])
def test_spans_of_all_tasks_are_exact(name, ranks, tmp_path):
    """Every answer comes back from its supervised tokens, and they end with the stop token."""
    (tmp_path / "qwen.tiktoken").write_bytes(ranks.read_bytes())
    nano = name == "nano"
    rows = PRESETS["nano"].vocab_size if nano else 151936
    tokenizer = load_tokenizer(NANO if nano else tmp_path, rows)
    store = simulated_store(12, 20, 5)
    writer = Writer(store, training_shares(store))
    prediction = prediction_windows(store, "train").take(list(range(0, 200, 40)))
    generation = generation_windows(store, "train").take(list(range(3)))
    made = [
        stage1_dialogue(writer, t, prediction, r, "train") for t in STAGE1_TASKS for r in (0, 3)
    ]
    made += [stage2_dialogue(writer, "prediction", prediction, r, "train") for r in range(5)]
    made += [stage2_dialogue(writer, "generation", generation, r, "train") for r in range(3)]
    start, end = int(prediction.start[0]), int(prediction.end[0])
    window = writer.window(start, end, "w")
    made.append(
        refinement_dialogue(
            window, "train", start, end, "Traits: sociable.", reviewed(window, "Traits: sociable.")
        )
    )
    dialogues = [dialogue for dialogue in made if dialogue is not None]
    assert {dialogue.task for dialogue in dialogues} == set(TASKS)
    for dialogue in dialogues:
        seen = history(store, dialogue.start, dialogue.end)
        record = encode_dialogue(dialogue, seen, tokenizer)
        for number, turn in enumerate(dialogue.rounds, 1):
            *answer, stop = record.tokens[record.round_ids == number].tolist()
            assert stop == tokenizer.im_end
            space = " " if turn.kind == "prediction" else ""
            assert tokenizer.decode(answer) == space + turn.answer
            if space:  # a label that merges with the space before it is still the whole span
                assert answer == tokenizer.encode(space + turn.answer)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"IQ==", "line 3"),
        (b"IQ== 7", "rank 7, expected 2"),
        (b"I 2", "line 3"),
        (b"IQ== two", "line 3"),
    ],
)
def test_damaged_ranks_are_named(line, message, tmp_path):
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(b"YQ== 0\nYg== 1\n" + line + b"\n")
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path, 100)


def _folder(path: Path, special: list[str]) -> Path:
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.add_tokens([AddedToken(t, special=True) for t in special])
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def test_a_full_table_lends_its_last_special_tokens(tmp_path):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<x>", "<y>", "<z>"]
    found = load_tokenizer(_folder(tmp_path, special), 8)
    assert (found.soft_start, found.soft, found.soft_end) == (5, 6, 7)
    assert load_tokenizer(tmp_path, 10).soft_end == 9, "free rows come first"


def test_a_table_without_rows_to_spare_is_refused(tmp_path):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<x>", "<y>"]
    with pytest.raises(CheckpointError, match="leaves 0 of 7 table rows free and has 2 special"):
        load_tokenizer(_folder(tmp_path, special), 7)


def test_padding_truncation_and_dropout_of_the_file_are_not_used(tmp_path):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    stored = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    stored.add_tokens([AddedToken(t, special=True) for t in special])
    stored.enable_padding(length=8)
    stored.enable_truncation(2)
    stored.model.dropout = 1.0
    stored.save(str(tmp_path / "tokenizer.json"))
    found = load_tokenizer(tmp_path, 12)
    assert found.encode("ababa") == [2, 2, 0]
    assert found.encode("") == []


@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer"])
@pytest.mark.parametrize(
    "expression", [r"(a+)+$", r"(a|aa)*b", r"(?:x*y)+", r"(.)\1", r"\s*\s*\s*\s*\s*x", "a" * 3000]
)
def test_expressions_that_may_never_end_are_named(tmp_path, part, expression):
    path = _folder(tmp_path, ["<|im_start|>", "<|im_end|>"]) / "tokenizer.json"
    values = json.loads(path.read_text())
    split = {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }
    replace = {"type": "Replace", "pattern": {"Regex": expression}, "content": "-"}
    inner = {"pre_tokenizer": ("pretokenizers", split), "normalizer": ("normalizers", replace)}[
        part
    ]
    values[part] = {"type": "Sequence", inner[0]: [inner[1]]}
    path.write_text(json.dumps(values))
    with pytest.raises(
        CheckpointError, match=rf"regular expression .* of the {part} can take time"
    ):
        load_tokenizer(tmp_path, 10)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        ("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])),
        ("normalizer", normalizers.Prepend("_")),
        ("normalizer", normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])),
    ],
)
def test_space_before_every_piece_is_refused(tmp_path, part, value):
    path = _folder(tmp_path, ["<|im_start|>", "<|im_end|>"]) / "tokenizer.json"
    stored = tokenizers.Tokenizer.from_file(str(path))
    setattr(stored, part, value)
    stored.save(str(path))
    with pytest.raises(CheckpointError, match=rf"the {part} \(\w+\) adds or removes space"):
        load_tokenizer(tmp_path, 10)


@pytest.mark.parametrize("expression", [r"(?x) ( a + ) + b", "a{1,20}" * 8 + "b"])
def test_expressions_that_give_up_are_errors(tmp_path, expression):
    """The library panics then, which no `except Exception` catches."""
    path = _folder(tmp_path, ["<|im_start|>", "<|im_end|>"]) / "tokenizer.json"
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    values = json.loads(path.read_text()) | {"pre_tokenizer": split | {"invert": False}}
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"fails on the text 'aaa.*published tokenizer"):
        load_tokenizer(tmp_path, 10).encode("a" * 60)


@pytest.mark.parametrize(
    "expression",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # GPT-4o, Llama 4
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    ],
)
def test_published_expressions_pass(tmp_path, expression):
    path = _folder(tmp_path, ["<|im_start|>", "<|im_end|>"]) / "tokenizer.json"
    values = json.loads(path.read_text())
    split = {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }
    path.write_text(json.dumps(values | {"pre_tokenizer": split}))
    assert load_tokenizer(tmp_path, 10).encode("ab")
