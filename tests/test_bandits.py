"""Sampled learners against the tabular rules, enumeration, and the guarantee they inherit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

import windgames as wg
from windgames import bounds
from windgames._array import hilbert, kl, log_normalize
from windgames.bandits import (
    BestOfN,
    JBond,
    LabelledSamples,
    LogLinear,
    Regression,
    Reinforce,
    Tabular,
    run,
    sample,
)
from windgames.learning.labels import centred_label
from windgames.learning.learners import minimise, objective_of
from windgames.objectives import PAIRINGS, RISKS, win_rates
from windgames.oracles import BudgetExhausted, Oracle, biased_reward, flipped, judge_panel
from windgames.testing import MATRICES, random_matrix, random_reference
from windgames.updates import Stage

REF = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
REWARD = np.array([[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 0.0, 2.0], [0.3, 0.1, 0.2, 0.0]])
REWARDS = wg.RewardPreference(REWARD)
CYCLES = wg.MatrixPreference(np.stack([random_matrix("logistic", 4, np.random.default_rng(i)) for i in range(3)]))
GAME = wg.WinRateGame(REWARDS, REF, 0.2)
WEAK = wg.RewardPreference(REWARD, ties="weak")
BON = wg.LogWinRateGame.from_best_of_n(WEAK, REF, 4, 0.15, 0.1)


def learn(learner, game=GAME, oracle=None, seed=0, **settings):
    settings.setdefault("rounds", 20)
    return run(learner, game, oracle or Oracle(game.preference), np.random.default_rng(seed), **settings)


# -- the oracle ------------------------------------------------------------------------------------------------


class Recorder(Oracle):
    """Counts for itself what it is asked."""

    asked = 0

    def compare(self, *arguments):
        out = super().compare(*arguments)
        self.asked += out.size
        return out

    def score(self, *arguments):
        out = super().score(*arguments)
        self.asked += out.size
        return out


LEARNERS = {
    "group": (Regression(wg.wind(0.2), draws=4), 6),
    "leave-one-out": (Regression(wg.wind(0.2), draws=4, pairing="leave-one-out"), 6),
    "independent": (Regression(wg.wind(0.2), draws=4, opponents=3), 12),
    "constant": (Regression(wg.sppo(0.2), draws=4, pairing="constant"), 6),
    "mixture": (Regression(wg.wind(0.2), draws=4, opponents=3, sampler="mixture"), 12),
    "all": (Regression(wg.wind(0.2), opponents=2, sampler="all"), 8),
    "half": (Regression(wg.wind(0.2), draws=4, unseen="half"), 6),
    "reuse": (Regression(wg.wind(0.2), draws=4, opponents=3, reuse=2), 6),
    "kl": (Regression(wg.wind(0.2), draws=4, risk="kl"), 6),
    "nce": (Regression(wg.wind(0.2), draws=4, risk="nce"), 6),
    "extragradient": (Regression(wg.extragradient(0.2), draws=4, opponents=3), 24),
    "nash-md": (Regression(wg.nash_md(0.2), draws=4, opponents=3), 12),
    "omwu": (Regression(wg.omwu(0.2), draws=4, opponents=3), 24),
    "j-bond": (JBond(0.5, draws=4), 8),
    "distil": (BestOfN(4, 0.5, draws=2), 6),
    "reinforce": (Reinforce(0.5, draws=4), 4),
    "comparisons": (Reinforce(0.5, draws=4, signal="comparison"), 4),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_query_is_counted(name):
    """The counter equals the calls, the stated cost per context and round, and same seed means same result."""
    learner, cost = LEARNERS[name]
    oracle = Recorder(REWARDS)
    first = learn(learner, oracle=oracle, rounds=4, replicates=2)
    assert oracle.queries == oracle.asked == cost * 4 * 3 * 2
    assert first.queries[-1] == cost * 4 * 3
    assert np.all(np.diff(first.queries) >= 0)
    again = learn(learner, rounds=4, replicates=2)
    np.testing.assert_array_equal(first.log_policy, again.log_policy)
    other = learn(learner, rounds=4, replicates=2, seed=1)
    assert not np.array_equal(first.log_policy, other.log_policy)
    assert np.all(np.isfinite(first.theta))
    assert learner.name in repr(first)


def test_oracles_answer_with_their_mean():
    rng = np.random.default_rng(0)
    i, j = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    i, j = (np.broadcast_to(x.ravel(), (4000, 3, 16)) for x in (i, j))
    for preference in (
        REWARDS,
        CYCLES,
        wg.BradleyTerryPreference(REWARD),
        flipped(REWARDS, 0.2),
        judge_panel([REWARDS, CYCLES], [0.3, 0.7]),
        wg.RewardPreference(biased_reward(REWARD, 0.5, 2.0, rng)),
    ):
        seen = Oracle(preference).compare(i, j, rng).mean(axis=0).reshape(3, 4, 4)
        np.testing.assert_allclose(seen, preference.matrix(), atol=5 * 0.5 / np.sqrt(4000))
        certain = Oracle(preference, certain=True).compare(i[:1], j[:1], rng).reshape(3, 4, 4)
        np.testing.assert_array_equal(certain, preference.matrix())


def test_oracle_models():
    np.testing.assert_allclose(flipped(REWARDS, 0.5).matrix(), 0.5)
    np.testing.assert_allclose(flipped(REWARDS, 1.0).matrix(), 1 - REWARDS.matrix())
    rng = np.random.default_rng(0)
    assert np.all(np.sum(biased_reward(REWARD, 0.5, 2.0, rng) != REWARD, axis=-1) == 2)
    condorcet = judge_panel([wg.RewardPreference(np.roll([0.0, 1.0, 2.0], k)) for k in range(3)])
    assert not wg.describe(condorcet).transitive
    np.testing.assert_allclose(Oracle(CYCLES, reward=REWARD).score(np.array([[1], [0], [3]])), [[1.0], [1.0], [0.0]])


@given(st.floats(0, 0.49), st.integers(0, 10**6))
def test_flips_are_a_larger_price(q, seed):
    """Theory 7.10, with the dense solver on one side and the sorted one on the other."""
    reward = np.random.default_rng(seed).normal(size=5)
    ref = random_reference(5, np.random.default_rng(seed + 1))
    noisy = wg.equilibrium(wg.WinRateGame(flipped(wg.RewardPreference(reward), q), ref, 0.2))
    clean = wg.equilibrium(wg.WinRateGame(wg.RewardPreference(reward), ref, 0.2 / (1 - 2 * q)))
    assert hilbert(noisy.log_policy, clean.log_policy) < 1e-9


def test_a_budget_ends_the_run_at_a_whole_round():
    oracle = Oracle(REWARDS, budget=50)  # a round costs 18
    found = learn(LEARNERS["group"][0], oracle=oracle, rounds=100)
    assert oracle.queries == 36
    assert found.steps[-1] == 2
    assert found.queries[-1] == 36
    assert "Stopped after 2 rounds" in found.status
    same = learn(LEARNERS["group"][0], rounds=2)
    np.testing.assert_array_equal(found.log_policy, same.log_policy)
    with pytest.raises(BudgetExhausted):
        oracle.compare(np.zeros((3, 20), int), np.zeros((3, 20), int), np.random.default_rng(0))


def test_draws_follow_the_policy():
    rng = np.random.default_rng(0)
    y = sample(np.log(REF), 50_000, rng)
    seen = np.stack([np.bincount(row, minlength=4) for row in y]) / 50_000
    chi2 = np.sum((seen - REF) ** 2 / REF, axis=-1) * 50_000
    assert np.all(chi2 < 20)  # three degrees of freedom: one in five thousand


# -- with exact win rates every learner is its tabular rule ----------------------------------------------------

EXACT = {"sampler": "all", "opponents": "all"}


@pytest.mark.parametrize(
    ("rule", "game"),
    [
        (wg.wind(0.3), GAME),
        (wg.wind(0.3), wg.WinRateGame(CYCLES, REF, [0.1, 0.2, 1.0])),
        (wg.sppo(0.3), GAME),
        (wg.inpo(0.3), GAME),
        (wg.extragradient(0.3), GAME),
        (wg.nash_md(0.3), GAME),
        (wg.omwu(0.3), GAME),
        (wg.optimistic(0.3), wg.WinRateGame(CYCLES, REF, [0.1, 0.2, 1.0])),
        (wg.iterative_bon(4, 0.15, 0.1), BON),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_exact_win_rates_reproduce_the_rule(rule, game):
    found = learn(
        Regression(rule, **EXACT),
        game,
        Oracle(wg.MatrixPreference(CYCLES.matrix()) if game.preference is CYCLES else REWARDS, certain=True),
        rounds=7,
    )
    expected = wg.solve(game, rule, tol=0, max_steps=7).log_policy
    assert np.max(hilbert(found.log_policy, expected)) < 1e-11


@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize("make", ["table", "log-linear"])
def test_every_risk_and_policy_class_takes_the_exact_step(risk, make):
    """Theory 7.3: over all tables the three risks have one minimiser. The log-linear class here holds all of them."""
    features = np.zeros((3, 4, 12))
    features[np.arange(12) // 4, np.arange(12) % 4, np.arange(12)] = 1
    policy = {"table": Tabular, "log-linear": lambda ref: LogLinear(ref, features)}[make](np.log(REF))
    found = learn(Regression(wg.wind(0.3), risk=risk, **EXACT), policy=policy, rounds=3)
    expected = wg.solve(GAME, wg.wind(0.3), tol=0, max_steps=3).log_policy
    assert np.max(hilbert(found.log_policy, expected)) < (1e-8 if risk == "squared" else 1e-3)


def labels(learner, now, then, trials=20_000):
    """Return the mean labels of every response when comparisons drawn at `then` serve the policy `now`."""
    policy, oracle, rng = Tabular(np.log(REF)), Oracle(REWARDS), np.random.default_rng(0)
    slots = {"current": np.broadcast_to(then, (trials, *then.shape))}
    stage = learner._rule(0).plan(GAME).stages[0]
    asked = learner._compare(slots, stage, policy, GAME, oracle, slice(None), rng)
    found = learner._label(asked, {"current": np.broadcast_to(now, (trials, *now.shape))}, policy, GAME)
    return found.label.mean(axis=0), found.label.std(axis=0) / np.sqrt(trials)


@pytest.mark.parametrize("opponents", [1, 4])
def test_reused_comparisons_are_reweighted_without_bias(opponents):
    """For a policy that has not learned from them: importance weights are exact, also for a single opponent."""
    now = np.log([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.25] * 4])
    learner = Regression(wg.wind(0.1), sampler="all", opponents=opponents, reuse=3)
    mean, error = labels(learner, now, np.log(REF))
    np.testing.assert_array_less(np.abs(mean - GAME.payoff(now)), 5 * error + 1e-12)
    assert np.abs(GAME.payoff(now) - GAME.payoff(np.log(REF))).max() > 0.1


def test_unseen_responses_as_a_win_rate_of_a_half():
    """The whole table takes the target, with payoff 1/2 where nothing was drawn (by hand)."""
    start = np.log([[0.05, 0.05, 0.1, 0.8]])
    policy = Tabular(np.log([[0.4, 0.3, 0.2, 0.1]]))
    seen = LabelledSamples(
        slice(None), np.array([[3, 3, 3, 2]]), np.array([[0.625, 0.625, 0.625, 0.125]]), None, "group"
    )
    beta, eta = 0.2, 2.0
    got = np.exp(policy.log_policy(policy.least_squares(start, seen, start, Stage(beta, eta), "half")))
    expected = np.exp(
        (start + beta * eta * policy.log_ref + eta * np.array([0.5, 0.5, 0.125, 0.625])) / (1 + beta * eta)
    )
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-12)
    kept = np.exp(policy.log_policy(policy.least_squares(start, seen, start, Stage(beta, eta))))
    np.testing.assert_allclose(kept[0, :2], [0.05, 0.05], rtol=1e-12)
    assert kept[0, 2] / kept[0, 3] == pytest.approx(expected[0, 2] / expected[0, 3])


def test_one_group_at_a_time_has_a_bias_and_independent_opponents_have_none():
    """Theory 7.2, the remark: the mean step at the equilibrium, all groups of two enumerated, eta towards 0."""
    rock, ref, beta, eta = np.array([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]]), np.array([[0.7, 0.2, 0.1]]), 0.2, 1e-4
    game = wg.WinRateGame(wg.MatrixPreference(rock[None]), ref, beta)
    star = wg.equilibrium(game, tol=1e-12).log_policy
    policy, stage = Tabular(np.log(ref)), Stage(beta, eta)
    drift = {"group": np.zeros(3), "independent": np.zeros(3)}
    for pair in np.ndindex(3, 3):
        y = np.array([pair])
        weight = np.exp(star[0, list(pair)]).prod()
        group = win_rates(rock[y[..., :, None], y[..., None, :]], "group")
        independent = (rock @ np.exp(star[0]))[y]
        for name, label in (("group", group), ("independent", independent)):
            seen = LabelledSamples(slice(None), y, label, None, name)
            after = np.exp(policy.log_policy(policy.least_squares(star, seen, star, stage)))
            drift[name] += weight * (after[0] - np.exp(star[0])) / eta
    assert np.abs(drift["independent"]).max() < 1e-3 * np.abs(drift["group"]).max()
    assert np.abs(drift["group"]).max() > 0.005


def test_a_dying_mass_is_no_nan():
    """Exact log win rates where the lower responses' mass underflows: as the tabular rule, until the end."""
    game = wg.LogWinRateGame.from_best_of_n(WEAK, REF, 4, 0.8, 0.0)
    found = learn(Regression(wg.iterative_bon(4, 0.8), **EXACT), game, Oracle(REWARDS), rounds=40)
    expected = wg.solve(game, wg.iterative_bon(4, 0.8), tol=0, max_steps=40).policy
    np.testing.assert_allclose(np.exp(found.log_policy), expected, atol=1e-9)


