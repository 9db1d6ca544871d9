"""Definitions of windlm checked by hand and by exact expectations: what training, drawing and judging must come to."""

import math
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("tyro")

import lm_run
import lm_tiny
from test_lm_objectives import MATRIX, POLICY, REF, Draws, groups, minimiser
from torch.optim.optimizer import register_optimizer_step_pre_hook

import windgames as wg
from windgames.updates import target
from windlm import BestOfN, JBond, LanguagePolicy, PairwiseJudge, Regression, RewardJudge
from windlm.cli import methods
from windlm.data import Pair
from windlm.evaluate.benchmarks import benchmarks
from windlm.evaluate.statistics import interval
from windlm.judges.fitting import accuracy
from windlm.models import LoraSettings, ModelSettings, load_policy, save_merged
from windlm.objectives import bond, for_judge
from windlm.policy import Samples
from windlm.rollout import Rollout
from windlm.tabular import small_policy
from windlm.train.rounds import count_streams, round_prompts
from windlm.weights import WeightSnapshots

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's


# -- optimiser steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 24])
def test_the_gradient_of_a_step_does_not_depend_on_its_pieces(tmp_path, tokens):
    """The mean over the prompts of a step: Adam's steps would hide a factor, the norm of the gradient does not."""
    settings = {"rounds": 1, "epochs": 1, "batch_prompts": 4, "checkpoint_every": 0, "reference_draws": 0}
    _, whole = lm_run.main(tmp_path / "whole", **settings)
    _, pieces = lm_run.main(tmp_path / "pieces", tokens=tokens, **settings)
    for name in ("gradient_norm", "loss"):
        assert whole[1][name] > 0
        assert pieces[1][name] == pytest.approx(whole[1][name], rel=1e-4)


SCHEDULES = {
    "constant": lambda x: 1.0,
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 + 0.5 * math.cos(math.pi * x),
}


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_of_every_step(tmp_path, schedule, warmup):
    """Rises by equal amounts to its peak over `warmup` steps, then falls to zero over the steps that are left."""
    rates = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: rates.append(optimizer.param_groups[0]["lr"])
    )
    settings = {"rounds": 3, "epochs": 2, "batch_prompts": 2, "checkpoint_every": 0, "reference_draws": 0}
    try:
        _, rows = lm_run.main(tmp_path, schedule=schedule, warmup=warmup, learning_rate=1e-3, **settings)
    finally:
        hook.remove()
    total = 3 * 2 * 2  # rounds, epochs, mini-batches
    factors = [(i + 1) / (warmup + 1) for i in range(warmup)]
    factors += [SCHEDULES[schedule](i / (total - warmup)) for i in range(total - warmup)]
    np.testing.assert_allclose(rates, 1e-3 * np.array(factors), atol=1e-15)
    ends = factors[3::4]  # of the last step of each round
    np.testing.assert_allclose([row["learning_rate"] for row in rows[1:]], 1e-3 * np.array(ends), atol=1e-15)


def test_every_epoch_and_every_pass_has_an_order_of_its_own(tmp_path, monkeypatch):
    steps, loss = [], Regression.loss
    monkeypatch.setattr(
        Regression, "loss", lambda s, st, x, f: (steps.append(f.samples.prompts[0]), loss(s, st, x, f))[1]
    )
    settings = {"rounds": 1, "epochs": 4, "batch_prompts": 1, "checkpoint_every": 0, "reference_draws": 0}
    lm_run.main(tmp_path, **settings)
    epochs = [tuple(map(tuple, steps[i : i + 4])) for i in range(0, 16, 4)]
    assert len({frozenset(epoch) for epoch in epochs}) == 1  # the same prompts,
    assert len(set(epochs[0])) == 4  # each once,
    assert len(set(epochs)) > 1  # in another order
    passes = [tuple(round_prompts(6, 3, n, seed=0) + round_prompts(6, 3, n + 1, seed=0)) for n in (1, 3, 5)]
    assert all(sorted(one) == list(range(6)) for one in passes)
    assert len(set(passes)) == 3


