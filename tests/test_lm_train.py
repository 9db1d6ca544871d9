"""The training loop: where it ends, what it logs, going on after a kill, two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import lm_run
from accelerate import tracking
from accelerate.utils import LoggerType
from safetensors.torch import load_file

import windgames as wg
from windgames._array import kl
from windlm import BestOfN, JBond, Regression, RewardJudge, bond, sppo, wind
from windlm.policy import LanguagePolicy
from windlm.tabular import Enumeration, small_policy
from windlm.train import Config, train
from windlm.train.rounds import round_prompts

SCRIPT = Path(lm_run.__file__)
PROMPTS = ["a", "b c"]


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def final(folder):
    state = load_file(next(folder.glob("checkpoints/round-*/state/0-of-*.safetensors")))
    return {k.removeprefix("weights/"): x for k, x in state.items() if k.startswith("weights/")}


def quick(out, **settings):
    given = {"draws": 8, "progress": False, "checkpoint_every": 0, "cpu": True, "measure_final": False}
    return Config(out, **given | settings)


# -- where it ends -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arena():
    """A transformer over 13 responses, a reward, and the certified equilibrium."""
    policy = small_policy(letters=3, length=2, width=32, spread=0.15)
    enumeration = Enumeration.of(policy)
    table = np.random.default_rng(1).normal(size=(2, len(enumeration)))
    where = {text: i for i, text in enumerate(enumeration.text)}

    def reward(prompts, responses):
        return [table[PROMPTS.index(p), where[r]] for p, r in zip(prompts, responses, strict=True)]

    log_ref = enumeration.log_policy(PROMPTS)
    game = wg.WinRateGame(wg.RewardPreference(table), np.exp(log_ref), 0.2)
    solution = wg.equilibrium(game)
    assert (solution.hilbert_certificate < 1e-9).all()
    return reward, table, game, solution


def trained(arena, out, objective, **settings):
    policy = small_policy(letters=3, length=2, width=32, spread=0.15)
    enumeration = Enumeration.of(policy)
    rows = train(policy, PROMPTS, RewardJudge(arena[0]), objective, quick(out, **settings))
    return enumeration.log_policy(PROMPTS), rows


def test_wind_reaches_the_certified_equilibrium(arena, tmp_path):
    *_, game, solution = arena
    start = kl(solution.log_policy, game.log_ref).mean()
    settings = {"rounds": 150, "draws": 64, "epochs": 2, "learning_rate": 4e-3}
    log_p, _ = trained(arena, tmp_path, wind(0.2, 3.2, interaction=0.5), **settings)
    assert start > 0.5
    assert kl(solution.log_policy, log_p).max() < 0.02
    assert game.gap(log_p).max() < 0.005


@pytest.mark.parametrize(
    "objective",
    [sppo(2.0), JBond(anchor_rate=0.2), *(pytest.param(o, marks=pytest.mark.slow) for o in (bond(2), BestOfN(2)))],
    ids=lambda o: type(o).__name__,
)
def test_what_has_no_pull_to_the_reference_leaves_it(arena, tmp_path, objective):
    """Their theory: multiplicative weights and iterated best-of-n go to the best response, past the equilibrium."""
    _, table, game, solution = arena
    one_pass = isinstance(objective, JBond | BestOfN)
    settings = {"rounds": 110, "draws": 32, "epochs": 1 if one_pass else 2, "learning_rate": 6e-3}
    log_p, _ = trained(arena, tmp_path, objective, schedule="constant", **settings)
    best = np.take_along_axis(np.exp(log_p), table.argmax(-1)[:, None], -1)
    at_equilibrium = np.take_along_axis(solution.policy, table.argmax(-1)[:, None], -1)
    assert at_equilibrium.max() < 0.6
    assert best.min() > 0.9
    assert kl(solution.log_policy, log_p).min() > 0.5
    assert kl(log_p, game.log_ref).min() > 1.3 * kl(solution.log_policy, game.log_ref).max()


RULES = [wg.wind(4.0), wg.inpo(1.5), wg.extragradient(4.0), wg.nash_md(4.0), wg.omwu(4.0), wg.sppo(4.0)]


SLOW_RULES = ("INPO", "Nash-MD", "OMWU")
"""Rules whose stages others have, too."""


@pytest.mark.parametrize(
    "rule",
    [pytest.param(r, id=r.name, marks=[pytest.mark.slow] if r.name in SLOW_RULES else []) for r in RULES],
)
def test_any_rule_of_windgames_runs_through_its_stages(tmp_path, rule):
    """Two rounds with many draws are two steps of the tabular rule, the second one with slots of the first."""
    policy = small_policy(letters=3, length=1, width=16, spread=0.3)
    enumeration = Enumeration.of(policy)
    matrix = np.array([[0.5, 0.9, 0.2, 0.4], [0.1, 0.5, 1.0, 0.3], [0.8, 0.0, 0.5, 0.9], [0.6, 0.7, 0.1, 0.5]])
    where = {text: i for i, text in enumerate(enumeration.text)}

    class TableJudge:
        calls = 0

        def preference(self, prompts, responses):
            index = np.array([[where[t] for t in row] for row in responses])
            return wg.MatrixPreference(matrix[index[:, :, None], index[:, None, :]])

    game = wg.WinRateGame(wg.MatrixPreference(matrix), np.exp(enumeration.log_policy(["a"])), 0.1)
    settings = {"draws": 2000, "epochs": 60, "rounds": 2, "batch_prompts": 1, "learning_rate": 1e-2}
    train(policy, ["a"], TableJudge(), Regression(rule, 0.1), quick(tmp_path, schedule="constant", **settings))
    found = np.exp(enumeration.log_policy(["a"]))

    def distance(other):
        return np.abs(found - np.exp(wg.solve(game, other, max_steps=2, tol=0).log_policy)).sum() / 2

    assert distance(rule) < 0.03
    others = [distance(other) for other in RULES if other.name != rule.name]
    assert distance(rule) < 0.6 * min(others)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_trained_against_its_base(tmp_path):
    peft = pytest.importorskip("peft")
    policy = small_policy(letters=3, length=2, width=16, spread=0.3)
    before, base = Enumeration.of(policy).log_policy(PROMPTS), weights(policy)
    config = peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    ours = LanguagePolicy(peft.get_peft_model(policy.model, config), policy.tokenizer, max_new_tokens=2)
    reward = RewardJudge(lambda p, r: [t.count("a") for t in r])
    settings = {"rounds": 40, "draws": 16, "epochs": 2, "learning_rate": 1e-2, "checkpoint_every": 20}
    rows = train(ours, PROMPTS, reward, wind(0.2, 3.2), quick(tmp_path, **settings))
    now = Enumeration.of(ours).log_policy(PROMPTS)
    assert rows[-1]["reward"] > rows[1]["reward"] + 0.3
    assert rows[1]["kl"] == pytest.approx(0, abs=1e-5)
    assert abs(rows[-1]["kl"] - kl(now, before).mean()) < 5 * rows[-1]["kl_error"] + 0.02
    for name, p in ours.model.named_parameters():
        if "lora" not in name:
            assert torch.equal(p, base[name.removeprefix("base_model.model.").replace("base_layer.", "")])
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    assert all("lora" in name for name in final(tmp_path))


# -- what it logs --------------------------------------------------------------------------------------------


def test_metrics_are_estimates_of_the_enumerated_truth(tmp_path):
    truth = []

    def evaluate(number, policy):
        log_p = Enumeration.of(policy).log_policy(["a", "b c", "c", "d d d"])
        truth.append(log_p)
        return {"exact_kl": float(kl(log_p, truth[0]).mean())}

    _, rows = lm_run.main(tmp_path, draws=400, evaluate=evaluate, checkpoint_every=0, reference_draws=400)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[3]) == rows[3]
    enumeration = Enumeration.of(small_policy(letters=4, length=2, width=16, spread=0.3))
    reward = [lm_run.vowels([p] * len(enumeration), enumeration.text) for p in ("a", "b c", "c", "d d d")]
    preference = wg.RewardPreference(np.array(reward))
    for row, log_p, before in zip(rows[2:], truth[1:], truth, strict=False):
        p = np.exp(log_p)
        assert abs(row["kl"] - kl(log_p, truth[0]).mean()) < 4.5 * row["kl_error"]
        assert 0 < row["kl_error"] < 0.1
        assert abs(row["entropy"] + (p * log_p).sum(-1).mean()) < 0.1
        assert abs(row["reward"] - (p * reward).sum(-1).mean()) < 0.1
        assert abs(row["length"] - (p * enumeration.mask.sum(-1).numpy()).sum(-1).mean()) < 0.05
        for name, other in (("reference", truth[0]), ("previous", before)):
            exact = (p * preference.win_rate(other)).sum(-1).mean()
            assert abs(row[f"win_rate_{name}"] - exact) < 0.06
    last = rows[-1]
    assert last["exact_kl"] == pytest.approx(kl(truth[-1], truth[0]).mean())
    assert last["tokens"] == pytest.approx(4 * 400 * last["length"])
    assert {"loss", "gradient_norm", "judge_calls", "seconds_sampling", "seconds_judging", "seconds_training"} <= set(
        last
    )


def test_micro_batches_add_up(tmp_path):
    whole, _ = lm_run.main(tmp_path / "whole", rounds=2, batch_prompts=4)
    pieces, _ = lm_run.main(tmp_path / "pieces", rounds=2, batch_prompts=4, tokens=1)
    assert difference(weights(whole), weights(pieces)) < 1e-4


def test_rounding_moves_only_what_does_nothing(tmp_path):
    """Adam makes steps of rounding errors where there is no gradient: at key biases, which change no attention."""
    whole, _ = lm_run.main(tmp_path / "whole", rounds=2, batch_prompts=4, epsilon=1e-8, checkpoint_every=0)
    pieces, _ = lm_run.main(tmp_path / "pieces", rounds=2, batch_prompts=4, epsilon=1e-8, checkpoint_every=0, tokens=1)
    one, other = (Enumeration.of(policy).log_policy(["a", "b c"]) for policy in (whole, pieces))
    assert np.abs(one - other).max() < 1e-4
    one, other = weights(whole), weights(pieces)
    moved = {name for name in one if (one[name] - other[name]).abs().max() > 1e-4}
    assert moved <= {name for name in one if name.endswith("c_attn.bias")}


@pytest.mark.parametrize(("n", "per_round"), [(6, 4), (7, 3), (5, 4)])
def test_rounds_that_do_not_divide_the_data_wrap(n, per_round):
    turns = [round_prompts(n, per_round, number, seed=0) for number in range(1, 2 * n + 1)]
    assert all(len(set(turn)) == per_round for turn in turns)  # what occurs twice has two streams of random numbers
    used = [i % n for turn in turns for i in turn]
    passes = [used[i : i + n] for i in range(0, len(used) - n, n)]
    assert all(sorted(one) == list(range(n)) for one in passes)
    assert len(set(map(tuple, passes))) == len(passes)


def test_rounds_take_every_prompt_once_before_any_twice():
    turns = [round_prompts(6, 2, number, seed=0) for number in range(1, 7)]
    for turn in (turns[:3], turns[3:]):
        assert sorted(i for part in turn for i in part) == list(range(6))
    assert turns[:3] != turns[3:]


# -- going on ------------------------------------------------------------------------------------------------


def program(*arguments):
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


@pytest.mark.parametrize("objective", ["wind", "jbond", "omwu"])
def test_a_run_that_goes_on_ends_with_the_same_weights(tmp_path, objective, monkeypatch):
    whole, rows = lm_run.main(tmp_path / "whole", objective=objective, epochs=1)

    class Killed(Exception):
        pass

    def stop(number, policy):
        if number == 4:
            raise Killed
        return {}

    with pytest.raises(Killed):  # after the training of round 4, before its checkpoint
        lm_run.main(tmp_path / "cut", objective=objective, epochs=1, evaluate=stop)
    ours, again = lm_run.main(tmp_path / "cut", objective=objective, epochs=1)
    assert difference(weights(whole), weights(ours)) == 0
    assert [r["round"] for r in again] == list(range(7))
    same = ("round", "loss", "kl", "win_rate_reference", "tokens", "gradient_norm", "judge_calls")
    assert [[r.get(k) for k in same] for r in again] == [[r.get(k) for k in same] for r in rows]
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 7
    with pytest.raises(ValueError, match="holds a run with other learning_rate"):
        lm_run.main(tmp_path / "cut", objective=objective, epochs=1, learning_rate=0.5)


def test_kill_and_go_on(tmp_path):
    """kill -9 in the middle of a round, and of another one after going on."""
    whole, _ = lm_run.main(tmp_path / "whole")
    folder = tmp_path / "cut"
    for rounds in (1, 3):
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(program(folder, "--slow", 0.4), env=ENVIRONMENT, **silent)
        deadline = time.monotonic() + 90
        seen = folder / "checkpoints" / f"round-{rounds:06d}"
        while not seen.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        assert not (folder / "model").exists()
    (folder / "checkpoints" / "writing-round-000009" / "state").mkdir(parents=True)  # as if killed while writing
    ours, _ = lm_run.main(folder)
    assert difference(weights(whole), weights(ours)) == 0
    assert difference(final(tmp_path / "whole"), final(folder)) == 0
    assert (folder / "model" / "config.json").exists()


def test_two_processes_are_one(tmp_path):
    whole, rows = lm_run.main(tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*launch, *program(tmp_path / "two", "--processes", 2)[1:]],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    two = final(tmp_path / "two")  # of the first process, since all have the same
    start = weights(small_policy(letters=4, length=2, width=16, spread=0.3))
    assert difference(weights(whole), two) < 1e-4 < 0.01 < difference(start, two)
    told = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    for there, here in zip(told[1:], rows[1:], strict=True):
        assert there["tokens"] == here["tokens"]
        assert there["kl"] == pytest.approx(here["kl"], abs=1e-4)
        assert there["win_rate_reference"] == pytest.approx(here["win_rate_reference"], abs=1e-6)


# -- bad input -----------------------------------------------------------------------------------------------


def test_bad_input(tmp_path):
    policy, judge, objective = (
        small_policy(letters=3, length=2, width=8),
        RewardJudge(lambda p, r: [0.0] * len(r)),
        wind(0.1),
    )
    with pytest.raises(ValueError, match="it is a str: put it into a list"):
        train(policy, "hello", judge, objective, quick(tmp_path))
    with pytest.raises(ValueError, match="no prompts"):
        train(policy, [], judge, objective, quick(tmp_path))
    with pytest.raises(ValueError, match="Prompt 1: the prompt is empty"):
        train(policy, ["a", ""], judge, objective, quick(tmp_path))
    with pytest.raises(ValueError, match="requires 2 processes, but has 1"):
        train(policy, PROMPTS, judge, objective, quick(tmp_path, processes=2))
    with pytest.raises(ValueError, match="prompts_per_round must be at most 3"):
        train(policy, ["a", "b", "c"], judge, objective, quick(tmp_path, prompts_per_round=4))
    nan = RewardJudge(lambda p, r: [float("nan")] * len(r))
    with pytest.raises(ValueError, match=r"The reward of response .* to the prompt 'a' is nan") as caught:
        train(policy, PROMPTS, nan, objective, quick(tmp_path))
    assert not hasattr(caught.value, "__notes__")  # it is named already
    for bad in ({"schedule": "step"}, {"rounds": 0}, {"learning_rate": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            quick(tmp_path, **bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_before_anything_is_drawn(tmp_path, value):
    policy = small_policy(letters=3, length=2, width=8)
    with torch.no_grad():
        policy.model.transformer.h[1].mlp.c_fc.weight[0, 0] = value
    asked = []
    judge = RewardJudge(lambda p, r: asked.append(1) or [0.0] * len(r))
    with pytest.raises(ValueError, match=r"h\.1\.mlp\.c_fc\.weight hold nan or inf"):
        train(policy, PROMPTS, judge, wind(0.1), quick(tmp_path))
    assert not asked
    if value != value:
        with pytest.raises(ValueError, match=r"after the prompt 'a' are nan"):
            policy.sample(["a"], 2, np.random.default_rng(0))


# -- trackers ------------------------------------------------------------------------------------------------


class StandIn(tracking.GeneralTracker):
    """A tracker that is as particular about settings as tensorboard's add_hparams."""

    name, requires_logging_directory, made = "tensorboard", True, []

    def __init__(self, run_name, logging_dir=None, **settings):
        super().__init__()
        self.rounds = []
        self.made.append(self)

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        for name, value in values.items():
            if not isinstance(value, bool | int | float | str):
                raise ValueError(f"{name}: value should be one of int, float, str, or bool, but it is {value!r}")
        self.settings = values

    def log(self, values, step=None, **settings):
        self.rounds.append((step, values))


