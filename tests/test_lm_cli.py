"""The command line end to end on a small random model: train, resume, evaluate, sample, and what errors say."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")

import lm_tiny
from transformers import AutoModelForCausalLM, LlamaConfig

from windlm import LanguagePolicy, wind
from windlm.cli import main, methods
from windlm.cli import run as runs
from windlm.cli.plan import plan_run
from windlm.cli.settings import RECIPES as RECIPES_FOLDER
from windlm.cli.settings import build, plain, read_file, settings
from windlm.models import (
    SAMPLING,
    JudgeSettings,
    LoraSettings,
    ModelSettings,
    judge_of,
    load_function,
    load_judge,
    load_policy,
    skeleton,
)
from windlm.train import Config as Training
from windlm.train import train

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
REWARD = f"{Path(lm_tiny.__file__)}:vowels"
PAIRWISE = f"{Path(lm_tiny.__file__)}:longer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    lm_tiny.make(folder / "policy")
    lm_tiny.make_reward_model(folder / "reward")
    lm_tiny.write_lines(folder / "prompts.jsonl", [{"prompt": f"say {c}"} for c in "abcd"])
    return folder


def flags(folder, out, method="wind", **more):
    given = {
        "model.name": folder / "policy",
        "model.max-new-tokens": 4,
        "data.source": folder / "prompts.jsonl",
        "judge.kind": "reward",
        "judge.name": REWARD,
        "method.name": method,
        "lora.rank": 0,
        "train.out": out,
        "train.rounds": 2,
        "train.draws": 4,
        "train.reference-draws": 2,
    } | more
    words = [w for name, value in given.items() for w in (f"--{name}", str(value))]
    return ["train", *words, "--train.cpu", "--train.no-progress", "--train.no-measure-final"]


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def logits(path):
    policy = load_policy(ModelSettings(str(path)))
    with torch.no_grad():
        return policy.model(torch.arange(5)[None]).logits


# -- train ---------------------------------------------------------------------------------------------------


def test_an_error_in_the_judge_is_shown_once_and_the_response_named(folder, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def f(prompts, responses):\n    return {}['missing']\n")
    with pytest.raises(SystemExit, match=r"mine.py:f raised KeyError: 'missing' It was response \d, .*") as caught:
        main(flags(folder, tmp_path / "run", **{"judge.name": f"{tmp_path / 'mine.py'}:f"}))
    said = capsys.readouterr().err
    assert said.count("Traceback") == 1
    assert "return {}['missing']" in said
    assert caught.value.__suppress_context__  # so that Python prints no other one


def test_train_with_an_adapter_leaves_an_ordinary_model_and_its_record(folder, tmp_path, capsys):
    main([*flags(folder, tmp_path / "run", **{"method.eta": 1.0, "lora.rank": 2}), "--gradient-checkpointing"])
    assert "Trained for 2 rounds" in capsys.readouterr().out
    out = tmp_path / "run"
    rows = metrics(out)
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert rows[1]["kl"] == pytest.approx(0, abs=1e-5)
    assert abs(rows[2]["kl"]) > 1e-4
    assert "win_rate_reference" in rows[2]
    assert not (out / "model" / "adapter_config.json").exists()
    assert float((logits(out / "model") - logits(folder / "policy")).abs().max()) > 0
    saved = json.loads((out / "config.json").read_text())
    assert saved["method"]["eta"] == 1.0
    text = (out / "model" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers")
    assert "aligned by wind" in text
    assert f"{sum(row.get('tokens', 0) for row in rows)} generated tokens" in text

    # what was saved is a configuration again, and the same run, which is over: nothing is trained
    again = settings(runs.RunConfig, ["--config", str(out / "config.json")])
    assert plain(again) == saved
    before = (out / "metrics.jsonl").read_text()
    main(["train", "--config", str(out / "config.json")])
    assert (out / "metrics.jsonl").read_text() == before
    with pytest.raises(SystemExit, match=r"other train\.draws, method\.beta"):
        main(["train", "--config", str(out / "config.json"), "--method.beta", "0.3", "--train.draws", "6"])


def test_a_remark_of_the_rule_reaches_metrics_card_and_plan(folder, tmp_path, capsys):
    said = "is outside theorem 5.2, which allows up to 1.6"
    words = flags(folder, tmp_path / "far", **{"method.eta": 1.7, "train.rounds": 1})
    main(["plan", *words[1:]])
    assert said in capsys.readouterr().out
    main(words)
    assert said in capsys.readouterr().out
    assert said in metrics(tmp_path / "far")[0]["remark"]
    assert said in (tmp_path / "far" / "model" / "README.md").read_text()
    main(flags(folder, tmp_path / "near", **{"method.eta": 1.5, "train.rounds": 1}))
    assert metrics(tmp_path / "near")[0] == {"round": 0}
    assert "Remark" not in capsys.readouterr().out + (tmp_path / "near" / "model" / "README.md").read_text()


SETTINGS = {name: {"method.eta": 1.0} for name in ("sppo", "nash-md", "inpo", "omwu")}
SETTINGS["extragradient"] = {"method.risk": "nce", "method.pairing": "leave-one-out"}


@pytest.mark.parametrize(
    "method",
    ["grpo", *(pytest.param(m, marks=pytest.mark.slow) for m in methods.METHODS if m != "grpo")],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(method, folder, tmp_path, monkeypatch):
    more = SETTINGS.get(method, {}) | {"lora.rank": 2}
    main(flags(folder, tmp_path / "whole", method, **more))

    # stopped in its second round, by the judge
    def stops(prompts, responses):
        if (tmp_path / "part" / "metrics.jsonl").exists() and len(metrics(tmp_path / "part")) == 2:
            raise KeyboardInterrupt
        return lm_tiny.vowels(prompts, responses)

    monkeypatch.setattr("windlm.models.load_function", lambda name: stops)
    with pytest.raises(KeyboardInterrupt):
        main(flags(folder, tmp_path / "part", method, **more))
    assert len(metrics(tmp_path / "part")) == 2
    monkeypatch.undo()
    main(flags(folder, tmp_path / "part", method, **more))
    assert len(metrics(tmp_path / "part")) == 3
    assert torch.equal(logits(tmp_path / "whole" / "model"), logits(tmp_path / "part" / "model"))


def test_generate_judge_and_train_are_one_run(folder, tmp_path, capsys):
    settings = {"train.reference-draws": 0, "train.shard-prompts": 3, "lora.rank": 2}
    main([*flags(folder, tmp_path / "one", **settings), "--train.no-measure-final"])
    parts = [*flags(folder, tmp_path / "parts", **settings)[1:], "--train.no-measure-final"]
    with pytest.raises(SystemExit, match=r"windlm judge: .* holds no responses to judge: .* windlm generate first"):
        main(["judge", *parts])
    for number in (1, 2):
        main(["generate", *parts])
        with pytest.raises(SystemExit, match="Run windlm judge first"):
            main(["train", *parts, "--judged"])
        main(["judge", *parts])
        main(["train", *parts, "--judged"])
        assert (tmp_path / "parts" / "model" / "config.json").exists() == (number == 2)
        assert f"Judged round {number}" in capsys.readouterr().out
    assert torch.equal(logits(tmp_path / "one" / "model"), logits(tmp_path / "parts" / "model"))
    for one, other in zip(metrics(tmp_path / "one"), metrics(tmp_path / "parts"), strict=True):
        assert {k: v for k, v in one.items() if "second" not in k} == {
            k: v for k, v in other.items() if "second" not in k
        }


@pytest.mark.slow
def test_two_processes_are_one(folder, tmp_path):
    words = flags(folder, tmp_path / "one", **{"lora.rank": 2, "method.eta": 1.0})
    main(words)
    words[words.index("--train.out") + 1] = str(tmp_path / "two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    launch += ["-m", "windlm", *words, "--train.processes", "2"]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert torch.allclose(logits(tmp_path / "one" / "model"), logits(tmp_path / "two" / "model"), atol=1e-4)
    assert (tmp_path / "two" / "model" / "README.md").exists()


@pytest.mark.parametrize("judge", [("reward-model", "reward"), ("pairwise", PAIRWISE)], ids=["model", "pairwise"])
def test_other_judges(judge, folder, tmp_path):
    kind, name = judge
    name = folder / name if kind == "reward-model" else name
    main(flags(folder, tmp_path, **{"judge.kind": kind, "judge.name": name, "train.rounds": 1}))
    assert metrics(tmp_path)[1]["judge_calls"] > 0


def test_a_reward_model_reads_with_its_own_tokenizer(folder):
    judge = load_judge(JudgeSettings("reward-model", str(folder / "reward")))
    ours, theirs = load_policy(ModelSettings(str(folder / "policy"))).tokenizer, judge.reward.tokenizer
    assert ours("say")["input_ids"] != theirs("say")["input_ids"]
    ids = theirs("<user>say a\n<assistant>yes\n")["input_ids"]
    with torch.no_grad():
        expected = float(judge.reward.model(torch.tensor([ids])).logits)
    assert judge.rewards(["say a"], [["yes"]])[0, 0] == pytest.approx(expected, rel=1e-5)


# -- the plan ------------------------------------------------------------------------------------------------


def test_the_plan_counts_what_the_run_does(folder, tmp_path, capsys):
    main(["plan", *flags(folder, tmp_path / "run", **{"lora.rank": 2})[1:]])
    assert "generated tokens at most" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    run = settings(runs.RunConfig, flags(folder, tmp_path / "run", **{"lora.rank": 2})[1:])
    plan = plan_run(run)
    policy = load_policy(run.model, run.lora)
    assert plan["parameters"] == sum(p.numel() for p in policy.model.parameters())
    assert plan["trained parameters"] == sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    rows = runs.start(run)
    assert sum(r.get("tokens", 0) for r in rows) <= plan["generated tokens at most"] == 2 * 4 * 4 * 4
    assert sum(r.get("judge_calls", 0) for r in rows) <= plan["judge calls at most"]


def test_a_skeleton_has_no_weights(folder):
    net = skeleton(ModelSettings(str(folder / "policy"), precision="bfloat16"), LoraSettings(2))
    assert {p.device.type for p in net.parameters()} == {"meta"}
    assert {p.dtype for p in net.parameters() if not p.requires_grad} == {torch.bfloat16}


# -- models --------------------------------------------------------------------------------------------------


def test_checkpointed_layers_have_the_same_gradient_and_keep_less(folder):
    grads, kept = [], []
    for on in (False, True):
        policy = load_policy(ModelSettings(str(folder / "policy"), max_new_tokens=8), gradient_checkpointing=on)
        samples = policy.sample(["say a", "say bb"], 3, np.random.default_rng(0))
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, held=held: held.append(x.numel()) or x, lambda x: x):
            loss = policy(samples).sum()
        loss.backward()
        kept.append(sum(held))
        grads.append(torch.cat([p.grad.flatten() for p in policy.model.parameters()]))
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-6)
    assert kept[1] < kept[0] / 2


def test_a_gguf_file_is_a_model(tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(ValueError, match="no GGUF file"):
        load_policy(ModelSettings(str(tmp_path / "model.gguf")))


# -- vLLM ----------------------------------------------------------------------------------------------------


class StandIn:
    """What `windlm.engines` uses of vLLM's documented interface, with draws of its own: not vLLM."""

    def __init__(self):
        self.log = []

    def install(self, monkeypatch):
        vllm, request = types.ModuleType("vllm"), types.ModuleType("vllm.lora.request")
        vllm.SamplingParams = lambda **settings: settings
        vllm.LLM = lambda **settings: self.log.append(("engine", settings)) or self
        request.LoRARequest = lambda *arguments: arguments
        for name, module in {"vllm": vllm, "vllm.lora": types.ModuleType("x"), request.__name__: request}.items():
            monkeypatch.setitem(sys.modules, name, module)

    def generate(self, prompts, settings, lora_request, use_tqdm):
        self.log.append(("generate", lora_request))
        return [self.answers(s) for s in settings]

    def answers(self, settings):
        rng, end = np.random.default_rng(settings["seed"]), settings["stop_token_ids"][0]
        words = [[*rng.integers(0, end, size=rng.integers(0, 3)).tolist(), end] for _ in range(settings["n"])]
        return types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=w) for w in words])

    def collective_rpc(self, name):
        self.log.append((name, None))

    def reset_prefix_cache(self):
        self.log.append(("reset_prefix_cache", None))


