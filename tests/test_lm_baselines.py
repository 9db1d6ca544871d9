"""Online DPO, IPO, RLOO and GRPO: their losses by hand and by TRL, and their fixed points by enumeration."""

import itertools
import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import windgames as wg
from windgames import objectives as shared
from windlm.judges import PairwiseJudge, RewardJudge
from windlm.objectives import GRPO, RLOO, Pairs
from windlm.policy import Samples
from windlm.rollout import Rollout, RolloutBatch
from windlm.tabular import small_policy

REF = np.array([0.5, 0.3, 0.2])
REWARD = np.array([0.0, 1.3, -0.4])
CYCLE = np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]])
BETA = 0.6


def tensor(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def tilt(payoff, beta=BETA):
    weight = REF * np.exp(payoff / beta)
    return weight / weight.sum()


class Table:
    """A table in place of a language model: all groups of `k` draws of one token, with their probabilities."""

    def __init__(self, policy, matrix, reward=None, k=2):
        self.index = torch.tensor(list(itertools.product(range(3), repeat=k)))
        self.probability = tensor(policy)[self.index].prod(-1)
        self.logs = {"current": tensor(np.log(policy)), "ref": tensor(np.log(REF))}
        self.matrix, self.reward = tensor(matrix), reward

    def sample(self, slot, k):
        assert (slot, k) == ("current", self.index.shape[1])
        tokens = self.index[..., None]
        return Samples(
            [[0]] * len(tokens), tokens, torch.ones_like(tokens, dtype=torch.bool), [["?"] * k] * len(tokens)
        )

    def log_prob(self, samples, slot, per_token=False):
        log_p = self.logs[slot][samples.tokens]
        return log_p if per_token else log_p.sum(-1)

    def outcomes(self, samples):
        return self.matrix[self.index[:, :, None], self.index[:, None, :]]

    def rewards(self, samples):
        return None if self.reward is None else self.reward[self.index.numpy()]


def expected_gradient(objective, policy, matrix=CYCLE, reward=None, k=2):
    """The gradient of a round's mean loss by the logits, at the policy that was sampled."""
    table = Table(policy, matrix, reward, k)
    (stage,) = objective.stages(0.0)
    batch = objective.collect(stage, table, k)
    logits = tensor(np.log(policy)).requires_grad_()
    log_policy = logits.log_softmax(-1)[batch.samples.tokens if isinstance(objective, GRPO) else table.index]
    loss = (table.probability * objective.loss(stage, log_policy, batch)).sum()
    return torch.autograd.grad(loss, logits)[0].numpy()


# -- fixed points --------------------------------------------------------------------------------------------


def logistic(reward):
    return 1 / (1 + np.exp(reward[None, :] - reward[:, None]))


EQUILIBRIUM = np.asarray(wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(CYCLE), REF, BETA)).policy)


def grpo_fixed_point(k, beta):
    """The policy ref / (1 - (A - c) / beta) with A = (K-1)/K (r - mean of r under it), by bisection on c."""
    a = (k - 1) / k * REWARD
    low, high = a.max() - beta, a.max() + 10.0
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if (REF / (1 - (a - c) / beta)).sum() > 1 else (low, c)
    return REF / (1 - (a - c) / beta)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(
    ("objective", "judge", "fixed"),
    [
        (Pairs(BETA, "dpo"), {"matrix": logistic(REWARD)}, tilt(REWARD)),
        (Pairs(BETA, "ipo"), {}, EQUILIBRIUM),
        (RLOO(BETA), {}, EQUILIBRIUM),
        (RLOO(BETA), {"reward": REWARD}, tilt(REWARD)),
        (RLOO(BETA, "win-rate"), {"reward": REWARD}, EQUILIBRIUM),
    ],
    ids=["dpo", "ipo", "rloo, pairs", "rloo, reward", "rloo, win rate"],
)
def test_fixed_points(objective, judge, fixed, k):
    assert np.abs(expected_gradient(objective, fixed, k=k, **judge)).max() < 1e-6
    assert np.abs(expected_gradient(objective, REF, k=k, **judge)).max() > 1e-3
    assert "theorem" in objective.remark(0.0)


@pytest.mark.parametrize("k", [2, 3])
def test_the_fixed_point_of_grpo_is_that_of_the_other_divergence(k):
    objective = GRPO(BETA, variant="dr-grpo")
    fixed = grpo_fixed_point(k, BETA)
    assert fixed.sum() == pytest.approx(1)
    assert np.abs(expected_gradient(objective, fixed, reward=REWARD, k=k)).max() < 1e-6
    assert np.abs(expected_gradient(objective, tilt((k - 1) / k * REWARD), reward=REWARD, k=k)).max() > 1e-3


