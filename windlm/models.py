"""Models from a hub name, a folder or a GGUF file, as policies and as judges."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from .judges import Judge, PairwiseJudge, RewardJudge, RewardModel
from .policy import LanguagePolicy

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelSettings:
    """A causal language model and how it is drawn from."""

    name: str
    """Hub name, local folder, or a .gguf file, which is turned into ordinary weights."""
    revision: str = "main"
    """Of a hub model."""
    precision: Precision = "float32"
    """Of the weights. An adapter stays in float32 over them; without an adapter, the optimiser's steps are rounded to
    this precision."""
    max_new_tokens: int = 128
    """Longest response."""
    temperature: float = 1.0
    """Of draws; log-probabilities are those at 1, see LanguagePolicy."""
    top_p: float = 1.0
    """Of draws, as well."""
    stop: tuple[str, ...] = ()
    """Texts that end a response, beside the end of sequence."""
    forward_batch_size: int = 64
    """Sequences in one forward pass while drawing and scoring."""
    logits_chunk: int = 4096
    """Tokens whose logits exist at one time while scoring."""


@dataclass(frozen=True)
class LoraSettings:
    """LoRA; rank 0 trains all weights."""

    rank: int = 0
    """Rank of the adapter; 0 for none."""
    alpha: int = 32
    """Its scale is alpha / rank."""
    targets: tuple[str, ...] = ("all-linear",)
    """Names of the layers that get one; "all-linear" for all but the output layer."""


@dataclass(frozen=True)
class JudgeSettings:
    """Who says which response wins."""

    kind: Literal["reward-model", "reward", "pairwise"] = "reward-model"
    """A sequence classifier by name or folder; a Python function of (prompts, responses); one of (prompts, first,
    second)."""
    name: str = ""
    """Hub name or folder of the classifier, or module:function, or file.py:function."""
    preference: Literal["reward", "bradley-terry"] = "reward"
    """Whether the larger reward wins with certainty, or with the Bradley-Terry probability."""
    scale: float = 1.0
    """Temperature of Bradley-Terry, in units of the reward."""
    ties: Literal["half", "weak", "strict"] = "half"
    """What equal rewards mean."""
    precision: Precision = "float32"
    """Of a classifier's weights."""
    batch_size: int = 16
    """Responses in one forward pass of a classifier."""


def source(name: str) -> dict[str, str]:
    """Return what `from_pretrained` takes for a hub name, a folder or a GGUF file."""
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.exists():
            raise ValueError(f"There is no GGUF file {name!r}.")
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    if not path.exists() and (path.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise ValueError(f"There is no model folder {name!r}.")
    if path.is_dir() and not (path / "config.json").exists():
        raise ValueError(f"{name!r} is no model folder: it has no config.json.")
    return {"pretrained_model_name_or_path": name}


def load_policy(
    model: ModelSettings, adapter: LoraSettings | None = None, gradient_checkpointing: bool = False, seed: int = 0
) -> LanguagePolicy:
    """Return a model as a policy, with a new adapter if its rank is positive; the seed is of the adapter's weights.

    Raises
    ------
    ValueError
        If there is no such file or folder, or a setting is out of range.
    """
    where = source(model.name) | {"revision": model.revision}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    settings: dict[str, Any] = {"dtype": getattr(torch, model.precision)}
    if "gguf_file" in where:
        from transformers import GgufConfig

        settings["quantization_config"] = GgufConfig(dequantize=True)
    net = AutoModelForCausalLM.from_pretrained(**where, **settings)
    if gradient_checkpointing:
        checkpoint_layers(net)
    if adapter and adapter.rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = with_adapter(net, adapter)
    return as_policy(net, tokenizer, model)


def as_policy(net: Any, tokenizer: Any, model: ModelSettings) -> LanguagePolicy:
    """Return a network and its tokenizer as a policy with these settings of draws."""
    names = ("max_new_tokens", "temperature", "top_p", "stop", "forward_batch_size", "logits_chunk")
    return LanguagePolicy(net, tokenizer, **{name: getattr(model, name) for name in names})


def with_adapter(net: Any, adapter: LoraSettings, **settings: Any) -> Any:
    """Return a network with a new LoRA adapter, which changes nothing until it is trained."""
    import peft

    targets: Any = "all-linear" if adapter.targets == ("all-linear",) else list(adapter.targets)
    config = peft.LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(net, config, **settings)


def skeleton(model: ModelSettings, adapter: LoraSettings | None = None) -> Any:
    """Return the network without its weights: nothing of them is read or downloaded but the configuration."""
    config = AutoConfig.from_pretrained(**source(model.name), revision=model.revision)
    with torch.device("meta"):
        net = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, model.precision))
        net.tie_weights()
        return with_adapter(net, adapter, low_cpu_mem_usage=True) if adapter and adapter.rank else net


def checkpoint_layers(net: PreTrainedModel) -> None:
    """Let every layer compute its activations again in the backward pass.

    Transformers' own switch needs training mode, where dropout would make another policy of every pass.

    Raises
    ------
    ValueError
        If the model marks no layers for it.
    """
    layers = [layer for layer in net.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(f"{type(net).__name__} has no layers that gradient checkpointing knows: leave it off.")
    for layer in layers:
        layer.forward = _checkpointed(layer.forward)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def save_merged(policy: LanguagePolicy, folder: Path) -> None:
    """Write an ordinary model folder.

    An adapter is merged into its base, rounded to the base's precision, and the policy has none any more.
    """
    if policy.has_adapter:
        policy.model = policy.model.merge_and_unload()
    policy.save(folder)


def load_judge(settings: JudgeSettings) -> Judge:
    """Return a judge by name.

    Raises
    ------
    ValueError
        If no name is given, a function is not found, or a classifier is no reward model.
    """
    if not settings.name:
        raise ValueError(f"The judge has no name: give the {settings.kind} as judge.name.")
    if settings.kind == "pairwise":
        return PairwiseJudge(load_function(settings.name))
    if settings.kind == "reward":
        reward = load_function(settings.name)
    elif ":" in settings.name:
        raise ValueError(f"judge.name {settings.name!r} is a function: add judge.kind reward, or pairwise.")
    else:
        reward = load_reward_model(settings.name, settings.precision, settings.batch_size)
    return RewardJudge(reward, settings.preference, settings.ties, settings.scale)


def load_reward_model(name: str, precision: Precision = "float32", batch_size: int = 16) -> RewardModel:
    """Return a sequence classifier with its own tokenizer, on this process's GPU if there is one."""
    where = source(name)
    net = AutoModelForSequenceClassification.from_pretrained(**where, dtype=getattr(torch, precision))
    net.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    return RewardModel(net, AutoTokenizer.from_pretrained(**where), batch_size)


def load_function(name: str) -> Callable[..., Any]:
    """Return a function by import path, ``module:function`` or ``file.py:function``.

    Raises
    ------
    ValueError
        If the form is another one, or the module has no such function.
    """
    module_name, colon, attribute = name.rpartition(":")
    if not colon:
        raise ValueError(f"A function is given as module:function or file.py:function, but it is {name!r}.")
    path = Path(module_name)
    if path.suffix == ".py":
        if not path.exists():
            raise ValueError(f"There is no file {module_name!r} for the function {attribute!r}.")
        spec = importlib.util.spec_from_file_location(f"_windlm_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise ValueError(f"{name!r}: {error}. Is its folder on PYTHONPATH?") from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"{module_name!r} has no function {attribute!r}.")
    return function
