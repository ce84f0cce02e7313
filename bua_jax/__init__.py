"""BUA (Behavior Understanding Alignment) in JAX/Flax."""

__version__ = "0.1.0"
