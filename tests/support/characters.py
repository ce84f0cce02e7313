"""A tokenizer whose tokens can be read."""


class CharTokenizer:
    """A token per character; the five special ids lie above all characters."""

    im_start, im_end, soft_start, soft, soft_end = range(0x110000, 0x110005)
    vocab_size = 0x110005

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(chr(i) for i in ids if i < 0x110000)
