"""Sampling by vLLM instead of the built-in loop. Untested: it is written to vLLM's documented interface.

An engine is called by `LanguagePolicy.sample` with the policy, the token ids of the prompts, the number of responses
and one generator per prompt, and returns token ids. vLLM has its own arithmetic and random numbers: its samples are
reproducible from the same seeds but differ from the built-in ones, and its probabilities differ by rounding.
Log-probabilities are always computed by the policy itself.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .policy import LanguagePolicy


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
        if any(getattr(module, "disable_adapters", False) is True for module in policy.model.modules()):
            return None  # the reference
        from vllm.lora.request import LoRARequest

        shutil.rmtree(self.folder / f"adapter-{self.count}", ignore_errors=True)
        self.count += 1
        path = self.folder / f"adapter-{self.count}"
        policy.model.save_pretrained(path)
        return LoRARequest(path.name, self.count, str(path))