class Diverges(JBond):
    def step(self, state, *arguments):
        after = super().step(state, *arguments)
        return after | {"current": after["current"] * (np.nan if state["draws"] else 1.0)}


def test_a_learner_that_diverges_is_stopped_before_it():
    found = learn(Diverges(1.0), rounds=50)
    assert found.steps[-1] == 1
    assert np.all(np.isfinite(found.theta))
    assert "not finite" in found.status


def expected_step(learner, gradient, trials=40_000, rate=1e-3):
    """Compare the mean of one step over many replicates with a gradient, within five standard errors."""
    learner = learner(rate)
    found = learn(learner, rounds=1, replicates=trials)
    start = np.log(REF)
    moves = (found.theta - start) / rate
    error = moves.std(axis=0) / np.sqrt(trials)
    np.testing.assert_array_less(np.abs(moves.mean(axis=0) - gradient), 5 * error + 1e-9)
    assert np.max(np.abs(gradient)) > 10 * error.max()


def test_jbond_ascends_its_objective():
    """Theory 7.5: the mean step is that of the enumerated objective, the reward in place of the log-quantile."""
    best = np.exp(wg.best_of_n(REWARDS, np.log(REF), 2))
    better = np.sum(REF[:, None, :] * (REWARD[:, None, :] > REWARD[:, :, None]), axis=-1)
    reward = -np.log(16) * better**2
    advantage = reward - np.sum(REF * reward, axis=-1, keepdims=True)
    expected_step(lambda rate: JBond(rate), 0.5 * (best - REF) + 0.5 * REF * advantage)


