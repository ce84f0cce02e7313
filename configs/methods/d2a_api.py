"""D2A (Wang et al., 2024) by a language model behind an API; never asked without consent.

Six questions per step and person: with steps of an hour a day takes 145.

    export DEEPSEEK_API_KEY=...
    python -m bua_jax.curriculum --config=configs/curriculum.py \\
        --config.evaluation.methods="('d2a_api','bua')" --config.windows.generation_test=16 \\
        --config.execution.api_consent=api.deepseek.com

What may be spent, and how fast, is `execution.api_limits`.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.url = "https://api.deepseek.com"  # of an OpenAI-compatible host, up to /chat/completions
    # A host may repoint a name to another model.
    config.model = "deepseek-chat"  # as the host names it
    config.key_variable = "DEEPSEEK_API_KEY"  # environment variable with the API key; empty: none
    config.json_mode = "auto"  # json_schema, json_object or prompt; auto: the first that it takes
    config.max_tokens = 512  # of an answer; more where a model reasons first
    config.temperature = 0.0  # of an answer: plans of a step differ by what is asked
    config.extra = ""  # more of the request's body, as a JSON object; null takes a field out
    config.step_minutes = 60  # of a plan, whole hours; the original: 20
    return config
