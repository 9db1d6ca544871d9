"""A small random chat model in a folder, as `from_pretrained` reads it, and rewards to train it on."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(upper=False):
    letters = pre_tokenizers.ByteLevel.alphabet()
    letters = sorted(letters, reverse=upper)  # another order: the reward model's ids are not the policy's
    words = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*letters, "<end>"])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")
    made.chat_template = CHAT
    return made


def make(folder, kind=LlamaForCausalLM, seed=0, upper=False, **settings):
    tok = tokenizer(upper)
    settings = {"max_position_embeddings": 512} | settings
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tok.eos_token_id,
        bos_token_id=None,
        pad_token_id=tok.pad_token_id,
        initializer_range=0.2,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def make_reward_model(folder, seed=1):
    return make(folder, LlamaForSequenceClassification, seed, upper=True, num_labels=1)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def vowels(prompts, responses):
    return [float(sum(c in "aeiou" for c in r)) for r in responses]


def longer(prompts, first, second):
    return [0.5 + 0.5 * ((len(a) > len(b)) - (len(a) < len(b))) for a, b in zip(first, second, strict=True)]
