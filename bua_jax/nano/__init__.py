"""The built-in language model: its label sets, worlds, reading drills, tokenizer and pretraining."""
