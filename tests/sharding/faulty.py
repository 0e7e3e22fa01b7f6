"""`models.intercepts`, where one process fails after the first checkpoint: how is told by the environment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from torch import Tensor

from tests.sharding.models import data as load_data
from tests.sharding.models import intercepts

RANK, FAULT, RUN = int(os.environ.get("RANK", "0")), os.environ.get("FAULT", ""), os.environ.get("RUN", "")
__all__ = ["load_data", "model"]


def model(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    if RANK == 1 and FAULT and (Path(RUN) / "checkpoint.safetensors").exists():
        if FAULT == "raise":
            raise RuntimeError("a fault of the model's own")
        if FAULT == "hang":
            time.sleep(60)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[FAULT])
    intercepts(x, y, group, n_groups)
