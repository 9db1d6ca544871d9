"""windlm plan: the cost of a run, and every refusal, before a weight is loaded."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")
pytest.importorskip("peft")

import lm_tiny
from test_lm_cli import flags
from transformers import LlamaConfig

from windlm.cli import main
from windlm.cli.plan import PlanConfig, measure, plan_run, working_memory
from windlm.cli.settings import settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models without weights: nothing that loads one can pass."""
    folder = tmp_path_factory.mktemp("plan")
    for name, make in {"policy": lm_tiny.make, "reward": lm_tiny.make_reward_model}.items():
        make(folder / name)
        (folder / name / "model.safetensors").unlink()
    lm_tiny.make(folder / "whole")
    lm_tiny.write_lines(folder / "prompts.jsonl", [{"prompt": f"say {c}"} for c in "abcd"])
    lm_tiny.write_lines(folder / "long.jsonl", [{"prompt": "say " + "a" * 600}])
    lm_tiny.write_lines(folder / "middle.jsonl", [{"prompt": "say " + "a" * 500}])
    (folder / "answers.py").write_text("def right(prompts, responses, answer):\n    return [0.0] * len(responses)\n")
    return folder


def plan(folder, *words, **more):
    return plan_run(settings(PlanConfig, [*flags(folder, folder / "run", **more)[1:], *words, "--train.measure-final"]))


def test_a_reward_model_is_planned_without_its_weights(folder):
    found = plan(folder, **{"judge.kind": "reward-model", "judge.name": folder / "reward"})
    assert found["judge calls at most"] == 3 * 4 * 4  # two rounds and the last policy
    assert found["GiB judge"] >= 0
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("more", "words", "said"),
    [
        ({"judge.name": "nowhere.py:f"}, (), "no file"),
        ({"judge.name": "json:f"}, (), "no function 'f'"),
        ({"judge.kind": "reward-model", "judge.name": "./nowhere"}, (), "no model folder"),
        ({"judge.kind": "reward-model", "judge.name": "policy"}, (), "whose weights give no scores"),
        ({"judge.kind": "reward-model", "judge.name": "policy", "judge.label": "LABEL_0"}, (), "give no scores"),
        ({"judge.name": "answers.py:right"}, (), "answer"),
        ({"data.source": "long.jsonl"}, (), "does not fit the model's context of 512"),
        ({"eval.data.source": "long.jsonl"}, (), "does not fit the model's context of 512"),
        ({"eval.data.source": "none.jsonl"}, (), "There is no file"),
        ({"eval.data.source": "prompts.jsonl", "eval.every": 0}, (), "eval.every must be at least 1"),
        (
            {"judge.kind": "reward-model", "judge.name": "reward", "data.source": "middle.jsonl"},
            (),
            "for the reward model.* does not fit its context of 512",
        ),
        ({"data.prompt": "ask"}, (), "no column 'ask'"),
        ({"model.name": "./nowhere"}, (), "no model folder"),
        ({"model.precision": "bfloat16"}, (), "in which small steps are lost"),
        ({"train.processes": 3}, (), "do not divide evenly among 3"),
        ({"train.prompts-per-round": 5}, (), "at most 4"),
        ({"lora.rank": 2, "lora.targets": "nothing"}, (), "nothing"),
        ({"train.trackers": "tensorbord"}, (), "trackers must be among"),
        ({"train.stop-when": "kl"}, (), "stop_when must be a metric"),
        ({"train.out": "prompts.jsonl/run"}, (), "Cannot write prompts.jsonl/run: Not a directory"),
        ({"train.reference": "base"}, (), "has none"),
        ({"sampler": "vllm"}, (), "vLLM is not installed"),
    ],
)
def test_what_training_would_refuse_is_refused(folder, monkeypatch, more, words, said):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit, match=said):
        main(["plan", *flags(folder, folder / "run", **more)[1:], *words])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"train.trackers": "tensorbord"}, "trackers must be among"),
        ({"train.stop-when": "kl"}, "stop_when must be a metric"),
        ({"data.source": "none.jsonl"}, "There is no file"),
        ({"eval.data.source": "none.jsonl"}, "There is no file"),
    ],
)
def test_training_refuses_cheap_mistakes_before_it_loads_a_judge(folder, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(folder)
    reward = {"judge.kind": "reward-model", "judge.name": "reward"}  # it has no weights: loading it is another error
    with pytest.raises(SystemExit, match=said):
        main(flags(folder, tmp_path / "run", **reward, **more))


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [("bon", {"method.n": 3}, "multiple of n"), ("j-bond", {"train.draws": 3}, "draws must be even")],
)
def test_draws_that_a_method_cannot_use_are_refused(folder, method, more, said):
    with pytest.raises(ValueError, match=said):
        plan(folder, method=method, **more)


