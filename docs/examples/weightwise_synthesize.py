"""Instruction data from small tasks with known answers: what a pipeline keeps and why."""

import json
import tempfile
from pathlib import Path

from weightwise.lm.post import (
    Router,
    SynthesisConfig,
    TaskGenerator,
    synthesize,
    task_seeds,
)

generator = TaskGenerator(error_rate=0.3)
with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    result = synthesize(
        task_seeds(100, seed=1),
        folder,
        router=Router(default=(generator,), routes={}),
        critic=generator,
        config=SynthesisConfig(rounds=2, held_out=0.1),
    )
    for stage in result.stages:
        print(f"{stage.stage:13}{stage.num_in:5} in {stage.num_made:5} made {stage.num_out:5} out")
        for reason, count in stage.dropped.items():
            print(f"{'':13}{count:5} dropped: {reason}")
    print(f"chats {dict(result.num_chats)}, preferences {dict(result.num_preferences)}")
    first = json.loads((folder / "preferences.jsonl").read_text(encoding="utf-8").splitlines()[0])
    print(first["prompt"][0]["content"], first["chosen"], "and not", first["rejected"])
