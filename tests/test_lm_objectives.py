"""Each objective against the rule it stands for: on tables, by enumeration of draws, and on transformers."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import windgames as wg
from windgames import objectives as shared
from windlm.objectives import BestOfN, JBond, Regression, best_of_n_weights, bond, game_constants, remarks, sppo, wind
from windlm.policy import Samples
from windlm.rollout import RolloutBatch
from windlm.tabular import Enumeration, small_policy

MATRIX = np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]])
REF = np.array([0.6, 0.3, 0.1])
POLICY = np.array([0.25, 0.25, 0.5])
IN_PROPORTION = [0, 1, 2, 2]  # four draws whose mean is exactly the mean under POLICY
REWARD = np.array([0.0, 2.0, 1.0])


def tensor(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64)


class Draws:
    """A table that draws what it is told, in place of a language model."""

    def __init__(self, matrix, queue, **log_policies):
        self.matrix, self.queue = tensor(matrix), list(queue)
        self.logs = {name: tensor(x) for name, x in log_policies.items()}
        self.drawn = []

    def sample(self, slot, k):
        self.drawn.append(slot)
        index = torch.tensor(self.queue.pop(0))
        assert index.shape[-1] == k
        empty = torch.zeros(*index.shape, 1, dtype=torch.long)
        return Samples([[0]] * len(index), index[..., None], empty.bool(), [["?"] * k] * len(index))

    def log_prob(self, samples, slot):
        return self.logs[slot][samples.tokens[..., 0]]

    def outcomes(self, samples, opponents=None):
        i, j = samples.tokens[..., 0], (opponents or samples).tokens[..., 0]
        return self.matrix[i[:, :, None], j[:, None, :]]


def minimiser(objective, stage, frozen, weight=None, free=False):
    """Minimise over a table, by Newton-like steps; `free` does not normalise it."""
    table = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([table], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16)
    weight = torch.ones(len(frozen.samples)) if weight is None else weight

    def closure():
        optimiser.zero_grad()
        log_policy = table if free else table.log_softmax(-1)
        loss = (weight * objective.loss(stage, log_policy[frozen.samples.tokens[..., 0]], frozen)).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimiser.step(closure)
    return table.detach().softmax(-1).numpy()


def groups(k):
    """All groups of `k` draws, with their probabilities under POLICY."""
    index = torch.tensor(list(itertools.product(range(3), repeat=k)))
    return index, tensor(POLICY)[index].prod(-1)


def exact_step(rule, game):
    found = wg.solve(game, rule, max_steps=1, start=np.log(POLICY), tol=0)
    return np.asarray(found.policy)


# -- minimisers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("risk", shared.RISKS)
@pytest.mark.parametrize("eta", [0.05, 1.0, 6.0])
def test_wind_on_exact_means_is_the_tabular_step(risk, eta):
    objective = wind(0.2, eta, risk=risk)
    table = Draws(MATRIX, [[IN_PROPORTION]], current=np.log(POLICY), ref=np.log(REF))
    (stage,) = objective.stages(0.0)
    found = minimiser(objective, stage, objective.collect(stage, table, 4))
    expected = exact_step(wg.wind(eta), wg.WinRateGame(wg.MatrixPreference(MATRIX), REF, 0.2))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("pairing", ["group", "leave-one-out"])
def test_wind_averaged_over_all_groups_of_draws_is_the_tabular_step(k, pairing):
    objective = wind(0.2, 2.0, pairing=pairing)
    index, probability = groups(k)
    table = Draws(MATRIX, [index.tolist()], current=np.log(POLICY), ref=np.log(REF))
    (stage,) = objective.stages(0.0)
    found = minimiser(objective, stage, objective.collect(stage, table, k), probability)
    expected = exact_step(wg.wind(2.0), wg.WinRateGame(wg.MatrixPreference(MATRIX), REF, 0.2))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
def test_mismatched_centring_would_be_seen(k):
    """Leave-one-out win rates under group centring overshoot by K/(K-1): the test above can fail."""
    objective = wind(0.2, 2.0)
    index, probability = groups(k)
    table = Draws(MATRIX, [index.tolist()], current=np.log(POLICY), ref=np.log(REF))
    (stage,) = objective.stages(0.0)
    frozen = objective.collect(stage, table, k)
    wrong = shared.win_rates(tensor(MATRIX)[index[:, :, None], index[:, None, :]], "leave-one-out")
    found = minimiser(objective, stage, RolloutBatch(frozen.samples, {**frozen.fixed, "label": wrong}), probability)
    game = wg.WinRateGame(wg.MatrixPreference(MATRIX), REF, 0.2)
    assert np.abs(found - exact_step(wg.wind(2.0), game)).max() > 0.02
    factor = k / (k - 1)
    payoff = factor * (MATRIX @ POLICY - 0.5)
    biased = wg.target(np.log(POLICY), np.log(REF), payoff, beta=0.2, eta=2.0)
    np.testing.assert_allclose(found, np.exp(biased) / np.exp(biased).sum(), atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
def test_sppo_is_multiplicative_weights_on_a_free_table_only(k):
    objective = sppo(5.0)
    index, probability = groups(k)
    table = Draws(MATRIX, [index.tolist()], current=np.log(POLICY), ref=np.log(REF))
    (stage,) = objective.stages(0.0)
    frozen = objective.collect(stage, table, k)
    expected = exact_step(wg.sppo(5.0), wg.WinRateGame(wg.MatrixPreference(MATRIX), REF, 0.2))
    np.testing.assert_allclose(minimiser(objective, stage, frozen, probability, free=True), expected, atol=1e-6)
    normalised = minimiser(objective, stage, frozen, probability)
    assert np.abs(normalised - expected).sum() / 2 > 0.003  # theory 7.4: its constant is not the normaliser
    centred = sppo(5.0, pairing="group")
    table = Draws(MATRIX, [index.tolist()], current=np.log(POLICY), ref=np.log(REF))
    frozen = centred.collect(stage, table, k)
    np.testing.assert_allclose(minimiser(centred, stage, frozen, probability), expected, atol=1e-6)


@pytest.mark.parametrize(("n", "alpha1", "alpha2"), [(2, 1.0, 0.0), (4, 0.15, 0.1)])
def test_bond_on_exact_means_is_iterative_best_of_n(n, alpha1, alpha2):
    objective = bond(n, alpha1, alpha2)
    weak = wg.RewardPreference(REWARD, ties="weak")
    table = Draws(weak.matrix(), [[IN_PROPORTION]], current=np.log(POLICY), ref=np.log(REF))
    (stage,) = objective.stages(0.0)
    found = minimiser(objective, stage, objective.collect(stage, table, 4))
    game = wg.LogWinRateGame.from_best_of_n(weak, REF, n, alpha1, alpha2)
    np.testing.assert_allclose(found, exact_step(wg.iterative_bon(n, alpha1, alpha2), game), atol=1e-6)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("reward", [REWARD, np.array([1.0, 1.0, 0.0])])
def test_maximum_likelihood_is_exact_best_of_n(n, reward):
    objective = BestOfN(n)
    preference = wg.RewardPreference(reward)
    index, probability = groups(n)
    frozen = objective.collect("current", Draws(preference.matrix(), [index.tolist()]), n)
    found = minimiser(objective, "current", frozen, probability)
    np.testing.assert_allclose(found, np.exp(wg.best_of_n(preference, np.log(POLICY), n)), atol=1e-6)


@pytest.mark.parametrize("count_ties", [False, True])
def test_expected_gradient_of_jbond(count_ties):
    """All draws of policy and anchor, against the two divergences written out."""
    reward, anchor, gamma = np.array([1.0, 1.0, 0.0]), np.array([0.2, 0.5, 0.3]), 0.7
    objective = JBond(gamma=gamma, count_ties=count_ties)
    own = torch.tensor(list(itertools.product(range(3), repeat=4)))
    probability = (tensor(POLICY)[own[:, :2]].prod(-1) * tensor(anchor)[own[:, 2:]].prod(-1))[:, None]
    preference = wg.RewardPreference(reward)
    table = Draws(
        preference.matrix(),
        [own[:, :2].tolist(), own[:, 2:].tolist()],
        current=np.log(POLICY),
        anchor=np.log(anchor),
    )
    frozen = objective.collect("anchor", table, 2)
    logits = tensor(np.log(POLICY)).requires_grad_()
    loss = objective.loss("anchor", logits.log_softmax(-1)[frozen.samples.tokens[..., 0]], frozen)
    (found,) = torch.autograd.grad((probability[:, 0] * loss).sum(), logits)

    logits = tensor(np.log(POLICY)).requires_grad_()
    log_p, p = logits.log_softmax(-1), tensor(POLICY)
    best = tensor(np.exp(wg.best_of_n(preference, np.log(anchor), 2)))
    better = tensor(reward)[None, :] > tensor(reward)[:, None]
    better = better | (tensor(reward)[None, :] == tensor(reward)[:, None]) if count_ties else better
    quantile = (better * tensor(anchor)).sum(-1)  # mass of the anchor that beats each response
    value = 0.5 * (-np.log(16) * quantile**2 - (log_p - tensor(np.log(anchor)))) - gamma * (
        log_p - tensor(np.log(anchor))
    )
    exact = -(0.5 * (best * log_p).sum() + (p * value.detach() * log_p).sum())
    (expected,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_equal_responses_share_the_best_of_n():
    matrix = tensor(wg.RewardPreference([3.0, 1, 1, 1, 0, 2]).matrix())
    expected = [[1, 0, 0.5, 0.5, 0, 1]]
    np.testing.assert_allclose(best_of_n_weights(matrix[None], 2), expected)
    np.testing.assert_allclose(best_of_n_weights(matrix[None], 3), [[1, 0, 0, 0, 0, 1]])
    cycle = tensor([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])
    np.testing.assert_allclose(best_of_n_weights(cycle[None], 3), np.full((1, 3), 1 / 3))


# -- stages --------------------------------------------------------------------------------------------------


def test_draws_come_from_whom_the_payoff_is_against():
    logs = {name: np.log(POLICY) for name in ("current", "previous", "half", "mixture", "ref")}

    def drawn(rule, which):
        objective = Regression(rule, 0.2)
        table = Draws(MATRIX, [[IN_PROPORTION]] * 2, **logs)
        objective.collect(objective.stages(0.0)[which], table, 4)
        return table.drawn, objective.slots

    assert drawn(wg.wind(0.1), 0) == (["current"], ())
    assert drawn(wg.extragradient(0.1), 0) == (["current"], ())
    assert drawn(wg.extragradient(0.1), 1) == (["half"], ())
    assert drawn(wg.nash_md(0.1), 0) == (["current"], ())
    assert drawn(wg.nash_md(0.1), 1) == (["mixture"], ())
    assert drawn(wg.omwu(0.1), 0) == (["current", "previous"], ("previous",))


def test_default_steps_are_those_of_the_worst_case():
    assert wind(0.1).stages(0.0)[0].eta == pytest.approx(0.4)
    assert wind(0.1, interaction=0.5).stages(0.0)[0].eta == pytest.approx(1.6)
    assert game_constants(wg.wind(), 0.1, "win-rate", 0.3) == wg.GameConstants("win-rate", 0.1, 0.3)
    schedule = Regression(lambda progress: wg.wind(0.4 * (1 - progress) + 0.1 * progress), 0.1)
    assert [schedule.stages(t)[0].eta for t in (0, 0.5, 1)] == pytest.approx([0.4, 0.25, 0.1])


# -- transformers --------------------------------------------------------------------------------------------


def test_remarks_say_where_no_theorem_applies():
    limit = 4 * 0.1  # theory 5.2 at L = 1
    assert wind(0.1, limit).remark(0.0) == wind(0.1).remark(0.0) == ""
    assert "outside theorem 5.2, which allows up to 0.4" in wind(0.1, 1.01 * limit).remark(0.0)
    assert wind(0.1, 1.01 * limit, interaction=0.5).remark(0.0) == ""
    falling = Regression(lambda t: wg.wind(limit * (1.2 - 0.5 * t)), 0.1)
    assert [bool(falling.remark(t)) for t in (0.0, 0.5)] == [True, False]
    assert remarks(falling, 5).count("outside theorem") == 2  # of rounds 1 and 2, each step its own
    assert remarks(Regression(lambda t: wg.wind(9.0), 0.1), 5).count("outside theorem") == 1
    for objective in (sppo(1.0), JBond(), BestOfN(2)):
        assert "equilibri" in remarks(objective, 3)
    assert remarks(BestOfN(2, source="ref"), 3) == ""


def moved(policy, seed=0, by=0.05):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))


def gradient(policy, loss):
    policy.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def test_expected_gradient_on_a_transformer():
    """All pairs of draws of a transformer, against the gradient of the exact squared risk (theory 7.2)."""
    policy = small_policy(letters=2, length=1, width=8, spread=0.3).double()
    enumeration = Enumeration.of(policy)
    everything = enumeration.samples(["a"])
    ref = policy.log_prob(everything)[0]
    moved(policy, 1)
    now = policy.log_prob(everything)[0]
    moved(policy, 2)
    index = torch.tensor(list(itertools.product(range(3), repeat=2)))
    probability = now.exp()[index].prod(-1)
    objective = wind(0.2, 1.0)
    (stage,) = objective.stages(0.0)
    label = shared.win_rates(tensor(MATRIX)[index[:, :, None], index[:, None, :]])
    samples = Samples(everything.prompts * 9, everything.tokens[0][index], everything.mask[0][index], [["?"] * 2] * 9)
    frozen = RolloutBatch(samples, {"start": now[index], "ref": ref[index], "label": label})
    found = gradient(policy, (probability * objective.loss(stage, policy(samples), frozen)).sum())

    log_p, p = policy(everything)[0].double(), now.double().exp()
    score = (log_p - now) / 1.0 + 0.2 * (log_p - ref)
    score = score - (p * score).sum() + 0.5
    exact = gradient(policy, (p * (score - tensor(MATRIX) @ p) ** 2 / 2).sum())
    torch.testing.assert_close(found, exact / 2, rtol=1e-3, atol=1e-7)  # (K - 1)/K of it
    assert found.norm() > 1e-3


def test_numpy_and_torch_give_the_same_risk(rng):
    arrays = [np.log(rng.dirichlet(np.ones(5), size=3)) for _ in range(3)]
    label = rng.random((3, 5))
    for kind in shared.RISKS:
        there = shared.regression_risk(*arrays, label, beta=0.1, eta=2.0, kind=kind)
        here = shared.regression_risk(*map(tensor, arrays), tensor(label), beta=0.1, eta=2.0, kind=kind)
        np.testing.assert_allclose(here, there, rtol=1e-12)
    outcomes = rng.random((3, 5, 5))
    for pairing in shared.PAIRINGS:
        there = shared.win_rates(outcomes, pairing)
        np.testing.assert_allclose(shared.win_rates(tensor(outcomes), pairing), there, rtol=1e-12)


def test_bad_settings():
    for bad in ({"payoff": "elo"}, {"risk": "hinge"}, {"pairing": "independent"}, {"interaction": 2.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            wind(0.1, 0.1, **bad)
    with pytest.raises(ValueError, match="risk='squared'"):
        Regression(wg.iterative_bon(2, 1.0), None, payoff="log-win-rate", risk="kl")
    with pytest.raises(ValueError, match="beta must be given"):
        Regression(wg.wind(0.1), None)
    with pytest.raises(ValueError, match="beta must be given"):
        Regression(wg.wind(0.1), None, payoff="log-win-rate")
    with pytest.raises(ValueError, match="imply beta"):
        Regression(wg.iterative_bon(2, 0.5), 0.1, payoff="log-win-rate")
    for bad in ({"gamma": -1.0}, {"anchor_rate": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            JBond(**bad)
    with pytest.raises(ValueError, match="even"):
        JBond().collect("anchor", SimpleNamespace(), 3)
    with pytest.raises(ValueError, match="multiple of n = 3"):
        BestOfN(3).collect("current", SimpleNamespace(), 4)
    for bad in ({"n": 1}, {"source": "past"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            BestOfN(**bad)