def test_a_run_of_another_configuration_is_refused(folder, tmp_path):
    words = flags(folder, tmp_path / "run", **{"model.name": folder / "whole", "train.rounds": 1})
    main(words)
    main(["plan", *words[1:]])
    with pytest.raises(SystemExit, match=r"other train\.draws"):
        main(["plan", *words[1:], "--train.draws", "6"])


def test_fewer_rounds_than_were_run_are_refused_and_the_record_of_the_run_is_kept(folder, tmp_path):
    words = flags(folder, tmp_path / "run", **{"model.name": folder / "whole"})
    main(words)
    before = (tmp_path / "run" / "config.json").read_text()
    for command in ("plan", "train"):
        with pytest.raises(SystemExit, match="holds a run of 2 rounds"):
            main([command, *words[1:], "--train.rounds", "1"])
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_eight_billion_parameters_need_no_memory(folder, tmp_path):
    shape = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192}
    LlamaConfig(**shape, **heads, dtype="bfloat16").save_pretrained(tmp_path / "large")
    lm_tiny.tokenizer().save_pretrained(tmp_path / "large")
    large = {"model.name": tmp_path / "large", "model.precision": "bfloat16", "lora.rank": 16, "train.processes": 4}
    found = plan(folder, **large)
    assert found["parameters"] - found["trained parameters"] == 8_030_261_248
    assert found["GiB weights"] == pytest.approx(8.03e9 * 2 / 2**30 + found["GiB gradients and AdamW"] / 3, rel=1e-2)
    assert found["GiB sharded over 4"] < 0.4 * found["GiB at the peak, roughly"]
    assert found["GiB disk, roughly"] > 15
    whole = plan(folder, **large | {"lora.rank": 0, "model.precision": "float32"})
    assert whole["GiB gradients and AdamW"] == pytest.approx(3 * whole["GiB weights"])


@pytest.mark.parametrize("layers", [1, 8])
def test_checkpointing_keeps_one_layer_and_the_inputs_of_all(folder, layers):
    """A network of one layer is computed again as a whole; of eight, a little more than an eighth is in memory."""
    config = LlamaConfig(hidden_size=256, num_hidden_layers=layers, num_attention_heads=4, vocab_size=2)
    net = torch.nn.Linear(1, 1)
    net.config = config
    runs = [
        settings(PlanConfig, [*flags(folder, folder / "run")[1:], *more]) for more in ([], ["--gradient-checkpointing"])
    ]
    plain, again = (working_memory(run, net, 100, 4)[0] for run in runs)
    assert again >= plain / layers
    assert again < plain or layers == 1
    assert again < 1.5 * plain / layers


def test_the_largest_target_is_that_of_the_best_against_the_worst(folder):
    """At the reference, with win rates 1 and 0: one response gains eta/(1 + beta eta) nats on the other."""
    import windgames as wg

    found = plan(folder, **{"method.beta": 0.1, "method.eta": 0.8})
    game = wg.WinRateGame(wg.RewardPreference([1.0, 0.0, 0.5], ties="half"), [0.5, 0.499, 0.001], 0.1)
    assert found["largest target, nats"] == pytest.approx(0.8 / (1 + 0.1 * 0.8), abs=1e-4)
    step = wg.solve(game, wg.wind(0.8), max_steps=1, tol=0).log_policy - game.log_ref
    assert float(step.max() - step.min()) <= found["largest target, nats"] + 1e-9
    # theorem 5.2 allows 4 beta / L^2 = 1.6 for a reward, L = 1/2
    assert found["eta in the theorem's steps"] == pytest.approx(0.5)


def test_hours_are_measured_on_one_mini_batch(folder, tmp_path):
    more = {"model.name": folder / "whole", "train.batch-prompts": 2, "train.rounds": 7}
    run = settings(PlanConfig, [*flags(folder, tmp_path / "run", **more)[1:], "--measure"])
    found = measure(run)
    assert 0 < found["hours, roughly"] < 1
    assert 0 <= found["judge's share of the time"] < 1
    assert found["tokens per second"] > 0
    assert not Path(tmp_path / "run").exists()
    assert json.dumps(found)