@pytest.mark.parametrize("rank", [0, 2])
def test_an_engine_draws_from_the_weights_of_now(rank, folder, tmp_path, monkeypatch):
    stand_in = StandIn()
    stand_in.install(monkeypatch)
    main([*flags(folder, tmp_path, **{"lora.rank": rank, "sampler": "vllm"})])
    kinds, asked = zip(*stand_in.log, strict=True)
    assert len(metrics(tmp_path)) == 3
    if rank:  # the reference draws without a request, each round with a new one
        requests = [r for kind, r in stand_in.log if kind == "generate"]
        assert [r and r[1] for r in requests] == [1, None, 2]
        assert asked[0]["max_lora_rank"] == 2
    else:
        assert kinds.count("reload_weights") == kinds.count("generate") == 3


def test_without_vllm_it_says_so(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(SystemExit, match="vLLM is not installed"):
        main(flags(folder, tmp_path, sampler="vllm"))


# -- configurations and errors -------------------------------------------------------------------------------


def test_flags_win_over_a_file_and_yaml_is_json(folder, tmp_path):
    run = settings(runs.RunConfig, flags(folder, tmp_path / "run")[1:])
    yaml = pytest.importorskip("yaml")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain(run)))
    read = settings(
        runs.RunConfig, [f"--config={tmp_path / 'run.yaml'}", "--train.rounds", "7", "--model.stop", "x", "y"]
    )
    assert read.train.rounds == 7
    assert read.model.stop == ("x", "y")
    assert build(runs.RunConfig, plain(read)) == read
    (tmp_path / "rate.yaml").write_text("learning_rate: 1e-5\nout: o\n")  # a text to YAML 1.1
    assert build(Training, read_file(tmp_path / "rate.yaml")).learning_rate == 1e-5
    partial = {"model": {"name": "m"}, "judge": {"name": "j"}, "data": {"source": "d"}}
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(partial))
    assert settings(runs.RunConfig, ["--config", str(tmp_path / "part.yaml"), "--train.out", "o"]).train.out == Path(
        "o"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modell": {}}, "no 'modell'; it has model, data"),
        ({"train": {"round": 3}}, r"no 'train\.round'; train\. has out, rounds"),
        ({"model": "name"}, "'model' has the parts name, revision"),
        ({"model": {}}, r"lacks 'model\.name'"),
        ({"model": {"name": "m", "stop": "###"}}, r"model\.stop must be a list of values, such as \['###'\]"),
        ({"model": {"name": "m", "stop": ["x", 7]}}, r"model\.stop\[1\] must be a text, but it is 7"),
        (
            {"model": {"name": "m", "precision": "fp16"}},
            "model.precision must be one of 'float32', 'bfloat16', 'float16'",
        ),
        (
            {"model": {"name": "m", "max_new_tokens": "64"}},
            "model.max_new_tokens must be a whole number, but it is '64'",
        ),
        ({"model": {"name": 7}}, "model.name must be a text"),
        ({"train": {"out": "o", "draws": 16.0}}, "train.draws must be a whole number, but it is 16.0"),
        ({"train": {"out": "o", "epochs": True}}, "train.epochs must be a whole number, but it is True"),
        ({"train": {"out": "o", "seed": None}}, "train.seed must be a whole number, but it is None"),
        ({"train": {"out": None}}, "train.out must be a path, but it is None"),
        ({"train": {"out": "o", "betas": 0.95}}, "train.betas must be a list of 2 values"),
        ({"train": {"out": "o", "betas": [0.9, 0.95, 0.99]}}, "train.betas must be a list of 2 values"),
        ({"train": {"out": "o", "cpu": "yes"}}, "train.cpu must be true or false, but it is 'yes'"),
        ({"train": {"out": "o", "cpu": 1}}, "train.cpu must be true or false, but it is 1"),
        ({"train": {"out": "o", "learning_rate": "small"}}, "train.learning_rate must be a number, but it is 'small'"),
        ({"train": {"out": "o", "learning_rate": False}}, "train.learning_rate must be a number, but it is False"),
        ({"train": {"out": "o", "trackers": "wandb"}}, "train.trackers must be a list"),
        ({"gradient_checkpointing": "false"}, "gradient_checkpointing must be true or false"),
        ({3: 4}, "no '3'"),
    ],
)
def test_a_file_with_a_mistake_names_it(values, said):
    whole = {"model": {"name": "m"}, "data": {"source": "d"}, "judge": {"name": "j"}, "train": {"out": "o"}}
    with pytest.raises(ValueError, match=said):
        build(runs.RunConfig, whole | values)


