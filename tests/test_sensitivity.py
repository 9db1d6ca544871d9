"""Theory 6.4: the derivative of an equilibrium, against differences of equilibria in 60 digits."""

import pickle

import numpy as np
import pytest
import sixty_digits
from hypothesis import given, settings
from hypothesis import strategies as st

import windgames as wg
from windgames._array import to_numpy
from windgames.testing import games, random_embedding, random_matrix

CYCLE = np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]])


def skewed(x):
    return x - x.swapaxes(-1, -2)


def random_tangents(game, rng):
    """Return a tangent of everything that the game's equilibrium depends on smoothly."""
    p, out = game.preference, {}
    m = game.n_responses
    for name in p.data:
        data = p.matrix() if name == "matrix" else getattr(p, name)
        x = rng.normal(size=data.shape)
        if name == "skew" or (name == "matrix" and isinstance(game, wg.WinRateGame)):
            x = skewed(x)
        elif name == "matrix":
            x = np.where((data > 0) & (data < 1), x, 0.0)  # an entry at the border cannot move both ways
        out[name] = x
    return out | {"log_ref": rng.normal(size=m), "beta": rng.normal()}


def far(game, rng):
    """Return the game with reference masses down to 1e-200."""
    ref = np.asarray(game.ref) * 10 ** rng.uniform(-200, 0, game.n_responses)
    return game.replace(ref=ref / ref.sum())


@settings(max_examples=30)
@given(
    games(max_responses=4) | games("log-win-rate", max_responses=4) | games("best-of-n", max_responses=4),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_against_differences_in_many_digits(game, seed, degenerate):
    """All data at once and one at a time; ties, duplicates, one response, beta from 0.001 to 10."""
    rng = np.random.default_rng(seed)
    game = far(game, rng) if degenerate else game
    solution = wg.equilibrium(game)
    moved, tangents = wg.sensitivity(solution), random_tangents(game, rng)
    assert set(moved.data) == set(tangents)
    name = sorted(tangents)[seed % len(tangents)]
    for given_ in (tangents, {name: tangents[name]}):
        found, expected = moved.jvp(**given_), sixty_digits.derivative(game, given_, solution.log_policy)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * (1 + np.abs(expected).max()))


@given(games() | games("log-win-rate") | games("best-of-n"), st.integers(0, 10**6), st.booleans())
def test_the_gradient_is_the_transpose(game, seed, degenerate):
    rng = np.random.default_rng(seed)
    game = far(game, rng) if degenerate else game
    moved, tangents = wg.sensitivity(wg.equilibrium(game)), random_tangents(game, rng)
    cotangent = rng.normal(size=game.n_responses)
    gradient = moved.vjp(cotangent)
    assert set(gradient) == set(moved.data)
    tangent = moved.jvp(**tangents)
    with np.errstate(invalid="ignore"):
        terms = [np.where(tangents[k] == 0, 0.0, gradient[k] * tangents[k]) for k in tangents]
    size = 1 + np.abs(cotangent) @ np.abs(tangent) + sum(np.abs(x).sum() for x in terms)
    assert abs(cotangent @ tangent - sum(x.sum() for x in terms)) < 1e-10 * size
    assert abs(gradient["log_ref"].sum()) < 1e-12 * (1 + np.abs(gradient["log_ref"]).max())


@given(games(), st.integers(0, 10**6))
def test_the_equilibrium_moves_no_further_than_the_best_response(game, seed):
    """Theory 6.4, in the norm of the policy; and normalisation keeps the mean at zero."""
    rng = np.random.default_rng(seed)
    solution = wg.equilibrium(game)
    tangents = random_tangents(game, rng)
    moved, q = wg.sensitivity(solution).jvp(**tangents), solution.policy
    u, beta = game.payoff(solution.log_policy), game.beta
    direct = tangents.pop("log_ref") - u * tangents.pop("beta") / beta**2
    direct = direct + game.preference.win_rate_jvp(solution.log_policy, np.zeros_like(q), **tangents) / beta
    spread = np.sum(q * (direct - q @ direct) ** 2) ** 0.5
    assert np.sum(q * moved**2) ** 0.5 <= spread * (1 + 1e-9) + 1e-10 / beta
    assert abs(q @ moved) <= 1e-12 * (1 + np.abs(moved).max())


