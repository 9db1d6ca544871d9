"""TRL's OnlineDPOTrainer on the task of runtime.py, in an environment of its own that has trl, peft, vaderSentiment.

    python benchmarks/trl_peer.py MODEL OUT.json SETTINGS

It imports nothing of this repository but the reward. SETTINGS is JSON, as runtime.py writes it.
"""

import json
import os
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from proxy import sentiment
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

SECONDS = {"sampling": 0.0, "judging": 0.0}


def timed(name, function):
    """Add the seconds of a function's calls to its share."""

    def run(*args, **kwargs):
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            SECONDS[name] += time.perf_counter() - started

    return run


class Peer(OnlineDPOTrainer):
    """The trainer, with a clock; a step draws two responses to each prompt."""

    rows: list

    def training_step(self, *args, **kwargs):
        before, started = dict(SECONDS), time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        spent = {f"seconds_{k}": SECONDS[k] - before[k] for k in SECONDS}
        self.rows.append(spent | {"began": started, "tokens": self.drawn})
        return loss

    def _generate(self, *args, **kwargs):
        out = timed("sampling", super()._generate)(*args, **kwargs)
        self.drawn = int(out[3].sum())
        return out


def main(folder, out, settings):
    torch.set_num_threads(settings["threads"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    steps = settings["steps"]
    prompts = (settings["prompts"] * (1 + steps * settings["batch"] // len(settings["prompts"])))[
        : steps * settings["batch"]
    ]

    def reward(prompts, completions, **kwargs):
        return sentiment(prompts, completions)

    arguments = OnlineDPOConfig(
        output_dir=out + ".run",
        per_device_train_batch_size=settings["batch"],
        max_steps=steps,
        learning_rate=settings["learning_rate"],
        max_new_tokens=settings["max_new_tokens"],
        beta=0.1,
        temperature=1.0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    rank = settings["rank"]
    trainer = Peer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, settings["precision"])),
        reward_funcs=timed("judging", reward),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.rows = []
    trainer.train()
    with open(out, "w") as file:
        json.dump({"version": trl.__version__, "rows": trainer.rows}, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
