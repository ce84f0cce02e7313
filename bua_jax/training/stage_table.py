"""What each stage trains, as data."""

STAGE_TABLE: dict[str, tuple[str, ...]] = {
    "stage1": ("projector",),  # section 3.4.1: encoder and LLM frozen
    "stage2": ("projector", "adapter"),  # section 3.4.2: encoder frozen
    "stage3": ("adapter",),  # section 3.4.3: encoder and projector frozen
    "joint": ("projector", "adapter"),  # Appendix S
}