def test_two_responses_by_hand():
    """The odds are those of the reference times exp((P_12 - 1/2)/beta), whoever plays what."""
    game = wg.WinRateGame(wg.MatrixPreference([[0.5, 0.7], [0.3, 0.5]]), [0.4, 0.6], 0.25)
    found = wg.sensitivity(wg.equilibrium(game))
    x = wg.equilibrium(game).policy
    slope = np.array([x[1], -x[0]])  # of log_policy by the log-odds
    np.testing.assert_allclose(found.jvp(beta=1.0), -0.2 / 0.25**2 * slope, rtol=1e-12)
    np.testing.assert_allclose(found.jvp(matrix=[[0, 1.0], [-1.0, 0]]), slope / 0.25, rtol=1e-12)
    np.testing.assert_allclose(found.jvp(log_ref=[1.0, 0.0]), slope, rtol=1e-12)


def test_one_response_does_not_move():
    found = wg.sensitivity(wg.equilibrium(wg.WinRateGame(wg.MatrixPreference([[0.5]]), [1.0], 1e-3)))
    assert found.jvp(log_ref=[3.0], beta=1.0, matrix=[[0.0]]) == 0
    assert all(np.all(x == 0) for x in found.vjp([1.0]).values())


@pytest.mark.parametrize("kind", ["matrix", "bradley-terry", "low-rank", "reward"])
def test_larger_games_against_differences(kind, rng):
    """Differences of `equilibrium` itself, whose certificate leaves room for a few digits only."""
    m = 60
    ref = rng.dirichlet(np.ones(m))
    if kind == "matrix":
        preference = wg.MatrixPreference(random_matrix("logistic", m, rng))
    elif kind == "bradley-terry":
        preference = wg.BradleyTerryPreference(rng.normal(size=m))
    elif kind == "low-rank":
        preference = wg.LowRankPreference(*random_embedding(m, 5, rng))
    else:
        preference = wg.RewardPreference(rng.integers(0, 20, m))
    game = wg.WinRateGame(preference, ref, 0.05)
    step, toward = 1e-5, rng.normal(size=m)

    def at(sign):
        tilted = ref * np.exp(sign * step * toward)
        return wg.equilibrium(wg.WinRateGame(preference, tilted / tilted.sum(), 0.05 + sign * step)).log_policy

    found = wg.sensitivity(wg.equilibrium(game)).jvp(log_ref=toward, beta=1.0)
    np.testing.assert_allclose(found, (at(1) - at(-1)) / (2 * step), rtol=1e-5, atol=1e-5)


def test_contexts_and_shared_data(rng):
    """A batch moves as its contexts do alone; gradients of what they share are sums."""
    m = 4
    matrix, refs, betas = random_matrix("uniform", m, rng), rng.dirichlet(np.ones(m), (2, 3)), np.array([0.1, 0.5, 2.0])
    game = wg.WinRateGame(wg.MatrixPreference(matrix), refs, betas)
    together, cotangent = wg.sensitivity(wg.equilibrium(game)), rng.normal(size=(2, 3, m))
    tangents = {
        "matrix": skewed(rng.normal(size=(m, m))),
        "log_ref": rng.normal(size=m),
        "beta": rng.normal(size=(2, 1)),
    }
    moved, gradient = together.jvp(**tangents), together.vjp(cotangent)
    assert moved.shape == (2, 3, m)
    assert {k: v.shape for k, v in gradient.items()} == {"matrix": (m, m), "log_ref": (2, 3, m), "beta": (3,)}
    by_matrix, by_beta = np.zeros((m, m)), np.zeros(3)
    for i in range(2):
        for j in range(3):
            one = wg.WinRateGame(wg.MatrixPreference(matrix), refs[i, j], betas[j])
            alone = wg.sensitivity(wg.equilibrium(one))
            expected = alone.jvp(**tangents | {"beta": tangents["beta"][i, 0]})
            np.testing.assert_allclose(moved[i, j], expected, atol=1e-9)
            back = alone.vjp(cotangent[i, j])
            np.testing.assert_allclose(gradient["log_ref"][i, j], back["log_ref"], atol=1e-9)
            by_matrix += back["matrix"]
            by_beta[j] += back["beta"]
    np.testing.assert_allclose(gradient["matrix"], by_matrix, atol=1e-8)
    np.testing.assert_allclose(gradient["beta"], by_beta, atol=1e-8)


