"""Names of models: which are kin, as a judge favours its own family's texts (Panickssery et al., 2024).

And which words of a text say that a model wrote it.
"""

import re
from collections.abc import Iterable, Mapping

_KIN = {
    "gpt": r"gpt|davinci|(?<![a-z0-9])o\d(?![a-z0-9])|openai",
    "qwen": r"qwen|(?<![a-z])qwq",
    "deepseek": r"deepseek",
    "llama": r"llama|vicuna|alpaca",
    "mistral": r"mistral|mixtral|ministral|codestral|magistral",
    "gemini": r"gemini|gemma(?![a-z])|(?<![a-z])palm(?=-?\d)",
    "claude": r"(?<![a-z])claude(?![a-z])|anthropic",
    "smollm": r"smollm",
    "phi": r"(?<![a-z])phi(?=[- ]?\d)",
    "glm": r"glm(?![a-z])",
    "kimi": r"(?<![a-z])kimi(?![a-z])|moonshot",
    "grok": r"(?<![a-z])grok(?![a-z])",
}
"""Names that models of one house go by; of a distilled one both houses' stand in its name."""
TOLD = re.compile(
    rf"\w*(?:{'|'.join(_KIN.values())})(?:[.-]?\w+)*"
    r"|\b(?:bua|language model|as an ai|ai assistant)\b",
    re.IGNORECASE,
)
"""Words that tell a reader of a text which model wrote it, or that one did."""


def families(model: str) -> frozenset[str]:
    """The families that a model's name says, as hosts and hubs write it (`qwen/Qwen2.5-7B-Instruct`).

    Of a name that none is known of, the first word of its last part.
    """
    name = model.lower()
    found = {kin for kin, words in _KIN.items() if re.search(words, name)}
    last = name.rstrip("/").rpartition("/")[2]
    return frozenset(found or re.findall(r"^[a-z]+", last))


def kin(judge: str, answered: Iterable[str], others: Mapping[str, str]) -> list[str]:
    """A sentence for each of `others` (who they are -> model) that is of the judge's family.

    judge: as it was asked for; answered: the models that answered, as the host names them.
    """
    own = frozenset().union(*map(families, (judge, *answered)))
    return [
        f"The judge {judge!r} and {who}, {model!r}, are of one family ({', '.join(sorted(shared))}): it may "
        "favour what is written like its own texts. Ask a judge of another family."
        for who, model in others.items()
        if (shared := own & families(model))
    ]
