"""TRL's GRPOTrainer on the task of steps.py, in an environment of its own that has trl and peft.

    python benchmarks/grpo_peer.py MODEL OUT.json SETTINGS

It imports nothing of this repository. SETTINGS is JSON, as steps.py writes it.
"""

import json
import os
import resource
import sys
import time
from itertools import pairwise

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    """Notes when each optimiser step ends, in seconds of the clock and of the processor."""

    def __init__(self):
        self.ends = []

    def on_train_begin(self, *args, **kwargs):
        self.ends.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, *args, **kwargs):
        self.ends.append((time.perf_counter(), time.process_time()))


def main(folder, out, settings):
    torch.set_num_threads(settings["threads"])
    batch, draws, steps = settings["batch"], settings["draws"], settings["steps_per_round"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    def reward(completions, **kwargs):
        return [float(c.count("e")) for c in completions]

    arguments = GRPOConfig(
        output_dir=out + ".run",
        per_device_train_batch_size=batch * draws,
        num_generations=draws,
        steps_per_generation=steps,
        max_steps=settings["rounds"] * steps,
        max_completion_length=settings["new_tokens"],
        generation_kwargs={"min_new_tokens": settings["new_tokens"]},
        learning_rate=1e-4,
        beta=0.1,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    clock = Clock()
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, settings["precision"])),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": p} for p in settings["prompts"]]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    ).train()
    ends = clock.ends[::steps]
    rounds = [[b[0] - a[0], b[1] - a[1]] for a, b in pairwise(ends)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with open(out, "w") as file:
        json.dump({"version": trl.__version__, "rounds": rounds, "gib": peak}, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
