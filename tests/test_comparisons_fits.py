"""Models fitted to comparisons: published estimates, other libraries, and the likelihood on its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_data import SETS, language_models, load
from scipy.optimize import approx_fprime, minimize

import windgames as wg


def log_likelihood(x, wins, ties, davidson, prior):
    """Return minus the penalised log-likelihood of rewards, and of log nu if `davidson`, pair by pair."""
    m = len(wins)
    r, total = x[:m], 0.0
    for i in range(m):
        total -= prior * (np.logaddexp(0, r[i]) + np.logaddexp(0, -r[i]))
        for j in range(m):
            if i == j:
                continue
            d = r[i] - r[j]
            if davidson:
                size = np.logaddexp(np.logaddexp(d / 2, -d / 2), x[m])
                total += wins[i, j] * (d / 2 - size) + ties[i, j] / 2 * (x[m] - size)
            else:
                total -= (wins[i, j] + ties[i, j] / 2) * np.logaddexp(0, -d)
    return -total


def with_ties(name):
    """Return a real set with some ties invented, since those that are kept here have none."""
    c = load(name)
    ties = np.minimum(c.wins, c.wins.T) // 2
    np.fill_diagonal(ties, 0)
    return wg.Comparisons.from_counts(c.wins, ties, names=c.names)


PUBLISHED = {
    # Turner and Firth 2012: estimates and standard errors of differences from the item named
    "baseball_1987": (
        "Baltimore",
        {
            "Boston": (1.1077, 0.3339),
            "Cleveland": (0.6839, 0.3319),
            "Detroit": (1.4364, 0.3396),
            "Milwaukee": (1.5814, 0.3433),
            "New York": (1.2476, 0.3359),
            "Toronto": (1.2945, 0.3367),
        },
    ),
    "citations": (
        "Biometrika",
        {"Comm Statist": (-2.94907, 0.10255), "JASA": (-0.47957, 0.06059), "JRSS-B": (0.26895, 0.07083)},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_estimates(name):
    base, table = PUBLISHED[name]
    c = load(name)
    fit = c.bradley_terry().fit
    k, cov = c.names.index(base), fit.covariance
    for item, (estimate, error) in table.items():
        i = c.names.index(item)
        assert fit.reward[i] - fit.reward[k] == pytest.approx(estimate, abs=6e-5)
        assert np.sqrt(cov[i, i] + cov[k, k] - 2 * cov[i, k]) == pytest.approx(error, abs=6e-5)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("ties", ["half", "davidson"])
@pytest.mark.parametrize("prior", [0.0, 0.7])
def test_the_likelihood_is_maximal(name, ties, prior):
    """A vanishing numerical gradient, scipy's optimum, and the inverse of a numerical information."""
    c = with_ties(name)
    p = c.bradley_terry(ties=ties, prior=prior)
    fit, davidson = p.fit, ties == "davidson"
    m = len(c.names)
    x = np.append(fit.reward, np.log(fit.tie_parameter)) if davidson else fit.reward
    args = (c.wins, c.ties, davidson, prior)
    scale = c.wins.sum() + c.ties.sum() / 2
    gradient = approx_fprime(x, log_likelihood, 1e-6, *args)
    assert np.max(np.abs(gradient)) < 1e-5 * scale
    found = minimize(log_likelihood, np.zeros_like(x), args, method="BFGS", options={"gtol": 1e-9 * scale})
    assert log_likelihood(x, *args) <= found.fun + 1e-9 * scale
    if prior == 0:
        assert fit.reward.mean() == pytest.approx(0, abs=1e-12)
        assert fit.log_likelihood == pytest.approx(-log_likelihood(x, *args), rel=1e-12)
    step = 1e-3
    information = np.array(
        [
            [
                sum(
                    s * t * log_likelihood(x + step * (s * e + t * f), *args)
                    for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1))
                )
                / (4 * step**2)
                for e in np.eye(len(x))
            ]
            for f in np.eye(len(x))
        ]
    )
    inverse = np.linalg.pinv(information, rcond=1e-7)[:m, :m]
    np.testing.assert_allclose(fit.standard_errors, np.sqrt(np.diagonal(inverse)), rtol=2e-3)
    np.testing.assert_allclose(p.matrix()[0, 1], 1 / (1 + np.exp(fit.reward[1] - fit.reward[0])), rtol=1e-14)
    scores = fit.expected_scores().matrix()
    d = fit.reward[0] - fit.reward[1]
    win, loss, tie = np.array([np.exp(d / 2), np.exp(-d / 2), fit.tie_parameter])
    assert scores[0, 1] == pytest.approx((win + tie / 2) / (win + loss + tie), rel=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_choix_and_evalica_agree(name):
    """Both find the same rewards, up to a constant, as closely as they stop."""
    choix, evalica = pytest.importorskip("choix"), pytest.importorskip("evalica")
    c = with_ties(name)
    m, reward = len(c.names), c.bradley_terry().fit.reward
    shares = c.wins + c.ties / 2
    theirs = choix.ilsr_pairwise_dense(shares, tol=1e-10, max_iter=1000)
    np.testing.assert_allclose(theirs - theirs.mean(), reward, atol=1e-7)
    # ties count half, so doubled counts are whole
    i, j = np.nonzero(shares)
    xs = np.repeat(np.array(c.names)[i], (2 * shares[i, j]).astype(int))
    ys = np.repeat(np.array(c.names)[j], (2 * shares[i, j]).astype(int))
    found = evalica.bradley_terry(xs, ys, [evalica.Winner.X] * len(xs), tolerance=1e-12, limit=100_000)
    logs = np.log([found.scores[name] for name in c.names])
    np.testing.assert_allclose(logs - logs.mean(), reward, atol=1e-5)
    # the prior is an opponent of reward 0, whom everybody beat and lost to so often
    phantom = np.zeros((m + 1, m + 1))
    phantom[:m, :m], phantom[m, :m], phantom[:m, m] = shares, 2.5, 2.5
    theirs = choix.ilsr_pairwise_dense(phantom, tol=1e-10, max_iter=1000)
    np.testing.assert_allclose(theirs[:m] - theirs[m], c.bradley_terry(prior=2.5).fit.reward, atol=1e-7)


def test_language_models_from_a_file():
    """59 models, of whose 1,711 pairs 784 never met: against evalica, and by cross-validation not cyclic."""
    c = language_models()
    assert (len(c), int(c.missing.sum()) // 2, int(c.wins.sum() + c.ties.sum() / 2)) == (59, 784, 8931)
    fit = c.bradley_terry().fit
    order = np.argsort(-fit.reward)
    assert c.names[order[0]] == "GPT 4"
    evalica = pytest.importorskip("evalica")
    i, j = np.nonzero(np.triu(c.ties))
    a, b = np.nonzero(c.wins)
    names = np.array(c.names)
    xs = [*np.repeat(names[a], c.wins[a, b].astype(int)), *np.repeat(names[i], c.ties[i, j].astype(int))]
    ys = [*np.repeat(names[b], c.wins[a, b].astype(int)), *np.repeat(names[j], c.ties[i, j].astype(int))]
    said = [evalica.Winner.X] * int(c.wins.sum()) + [evalica.Winner.Draw] * (len(xs) - int(c.wins.sum()))
    found = evalica.bradley_terry(xs, ys, said, tie_weight=0.5, tolerance=1e-12, limit=100_000)
    logs = np.log([found.scores[name] for name in c.names])
    np.testing.assert_allclose(logs - logs.mean(), fit.reward, atol=1e-5)


def test_an_infinite_maximum_is_named():
    c = wg.Comparisons.from_pairs(["Ann", "Ann", "Bob", "Cem"], ["Bob", "Cem", "Cem", "Bob"])
    with pytest.raises(ValueError, match="'Ann' was never beaten"):
        c.bradley_terry()
    c = wg.Comparisons.from_pairs(["a", "b", "a", "c", "d"], ["b", "a", "c", "d", "c"])
    with pytest.raises(ValueError, match="nobody outside ever beat any of 'a', 'b'"):
        c.bradley_terry()
    c = wg.Comparisons.from_pairs(["a", "b", "c", "d"], ["b", "a", "d", "c"])
    with pytest.raises(ValueError, match="2 groups that never met, such as that of 'a'"):
        c.bradley_terry()
    assert np.all(np.isfinite(c.bradley_terry(prior=1).fit.reward))
    # a tie joins both ways if it counts half; Davidson's likelihood grows with nu
    c = wg.Comparisons.from_pairs(["a", "a"], ["b", "b"], tie=[True, False])
    assert np.isfinite(c.bradley_terry().fit.reward).all()
    with pytest.raises(ValueError, match="no cycle of comparisons holds more wins than ties"):
        c.bradley_terry(ties="davidson")
    assert np.isfinite(c.bradley_terry(ties="davidson", prior=0.5).fit.tie_parameter)


@given(st.integers(2, 4), st.integers(0, 10**6))
def test_davidson_is_finite_exactly_if_a_cycle_has_more_wins_than_ties(m, seed):
    """The difference constraints against the recession cone of the likelihood, by a linear program."""
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 2, (m, m)) * rng.integers(0, 2, (m, m))
    ties = np.triu(rng.integers(0, 2, (m, m)), 1)
    np.fill_diagonal(wins, 0)
    ties = ties + ties.T
    c = wg.Comparisons.from_counts(wins, ties)
    if len(c.connected) > 1 or not ties.any():
        return
    rows = []
    for i, j in np.argwhere(np.triu(wins + wins.T + ties) > 0):
        outcome = {1: np.zeros(m + 1), -1: np.zeros(m + 1), 0: np.zeros(m + 1)}
        for sign in (1, -1):
            outcome[sign][i], outcome[sign][j] = sign / 2, -sign / 2
        outcome[0][m] = 1
        seen = [o for o, n in ((1, wins[i, j]), (-1, wins[j, i]), (0, ties[i, j])) if n]
        rows += [outcome[other] - outcome[o] for o in seen for other in outcome if other != o]
    # a direction along which no observed outcome loses ground, and which is no shift of all rewards
    cone = np.array(rows)
    fixed = [(0, 0)] + [(-1, 1)] * m
    grows = any(
        linprog(sign * np.eye(m + 1)[k], cone, np.zeros(len(cone)), bounds=fixed).fun < -1e-9
        for k in range(1, m + 1)
        for sign in (1, -1)
    )
    try:
        fit = c.bradley_terry(ties="davidson").fit
    except ValueError:
        assert grows
    else:
        assert not grows
        assert np.max(np.abs(fit.reward)) < 20


def test_thousands_of_items():
    """Sparse comparisons of 2,000 items: the true rewards within the errors that the fit states."""
    rng = np.random.default_rng(0)
    m = 2000
    r = rng.normal(size=m)
    i, j = rng.integers(0, m, (2, 40_000))
    i, j = i[i != j], j[i != j]
    won = rng.uniform(size=len(i)) < 1 / (1 + np.exp(r[j] - r[i]))
    c = wg.Comparisons.from_pairs(np.where(won, i, j), np.where(won, j, i), names=range(m))
    if len(c.connected) > 1:
        pytest.fail("the seed leaves somebody unbeaten")
    fit = c.bradley_terry().fit
    slope = np.bincount(i, won, m) + np.bincount(j, ~won, m)
    expected = 1 / (1 + np.exp(fit.reward[j] - fit.reward[i]))
    slope -= np.bincount(i, expected, m) + np.bincount(j, 1 - expected, m)
    assert np.max(np.abs(slope)) < 1e-7  # as many wins as expected, of everybody
    z = (fit.reward - r + r.mean()) / fit.standard_errors
    assert np.mean(z**2) == pytest.approx(1, abs=0.15)


def test_a_long_chain_is_solved():
    """A path of 1,500 items, on which conjugate gradients stall: every step up has the log-odds of its counts."""
    m = 1500
    names = range(m)
    c = wg.Comparisons.from_pairs([*names[:-1], *names[1:]], [*names[1:], *names[:-1]], weight=[3] * 1499 + [1] * 1499)
    reward = c.bradley_terry().fit.reward
    np.testing.assert_allclose(-np.diff(reward), np.log(3), rtol=1e-8)


@pytest.mark.parametrize("link", ["linear", "logistic"])
def test_low_rank_finds_a_cycle(link):
    """Comparisons drawn from a circle are predicted better than by Bradley-Terry; those drawn from rewards are not."""
    rng = np.random.default_rng(3)
    m = 12
    angle = 2 * np.pi * np.arange(m) / m
    circle = 0.5 + 0.45 * np.sin(angle[None, :] - angle[:, None])
    reward = 1 / (1 + np.exp(np.subtract.outer(-angle, -angle) / 3))
    gains = []
    for P in (circle, reward):
        wins = rng.binomial(12, np.triu(P, 1)) * (np.triu(P, 1) > 0)
        wins = wins + np.tril((12 - wins.T), -1)
        c = wg.Comparisons.from_counts(wins)
        p = c.low_rank(4, prior=0.3, rng=0, link=link)
        assert isinstance(p, wg.LowRankPreference if link == "linear" else wg.MatrixPreference)
        assert p.is_constant_sum
        assert p.names == c.names
        assert p.fit.log_likelihood == pytest.approx(c.log_likelihood(p))
        gains.append((p.fit.gain, p.fit.gain_error))
        if P is circle:
            assert np.mean(np.abs(p.matrix() - P)) < 0.06
    (cyclic, error), (plain, other) = gains
    assert cyclic > 5 * error
    assert plain < 3 * other


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("rank", [2, 6])
def test_gradients_of_low_rank(linear, rank):
    from windgames.preferences import fitting

    args = (7, *load("baseball_1987").pairs(), 0.8, linear)
    x = np.append(np.random.default_rng(0).normal(size=7 * (rank - 1)), 0.6)
    numerical = approx_fprime(x, lambda x: fitting._low_rank_loss(x, *args)[0], 1e-7)
    np.testing.assert_allclose(fitting._low_rank_loss(x, *args)[1], numerical, rtol=1e-4, atol=1e-4)


def test_rank_two_is_a_reward():
    """Without a cyclic part the logistic link is Bradley-Terry, and the linear one transitive."""
    c = load("baseball_1987")
    p = c.low_rank(2, rng=0, link="logistic")
    np.testing.assert_allclose(p.matrix(), c.bradley_terry(prior=0.5).matrix(), atol=1e-5)
    assert abs(p.fit.gain) < 1e-4
    p = c.low_rank(2, rng=0)
    assert isinstance(p, wg.LowRankPreference)
    assert wg.describe(p).transitive
    assert wg.describe(p).reward_share_linear == pytest.approx(1)


def test_a_strong_prior_leaves_pairs_that_never_met_to_the_rewards():
    """Two strong and two weak items, whose groups met through one pair only: strength decides the other pairs."""
    names = ["a", "b", "c", "d"]
    wins = [[0, 6, 0, 0], [5, 0, 9, 0], [0, 2, 0, 6], [0, 0, 5, 0]]
    for link in ("linear", "logistic"):
        P = wg.Comparisons.from_counts(wins, names=names).low_rank(4, prior=30, rng=0, link=link, folds=0).matrix()
        assert P[0, 3] > P[1, 2] - 0.1 > 0.5


def test_names_travel():
    c = load("baseball_1987")
    p = c.bradley_terry()
    assert p.names == c.names
    frame = pytest.importorskip("pandas") and p.fit.to_frame()
    assert frame.index[0] == "Milwaukee"
    assert list(frame.columns) == ["reward", "standard_error"]
