"""Weights in parts: what changes when every process holds only its share of them, by FSDP2 as accelerate sets it up.

A share of a weight is a plain tensor, so whatever is set aside or written to a checkpoint is the shares of one process,
and nothing is sent around for it. Whole weights come together layer by layer in a forward pass, which all processes
must therefore run together, and once at the end, to be saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed import ReduceOp, all_reduce
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor


def prepare(accelerator: Accelerator, policy: Any, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Return a policy and its optimiser as accelerate's configuration wants them, in parts or copied.

    Raises
    ------
    ValueError
        If it wants what responses cannot be drawn from.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            "DeepSpeed takes training steps of its own: take FSDP with fsdp_version 2, which shards as much."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise ValueError("FSDP's first version cannot draw responses: set fsdp_version to 2.")
        if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
            raise ValueError("Weights that wait on the CPU have not been tried: set fsdp_offload_params to false.")
        if policy.engine is not None:
            raise ValueError("Another engine draws from whole weights, and FSDP has none: let sampler be 'own'.")
        if plugin.transformer_cls_names_to_wrap is None:  # accelerate looks for these at the model, not in the policy
            layers = {type(module).__name__ for module in policy.modules()} & set(policy.base._no_split_modules or ())
            plugin.transformer_cls_names_to_wrap = sorted(layers)
        if plugin.mixed_precision_policy is not None:  # a log-probability of -100 in bfloat16 is off by 0.25
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, output_dtype=None)
    elif accelerator.mixed_precision != "no":
        raise ValueError(
            f"Mixed precision ({accelerator.mixed_precision}) would score responses otherwise than they are drawn: set "
            f"it to no, and load the model in the precision that is wanted, under a float32 adapter."
        )
    model, optimizer = accelerator.prepare(policy, optimizer)
    for name in ("sample", "logits"):
        register_fsdp_forward_method(policy, name)
    return model, optimizer


def is_sharded(policy: torch.nn.Module) -> bool:
    """Return whether this process holds only its share of a policy's weights."""
    return isinstance(policy, FSDPModule)


def settle(module: torch.nn.Module) -> None:
    """Drop whole weights that a forward pass has left, so that the module's parameters are the shares."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def share(tensor: Tensor) -> Tensor:
    """Return this process's share of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor from the shares of all processes, which must all ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(kept: Tensor, tensor: Tensor) -> Tensor:
    """Return a share as a tensor that is spread as another one."""
    if not isinstance(tensor, DTensor):
        return kept
    here = kept.to(tensor.to_local().device)
    mesh, places = tensor.device_mesh, tensor.placements
    return DTensor.from_local(here, mesh, places, run_check=False, shape=tensor.shape, stride=tensor.stride())


def all_agree(flag: bool, policy: torch.nn.Module) -> bool:
    """Return whether all processes say so, where they must run forward passes together; else what this one says."""
    if not is_sharded(policy):
        return flag
    said = torch.tensor(int(flag), device=share(next(policy.parameters())).device)
    all_reduce(said, ReduceOp.MIN)
    return bool(said)


def whole_weights(policy: Any, main: bool) -> dict[str, Tensor] | None:
    """Return a sharded policy's whole weights on the main process's CPU; None where the model has them itself."""
    if not is_sharded(policy):
        return None
    settle(policy)
    found: dict[int, Tensor] = {}  # tied weights come together once
    kept: dict[str, Tensor] = {}
    for name, tensor in policy.model.state_dict(keep_vars=True).items():
        if id(tensor) not in found:
            full = whole(tensor.detach())
            found[id(tensor)] = full.cpu() if main else full.new_empty(0)
        kept[name] = found[id(tensor)]
    return kept


# -- the optimiser's state -----------------------------------------------------------------------------------


def pack(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state as this process's share of it, for a file."""
    shares = {i: {k: share(x) if isinstance(x, Tensor) else x for k, x in s.items()} for i, s in state["state"].items()}
    return {**state, "state": shares}


def unpack(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what `pack` returned as a state for this optimiser; numbers such as the step's are not spread."""
    order = [p for group in optimizer.param_groups for p in group["params"]]
    spread = {
        i: {k: like(x, order[i]) if isinstance(x, Tensor) and x.dim() else x for k, x in s.items()}
        for i, s in state["state"].items()
    }
    return {**state, "state": spread}
