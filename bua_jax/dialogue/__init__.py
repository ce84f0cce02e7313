"""Dialogues about windows: tasks, reference answers, critic, and their form as tokens. No jax."""