def test_a_run_that_goes_on_has_the_moments_and_the_learning_rates_of_one_that_was_not_stopped(tmp_path):
    def stop(number, policy):
        if number == 2:
            raise KeyboardInterrupt
        return {}

    settings = {"rounds": 3, "epochs": 1, "reference_draws": 0, "warmup": 2}
    whole, rows = lm_run.main(tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        lm_run.main(tmp_path / "cut", evaluate=stop, **settings)
    ours, again = lm_run.main(tmp_path / "cut", **settings)
    assert [row.get("learning_rate") for row in again] == [row.get("learning_rate") for row in rows]
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), ours.model.parameters(), strict=True))


def test_the_schedule_of_an_objective_goes_from_zero_to_one(tmp_path, monkeypatch):
    seen = []

    def rule(progress):
        seen.append(progress)
        return wg.wind(0.8)

    monkeypatch.setitem(lm_run.OBJECTIVES, "scheduled", lambda: Regression(rule, 0.2))
    lm_run.main(tmp_path, "scheduled", rounds=3, epochs=1, checkpoint_every=0, reference_draws=0)
    assert seen[-3:] == [0.0, 0.5, 1.0]


def test_the_logged_divergence_is_the_mean_of_what_was_drawn(tmp_path, monkeypatch):
    """KL(pi||rho) as the mean of log pi - log rho over draws of pi, and its standard error given the prompts."""
    rounds, collect = [], Regression.collect
    monkeypatch.setattr(Regression, "collect", lambda *args: (rounds.append(collect(*args)), rounds[-1])[1])
    _, rows = lm_run.main(tmp_path, rounds=3, draws=16, checkpoint_every=0, reference_draws=0)
    for frozen, row in zip(rounds, rows[1:], strict=True):
        ratio = (frozen.fixed["start"] - frozen.fixed["ref"]).double().numpy()
        assert row["kl"] == pytest.approx(ratio.mean(), abs=1e-7)
        error = np.sqrt(np.sum(ratio.var(axis=1, ddof=1) / 16)) / 4
        assert row["kl_error"] == pytest.approx(error, rel=1e-6)
    assert abs(rows[3]["kl"]) > 1e-3


# -- objectives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairing", ["group", "leave-one-out"])
def test_optimistic_steps_are_without_bias_over_all_draws_and_opponents(pairing):
    """Theory 7.2 for OMWU: every group of two draws against every group of two opponents, by their probabilities."""
    eta, beta, previous = 2.0, 0.2, np.array([0.2, 0.3, 0.5])
    method = Regression(wg.omwu(eta), beta, pairing=pairing)
    index, probability = groups(2)
    own, other = index.repeat_interleave(9, 0), index.repeat(9, 1)
    weight = probability.repeat_interleave(9) * torch.tensor(previous)[other].prod(-1)
    logs = {"current": np.log(POLICY), "previous": np.log(previous), "ref": np.log(REF)}
    table = Draws(MATRIX, [own.tolist(), other.tolist()], **logs)
    (stage,) = method.stages(0.0)
    found = minimiser(method, stage, method.collect(stage, table, 2), weight)
    payoff = MATRIX @ (2 * POLICY - previous)
    expected = wg.log_normalize(target(np.log(POLICY), np.log(REF), payoff, beta=beta, eta=eta))
    np.testing.assert_allclose(found, np.exp(expected), atol=1e-6)


