"""Models of the Hugging Face hub: weights in safetensors, configuration and tokenizer, nothing else."""

from pathlib import Path

from bua_jax.basics.errors import CheckpointError

_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "qwen.tiktoken",
)


def snapshot(name: str) -> Path:
    """The local copy of NAME@REVISION (a commit, tag or branch), downloaded if it is not there yet.

    The server is HF_ENDPOINT, as for every user of `huggingface_hub`; with HF_HUB_OFFLINE=1 only
    what was downloaded before is used. Raises `CheckpointError`.
    """
    from huggingface_hub import snapshot_download  # for those alone who name a model of the hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = name.rpartition("@")
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"Could not get {repository!r} at revision {revision!r} from the hub "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Check both names and the "
            "network, or give a local directory with --config.model.path=DIR."
        ) from error