@pytest.mark.parametrize("log", [False, True])
def test_contexts_of_rewards_with_different_classes(log, rng):
    reward = np.array([[0.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 2.0, 0.0]])
    ref, kind = rng.dirichlet(np.ones(4), 3), wg.LogWinRateGame if log else wg.WinRateGame
    together = wg.sensitivity(wg.equilibrium(kind(wg.RewardPreference(reward), ref, 1.5)))
    toward, cotangent = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    moved, gradient = together.jvp(log_ref=toward, beta=1.0), together.vjp(cotangent)
    assert gradient["beta"].shape == ()
    total = 0.0
    for i in range(3):
        alone = wg.sensitivity(wg.equilibrium(kind(wg.RewardPreference(reward[i]), ref[i], 1.5)))
        np.testing.assert_allclose(moved[i], alone.jvp(log_ref=toward[i], beta=1.0), atol=1e-12)
        back = alone.vjp(cotangent[i])
        np.testing.assert_allclose(gradient["log_ref"][i], back["log_ref"], atol=1e-12)
        total += back["beta"]
    assert gradient["beta"] == pytest.approx(total)


def test_every_library(library):
    found = []
    for xp in (np, library):
        preference = wg.LowRankPreference(xp.asarray(np.array([[0.3, 0.1], [-0.4, 0.5], [0.2, -0.6]])))
        game = wg.WinRateGame(preference, xp.asarray(np.array([0.5, 0.3, 0.2])), 0.1)
        moved = wg.sensitivity(wg.equilibrium(game))
        tangent = moved.jvp(embedding=xp.asarray(np.eye(3, 2)), log_ref=[1.0, 0.0, 0.0])
        gradient = moved.vjp(xp.asarray(np.array([1.0, 0.0, 0.0])))
        assert type(tangent) is type(gradient["embedding"]) is type(game.ref)
        found.append([to_numpy(tangent), *(to_numpy(x) for x in gradient.values())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_log_win_rate_that_underflows():
    """The second response is next to never played, and its win rate is below 1e-300."""
    game = wg.LogWinRateGame(wg.BradleyTerryPreference([0.0, -40.0], scale=0.05), [1 - 1e-100, 1e-100], 1.05)
    solution = wg.equilibrium(game)
    assert solution.log_policy[1] < -700
    tangents = {"reward": np.array([0.0, 1.0])}
    expected = sixty_digits.derivative(game, tangents, solution.log_policy)
    np.testing.assert_allclose(wg.sensitivity(solution).jvp(**tangents), expected, rtol=1e-8)


def game_of(preference=None, beta=0.1, kind=wg.WinRateGame):
    return kind(preference or wg.MatrixPreference(CYCLE), [0.5, 0.3, 0.2], beta)


@pytest.mark.parametrize("kind", ["matrix", "low-rank", "reward", "log"])
def test_it_can_be_pickled_before_and_after_use(kind, rng):
    """For joblib, which sends it to other processes and stores it."""
    matrix = wg.MatrixPreference(random_matrix("logistic", 6, rng))
    preference = {
        "low-rank": wg.LowRankPreference(*random_embedding(6, 2, rng)),
        "reward": wg.RewardPreference(range(6)),
    }
    make = wg.LogWinRateGame if kind == "log" else wg.WinRateGame
    game = make(preference.get(kind, matrix), rng.dirichlet(np.ones(6), 2), [1.5, 2.0])
    found, cotangent = wg.sensitivity(wg.equilibrium(game)), rng.normal(size=(2, 6))
    early = pickle.loads(pickle.dumps(found))
    expected = found.jvp(beta=1.0)
    late = pickle.loads(pickle.dumps(found))
    for copy in (early, late):
        np.testing.assert_array_equal(copy.jvp(beta=1.0), expected)
        np.testing.assert_array_equal(copy.vjp(cotangent)["log_ref"], found.vjp(cotangent)["log_ref"])
        np.testing.assert_array_equal(copy.solution.policy, found.solution.policy)


def test_where_there_is_no_derivative():
    with pytest.raises(ValueError, match="must be a Solution"):
        wg.sensitivity(np.zeros(3))
    with pytest.raises(ValueError, match=r"beta = 0 in context \(1,\).*unique"):
        wg.sensitivity(wg.equilibrium(game_of(beta=[0.1, 0.0])))
    with pytest.raises(ValueError, match="did not converge: residual"):
        wg.sensitivity(wg.solve(game_of(), wg.wind(), max_steps=2))
    weak = wg.RewardPreference([0.0, 1.0, 2.0], ties="weak")
    with pytest.raises(ValueError, match="Response 0 is not played"):
        wg.sensitivity(wg.equilibrium(game_of(weak, 0.3, wg.LogWinRateGame)))


def test_a_run_of_a_rule_has_a_derivative_too():
    run, found = wg.solve(game_of(), wg.extragradient()), wg.equilibrium(game_of())
    a, b = (wg.sensitivity(x).jvp(beta=1.0) for x in (run, found))
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("tangents", "says"),
    [
        ({}, "jvp takes tangents of matrix, log_ref, beta, but got none"),
        ({"reward": [1.0, 0, 0]}, r"matrix, log_ref, beta, but got \['reward'\]"),
        ({"matrix": np.eye(3)}, r"keep P \+ P\^T = 1, but entry \(0, 0\).*add up to 2"),
        ({"matrix": np.zeros((2, 2))}, r"must fit the shape \(3, 3\), but its shape is \(2, 2\)"),
        ({"log_ref": [1.0, np.nan, 0]}, r"entry \(1,\) is nan"),
        ({"beta": "x"}, "real numbers"),
    ],
)
def test_bad_tangents(tangents, says):
    with pytest.raises(ValueError, match=says):
        wg.sensitivity(wg.equilibrium(game_of())).jvp(**tangents)


def test_the_order_of_a_reward_is_not_smooth():
    found = wg.sensitivity(wg.equilibrium(game_of(wg.RewardPreference([0.0, 1.0, 2.0]))))
    assert found.data == ("log_ref", "beta")
    assert set(found.vjp([1.0, 0, 0])) == {"log_ref", "beta"}
    with pytest.raises(ValueError, match=r"Only the order.*BradleyTerryPreference"):
        found.jvp(reward=[1.0, 0, 0])


def test_bad_cotangents_and_the_skew_matrix():
    found = wg.sensitivity(wg.equilibrium(game_of(wg.LowRankPreference(np.eye(3, 2) * 0.5))))
    with pytest.raises(ValueError, match=r"cotangent must fit the shape \(3,\)"):
        found.vjp([1.0, 2.0])
    with pytest.raises(ValueError, match=r"keep J \+ J\^T = 0"):
        found.jvp(skew=[[1.0, 0], [0, 0]])
    assert "embedding, skew, log_ref, beta" in repr(found)


def test_two_equilibria_that_meet():
    """Theory 3.8, two responses: the interior equilibria solve K x (1 - x) = 1 and meet at K = 4, x = 1/2."""
    game = wg.LogWinRateGame(wg.RewardPreference([0.0, 1.0], ties="weak"), [0.8, 0.2], 0.5)
    half = np.log([0.5, 0.5])
    assert game.residual(half) < 1e-15
    with pytest.raises(ValueError, match="singular"):
        wg.sensitivity(wg.equilibrium(game, start=half)).jvp(beta=1.0)
