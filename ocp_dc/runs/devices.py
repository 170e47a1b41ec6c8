"""What runs are computed on."""

from __future__ import annotations

CPU = "CPU"


def device_name() -> str:
    """Of this machine: its first GPU's, or ``CPU``."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else CPU
