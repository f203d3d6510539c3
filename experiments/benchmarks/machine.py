"""What a measurement was made on."""

import os
import platform
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Return versions, cores and threads, and the GPU if there is one."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