def test_distillation_ascends_the_likelihood_of_the_best():
    best = np.exp(wg.best_of_n(REWARDS, np.log(REF), 3))
    expected_step(lambda rate: BestOfN(3, rate), best - REF)
    usual = 0.25 * REF + 0.75 * best
    expected_step(lambda rate: BestOfN(3, rate, reference_share=0.25), usual - REF)


def test_reinforce_ascends_reward_and_win_rate():
    for signal, value in (("score", REWARD), ("comparison", GAME.payoff(np.log(REF)))):
        gradient = REF * (value - np.sum(REF * value, axis=-1, keepdims=True))
        expected_step(lambda rate, s=signal: Reinforce(rate, signal=s), gradient)


# -- gradients and least squares -------------------------------------------------------------------------------


def features(rng, d=3):
    return rng.normal(size=(3, 4, d))


@settings(max_examples=40)
@given(st.sampled_from(RISKS), st.sampled_from(PAIRINGS), st.booleans(), st.booleans(), st.integers(0, 10**6))
def test_gradients_against_differences(kind, pairing, linear, weighted, seed):
    rng = np.random.default_rng(seed)
    policy = LogLinear(np.log(REF), features(rng)) if linear else Tabular(np.log(REF))
    weight = rng.uniform(0.5, 2, (3, 5)) if weighted and pairing in ("independent", "constant") else None
    seen = LabelledSamples(slice(None), rng.integers(0, 4, (3, 5)), rng.uniform(size=(3, 5)), weight, pairing)
    start = policy.start() + 0.3 * rng.normal(size=policy.start().shape)
    value = objective_of(policy, start, seen, Stage(0.2, 0.7), kind)
    x = start.ravel() + 0.3 * rng.normal(size=start.size)
    size = max(1.0, float(np.abs(value(x)[1]).max()))
    assert check_grad(lambda t: value(t)[0], lambda t: value(t)[1], x) < 1e-4 * size


