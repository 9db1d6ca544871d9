"""Loading of models, as policies and as judges, from a hub name, a folder or a GGUF file."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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
from transformers.pytorch_utils import Conv1D

from .judges import (
    EmbeddingJudge,
    EmbeddingModel,
    Judge,
    JudgeError,
    PairRM,
    PairwiseJudge,
    PairwiseModel,
    RewardJudge,
    RewardModel,
)
from .judges.base import own_code
from .judges.chat import Chat, ChatComparison, Endpoint, LocalChat
from .judges.pairrm import PairRMNetwork
from .judges.settings import (
    ChatSettings,
    GeneralSettings,
    JudgeSettings,
    PairRMSettings,
    PairwiseModelSettings,
    PairwiseSettings,
    Precision,
    RewardModelSettings,
    RewardSettings,
)
from .policy import (
    FORWARD_BATCH_SIZE,
    LOGITS_CHUNK,
    MAX_NEW_TOKENS,
    TOKENS_PER_BATCH,
    LanguagePolicy,
    Samples,
    finite,
    padded,
    unpadded,
)

SAMPLING = (
    *("max_new_tokens", "temperature", "top_p", "stop"),
    *("forward_batch_size", "tokens_per_batch", "logits_chunk"),
)
"""Settings of a model that are those of `LanguagePolicy`."""
ROUNDING = {True: 1e-3, False: 0.08}
"""Largest difference in log-probability per token that rounding explains, with float32 weights throughout or not."""


@dataclass(frozen=True)
class ModelSettings:
    """A causal language model and its sampling settings."""

    name: str
    """Hub name, local folder, or a .gguf file, which is dequantised."""
    revision: str = "main"
    """Branch, tag or commit of a hub model."""
    precision: Precision = "float32"
    """Precision of the weights. A LoRA adapter is always float32; training without an adapter requires float32."""
    max_new_tokens: int = MAX_NEW_TOKENS
    """Maximum length of a response, in tokens."""
    temperature: float = 1.0
    """Sampling temperature; log-probabilities are always those at temperature 1."""
    top_p: float = 1.0
    """Nucleus-sampling threshold."""
    stop: tuple[str, ...] = ()
    """Strings that end a response, in addition to the end-of-sequence tokens."""
    forward_batch_size: int = FORWARD_BATCH_SIZE
    """Responses that are sampled at a time."""
    tokens_per_batch: int = TOKENS_PER_BATCH
    """Tokens per forward pass in scoring and training, padding included; memory grows with it."""
    logits_chunk: int = LOGITS_CHUNK
    """Number of tokens whose logits are held in memory at a time in scoring."""


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA adapter; rank 0 trains all weights instead."""

    rank: int = 16
    """Rank of the adapter; 0 for no adapter."""
    alpha: int = 32
    """Scaling numerator: the adapter's output is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("all-linear",)
    """Names of the adapted layers; all-linear for all linear layers but the output layer."""

    def __post_init__(self) -> None:
        if not self.rank:
            refuse_unused(self, ("rank",), "lora with rank 0")


def refuse_unused(settings: Any, used: Sequence[str], what: str) -> None:
    """Raise ValueError if a setting that is not used differs from its default: it would be ignored silently."""
    changed = [f.name for f in fields(settings) if f.name not in used and getattr(settings, f.name) != f.default]
    if changed:
        raise ValueError(f"{what} does not use {', '.join(changed)}: leave it out. It uses {', '.join(used)}.")


def source(name: str) -> dict[str, str]:
    """Return the arguments of `from_pretrained` for a hub name, a folder or a GGUF file.

    Raises
    ------
    ValueError
        If the name is a path and there is no such model.
    """
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.exists():
            raise ValueError(f"There is no GGUF file {name!r}.")
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    if not path.exists() and (path.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise ValueError(f"There is no model folder {name!r}.")
    if path.is_dir() and (path / "metrics.jsonl").exists():
        hint = (
            f"give {str(path / 'model')!r}" if (path / "model").exists() else "it has no model before it has finished"
        )
        raise ValueError(f"{name!r} is a run, not a model: {hint}.")
    if path.is_dir() and not (path / "config.json").exists():
        raise ValueError(f"{name!r} is not a model folder: it has no config.json.")
    return {"pretrained_model_name_or_path": name}


def pretrained(auto: Any, where: Mapping[str, str], **settings: Any) -> Any:
    """Return what `auto.from_pretrained` loads; a model that is nowhere to be had is a ValueError of one line."""
    try:
        return auto.from_pretrained(**where, **settings)
    except OSError as error:
        name = where["pretrained_model_name_or_path"]
        raise ValueError(f"The model {name!r} could not be loaded: {' '.join(str(error).split())}") from error


def load_policy(
    model: ModelSettings, adapter: LoraSettings | None = None, gradient_checkpointing: bool = False, seed: int = 0
) -> LanguagePolicy:
    """Load a model as a policy, with a new adapter if its rank is positive; `seed` initialises the adapter.

    A folder with an adapter is loaded on its base model, and the adapter is what is trained.

    Raises
    ------
    ValueError
        If there is no such file or folder, or a setting is out of range.
    """
    name, trained = base_of(model, adapter)
    where = source(name) | ({} if trained else {"revision": model.revision})
    own = trained is not None and (trained / "tokenizer_config.json").exists()
    tokenizer = pretrained(AutoTokenizer, {"pretrained_model_name_or_path": str(trained)} if own else where)
    settings: dict[str, Any] = {"dtype": getattr(torch, model.precision)}
    if "gguf_file" in where:
        from transformers import GgufConfig

        settings["quantization_config"] = GgufConfig(dequantize=True)
    loaded: Any = pretrained(AutoModelForCausalLM, where, **settings, output_loading_info=True)
    net, info = loaded
    complete(info, f"The causal language model {name!r}")
    finite(net)
    if gradient_checkpointing:
        checkpoint_layers(net)
    if trained:
        import peft

        net = peft.PeftModel.from_pretrained(net, trained, is_trainable=True)
        finite(net)
    elif adapter and adapter.rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = with_adapter(net, adapter)
    policy = as_policy(net, tokenizer, model)
    policy.precision = own_precision(where)
    return policy


def base_of(model: ModelSettings, adapter: LoraSettings | None = None) -> tuple[str, Path | None]:
    """Return the name of the model to load, and the folder of the adapter if the model's name is one.

    Raises
    ------
    ValueError
        If it is an adapter and another one is asked for, or its base is not known.
    """
    folder = Path(model.name).expanduser()
    if not (folder / "adapter_config.json").exists():
        return model.name, None
    if adapter and adapter.rank:
        raise ValueError(
            f"{model.name!r} is an adapter: leave out lora to train it on, or give the model that it is merged into."
        )
    base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
    if not base:
        raise ValueError(f"The adapter {model.name!r} does not say which model it belongs to.")
    return str(base), folder


def own_precision(where: Mapping[str, str]) -> torch.dtype | None:
    """Return the precision that a model's weights are stored in, if its configuration says so."""
    dtype = None if "gguf_file" in where else pretrained(AutoConfig, where).dtype
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else None