def test_the_log_payoff_counts_a_draw_s_own_game_as_a_win():
    """Win rates of a group with weak ties: (1 + wins against the others)/K, and their logarithms centred."""
    method = bond(2)
    table = Draws(np.array([[1.0, 0, 0], [1, 1, 0], [1, 1, 1]]), [[[0, 1, 2]]], current=np.zeros(3), ref=np.zeros(3))
    (stage,) = method.stages(0.0)
    label = method.collect(stage, table, 3).fixed["label"][0].numpy()
    expected = np.log([1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(label - label[0], expected - expected[0], atol=1e-6)


@pytest.mark.parametrize("n", [2, 3])
def test_the_likelihood_of_the_winners_is_a_mean(n):
    """The weights of a prompt's draws sum to one, however many groups they make."""
    index = np.random.default_rng(0).integers(3, size=(5, 6)).tolist()
    table = Draws(MATRIX, [index], current=np.log(POLICY), ref=np.log(REF))
    frozen = BestOfN(n).collect("current", table, 6)
    np.testing.assert_allclose(frozen.fixed["weight"].sum(-1), np.ones(5), atol=1e-6)


def test_the_anchor_of_jbond_takes_in_its_share(tmp_path):
    policy = small_policy(letters=3, length=1, width=8)
    snapshots = WeightSnapshots(policy, tmp_path)
    snapshots.save("anchor")
    before = {name: x.detach().clone() for name, x in snapshots.weights().items()}
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    now = {name: x.detach().clone() for name, x in snapshots.weights().items()}
    JBond(anchor_rate=0.1).finish("anchor", snapshots)
    snapshots.load("anchor")
    for name, x in snapshots.weights().items():
        torch.testing.assert_close(x, 0.9 * before[name] + 0.1 * now[name])


def test_default_steps_know_the_kind_of_judge():
    """4 beta/L^2 with L = 1 for a judge of pairs, 1/2 for a reward and for Bradley-Terry (theory 5.2, 5.3)."""
    judges = [(PairwiseJudge(len), 1.0), (RewardJudge(len), 0.5), (RewardJudge(len, "bradley-terry"), 0.5), (None, 1.0)]
    for judge, L in judges:
        (stage,) = for_judge(methods.Wind(beta=0.1).objective(), judge).stages(0.0)
        assert stage.eta == pytest.approx(4 * 0.1 / L**2)


# -- draws -----------------------------------------------------------------------------------------------------


def by_hand(policy, prompt, uniform, temperature, top_p):
    """The tokens of one response: the inverse of the exact distribution's cumulative one, token by token."""
    ids, out = list(prompt), []
    for u in uniform:
        logits = policy.logits(torch.tensor([ids]))[0, -1].double().detach().numpy()
        p = np.exp(logits / temperature - np.logaddexp.reduce(logits / temperature))
        order = np.argsort(-p)
        kept = order[: int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1]  # the fewest that reach top_p
        p = np.where(np.isin(np.arange(len(p)), kept), p, 0) / p[kept].sum()
        token = int(np.searchsorted(np.cumsum(p), u, side="right"))
        ids.append(token)
        out.append(token)
        if token in policy.stop_ids:
            break
    return out


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)])
def test_every_token_is_the_inverse_of_the_distribution_at_its_uniform_number(temperature, top_p):
    """Prompts of different length in one batch, against one unpadded row at a time; the end is part of a response."""
    base = small_policy(letters=4, length=4, width=16, spread=0.5)
    policy = LanguagePolicy(base.model, base.tokenizer, max_new_tokens=4, temperature=temperature, top_p=top_p)
    prompts = ["a", "b a c d a", "c c"]
    samples = policy.sample(prompts, 8, [np.random.default_rng(i) for i in range(3)])
    lengths = set()
    for i, prompt in enumerate(policy.encode(prompts)):
        uniform = np.random.default_rng(i).random((8, 4))
        for k in range(8):
            expected = by_hand(policy, prompt, uniform[k], temperature, top_p)
            assert samples.tokens[i, k][samples.mask[i, k]].tolist() == expected
            lengths.add(len(expected))
    assert lengths >= {1, 2, 4}  # some end early, some are cut


def test_streams_of_random_numbers_depend_on_prompt_and_turn_and_nothing_else():
    def numbers(prompts, turns):
        streams = count_streams([5, 2], prompts)
        return [{i: g.random(3).tolist() for i, g in zip(prompts, next(streams), strict=True)} for _ in range(turns)]

    first, second = numbers([0, 1, 2], 2)
    assert len({tuple(x) for turn in (first, second) for x in turn.values()}) == 6  # all different
    assert numbers([2, 0], 2) == [{i: turn[i] for i in (2, 0)} for turn in (first, second)]


# -- judges ----------------------------------------------------------------------------------------------------


def test_opponents_stand_in_the_columns():
    """Entry (i, j): what draw i gets against opponent j."""
    policy = small_policy(letters=3, length=3, width=8)

    def spoken(texts):
        empty = torch.zeros(1, len(texts), 1, dtype=torch.long)
        return Samples([[0]], empty, empty.bool(), [texts])

    judge = PairwiseJudge(lambda p, a, b: [{"xz": 0.9, "yz": 0.2}.get(i + j, 0.5) for i, j in zip(a, b, strict=True)])
    table = Rollout(policy, SimpleNamespace(), judge, ["a"], list)
    found = table.outcomes(spoken(["x", "y"]), spoken(["z", "z"]))[0].numpy()
    np.testing.assert_allclose(found, [[0.7, 0.7], [0.35, 0.35]], atol=1e-6)  # of both orders the mean