@settings(max_examples=20)
@given(st.sampled_from(["group", "leave-one-out", "independent"]), st.booleans(), st.integers(0, 10**6))
def test_least_squares_finds_the_minimum(pairing, weighted, seed):
    """The closed form against L-BFGS, table and log-linear: no lower risk is found from there."""
    rng = np.random.default_rng(seed)
    stage = Stage(0.2, 0.7)
    for policy in (Tabular(np.log(REF)), LogLinear(np.log(REF), features(rng))):
        weight = rng.uniform(0.5, 2, (3, 5)) if weighted and pairing == "independent" else None
        label = rng.uniform(size=(3, 5))
        if pairing != "independent":  # labels of one group share its points
            label = label - label.mean(axis=-1, keepdims=True) + 0.5
        y = rng.integers(0, 4, (3, 5))
        if isinstance(policy, Tabular):  # a table that saw a response twice takes the mean label
            y = np.stack([rng.permutation(4)[[0, 1, 2, 3, 0]] for _ in range(3)])
        seen = LabelledSamples(slice(None), y, label, weight, pairing)
        start = policy.start()
        closed = policy.least_squares(start, seen, start, stage)
        if weight is not None and isinstance(policy, Tabular):
            continue  # weights move a table's mean label, which it takes without them
        found = minimise(policy, start, seen, stage, "squared")

        seen = LabelledSamples(seen.contexts, seen.y, centred_label(seen), seen.weight, pairing)
        value = objective_of(policy, start, seen, stage, "squared")
        assert value(closed.ravel())[0] <= value(found.ravel())[0] + 1e-9