def policy_of(policy: LanguagePolicy | ModelSettings | str | Path, seed: int = 0) -> LanguagePolicy:
    """Return a policy; settings or a name are loaded as by the command line, with its default adapter."""
    if isinstance(policy, LanguagePolicy):
        return policy
    if isinstance(policy, str | Path):
        policy = ModelSettings(str(policy))
    if isinstance(policy, ModelSettings):
        return load_policy(policy, LoraSettings(), seed=seed)
    raise ValueError(
        f"policy must be a LanguagePolicy, ModelSettings, or a model's name or folder, but it is a "
        f"{type(policy).__name__}: LanguagePolicy(model, tokenizer) makes one."
    )


def judge_of(judge: Any) -> Any:
    """Return a judge; a function is a reward, and so is a name module:function; any other name is a reward model's."""
    if isinstance(judge, str):
        return load_judge(JudgeSettings("reward" if ":" in judge else "reward-model", judge))
    if callable(judge) and not hasattr(judge, "preference"):
        return RewardJudge(judge)
    return judge


def complete(info: Mapping[str, Any], what: str) -> None:
    """Raise ValueError if a loaded model lacks weights, which would have been initialised at random."""
    absent = sorted({*info["missing_keys"], *(entry[0] for entry in info.get("mismatched_keys", ()))})
    if absent:
        raise ValueError(
            f"{what} has no weights for {', '.join(absent[:3])}{' and others' * (len(absent) > 3)}: they would be "
            f"random. It is a model of another kind, or its files are incomplete."
        )