def test_what_a_file_may_write_in_several_ways():
    whole = {"model": {"name": "m"}, "data": {"source": "d"}, "judge": {"name": "j"}}
    train = {"out": "o", "learning_rate": "2e-4", "max_grad_norm": 1, "betas": [0, 0.95], "prompts_per_round": None}
    read = build(runs.RunConfig, whole | {"train": train}).train
    assert (read.out, read.learning_rate, read.max_grad_norm) == (Path("o"), 2e-4, 1.0)
    assert read.betas == (0.0, 0.95)
    assert [type(x) for x in (*read.betas, read.max_grad_norm)] == [float] * 3


@pytest.mark.parametrize(
    "bad", [{"warmup": -1}, {"weight_decay": -0.1}, {"betas": (0.9, 1.0)}, {"epsilon": 0.0}, {"prompts_per_round": 0}]
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Training(Path("o"), **bad)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"method.name": "sppo", "method.eta": 1.0, "method.beta": 0.5},
            "method sppo does not use beta; it uses name, eta, pairing",
        ),
        ({"method.name": "j-bond", "method.n": 4}, "method j-bond does not use n; it uses name, gamma"),
        ({"method.name": "best-of-n", "method.alpha1": 0.5}, "method best-of-n does not use alpha1"),
        ({"method.name": "bond", "method.pairing": "group"}, "method bond does not use pairing"),
        ({"method.gamma": 0.1}, "method wind does not use gamma"),
        ({"judge.batch-size": 4}, "judge reward does not use batch-size"),
        ({"judge.scale": 2.0}, "preference reward does not use scale"),
        ({"judge.kind": "pairwise", "judge.name": PAIRWISE, "judge.ties": "weak"}, "judge pairwise does not use ties"),
        ({"lora.alpha": 8}, "lora with rank 0 does not use alpha"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused(more, said, folder, tmp_path):
    with pytest.raises(SystemExit, match=f"^windlm train: .*{said}") as stop:
        main(flags(folder, tmp_path / "run", **more))
    assert "\n" not in str(stop.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["model: {name: m", "a: b: c\n", "\t- x\n", "x: !!python/object:os.system {}\n"])
def test_a_broken_file_is_said_in_one_line(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SystemExit, match="neither YAML nor JSON") as stop:
        main(["train", "--config", str(tmp_path / "a.yaml")])
    assert "\n" not in str(stop.value)
    (tmp_path / "b.yaml").write_bytes(b"model: \xff\xfe\n")
    with pytest.raises(SystemExit, match="neither YAML nor JSON"):
        main(["train", "--config", str(tmp_path / "b.yaml")])
    with pytest.raises(SystemExit, match="no configuration file"):
        main(["train", "--config", str(tmp_path)])


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.yaml").write_text("- 1\n")
    for words, said in ((["--config"], "needs a file"), (["--config", "no.yaml"], "no configuration file")):
        with pytest.raises(SystemExit, match=said):
            main(["train", *words])
    with pytest.raises(SystemExit, match="names and values"):
        main(["train", "--config", str(tmp_path / "a.yaml")])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"method.name": "sppo"}, "Missing .*--method.eta .*no theorem sets it"),
        ({"method.name": "wnid"}, "method.name must be one of wind, .* but it is 'wnid'. Did you mean wind?"),
        ({"method.risk": "huber"}, "huber"),
        ({"method.bata": 1}, "method wind does not use bata; .* Did you mean beta?"),
        ({"trian.rounds": 1}, "no flag --trian.rounds. Did you mean --train.rounds?"),
        ({"train.rounds": 1.5}, "train.rounds.*1.5"),
        ({"train.rounds": 0}, "rounds must be at least 1, but it is 0"),
        ({"train.warmup": -1}, "warmup must be at least 0"),
        ({"data.limit": 0}, "limit must be at least 1"),
        ({"judge.name": ""}, "no name"),
        ({"judge.name": "vowels"}, "module:function"),
        ({"judge.name": "nowhere.py:f"}, "no file"),
        ({"judge.name": "no_such_module:f"}, "PYTHONPATH"),
        ({"judge.name": "json:f"}, "no function 'f'"),
        ({"judge.name": "json:dumps", "judge.kind": "reward-model"}, "is a function: add judge.kind"),
        ({"model.name": "./nowhere"}, "no model folder"),
        ({"data.prompt": "ask"}, "no column 'ask'; it has 'prompt'"),
        ({"method.name": "best-of-n", "method.n": 3}, "multiple of n"),
    ],
)
def test_mistakes_are_said_in_one_line(more, said, folder, tmp_path):
    with pytest.raises(SystemExit, match=said) as stop:
        main(flags(folder, tmp_path / "run", **more))
    assert "\n" not in str(stop.value)


