"""A small training run as a program of its own, to be killed and to be run by two processes."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType

import windgames as wg
from windlm import JBond, LanguagePolicy, Regression, RewardJudge, sppo, wind
from windlm.tabular import small_policy
from windlm.train import Config, judge_round, train

PROMPTS = ["a", "b c", "c", "d d d"]

OBJECTIVES = {
    "wind": lambda: wind(0.2, 0.8),
    "omwu": lambda: Regression(wg.omwu(0.4), 0.2),
    "extragradient": lambda: Regression(wg.extragradient(0.8), 0.2),
    "sppo": lambda: sppo(1.0),
    "jbond": lambda: JBond(anchor_rate=0.1),
}


def vowels(prompts, responses):
    """A reward of some structure: vowels, and repeating the prompt's first letter."""
    return [r.count("a") - 0.5 * r.count("b") + r.count(p[0]) for p, r in zip(prompts, responses, strict=True)]


def weights(policy):
    """All weights of a policy as one vector."""
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


class Stop(BaseException):
    """Stands in for a kill; no handler of errors catches it."""


def stopping(method, at, calls):
    """A method that stops the run at its call number `at`, counting calls that were made."""

    def run(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise Stop
        return method(self, *args, **kwargs)

    return run


def shard_on_cpu(**settings):
    """Let accelerate shard on a CPU, as it does on GPUs if its configuration says so."""
    accelerator = Accelerator(cpu=True)
    settings = {"fsdp_version": 2, "auto_wrap_policy": "transformer_based_wrap"} | settings
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**settings)
    PartialState().distributed_type = DistributedType.FSDP


def adapted(policy):
    """The same policy with a LoRA adapter, which changes nothing yet."""
    import peft

    config = peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LanguagePolicy(peft.get_peft_model(policy.model, config), policy.tokenizer, max_new_tokens=2)


def main(
    out,
    objective="wind",
    rounds=6,
    slow=0.0,
    processes=None,
    evaluate=None,
    adapter=False,
    rows=2048,
    tokens=8192,
    callbacks=(),
    epochs=2,
    judge=None,
    part=None,
    **settings,
):
    torch.set_num_threads(1)

    def reward(prompts, responses):
        time.sleep(slow)  # time for a kill
        return vowels(prompts, responses)

    policy = small_policy(letters=4, length=2, width=16, spread=0.3)
    policy = adapted(policy) if adapter else policy
    policy.forward_batch_size, policy.tokens_per_batch = rows, tokens
    config = Config(
        Path(out),
        **{"rounds": rounds, "draws": 8, "epochs": epochs, "batch_prompts": 2, "learning_rate": 1e-2, "epsilon": 1e-5}
        | {"reference_draws": 4, "processes": processes, "cpu": True, "progress": False}
        | {"measure_final": False}
        | settings,
    )
    judge = judge or RewardJudge(reward)
    if part == "judge":
        return policy, judge_round(policy, PROMPTS, judge, OBJECTIVES[objective](), config)
    return policy, train(policy, PROMPTS, judge, OBJECTIVES[objective](), config, evaluate, callbacks, part)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--objective", default="wind")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--prompts-per-round", type=int)
    parser.add_argument("--adapter", action="store_true")
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--stop", type=int, help="end without a word after the training of this round")
    given = vars(parser.parse_args())
    stop = given.pop("stop")
    if given.pop("sharded"):
        shard_on_cpu()
    main(**given, evaluate=lambda number, policy: sys.exit(3) if number == stop else {})