def as_policy(net: Any, tokenizer: Any, model: ModelSettings) -> LanguagePolicy:
    """Return a network and its tokenizer as a policy with these sampling settings."""
    return LanguagePolicy(net, tokenizer, **{name: getattr(model, name) for name in SAMPLING})


def with_adapter(net: Any, adapter: LoraSettings, task_type: str = "CAUSAL_LM", **settings: Any) -> Any:
    """Return a network with a new LoRA adapter, which is the identity until it is trained.

    For a classifier, `task_type` ``SEQ_CLS``, the output layer is trained as well.
    """
    import peft

    targets: Any = "all-linear" if adapter.targets == ("all-linear",) else list(adapter.targets)
    transposed = any(isinstance(layer, Conv1D) for layer in net.modules())  # of GPT-2
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        task_type=task_type,
        fan_in_fan_out=transposed,
    )
    return peft.get_peft_model(net, config, **settings)


def skeleton(model: ModelSettings, adapter: LoraSettings | None = None) -> Any:
    """Return the network on the meta device; only its configuration is read or downloaded."""
    name, trained = base_of(model, adapter)
    config = pretrained(AutoConfig, source(name) | ({} if trained else {"revision": model.revision}))
    with torch.device("meta"):
        net = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, model.precision))
        net.tie_weights()
        if trained:
            import peft

            return peft.get_peft_model(net, peft.PeftConfig.from_pretrained(str(trained)), low_cpu_mem_usage=True)
        return with_adapter(net, adapter, low_cpu_mem_usage=True) if adapter and adapter.rank else net


