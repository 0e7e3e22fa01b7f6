"""`models.intercepts`, where one process fails after some calls: how is told by the environment."""

from __future__ import annotations

import os
import signal
import time

from torch import Tensor

from tests.sharding.models import data as load_data
from tests.sharding.models import intercepts

RANK, FAULT, CALLS = int(os.environ.get("RANK", "0")), os.environ.get("FAULT", ""), int(os.environ.get("CALLS", "0"))
__all__ = ["load_data", "model"]
_count = 0


def model(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    global _count
    _count += 1
    if RANK == 1 and _count == CALLS:
        if FAULT == "raise":
            raise RuntimeError("a fault of the model's own")
        if FAULT == "hang":
            time.sleep(60)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[FAULT])
    intercepts(x, y, group, n_groups)
