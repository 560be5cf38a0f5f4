"""The precision of training by the names that a user gives, and what ``auto`` makes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, get_args

import torch

from tecafn.core.errors import UserError, nearest_known
from tecafn.core.parallel import rank
from tecafn.training.config import Precision

PrecisionName = Literal["float32", "bf16", "auto"]
# How the kernel names the instructions: Intel's and AMD's, Intel's tiles, ARM's.
_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
_CPU_INFO = Path("/proc/cpuinfo")


def has_bf16(device: torch.device | str) -> bool:
    """Does the device multiply bfloat16 itself? Elsewhere it takes many times as long as float32.

    Of a CPU the kernel's list of instructions says; where there is no such list, False.
    """
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    return bool(set(_CPU_FLAGS) & set(" ".join(lines[:1]).split()))


def precision_named(name: str, device: torch.device | str) -> Precision:
    """``float32``, ``bf16`` or ``auto`` as the setting ``training.precision`` has them.

    ``auto`` is bfloat16 where the device has it, and float32 elsewhere.

    Args:
        name: what the user gave.
        device: where training will run.

    Raises:
        UserError: an unknown name.

    Example:
        >>> precision_named("float32", "cpu")
        '32-true'
    """
    if name not in get_args(PrecisionName):
        raise UserError(
            f"--precision {name!r} is unknown: {nearest_known(name, list(get_args(PrecisionName)))}"
        )
    native = has_bf16(device)
    if name == "bf16" and not native and rank() == 0:
        print(
            f"warning: this {torch.device(device).type} has no bfloat16 arithmetic: bf16 is "
            "emulated and takes many times as long as float32",
            file=sys.stderr,
        )
    return "bf16-mixed" if name == "bf16" or (name == "auto" and native) else "32-true"