def checkpoint_layers(net: PreTrainedModel) -> None:
    """Recompute the activations of every layer in the backward pass (gradient checkpointing).

    Transformers' own switch needs training mode, where dropout would change the policy in every pass.

    Raises
    ------
    ValueError
        If the model has no layers that support it.
    """
    layers = [layer for layer in net.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(f"{type(net).__name__} does not support gradient checkpointing: leave it off.")
    for layer in layers:
        layer.forward = _checkpointed(layer.forward)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


# -- saving --------------------------------------------------------------------------------------------------


def check_mergeable(policy: LanguagePolicy) -> None:
    """Raise ValueError if the policy's adapter could not be merged into its base when the run is over."""
    for name, config in (getattr(policy.model, "peft_config", None) or {}).items():
        if getattr(config, "ensure_weight_tying", False):
            raise ValueError(f"Adapter {name!r} ties weights of its own (ensure_weight_tying): turn that off.")


def save_merged(
    policy: LanguagePolicy,
    folder: Path,
    samples: Samples | None = None,
    expected: torch.Tensor | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> float:
    """Save a policy as an ordinary model folder and check that the folder is that policy; the policy stays as it is.

    An adapter is merged into a copy of the base model on the CPU. Where the base ties its output layer to its
    embeddings and the adapter changes one of them, the saved model has both. Weights are saved in `policy.precision`.

    Parameters
    ----------
    policy : LanguagePolicy
    folder : Path
        It is replaced once the new model has passed the check.
    samples : Samples, optional
        Responses whose log-probabilities under the policy and under the saved model are compared; by default a few
        random tokens.
    expected : Tensor, shape ``(B, K)``, optional
        Their log-probabilities under the policy, where they are known.
    weights : mapping of str to Tensor, optional
        The whole weights of a policy without an adapter that is sharded.

    Returns
    -------
    float
        Root mean square difference of the two log-probabilities per response, in nats.

    Raises
    ------
    ValueError
        If the saved model is not the policy, up to rounding. It is then at the folder's name with ``.wrong``.
    """
    samples = random_samples(policy) if samples is None else samples
    expected = policy.log_prob(samples) if expected is None else expected
    temporary = folder.with_name(folder.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    precision = policy.precision or policy.base.dtype
    if policy.has_adapter:
        merged(policy).to(precision).save_pretrained(temporary)
    else:
        own = policy.model.state_dict() if weights is None else weights
        cast: dict[int, torch.Tensor] = {}  # tied weights once
        for x in own.values():
            cast.setdefault(x.data_ptr(), x.to("cpu", precision) if x.is_floating_point() else x)
        policy.model.save_pretrained(temporary, state_dict={k: cast[x.data_ptr()] for k, x in own.items()})
        about = json.loads((temporary / "config.json").read_text()) | {"dtype": str(precision).removeprefix("torch.")}
        (temporary / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    policy.tokenizer.save_pretrained(temporary)

    net = type(policy.base).from_pretrained(temporary, dtype=precision).to(policy.device)
    saved = LanguagePolicy(net, policy.tokenizer, **{name: getattr(policy, name) for name in SAMPLING})
    saved.autocast = policy.autocast
    found = saved.log_prob(samples)
    difference = (found - expected).double()
    error = float(difference.square().mean().sqrt())
    allowed = ROUNDING[policy.exact and saved.exact] * float(samples.mask.sum(-1).double().mean().sqrt())
    if not error <= allowed:
        wrong = folder.with_name(folder.name + ".wrong")
        shutil.rmtree(wrong, ignore_errors=True)
        os.replace(temporary, wrong)
        raise ValueError(
            f"The model in {wrong} is not the trained one: the log-probabilities of {difference.numel()} responses "
            f"differ by {error:.3g} nats, and rounding explains {allowed:.2g}. Use the adapter with its base model "
            f"instead, and report the adapter's configuration."
        )
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    return error


def merged(policy: LanguagePolicy) -> Any:
    """Return a copy of the policy's model on the CPU, its adapter merged."""
    device = policy.device
    model = copy.deepcopy(policy.model.to("cpu"))
    policy.model.to(device)
    if not policy.has_adapter:
        return model
    base = model.get_base_model()
    ends = [part for part in (base.get_input_embeddings(), base.get_output_embeddings()) if part is not None]
    tied = len(ends) == 2 and plain_layer(ends[0]).weight is plain_layer(ends[1]).weight
    if tied:  # merging works in place
        last = plain_layer(ends[1])
        last.weight = torch.nn.Parameter(last.weight.detach().clone(), requires_grad=False)
        tie(base, False)
    model = model.merge_and_unload(safe_merge=True)
    if tied and torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        tie(model, True)
        model.tie_weights()
    return model


def tie(model: Any, tied: bool) -> None:
    """Say in a model's configuration whether its output layer and its embeddings are one weight."""
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = tied
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True) if tied else {}


def plain_layer(module: Any) -> Any:
    """Return the layer inside PEFT's wrappers."""
    for name in ("original_module", "base_layer"):
        module = getattr(module, name, module)
    return module


def write_check(folder: Path, samples: Samples, log_prob: torch.Tensor) -> None:
    """Write responses with their log-probabilities, for a model that is made from an adapter later."""
    check = {
        "prompts": samples.prompts,
        "responses": unpadded(samples.tokens, samples.mask),
        "log_prob": log_prob.tolist(),
    }
    (folder / "check.json").write_text(json.dumps(check) + "\n")


def read_check(folder: Path, policy: LanguagePolicy) -> tuple[Samples, torch.Tensor]:
    """Return what `write_check` wrote."""
    check = json.loads((folder / "check.json").read_text())
    tokens, mask = padded(check["responses"], policy.max_new_tokens, policy.pad_id)
    return Samples(check["prompts"], tokens, mask, policy.read(tokens, mask)), torch.tensor(check["log_prob"])


def random_samples(policy: LanguagePolicy) -> Samples:
    """Return a few responses of random tokens."""
    size, length = policy.base.get_input_embeddings().weight.shape[0], min(16, policy.max_new_tokens)
    tokens = torch.randint(size, (2, 4, length), generator=torch.Generator().manual_seed(0))
    return Samples([[1], [1, 0]], tokens, torch.ones_like(tokens, dtype=torch.bool), [[""] * 4] * 2)


def load_judge(settings: JudgeSettings, weights: bool = True) -> Judge:
    """Load a judge; without weights, its network is on the meta device, and a local chat model is only looked for.

    Raises
    ------
    ValueError
        If no name is given, a function is not found, or a model is none of this kind.
    """
    if not settings.name:
        raise ValueError(f"The judge has no name: give the {settings.kind} as judge.name.")
    if isinstance(settings, RewardSettings):
        functions = [own_code(load_function(name), name) for name in settings.names]
        rewards = functions[0] if len(functions) == 1 else functions
        return RewardJudge(
            rewards, settings.preference, settings.ties, settings.scale, weights=settings.weights, cut=settings.cut
        )
    if isinstance(settings, PairwiseSettings):
        return PairwiseJudge(own_code(load_function(settings.name), settings.name))
    if isinstance(settings, ChatSettings):
        if not weights and not settings.url:
            source(settings.name)
        chat: Any = load_chat(settings) if weights else list
        return PairwiseJudge(ChatComparison(chat, settings.tries), settings.max_unread)
    if re.search(r":[A-Za-z_]\w*$", settings.name):
        raise ValueError(f"judge.name {settings.name!r} is a function: add judge.kind reward, or pairwise.")
    if isinstance(settings, PairRMSettings):
        net, tokenizer = load_network(PairRMNetwork, settings, f"PairRM {settings.name!r}", weights)
        return PairwiseJudge(PairRM(net, tokenizer, settings.batch_size, settings.truncate))
    what = {"reward-model": "reward model", "pairwise-model": "classifier of pairs", "general": "preference model"}
    net, tokenizer = load_network(
        AutoModelForSequenceClassification, settings, f"The {what[settings.kind]} {settings.name!r}", weights
    )
    given = {"batch_size": settings.batch_size, "truncate": settings.truncate}  # type: ignore[attr-defined]
    if isinstance(settings, GeneralSettings):
        return EmbeddingJudge(EmbeddingModel(net, tokenizer, **given))
    if isinstance(settings, PairwiseModelSettings):
        return PairwiseJudge(PairwiseModel(net, tokenizer, label=settings.label, **given))
    assert isinstance(settings, RewardModelSettings)
    model = RewardModel(net, tokenizer, label=settings.label, **given)
    return RewardJudge(model, settings.preference, settings.ties, settings.scale, cut=settings.cut)


def judge_columns(settings: JudgeSettings) -> tuple[str, ...] | None:
    """Return the names of the data set's columns that a judge reads, without loading its model; None for all."""
    functions = isinstance(settings, RewardSettings | PairwiseSettings) and settings.name
    return getattr(load_judge(settings), "columns", ()) if functions else ()


def load_network(auto: Any, settings: Any, what: str, weights: bool = True) -> tuple[Any, Any]:
    """Load a judge's network, on this process's GPU if there is one, or without weights, and its tokenizer."""
    where = source(settings.name)
    trust = {"trust_remote_code": True} if getattr(settings, "trust_remote_code", False) else {}
    precision = {"dtype": getattr(torch, settings.precision)}
    if not weights:
        config = pretrained(AutoConfig, where, **trust)
        kinds = getattr(config, "architectures", None) or [""]
        if all(kind.endswith("ForCausalLM") for kind in kinds):
            raise ValueError(f"{what} is a {kinds[0]}, whose weights give no scores: windlm reward fits a judge to it.")
        with torch.device("meta"):
            made = auto.from_config(config, **precision, **trust) if hasattr(auto, "from_config") else auto(config)
        return made, pretrained(AutoTokenizer, where, **trust)
    net, info = pretrained(auto, where, **precision, **trust, output_loading_info=True)
    complete(info, what)
    finite(net)
    net.to(judge_device())
    return net, pretrained(AutoTokenizer, where, **trust)


def load_chat(settings: ChatSettings) -> Chat:
    """Load the chat model of a judge; a local one replies almost greedily."""
    if settings.url:
        return Endpoint(
            settings.url,
            settings.name,
            settings.key_variable,
            max_tokens=settings.max_tokens,
            concurrency=settings.concurrency,
        )
    model = ModelSettings(
        settings.name,
        precision=settings.precision,
        max_new_tokens=settings.max_tokens,
        temperature=1e-3,
        forward_batch_size=settings.batch_size,
    )
    return LocalChat(load_policy(model).to(judge_device()))


def judge_device() -> str:
    """Return the device of this process's judge."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def load_function(name: str) -> Callable[..., Any]:
    """Import a function given as ``module:function`` or ``file.py:function``.

    Raises
    ------
    ValueError
        If the name has another form, or there is no such file, module or function.
    """
    module_name, colon, attribute = name.rpartition(":")
    if not colon:
        raise ValueError(f"A function must be given as module:function or file.py:function, but it is {name!r}.")
    path = Path(module_name)
    if path.suffix == ".py":
        if not path.exists():
            raise ValueError(f"There is no file {module_name!r} for the function {attribute!r}.")
        spec = importlib.util.spec_from_file_location(f"_windlm_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look up their module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise JudgeError(f"{module_name} raised {type(error).__name__} when imported: {error}") from error
    else:
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
                raise ValueError(f"{name!r}: {error}. Is its folder on PYTHONPATH?") from None
            raise JudgeError(f"{module_name} raised {type(error).__name__} when imported: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"{module_name!r} has no function {attribute!r}.")
    return function