# -- settings that depend on a choice ------------------------------------------------------------------------

WHOLE = {"model": {"name": "m"}, "data": {"source": "d"}, "judge": {"name": "j"}, "train": {"out": "o"}}


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_has_its_own_flags_from_either_side(name, tmp_path, capsys):
    more = {key.removeprefix("method."): value for key, value in SETTINGS.get(name, {}).items()}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(WHOLE | {"method": {"name": name} | more}))
    from_file = settings(runs.RunConfig, ["--config", str(file)])
    assert type(from_file.method) is methods.METHODS[name]
    file.write_text(json.dumps(WHOLE))
    words = [w for key, value in more.items() for w in (f"--method.{key}", str(value))]
    assert settings(runs.RunConfig, ["--config", str(file), f"--method.name={name}", *words]) == from_file
    assert build(runs.RunConfig, plain(from_file)) == from_file
    from_file.method.objective()
    with pytest.raises(SystemExit) as stop:
        main(["train", "--method.name", name, "--help"])
    assert not stop.value.code
    shown = set(re.findall(r"--method\.([a-z0-9-]+)[ ,]", capsys.readouterr().out)) - {"name", "no-count-ties"}
    assert shown == {f.name.replace("_", "-") for f in dataclasses.fields(methods.METHODS[name])} - {"name"}