@pytest.mark.parametrize(("ties", "own"), [("half", 0.5), ("weak", 1.0), ("strict", 0.0)])
def test_a_judge_s_ties(ties, own):
    judge = RewardJudge(lambda prompts, responses: [1.0] * len(responses), ties=ties)
    np.testing.assert_array_equal(judge.preference(["p"], [["a", "b"]]).matrix(), np.full((1, 2, 2), own))


def test_a_tie_of_a_reward_model_is_half_right():
    """Accuracy is the mean over prompts of what the chosen answers get: 1, a half, 0."""
    score = {"good": 1.0, "same": 1.0, "bad": 0.0}

    def model(prompts, responses):
        return np.array([score[r] for r in responses])

    assert accuracy(model, [Pair("p", "good", "same")]).mean == 0.5
    pairs = [Pair("p", "good", "bad"), Pair("p", "bad", "good"), Pair("q", "good", "same"), Pair("r", "same", "bad")]
    assert accuracy(model, pairs).mean == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


# -- intervals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.959964), (0.5, 0.674490)])
def test_an_interval_has_its_level(level, quantile):
    """Against the normal approximation at 500 prompts; 95% unless said otherwise."""
    x = np.random.default_rng(0).random(500)
    mean, low, high = interval(x) if level == 0.95 else interval(x, level)
    half = quantile * x.std(ddof=1) / math.sqrt(500)
    assert mean == pytest.approx(x.mean())
    assert high - mean == pytest.approx(half, rel=0.05)
    assert mean - low == pytest.approx(half, rel=0.05)


def test_intervals_of_benchmarks_are_of_95_percent(monkeypatch):
    """lm-eval gives standard errors; a stand-in gives one here."""
    said = {"results": {"task": {"acc,none": 0.6, "acc_stderr,none": 0.1}}, "n-samples": {"task": {"effective": 24}}}
    fake = {name: types.ModuleType(name) for name in ("lm_eval", "lm_eval.models.huggingface", "lm_eval.tasks")}
    fake["lm_eval"].simple_evaluate = lambda **settings: said
    fake["lm_eval.models.huggingface"].HFLM = lambda **settings: None
    fake["lm_eval.tasks"].TaskManager = lambda **settings: SimpleNamespace(all_tasks=["task"])
    fake["lm_eval.models"] = types.ModuleType("lm_eval.models")
    for name, module in fake.items():
        monkeypatch.setitem(sys.modules, name, module)
    policy = SimpleNamespace(model=None, tokenizer=None, device="cpu")
    (row,) = benchmarks(policy, "model", ["task"])
    assert (row["mean"], row["n"]) == (0.6, 24)
    assert (row["low"], row["high"]) == pytest.approx((0.6 - 1.96 * 0.1, 0.6 + 1.96 * 0.1))


# -- adapters --------------------------------------------------------------------------------------------------


def test_an_adapter_is_merged_at_its_scale(tmp_path):
    """W + (alpha/rank) B A in the model folder, and the output layer as it was."""
    pytest.importorskip("peft")
    base = load_policy(ModelSettings(lm_tiny.make(tmp_path / "base")))
    policy = load_policy(ModelSettings(str(tmp_path / "base")), LoraSettings(rank=2, alpha=12))
    expected = {name: p.detach().clone() for name, p in base.model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for name, layer in policy.model.named_modules():
        if hasattr(layer, "lora_B"):
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            with torch.no_grad():
                B.copy_(0.1 * torch.randn(B.shape, generator=generator))
            expected[name.removeprefix("base_model.model.") + ".weight"] += 12 / 2 * (B @ A).detach()
    save_merged(policy, tmp_path / "merged")
    found = load_policy(ModelSettings(str(tmp_path / "merged"))).model.state_dict()
    assert found.keys() == expected.keys()
    for name, x in found.items():
        torch.testing.assert_close(x, expected[name], atol=1e-5, rtol=1e-5)
    assert any((x - base.model.state_dict()[name]).abs().max() > 0.1 for name, x in found.items())
