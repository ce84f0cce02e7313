"""Step `reflect`: the stage-2 model drafts summaries, a critic scores them, weak ones are refined."""

import json
from typing import Any

import numpy as np

from bua_jax.alignment.ask import Bua
from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.decoding.rounds import understand
from bua_jax.dialogue.critic import refinement_dialogue, reviewed
from bua_jax.dialogue.rounds import Dialogue
from bua_jax.dialogue.store import provenance, write_dialogues
from bua_jax.dialogue.tasks import Writer
from bua_jax.events.groups import training_shares
from bua_jax.events.windows import shown_id
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import drafted, say_counts, teacher_of
from bua_jax.pipeline.stages import load_stage
from bua_jax.pipeline.steps import Run


def build_reflection(run: Run) -> dict[str, Any]:
    """Writes reflect/stage3.parquet and drafts.jsonl (every draft with its score and issues)."""
    config, store = run.config, load_store(run)
    shares = training_shares(store)
    bua = Bua(
        load_stage(run, "stage2"),
        config.decoding,
        shares,
        seed=config.seed,
        batch=config.execution.decode_batch,
    )
    writer = Writer(store, shares, seed=config.seed)
    teacher = teacher_of(config) if config.dialogues.reflect_critic == "teacher" else None
    kept: list[Dialogue] = []
    lines, scores = [], {}
    for split, (windows, seen) in drafted(run, store, writer).items():
        histories = [window.history for window in seen]
        drafts = [
            u.texts["summary"] for u in understand(bua.decoder, histories, bua.rounds(histories))
        ]
        reviews = teacher.review(seen, drafts) if teacher else [*map(reviewed, seen, drafts)]
        found = {i: review for i, review in enumerate(reviews) if review is not None}
        scores[split] = float(np.mean([review.score for review in found.values()]))
        order = sorted(found, key=lambda i: found[i].score)
        weak = set(order[: max(1, round(len(order) * config.dialogues.reflect_share))])
        for i, critic in found.items():
            window, draft = seen[i], drafts[i]
            record = {
                "sample_id": shown_id(store, windows, i),
                "split": split,
                "draft": draft,
                "score": critic.score,
                "issues": list(critic.issues),
                "refined": i in weak,
            }
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
            if i in weak:
                start, end = int(windows.start[i]), int(windows.end[i])
                kept.append(refinement_dialogue(window, split, start, end, draft, critic))
    folder = run.folder("reflect")
    files.write_text(folder / "drafts.jsonl", "".join(lines))
    texts = write_dialogues(folder / "stage3.parquet", kept, provenance(store))
    notice(f"reflect: mean draft score {scores['train']:.2f}, {len(kept)} stage-3 dialogues")
    said = {"teacher": dict(teacher.counts)} if teacher else {}
    if teacher:
        say_counts(teacher)
    return {"scores": scores, "dialogues": len(kept), "texts": texts, **said}