def test_dpo_on_another_preference_has_no_equilibrium():
    """What the remark says: its stationary policy is not WIND's."""
    assert np.abs(expected_gradient(Pairs(BETA, "dpo"), EQUILIBRIUM)).max() > 1e-3


# -- losses --------------------------------------------------------------------------------------------------


def test_pair_risks_by_hand(rng):
    log_p, log_r = (np.log(rng.dirichlet(np.ones(3))) for _ in range(2))
    for kind in ("dpo", "ipo"):
        found = shared.pair_risk(log_p, log_r, CYCLE, beta=0.3, kind=kind)
        for i, j in itertools.product(range(3), repeat=2):
            h = (log_p[i] - log_r[i]) - (log_p[j] - log_r[j])
            if kind == "dpo":
                expected = CYCLE[i, j] * math.log1p(math.exp(-0.3 * h)) + CYCLE[j, i] * math.log1p(math.exp(0.3 * h))
            else:
                expected = CYCLE[i, j] * (h - 1 / 0.6) ** 2 + CYCLE[j, i] * (h + 1 / 0.6) ** 2
            assert found[i, j] == pytest.approx(expected, rel=1e-12)
        torch.testing.assert_close(
            shared.pair_risk(tensor(log_p), tensor(log_r), tensor(CYCLE), beta=0.3, kind=kind), tensor(found)
        )
    with pytest.raises(ValueError, match="kind"):
        shared.pair_risk(log_p, log_r, CYCLE, beta=0.3, kind="kto")


def test_best_against_worst_is_the_loss_of_that_pair():
    outcomes = tensor(wg.RewardPreference([1.0, 3.0, 0.0, 2.0]).matrix())[None]
    log_p, log_r = tensor([[-1.0, -2.0, -3.0, -4.0]]), tensor([[-2.0, -2.5, -1.0, -4.0]])
    empty = torch.zeros(1, 4, 1, dtype=torch.long)
    batch = RolloutBatch(Samples([[0]], empty, empty.bool(), [["?"] * 4]), {"ref": log_r, "outcomes": outcomes})
    h = (-2.0 + 2.5) - (-3.0 + 1.0)
    loss = Pairs(0.3, "dpo", "best-worst").loss("pairs", log_p, batch)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-0.3 * h)))
    ties = RolloutBatch(batch.samples, {"ref": log_r, "outcomes": torch.full((1, 4, 4), 0.5)})
    assert float(Pairs(0.3, "dpo", "best-worst").loss("pairs", log_p, ties)) == 0


