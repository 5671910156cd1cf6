"""What a module does when it is called, aside from its ``forward``: hooks, a call of its own.

torch.fx follows the ``forward`` of the class that it is given, and calls what stands inside.
"""

from __future__ import annotations

import inspect

from torch import nn


def unwrapped(module: nn.Module) -> nn.Module:
    """The module itself, in one that calls it where tracing would see its ``forward`` alone."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):  # torch.compile's
            module = inner
        else:
            break
    aside = (
        module._forward_hooks
        or module._forward_pre_hooks
        or type(module).__call__ is not nn.Module.__call__
        or "forward" in vars(module)
    )
    if not (aside and _takes_one(module)):
        return module
    whole = nn.Sequential(module)
    whole.training = False  # an exported program inside refuses eval()
    return whole


def _takes_one(module: nn.Module) -> bool:
    """`torch.nn.Sequential` has one input."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(module.forward).parameters.values()
    return sum(p.kind in kinds and p.default is p.empty for p in found) == 1