def test_a_name_by_flag_replaces_what_the_file_says_of_another(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(WHOLE | {"method": {"name": "wind", "beta": 0.3, "risk": "kl"}}))
    read = settings(runs.RunConfig, ["--config", str(file), "--method.name", "sppo", "--method.eta", "2"])
    assert read.method == methods.SPPO(eta=2.0)
    read = settings(runs.RunConfig, ["--config", str(file), "--method.name", "wind", "--method.beta", "0.2"])
    assert read.method == methods.Wind(beta=0.2, risk="kl")
    with pytest.raises(ValueError, match=r"no 'method\.beta'; method\. has name, eta"):
        build(runs.RunConfig, WHOLE | {"method": {"name": "sppo", "eta": 1.0, "beta": 1.0}})
    with pytest.raises(ValueError, match=r"method.name must be one of wind, .* but it is 7"):
        build(runs.RunConfig, WHOLE | {"method": {"name": 7}})


def test_the_step_in_units_of_the_theorems():
    """4 beta / L^2, twice; at a step that is given there is nothing to scale."""
    one, two = (methods.Wind(beta=0.1, step=step).objective() for step in (1.0, 2.0))
    assert (one.stages(0.0)[0].eta, two.stages(0.0)[0].eta) == pytest.approx((0.4, 0.8))
    assert "outside theorem" in two.remark(0.0)
    moving = methods.MovingReference(beta=0.1, step=2.0).objective()
    assert moving.stages(0.0)[0].eta == pytest.approx(0.8)
    with pytest.raises(ValueError, match="leave eta at None"):
        methods.Wind(eta=1.0, step=2.0).objective()
    with pytest.raises(ValueError, match="step must be positive"):
        methods.Wind(step=0.0).objective()


