"""Sharded weights (FSDP2, as accelerate configures it).

The shard of a weight is a plain tensor, so snapshots and checkpoints hold the shards of one process and need no
communication. Full weights are gathered layer by layer in a forward pass, which all processes must therefore run
together, and once at the end, to be saved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed import ReduceOp, all_reduce
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def prepare(
    accelerator: Accelerator, policy: Any, optimizer: torch.optim.Optimizer, mixed_precision: str | None = None
) -> tuple[Any, Any]:
    """Return a policy and its optimizer prepared by accelerate, sharded or replicated as it is configured.

    Mixed precision is accelerate's, or for a policy that is not sharded the one that is given.

    Raises
    ------
    ValueError
        If responses could not be sampled under that configuration.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            "DeepSpeed is not supported, since it runs training steps of its own: use FSDP with fsdp_version 2, which "
            "shards as much."
        )
    configured = getattr(accelerator, "mixed_precision", "no")
    wanted = mixed_precision or configured
    policy.autocast = None
    if wanted == "no" != configured or (accelerator.distributed_type == DistributedType.FSDP and wanted != configured):
        raise ValueError(f"Mixed precision is {configured} in accelerate's configuration: set it to {wanted} there.")
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise ValueError("FSDP version 1 cannot sample responses: set fsdp_version to 2.")
        if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
            raise ValueError("CPU offload is untested: set fsdp_offload_params to false.")
        if policy.engine is not None:
            raise ValueError(
                "Another sampling engine needs unsharded weights, which FSDP does not keep: set sampler to 'own'."
            )
        if plugin.transformer_cls_names_to_wrap is None:  # accelerate would look for them on the policy
            layers = {type(module).__name__ for module in policy.modules()} & set(policy.base._no_split_modules or ())
            plugin.transformer_cls_names_to_wrap = sorted(layers)
        if plugin.mixed_precision_policy is not None:  # in bfloat16 a log-probability of -100 is rounded by up to 0.25
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, output_dtype=None)
    elif wanted == "bf16":
        policy.autocast = torch.bfloat16
    elif wanted != "no":
        raise ValueError(
            f"Mixed precision {wanted} is not supported, since its gradients need scaling: use bf16 or no."
        )
    model, optimizer = accelerator.prepare(policy, optimizer)
    for name in ("sample", "logits"):
        register_fsdp_forward_method(policy, name)
    return model, optimizer


def is_sharded(policy: torch.nn.Module) -> bool:
    """Return whether the policy's weights are sharded."""
    return isinstance(policy, FSDPModule)


def settle(module: torch.nn.Module) -> None:
    """Free full weights that a forward pass has gathered, so that the module's parameters are the shards."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def share(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """Return the row of the whole tensor that this process's shard begins at."""
    if not isinstance(tensor, DTensor):
        return 0
    places = tensor.placements
    if any(isinstance(place, Shard) and place.dim for place in places):
        raise ValueError(f"A tensor is sharded along another dimension than its first: {places}.")
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, places)
    return int(offset[0]) if offset else 0


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor from the shards of all processes; all must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(kept: Tensor, tensor: Tensor) -> Tensor:
    """Return a shard as a tensor that is distributed like another one."""
    if not isinstance(tensor, DTensor):
        return kept
    here = kept.to(tensor.to_local().device)
    mesh, places = tensor.device_mesh, tensor.placements
    return DTensor.from_local(here, mesh, places, run_check=False, shape=tensor.shape, stride=tensor.stride())


def all_agree(flag: bool, policy: torch.nn.Module) -> bool:
    """Return whether the flag is true on all processes if the policy is sharded; else return the flag."""
    if not is_sharded(policy):
        return flag
    value = torch.tensor(int(flag), device=share(next(policy.parameters())).device)
    all_reduce(value, ReduceOp.MIN)
    return bool(value)


def largest(count: int, policy: torch.nn.Module) -> int:
    """Return the largest count of all processes if the policy is sharded; else return the count."""
    if not is_sharded(policy):
        return count
    value = torch.tensor(count, device=share(next(policy.parameters())).device)
    all_reduce(value, ReduceOp.MAX)
    return int(value)


def whole_weights(policy: Any, main: bool) -> dict[str, Tensor] | None:
    """Gather a sharded policy's weights, or its adapter's, on the main process's CPU; None if they are not sharded."""
    if not is_sharded(policy):
        return None
    settle(policy)
    gathered: dict[int, Tensor] = {}  # tied weights once
    kept: dict[str, Tensor] = {}
    for name, tensor in policy.model.state_dict(keep_vars=True).items():
        if policy.has_adapter and not tensor.requires_grad:
            continue
        if id(tensor) not in gathered:
            full = whole(tensor.detach())
            gathered[id(tensor)] = full.cpu() if main else full.new_empty(0)
        kept[name] = gathered[id(tensor)]
    return kept
