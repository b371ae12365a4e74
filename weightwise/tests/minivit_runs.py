"""What tests of training with shared weights share: tiny recipes."""

import runpy
from dataclasses import replace
from pathlib import Path

from weightwise.train.vision_models import DeiTStudent, SwinStudent

SHARED = runpy.run_path(str(Path(__file__).with_name("vision_runs.py")))
TINY = SHARED["RECIPE"]
# Four executions of two sets of weights, with all that tells executions apart.
DEIT = DeiTStudent(
    width=16, num_heads=2, groups=(2, 2), patch=8, image_size=32, num_classes=100, drop_path=0.2,
    class_token=False, relative=True, mixes=True, local="kept", local_kernel=3,
)  # fmt: skip
SWIN = SwinStudent(
    width=8, head_width=4, groups=((1,), (1,), (2,), (1,)), window=2, image_size=32,
    num_classes=100, drop_path=0.2, mixes=True, local="kept", local_kernel=3,
)  # fmt: skip
RECIPE = replace(TINY, model=DEIT, optimizer=replace(TINY.optimizer, average_decay=0.9))