# -- learning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["group", "leave-one-out", "independent", "mixture", "all", "kl", "nce", "comparisons"]
)
def test_they_learn(name):
    """Three quarters of the way to the equilibrium, on rewards and on cycles."""
    for preference in (REWARDS, CYCLES):
        game = wg.WinRateGame(preference, REF, 0.2)
        found = learn(LEARNERS[name][0], game, rounds=150 if name in ("kl", "nce") else 600)
        distance = found.mean("kl_from_solution")
        assert distance[-1] < 0.25 * distance[0]


def test_without_a_pull_they_leave_the_reference_for_good():
    """Theory 5.7 and 7.5: SPPO and J-BOND pass the equilibrium and go on to the best response."""
    for learner in (Regression(wg.sppo(0.5)), JBond(1.0), BestOfN(4, 1.0)):
        found = learn(learner, rounds=6000)
        assert found.mean("top_mass")[-1] > 0.98
        assert found.mean("kl_ref")[-1] > 1.2 * kl(wg.equilibrium(GAME).log_policy, GAME.log_ref).mean()


def test_the_certificate_bounds_the_distance_all_along():
    found = learn(LEARNERS["group"][0], rounds=300)
    assert np.all(found.trace["kl_to_solution"] <= found.trace["kl_certificate"] * (1 + 1e-9) + 1e-12)