def test_advantages_surrogate_and_excess_by_hand():
    reward = np.array([1.0, 2.0, 4.0, 5.0])
    deviation = math.sqrt(sum((r - 3) ** 2 for r in reward) / 3)
    np.testing.assert_allclose(shared.group_advantages(reward), (reward - 3) / (deviation + 1e-4))
    np.testing.assert_allclose(shared.group_advantages(reward, scale=False), reward - 3)
    np.testing.assert_array_equal(shared.group_advantages(np.ones(4)), 0)
    ratio, advantage = np.array([0.5, 1.0, 1.5, 0.5, 1.5]), np.array([1.0, 1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(shared.clipped_surrogate(np.log(ratio), advantage), [-0.5, -1.0, -1.2, 0.8, 1.5])
    p, q = np.array([0.2, 0.3, 0.5]), REF
    assert (p * shared.excess(np.log(p), np.log(q))).sum() == pytest.approx((p * np.log(p / q)).sum())


def test_tokens_of_a_transformer():
    """They sum to those of responses, and Dr. GRPO's first step is RLOO's up to a factor."""
    policy = small_policy(letters=3, length=4, width=8, spread=0.5)
    samples = policy.sample(["a", "b"], 3, np.random.default_rng(0))
    tokens = policy(samples, per_token=True)
    torch.testing.assert_close(tokens.sum(-1), policy(samples))
    assert (tokens[~samples.mask] == 0).all()
    torch.testing.assert_close(policy.log_prob(samples, per_token=True), tokens.detach())
    reward = torch.tensor([[0.0, 1.0, 3.0], [2.0, 1.0, 5.0]])
    fixed = {"advantage": reward - reward.mean(-1, keepdim=True), "current_tokens": tokens.detach()}
    batch = RolloutBatch(samples, fixed | {"ref_tokens": tokens.detach()})
    dr = torch.autograd.grad(
        GRPO(0.1, variant="dr-grpo").loss("gradient", tokens, batch).sum(), policy.model.parameters()
    )
    log_p = policy(samples)
    weight = shared.reinforce_weights(reward, log_p.detach(), log_p.detach(), beta=0.0)
    batch = RolloutBatch(samples, {"advantage": weight, "current": log_p.detach()})
    rloo = torch.autograd.grad(RLOO(0.0).loss("gradient", log_p, batch).sum(), policy.model.parameters())
    for a, b in zip(dr, rloo, strict=True):
        torch.testing.assert_close(a * samples.mask.shape[-1], b * 2 / 3, rtol=1e-4, atol=1e-6)


# -- TRL's own numbers ---------------------------------------------------------------------------------------


def trl_loss(name, settings, inputs, log_policy):
    """The loss that TRL computes from given token log-probabilities, without its model, sampling and logging."""
    kind = getattr(pytest.importorskip("trl"), name)
    accelerator = SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (log_policy, torch.zeros_like(log_policy), None),
        accelerator=accelerator,
        _metrics={"train": defaultdict(list)},
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        current_gradient_accumulation_steps=1,
        epsilon_low=0.2,
        epsilon_high=0.2,
        **settings,
    )
    return kind._compute_loss(trainer, None, inputs)


def round_of(k=3, length=5):
    rng = np.random.default_rng(0)
    log_p, old, ref = (torch.from_numpy(-rng.random((2, k, length)) * 2) for _ in range(3))
    old = log_p + 0.3 * (old - old.mean())
    mask = torch.arange(length) < torch.tensor([[5, 2, 3], [1, 4, 5]])[..., None]
    reward = torch.from_numpy(rng.normal(size=(2, k)))
    samples = Samples([[0]] * 2, torch.zeros(2, k, length, dtype=torch.long), mask, [["?"] * k] * 2)
    inputs = {
        "prompt_ids": torch.zeros(2 * k, 1, dtype=torch.long),
        "prompt_mask": torch.ones(2 * k, 1, dtype=torch.long),
        "completion_ids": torch.zeros(2 * k, length, dtype=torch.long),
        "completion_mask": mask.flatten(0, 1).long(),
    }
    return log_p * mask, old * mask, ref * mask, mask, reward, samples, inputs


@pytest.mark.parametrize("variant", ["grpo", "dr-grpo"])
def test_grpo_is_trls(variant):
    log_p, old, ref, mask, reward, samples, inputs = round_of()
    advantage = shared.group_advantages(reward, variant == "grpo")
    inputs |= {"advantages": advantage.flatten(), "old_per_token_logps": old.flatten(0, 1)}
    inputs |= {"ref_per_token_logps": ref.flatten(0, 1)}
    settings = {"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token"}
    settings |= {"beta": 0.04, "loss_type": variant.replace("-", "_"), "_entropy_bonus_enabled": False}
    settings |= {"args": SimpleNamespace(use_bias_correction_kl=False, delta=None), "use_vllm": False}
    settings |= {"max_completion_length": mask.shape[-1]}
    theirs = trl_loss("GRPOTrainer", settings, inputs, log_p.flatten(0, 1))
    fixed = {"advantage": advantage, "current_tokens": old, "ref_tokens": ref}
    ours = GRPO(0.04, variant=variant).loss("gradient", log_p, RolloutBatch(samples, fixed)).mean()
    torch.testing.assert_close(ours, theirs)


def test_rloo_is_trls():
    log_p, old, _, _, reward, samples, inputs = round_of()
    advantage = shared.reinforce_weights(reward, old.sum(-1), old.sum(-1), beta=0.1)
    inputs |= {"advantages": advantage.flatten(), "old_logps": old.sum(-1).flatten()}
    theirs = trl_loss("RLOOTrainer", {}, inputs, log_p.flatten(0, 1))
    fixed = {"advantage": advantage, "current": old.sum(-1)}
    ours = RLOO(0.1).loss("gradient", log_p.sum(-1), RolloutBatch(samples, fixed)).mean()
    torch.testing.assert_close(ours, theirs)


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Pairs(0.0), "beta must be positive"),
        (lambda: Pairs(kind="kto"), "kind must be one of 'dpo', 'ipo'"),
        (lambda: Pairs(pairs="some"), "pairs must be one of"),
        (lambda: RLOO(-1.0), "beta must be non-negative"),
        (lambda: RLOO(payoff="elo"), "payoff must be one of"),
        (lambda: GRPO(clip=0.0), "clip must be positive"),
        (lambda: GRPO(variant="dapo"), "variant must be one of"),
    ],
)
def test_bad_settings(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_judge_of_pairs_has_no_rewards():
    with pytest.raises(ValueError, match="needs a judge with rewards"):
        RLOO(payoff="reward").collect("gradient", Table(REF, CYCLE), 2)
    policy = small_policy(letters=2, length=1, width=8)
    samples = policy.sample(["a"], 2, np.random.default_rng(0))
    for judge, there in (
        (PairwiseJudge(lambda p, a, b: [0.5] * len(p)), False),
        (RewardJudge(lambda p, r: [0.0] * len(r)), True),
    ):
        rollout = Rollout(policy, None, judge, ["a"], lambda: [])
        assert (rollout.rewards(samples) is not None) == there