# -- recipes and defaults --------------------------------------------------------------------------------------

RECIPES = sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))
SHAPES = {
    "smollm2": LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=8192,
    ),
    "llama3-8b": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, max_position_embeddings=8192,
    ),
}  # fmt: skip
"""The published shapes of the models."""
SIZES = {"smollm2": 134.5e6, "llama3-8b": 8.03e9}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_planned_on_the_meta_device(name, tmp_path):
    """No hub: a tokenizer and a judge of ours, a configuration of the model's published shape, and enough prompts."""
    SHAPES[name].save_pretrained(tmp_path / "model")
    lm_tiny.tokenizer().save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"question {i}"} for i in range(20000 if name == "llama3-8b" else 192)]
    lm_tiny.write_lines(tmp_path / "prompts.jsonl", rows)
    whole = settings(runs.RunConfig, ["--config", f"recipe:{name}"])
    assert whole.judge.kind == {"smollm2": "reward-model", "llama3-8b": "pairrm"}[name]
    assert whole.judge.pairwise == (name == "llama3-8b")
    words = ["--model.name", str(tmp_path / "model"), "--data.source", str(tmp_path / "prompts.jsonl")]
    judge = ["--judge.kind", "pairwise" if whole.judge.pairwise else "reward", "--judge.name"]
    judge += [PAIRWISE if whole.judge.pairwise else REWARD]
    plan = plan_run(settings(runs.RunConfig, ["--config", f"recipe:{name}", *words, *judge]))
    size = plan["parameters"] - plan["trained parameters"]
    assert size == pytest.approx(SIZES[name], rel=1e-3)
    assert plan["responses per round"] == {"smollm2": 16 * 8, "llama3-8b": 20000 * 5}[name]
    assert float(plan["learning rate"]) == pytest.approx({"smollm2": 2e-4, "llama3-8b": 7.2e-5}[name], rel=0.02)
    assert plan["largest target, nats"] == pytest.approx({"smollm2": 4.8 / 1.24, "llama3-8b": 1.6 / 1.016}[name], 1e-3)
    assert plan["eta in the theorem's steps"] == pytest.approx({"smollm2": 6, "llama3-8b": 40}[name])
    assert "outside theorem" in plan["remark"]
    assert plan["GiB sharded over 8"] < {"smollm2": 16, "llama3-8b": 72}[name]