def with_tracker(folder, name):
    policy = small_policy(letters=3, length=2, width=8)
    reward = RewardJudge(lambda p, r: [len(x) for x in r])
    return train(policy, PROMPTS, reward, wind(0.1), quick(folder, rounds=2, reference_draws=2, trackers=(name,)))


def test_a_tracker_gets_settings_that_it_can_show_and_every_round(tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", StandIn)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    rows = with_tracker(tmp_path, "tensorboard")
    tracker = StandIn.made[-1]
    assert [step for step, _ in tracker.rounds] == [1, 2]
    assert tracker.rounds[1][1]["kl"] == rows[2]["kl"]
    assert (tracker.settings["rounds"], json.loads(tracker.settings["betas"])) == (2, [0.9, 0.95])


def test_wandb_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    rows = with_tracker(tmp_path, "wandb")
    assert len(rows) == 3
    assert list(tmp_path.rglob("offline-run-*/*.wandb"))


def test_tensorboard_itself(tmp_path):
    pytest.importorskip("tensorboard")
    with_tracker(tmp_path, "tensorboard")
    assert list(tmp_path.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize(("name", "said"), [("comet_ml", "not installed"), ("tensorbord", "among .*'tensorboard'")])
def test_a_tracker_that_is_not_there_is_an_error(name, said, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(ValueError, match=said):
        with_tracker(tmp_path, name)
    assert not (tmp_path / "metrics.jsonl").exists()
