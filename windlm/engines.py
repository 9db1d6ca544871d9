"""Draws by vLLM instead of our own loop. Written to vLLM's documented interface; it has not been run with vLLM yet.

An engine is called by `LanguagePolicy.sample` with the policy, the token ids of the prompts, the number of draws and
one generator per prompt, and returns token ids. vLLM has its own arithmetic and random numbers: what it draws is a
function of the same seeds, but another one, and differs from the policy's probabilities by rounding. Log-probabilities
are always the policy's own.
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
    """A vLLM engine that holds a copy of the policy and is brought up to date before it draws.

    An adapter is handed over as a LoRA request; all weights are written to a folder and loaded again from it.

    Parameters
    ----------
    policy : LanguagePolicy
    memory : float
        Share of the GPU's memory that the engine may take; training needs the rest.
    settings
        More of vLLM's engine arguments.

    Raises
    ------
    ValueError
        If vLLM is not installed.
    """

    def __init__(self, policy: LanguagePolicy, memory: float = 0.4, **settings: Any) -> None:
        try:
            import vllm
        except ImportError:
            raise ValueError("vLLM is not installed: install it, or let sampler be 'own'.") from None
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
        """Return the token ids of `k` draws for each prompt, with the token that ended them."""
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
        asked = [{"prompt_token_ids": list(ids)} for ids in prompts]
        outputs = self.llm.generate(asked, settings, lora_request=self._update(policy), use_tqdm=False)
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