def test_a_recipe_that_is_not_there():
    with pytest.raises(SystemExit, match="recipe must be one of llama3-8b, smollm2, but it is 'smollm'"):
        main(["train", "--config", "recipe:smollm"])


def test_both_entrances_have_the_same_defaults():
    ours = {f.name: f.default for f in dataclasses.fields(ModelSettings) if f.name in SAMPLING}
    theirs = {name: p.default for name, p in inspect.signature(LanguagePolicy).parameters.items() if name in SAMPLING}
    assert ours == theirs
    assert len(ours) == len(SAMPLING)
    assert wind(0.1) == methods.Wind(beta=0.1).objective()


def test_names_and_functions_where_a_policy_and_a_judge_are_expected(folder, tmp_path):
    """As in the guide; the base of a name is in float32, whatever the checkpoint's precision."""
    lm_tiny.make(tmp_path / "policy")
    AutoModelForCausalLM.from_pretrained(tmp_path / "policy").bfloat16().save_pretrained(tmp_path / "policy")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "policy").dtype == torch.bfloat16
    config = Training(tmp_path / "run", rounds=1, draws=2, cpu=True, progress=False)
    rows = train(str(tmp_path / "policy"), [{"prompt": "say a"}], lm_tiny.vowels, wind(0.1), config)
    assert rows[1]["learning_rate"] > 0
    assert (tmp_path / "run" / "model" / "config.json").exists()
    for judge in (REWARD, str(folder / "reward")):
        assert judge_of(judge).rewards(["a"], [["yes"]]).shape == (1, 1)
    with pytest.raises(ValueError, match="policy must be a LanguagePolicy, ModelSettings, or"):
        train(torch.nn.Linear(1, 1), ["a"], lm_tiny.vowels, wind(0.1), config)


def test_earlier_names_are_read():
    for name, method in (("wind-nce", methods.Wind(risk="nce")), ("bon", methods.BestOfNSettings())):
        assert build(runs.RunConfig, WHOLE | {"method": {"name": name}}).method == method


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_policy(ModelSettings(str(tmp_path)))


def test_a_function_by_module():
    assert load_function("json:dumps") is json.dumps


def test_a_function_by_file_with_a_dataclass_beside_it(tmp_path):
    """Which looks its module up by name."""
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
        "def score(prompts, responses):\n    return [float(A(len(text)).x) for text in responses]\n"
    )
    assert load_function(f"{tmp_path / 'mine.py'}:score")(["a"], ["four"]) == [4.0]


def test_without_a_command_the_usage_is_told(capsys):
    for words, code in (([], 2), (["--help"], 0), (["other"], 2)):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == code
        assert "train" in capsys.readouterr().out


def test_a_model_that_cannot_be_loaded_is_one_line(folder, tmp_path):
    lm_tiny.make(tmp_path / "policy")
    (tmp_path / "policy" / "model.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"^windlm train: The model '.*policy' could not be loaded: .*") as error:
        main(flags(folder, tmp_path / "run", **{"model.name": tmp_path / "policy"}))
    assert "\n" not in str(error.value)
