"""JAX arrays go through the array API like any other: solved, differentiated, compiled."""

import numpy as np
import pytest

import windgames as wg

jax = pytest.importorskip("jax")
jnp = jax.numpy

P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
REF = np.array([0.2, 0.3, 0.5])
REWARD = np.array([1.0, 2.0, 4.0])
EMBEDDING = np.array([[0.1, 0.2], [0.3, 0.1], [0.2, 0.3]])
PREFERENCES = {
    "matrix": lambda asarray: wg.MatrixPreference(asarray(P)),
    "reward": lambda asarray: wg.RewardPreference(asarray(REWARD)),
    "Bradley-Terry": lambda asarray: wg.BradleyTerryPreference(asarray(REWARD)),
    "low rank": lambda asarray: wg.LowRankPreference(asarray(EMBEDDING)),
}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=PREFERENCES)
def games(request):
    """Games of one preference, in JAX and in numpy."""
    make = PREFERENCES[request.param]
    return [
        (wg.WinRateGame(make(asarray), asarray(REF), 0.3), wg.LogWinRateGame(make(asarray), asarray(REF), 1.5))
        for asarray in (jnp.asarray, np.asarray)
    ]


def test_equilibria_and_runs_are_those_of_numpy(games):
    for theirs, ours in zip(*games, strict=True):
        found = wg.equilibrium(theirs)
        assert isinstance(found.log_policy, jax.Array)
        assert found.converged
        np.testing.assert_allclose(found.policy, wg.equilibrium(ours).policy, atol=1e-13)
        runs = [wg.solve(game, wg.wind(1.0), max_steps=5, tol=1e-12) for game in (theirs, ours)]
        assert isinstance(runs[0].log_policy, jax.Array)
        np.testing.assert_allclose(runs[0].log_policy, runs[1].log_policy, atol=1e-12)


def test_a_payoff_is_compiled_and_leaves_nothing_behind(games):
    """In both precisions; what was traced in a compiled function must not be met again outside it."""
    for theirs, ours in zip(*games, strict=True):
        for dtype, atol in ((jnp.float32, 1e-5), (jnp.float64, 1e-14)):
            x = theirs.log_ref.astype(dtype)
            for payoff in (jax.jit(theirs.payoff), theirs.payoff):
                np.testing.assert_allclose(payoff(x), ours.payoff(ours.log_ref), atol=atol)
        response = jax.jit(theirs.best_response)(theirs.log_ref)
        np.testing.assert_allclose(response, ours.best_response(ours.log_ref), atol=1e-14)


def test_the_gradient_of_a_payoff_is_the_matrix():
    game = wg.WinRateGame(wg.MatrixPreference(jnp.asarray(P)), jnp.asarray(REF), 0.3)
    jacobian = jax.jacobian(game.payoff)(game.log_ref)
    np.testing.assert_allclose(jacobian, P * REF, atol=1e-14)  # by the logarithm of the policy


@pytest.mark.parametrize("through", ["preference", "game"])
def test_the_gradient_through_a_bradley_terry_win_rate(through):
    """The derivative of sum_j pi_j s(r_0 - r_j) by r_k is -pi_k s', and by r_0 the sum of all pi_j s'."""

    def win_rate(reward):
        preference = wg.BradleyTerryPreference(reward, scale=2.0)
        if through == "preference":
            return preference.win_rate(jnp.log(jnp.asarray(REF)))[0]
        return wg.WinRateGame(preference, jnp.asarray(REF), 0.1).payoff(jnp.log(jnp.asarray(REF)))[0]

    s = 1 / (1 + np.exp((REWARD - REWARD[0]) / 2))
    slope = REF * s * (1 - s) / 2
    exact = np.array([slope[1:].sum(), *-slope[1:]])
    np.testing.assert_allclose(jax.grad(win_rate)(jnp.asarray(REWARD)), exact, atol=1e-14)
