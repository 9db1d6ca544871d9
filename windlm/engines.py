"""Sampling in other ways than by the built-in loop: with a merged adapter, by vLLM, by a server.

An engine is called by `LanguagePolicy.sample` with the policy, the token ids of the prompts, the number of responses
and one generator per prompt, and returns token ids. Its probabilities differ from the policy's by rounding;
log-probabilities are always computed by the policy itself. vLLM and servers have random numbers of their own: samples
are reproducible from the same seeds, but are not the built-in ones.

`VLLM` and `Server` are untested with vLLM itself: they are written to its documented interface.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import torch

from .policy import LanguagePolicy, unpadded
from .sampling import sample_tokens

CONCURRENT_REQUESTS = 64
"""Prompts that a server is asked about at a time; it queues them itself."""


def adapter_off(policy: LanguagePolicy) -> bool:
    """Return whether the policy's adapter is switched off, so that it is the reference."""
    return any(getattr(module, "disable_adapters", False) is True for module in policy.model.modules())


@contextmanager
def merged_adapter(policy: LanguagePolicy) -> Iterator[None]:
    """Add a LoRA adapter to the weights in their own precision; afterwards they are what they were, bit by bit."""
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [m for m in policy.model.modules() if isinstance(m, LoraLayer)]
    before = [layer.get_base_layer().weight.data for layer in layers]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, before, strict=True):
                change = sum(layer.get_delta_weight(name) for name in layer.active_adapters)
                layer.get_base_layer().weight.data = (weight.float() + change).to(weight.dtype)
        with policy.model.disable_adapter():
            yield
    finally:
        for layer, weight in zip(layers, before, strict=True):
            layer.get_base_layer().weight.data = weight


def sample_merged(
    policy: LanguagePolicy, prompts: Sequence[Sequence[int]], k: int, rngs: Sequence[np.random.Generator]
) -> list[list[list[int]]]:
    """Sample by the built-in loop with the adapter merged into the weights: faster, and by rounding another policy."""
    uniform = torch.from_numpy(np.stack([rng.random((k, policy.max_new_tokens)) for rng in rngs]))
    if not policy.has_adapter or adapter_off(policy):
        tokens, mask, _ = sample_tokens(policy, prompts, uniform)
    else:
        trained = [p for p in policy.model.parameters() if p.requires_grad]
        with merged_adapter(policy):
            tokens, mask, _ = sample_tokens(policy, prompts, uniform)
        for p in trained:  # PEFT freezes them while the adapter is off
            p.requires_grad_(True)
    return unpadded(tokens, mask)


class VLLM:
    """A vLLM engine with a copy of the policy, updated before each call.

    An adapter is passed as a LoRA request; full weights are saved to a folder and reloaded from it.

    Parameters
    ----------
    policy : LanguagePolicy
    memory : float
        Fraction of the GPU's memory for the engine; training needs the rest.
    **settings
        Further arguments of ``vllm.LLM``.

    Raises
    ------
    ValueError
        If vLLM is not installed.
    """

    def __init__(self, policy: LanguagePolicy, memory: float = 0.4, **settings: Any) -> None:
        try:
            import vllm
        except ImportError:
            raise ValueError("vLLM is not installed: install it, or set sampler to 'own'.") from None
        self.folder, self.count = Path(tempfile.mkdtemp(prefix="windlm-vllm-")), 0
        if policy.has_adapter:
            lora = next(iter(policy.model.peft_config.values()))
            model = lora.base_model_name_or_path
            settings |= {"enable_lora": True, "max_lora_rank": lora.r}
        else:
            model = str(self.folder / "policy")
            policy.save(Path(model))
        self.llm = vllm.LLM(model=model, gpu_memory_utilization=memory, **settings)

    def __call__(
        self, policy: LanguagePolicy, prompts: Sequence[Sequence[int]], k: int, rngs: Sequence[np.random.Generator]
    ) -> list[list[list[int]]]:
        """Return the token ids of `k` responses to each prompt, end token included."""
        import vllm

        common = {
            "n": k,
            "temperature": policy.temperature,
            "top_p": policy.top_p,
            "max_tokens": policy.max_new_tokens,
            "stop_token_ids": policy.stop_ids,
            "stop": list(policy.stop) or None,
        }
        settings = [vllm.SamplingParams(seed=int(rng.integers(2**31)), **common) for rng in rngs]
        inputs = [{"prompt_token_ids": list(ids)} for ids in prompts]
        outputs = self.llm.generate(inputs, settings, lora_request=self._update(policy), use_tqdm=False)
        return [[list(answer.token_ids) for answer in output.outputs] for output in outputs]

    def _update(self, policy: LanguagePolicy) -> Any:
        if not policy.has_adapter:
            policy.save(self.folder / "policy")
            self.llm.collective_rpc("reload_weights")
            self.llm.reset_prefix_cache()
            return None
        if adapter_off(policy):
            return None
        from vllm.lora.request import LoRARequest

        shutil.rmtree(self.folder / f"adapter-{self.count}", ignore_errors=True)
        self.count += 1
        path = self.folder / f"adapter-{self.count}"
        policy.model.save_pretrained(path)
        return LoRARequest(path.name, self.count, str(path))