@pytest.mark.parametrize(
    "rule", [wg.wind(0.3), wg.extragradient(0.3), wg.nash_md(0.3), wg.omwu(0.3)], ids=lambda r: r.name
)
def test_prompts_in_turn(rule):
    """Only the contexts that were drawn move, and only their questions are counted."""
    oracle, learner = Oracle(REWARDS), Regression(rule, draws=16, opponents=3)
    found = learn(learner, oracle=oracle, rounds=1, prompts=1)
    moved = np.any(np.abs(found.log_policy - np.log(REF)) > 1e-9, axis=-1)
    assert moved.sum() == 1
    assert oracle.queries == found.queries[-1]
    exact = learn(Regression(rule, **EXACT), rounds=600, prompts=2)
    assert exact.mean("kl_from_solution")[-1] < (0.01 if rule.name == "Nash-MD" else 1e-6)


def test_log_linear_policies_share_what_they_learn(rng):
    """Rewards linear in the features: contexts that were never drawn improve as well."""
    x = rng.normal(size=(40, 5, 4))
    reward = x @ np.array([1.0, -0.5, 0.3, 0.0])
    ref = np.full((40, 5), 0.2)
    train = slice(0, 20)
    game = wg.WinRateGame(wg.BradleyTerryPreference(reward[train]), ref[train], 0.3)
    policy = LogLinear(np.log(ref[train]), x[train])
    found = run(Regression(wg.wind(0.3)), game, Oracle(game.preference), rng, rounds=300, policy=policy)
    assert found.mean("kl_from_solution")[-1] < 0.1 * found.mean("kl_from_solution")[0]
    fresh = wg.WinRateGame(wg.BradleyTerryPreference(reward[20:]), ref[20:], 0.3)
    there = LogLinear(np.log(ref[20:]), x[20:]).log_policy(found.theta)
    star = wg.equilibrium(fresh).log_policy
    assert kl(star, there).mean() < 0.2 * kl(star, np.log(ref[20:])).mean()


# -- the guarantee ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("kind", ["cycle", "logistic", "reward"])
@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize("certain", [True, False])
def test_the_finite_time_bound_holds_in_the_mean(beta, kind, share, certain):
    """Theory 7.7: constant and decaying steps, every response against one draw, 300 replicates.

    A judge who is certain errs by `L`, one who tosses coins by 1.
    """
    rng = np.random.default_rng(5)
    preference = wg.MatrixPreference(random_matrix(kind, 5, rng)[None])
    game = wg.WinRateGame(preference, random_reference(5, rng, (1,)), beta)
    L = float(preference.interaction.item())
    eps = L if certain else 1.0
    eta = share * min(50.0, float(bounds.wind_max_step(beta, L)))
    first = float(kl(wg.equilibrium(game).log_policy, game.log_ref).item())
    rate = bounds.linear_rate(beta, eta)
    for rule, bound in (
        (wg.wind(eta), lambda t: rate**t * first + bounds.noise_floor(beta, eta, eps)),
        (
            lambda t: wg.wind(float(bounds.wind_decaying_step(t, beta, L))),
            lambda t: bounds.decaying_bound(first, t, beta, eps, L),
        ),
    ):
        learner = Regression(rule, sampler="all", opponents=1)
        found = learn(learner, game, Oracle(preference, certain=certain), rounds=150, replicates=300)
        measured = found.mean("kl_from_solution")
        error = measured.std(axis=-1) / np.sqrt(300)
        assert np.all(measured.mean(axis=-1) - 5 * error <= bound(found.steps) * (1 + 1e-9) + 1e-25)


