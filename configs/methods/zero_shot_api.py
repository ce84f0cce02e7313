"""A language model behind an API, asked about histories in words; never asked without consent.

    export DEEPSEEK_API_KEY=...
    python -m bua_jax.curriculum --config=configs/curriculum.py \\
        --config.evaluation.methods="('zero_shot_api','bua')" --config.execution.api_consent=api.deepseek.com

What may be spent, and how fast, is `execution.api_limits`.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.url = "https://api.deepseek.com"  # of an OpenAI-compatible host, up to /chat/completions
    # A host may repoint a name to another model: who answered is in the result file.
    config.model = "deepseek-chat"  # as the host names it
    config.key_variable = "DEEPSEEK_API_KEY"  # environment variable with the API key; empty: none
    config.json_mode = "auto"  # json_schema, json_object or prompt; auto: the first that it takes
    config.max_tokens = 256  # of an answer; more where a model reasons first
    config.temperature = 0.0  # of an answer
    config.extra = ""  # more of the request's body, as a JSON object; null takes a field out
    # Apart from `seed`, so that runs with other seeds ask the same and pay nothing.
    config.order_seed = 42  # of the order in which each question lists the labels
    return config