class Server:
    """A server with vLLM's OpenAI-compatible API, which samples from the base model and from adapters sent to it.

    Start it with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK
    --generation-config vllm``. Adapters are handed over as folders, so both machines must see `folder`.

    Parameters
    ----------
    policy : LanguagePolicy
        With an adapter: the weights of a server cannot be replaced.
    url : str
        Such as ``http://127.0.0.1:8000/v1``.
    folder : Path
        Where adapters are written.
    timeout : float
        Seconds that a prompt may take.

    Raises
    ------
    ValueError
        If the policy has no adapter, the server is not there, does not serve the base model, or does not return token
        ids.
    """

    def __init__(self, policy: LanguagePolicy, url: str, folder: Path, timeout: float = 3600.0) -> None:
        if not policy.has_adapter:
            raise ValueError(
                "A server samples with adapters: train one (lora.rank), or set sampler to 'own' or 'vllm'."
            )
        self.url, self.folder, self.timeout = url.rstrip("/"), folder.resolve(), timeout
        self.loaded: Path | None = None
        self.digest, self.count = "", 0
        base = next(iter(policy.model.peft_config.values())).base_model_name_or_path
        served = [model["id"] for model in self._ask("models")["data"]]
        if base not in served:
            raise ValueError(f"The server at {url} serves {', '.join(served)}, not the base model {base!r}.")
        self.base = base

    def __call__(
        self, policy: LanguagePolicy, prompts: Sequence[Sequence[int]], k: int, rngs: Sequence[np.random.Generator]
    ) -> list[list[list[int]]]:
        """Return the token ids of `k` responses to each prompt, end token included."""
        common = {
            "model": self.base if adapter_off(policy) else self._update(policy),
            "n": k,
            "max_tokens": policy.max_new_tokens,
            "temperature": policy.temperature,
            "top_p": policy.top_p,
            # not those of the model's generation_config.json
            **{"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
            "stop_token_ids": policy.stop_ids,
            "stop": list(policy.stop) or None,
            "return_token_ids": True,
        }
        requests = [
            common | {"prompt": list(ids), "seed": int(rng.integers(2**31))}
            for ids, rng in zip(prompts, rngs, strict=True)
        ]
        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
            return list(pool.map(self._complete, requests))

    def _complete(self, request: dict[str, Any]) -> list[list[int]]:
        choices = sorted(self._ask("completions", request)["choices"], key=lambda choice: choice["index"])
        if len(choices) != request["n"] or any(choice.get("token_ids") is None for choice in choices):
            raise ValueError(
                f"The server at {self.url} returned {len(choices)} of {request['n']} responses, or no token ids: it "
                f"must know return_token_ids, as vLLM does since 0.10.2."
            )
        return [list(choice["token_ids"]) for choice in choices]

    def _update(self, policy: LanguagePolicy) -> str:
        """Load the adapter, unless the server has it, and return its name there."""
        weights = [p.detach().double().cpu() for p in policy.model.parameters() if p.requires_grad]
        digest = repr([(float(w.sum()), float(w.abs().sum()), float(w.square().sum())) for w in weights])
        if self.loaded is not None and digest == self.digest:
            return self.loaded.name
        self.count += 1
        path = self.folder / f"adapter-{self.count:06d}"
        policy.model.save_pretrained(path)
        self._ask("load_lora_adapter", {"lora_name": path.name, "lora_path": str(path)})
        if self.loaded is not None:
            self._ask("unload_lora_adapter", {"lora_name": self.loaded.name})
            shutil.rmtree(self.loaded)
        self.loaded, self.digest = path, digest
        return path.name

    def _ask(self, what: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/{what}", data, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=self.timeout) as reply:
                text = reply.read().decode()
        except HTTPError as error:
            said = error.read().decode(errors="replace")
            raise ValueError(f"The server at {self.url} refused {what} ({error.code}): {said:.300}") from error
        except (URLError, TimeoutError) as error:
            raise ValueError(f"The server at {self.url} cannot be reached: {error}") from error
        return json.loads(text) if text.startswith("{") else text