def test_the_ridge_is_the_same_for_every_way_to_the_minimum(rng):
    """Closed form and L-BFGS meet at the same penalised minimum."""
    policy = LogLinear(np.log(REF), features(rng), ridge=0.1)
    label = rng.uniform(size=(3, 5))
    seen = LabelledSamples(
        slice(None), rng.integers(0, 4, (3, 5)), label - label.mean(-1, keepdims=True) + 0.5, None, "group"
    )
    start, stage = policy.start() + 0.1, Stage(0.2, 0.7)
    closed = policy.least_squares(start, seen, start, stage)
    np.testing.assert_allclose(minimise(policy, start, seen, stage, "squared"), closed, atol=1e-5)


def test_coverage_bound_of_a_step(rng):
    """Theory 7.8 for one step with an arbitrary error, against the exact divergence."""
    for _ in range(200):
        m, beta = int(rng.integers(2, 6)), float(10 ** rng.uniform(-1, 0.5))
        P = random_matrix(str(rng.choice(MATRICES)), m, rng)
        game = wg.WinRateGame(wg.MatrixPreference(P), rng.dirichlet(np.ones(m)), beta)
        eta = min(1e3, float(wg.bounds.wind_max_step(game.beta, game.interaction))) * rng.uniform(0.01, 1)
        star = wg.equilibrium(game).log_policy
        now = np.log(rng.dirichlet(np.ones(m)))
        e = rng.normal(size=m) * 10 ** rng.uniform(-2, 0)
        after = log_normalize(wg.target(now, game.log_ref, game.payoff(now) + e, beta=beta, eta=eta))
        eps = np.sqrt(np.exp(now) @ (e - np.exp(now) @ e) ** 2)
        C = max(np.sum(np.exp(2 * q - now)) for q in (star, after))
        assert (1 + beta * eta) * kl(star, after) <= kl(star, now) + eta * beta * bounds.coverage_floor(
            beta, eps, C
        ) * (1 + 1e-9) + 1e-12


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Regression(wg.wind(0.1), draws=1), "draws must be an integer, at least 2"),
        (lambda: Regression(wg.wind(0.1), pairing="pairs"), "pairing must be one of"),
        (lambda: Regression(wg.wind(0.1), risk="hinge"), "risk must be one of"),
        (lambda: Regression(wg.wind(0.1), sampler="all"), "pass opponents"),
        (lambda: Regression(wg.wind(0.1), sampler="everything"), "sampler must be one of"),
        (lambda: Regression(wg.wind(0.1), opponents=0), "opponents must be an integer"),
        (lambda: Regression(wg.wind(0.1), opponents=2, pairing="group"), "leave opponents out"),
        (lambda: Regression(wg.wind(0.1), reuse=2), "pass an integer opponents"),
        (lambda: Regression(wg.wind(0.1), unseen="forget"), "unseen must be one of"),
        (lambda: Regression(wg.wind(0.1), opponents=1, risk="kl", unseen="half"), "closed form"),
        (
            lambda: learn(Regression(wg.wind(0.1), unseen="half"), policy=LogLinear(np.log(REF), np.ones((3, 4, 1)))),
            "for a table",
        ),
        (lambda: learn(JBond(1.0), oracle=Oracle(CYCLES, certain=True)), "answers with probabilities"),
        (lambda: learn(BestOfN(2, 1.0), oracle=Oracle(CYCLES, certain=True)), "answers with probabilities"),
        (lambda: learn(JBond(1.0), policy=Tabular(np.log(np.full((3, 4), 0.25)))), "not the game's"),
        (lambda: Oracle(REWARDS, reward=np.zeros((3, 9))), "one finite number per context"),
        (lambda: Oracle(REWARDS, reward=np.full((3, 4), np.nan)), "NaN or infinities"),
        (lambda: JBond(0.0), "rate must be positive"),
        (lambda: JBond(1.0, anchor_rate=2), "anchor_rate in"),
        (lambda: BestOfN(1, 1.0), "n must be an integer"),
        (lambda: BestOfN(2, 1.0, reference_share=1.0), "reference_share"),
        (lambda: Reinforce(1.0, draws=1), "draws must be"),
        (lambda: Reinforce(1.0, signal="rank"), "signal must be one of"),
        (lambda: Oracle(WEAK), "constant-sum"),
        (lambda: Oracle(REWARDS, budget=-1), "budget"),
        (lambda: Oracle(CYCLES).score(np.zeros((3, 1), int)), "only comparisons"),
        (lambda: flipped(REWARDS, 1.5), "q must be a probability"),
        (lambda: biased_reward(REWARD, 2.0, 1.0, np.random.default_rng(0)), "share must lie"),
        (lambda: judge_panel([]), "at least one judge"),
        (lambda: judge_panel([REWARDS], [0.5]), "one probability for each"),
        (lambda: LogLinear(np.log(REF), np.zeros((3, 5, 2))), "features must have shape"),
        (lambda: LogLinear(np.log(REF), np.full((3, 4, 2), np.nan)), r"entry \(0, 0, 0\) is nan"),
        (lambda: LogLinear(np.log(REF), np.zeros((3, 4, 2)), ridge=-1), "ridge"),
        (lambda: run(JBond(1.0), GAME, Oracle(REWARDS), np.random.default_rng(0)), "Nothing ends this run"),
        (lambda: run(wg.wind(0.1), GAME, Oracle(REWARDS), np.random.default_rng(0), rounds=1), "learner must be one"),
        (lambda: run(JBond(1.0), GAME, REWARDS, np.random.default_rng(0), rounds=1), "oracle must be one"),
        (lambda: run(JBond(1.0), GAME, Oracle(REWARDS), 0, rounds=1), "rng must be a generator.* but it is 0"),
        (lambda: Oracle(GAME), "An oracle answers by a windgames preference"),
        (lambda: Regression("wind"), "rule must be a rule .* but it is 'wind'"),
        (lambda: Regression(wg.wind), "rule must be a rule .* but it is <class"),
        (
            lambda: learn(JBond(1.0), wg.WinRateGame(wg.RewardPreference([0.0, 1]), [0.5, 0.5], 0.1)),
            "one axis of contexts",
        ),
        (lambda: learn(JBond(1.0), oracle=Oracle(wg.RewardPreference([[0.0, 1.0]]))), "The oracle answers about"),
        (lambda: learn(JBond(1.0), prompts=9), "prompts must lie"),
        (lambda: learn(Regression(wg.extragradient(0.1))), "pass opponents"),
        (lambda: learn(Regression(wg.iterative_bon(4, 0.1))), "Iterative best-of-n solves"),
        (
            lambda: learn(Regression(wg.wind(0.1)), wg.BestOfNGame(REWARDS, REF, 3, 1.5)),
            "use a WinRateGame or a LogWinRateGame",
        ),
        (
            lambda: learn(
                Regression(wg.wind(0.1)),
                wg.WinRateGame(REWARDS, REF, [0.1, 0.2, 0.3]),
                policy=LogLinear(np.log(REF), np.ones((3, 4, 1))),
            ),
            "beta and eta must be one number",
        ),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(ValueError, match=says):
        make()
