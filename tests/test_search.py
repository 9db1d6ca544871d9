"""Random search for violations against exact arithmetic: rationals at beta = 0, fifty digits at beta > 0."""

import mpmath
import numpy as np
import pytest
from exact_games import fractions_of, gain, vertices

import windgames as wg

KINDS = ["ternary", "tournament", "quarters", "uniform", "duplicates"]


def random_game(rng, beta):
    """Return a game of up to six responses, with ties, duplicates, and references down to 1e-260."""
    m, kind = int(rng.integers(1, 7)), rng.choice(KINDS)
    if kind == "uniform":
        upper = rng.random((m, m))
    else:
        steps = {"ternary": 2, "tournament": 1, "quarters": 4, "duplicates": 2}[kind]
        upper = rng.integers(0, steps + 1, (m, m)) / steps
    P = np.triu(upper, 1) + np.tril(1 - np.triu(upper, 1).T, -1) + np.eye(m) / 2
    if kind == "duplicates":
        label = rng.integers(0, m, m)
        P = P[np.ix_(label, label)]
    ref = np.exp(-rng.choice([0.0, 1.0, 20.0, 100.0, 600.0]) * rng.random(m))
    return wg.WinRateGame(wg.MatrixPreference(P), ref / ref.sum(), beta)


def violations_at_zero(game):
    """Compare with the exact polytope of winners; the projection is checked by its variational inequality."""
    found, A = wg.equilibrium(game), fractions_of(game.preference.matrix())
    winners = np.array([[float(x) for x in y] for y in vertices(A)])
    faults = []
    if not found.converged or gain(A, found.policy) > 1e-11:
        faults.append(f"converged {found.converged}, gain {float(gain(A, found.policy)):.1e}")
    if len(winners) == 1 and np.abs(found.policy - winners[0]).max() > 1e-13:
        faults.append(f"the only winner is {winners[0]}, not {found.policy}")
    played = found.log_policy > -np.inf
    if not np.array_equal(played, np.any(winners > 0, axis=0)):
        faults.append(f"support {played}, winners {winners}")
    else:
        slope = np.where(played, found.log_policy - game.log_ref, 0.0)
        if np.min((winners - found.policy) @ slope) < -1e-9 * (1 + np.abs(slope).max()):
            faults.append(f"a winner is nearer to the reference than {found.policy}")
    return faults


def in_many_digits(game, z):
    """Return the equilibrium, from a policy that is close, the policy as it is meant, and its exact residual."""
    m, beta = game.n_responses, mpmath.mpf(float(game.beta))
    P = mpmath.matrix((0.5 + (game.preference.matrix() - game.preference.matrix().T) / 2).tolist())
    log_ref = [mpmath.mpf(float(x)) for x in game.log_ref]
    z = [mpmath.mpf(float(x)) for x in z]
    total = mpmath.log(sum(mpmath.exp(x) for x in z))
    z = [x - total for x in z]

    def residual(z):
        q = mpmath.matrix([mpmath.exp(x) for x in z])
        u = P * q
        return q, [x - y - v / beta for x, y, v in zip(z, log_ref, u, strict=True)]

    star = list(z)
    for _ in range(8):
        q, r = residual(star)
        K = mpmath.matrix(m + 1, m + 1)
        for i in range(m):
            K[i, m], K[m, i] = 1, q[i]
            for j in range(m):
                K[i, j] = (i == j) - P[i, j] * q[j] / beta
        step = mpmath.lu_solve(K, mpmath.matrix([-x for x in r] + [1 - sum(q)]))
        star = [x + step[i] for i, x in enumerate(star)]
        if max(abs(step[i]) for i in range(m)) < mpmath.mpf(10) ** -35:
            break
    else:
        return None
    r = residual(z)[1]
    return star, z, float(max(r) - min(r))


def violations_at(game):
    """Check what is called converged, and every certificate, against the equilibrium in fifty digits."""
    found, faults = wg.equilibrium(game), []
    with mpmath.workdps(50):
        exact = in_many_digits(game, found.log_policy)
        if exact is None:
            return ["no equilibrium in many digits"]
        star, z, residual = exact
        d = [x - y for x, y in zip(z, star, strict=True)]
        h = float(max(d) - min(d))
        divergence = float(
            sum(mpmath.exp(y) * (mpmath.exp(x) * x - mpmath.expm1(x)) for x, y in zip(d, star, strict=True))
        )
        error = float(max(abs(mpmath.expm1(x)) * mpmath.exp(y) for x, y in zip(d, star, strict=True)))
    rounding = float(game.rounding(game.payoff(found.log_policy)))
    if abs(residual - found.residual) > rounding:
        faults.append(f"residual {found.residual:.2e}, exactly {residual:.2e}, rounding {rounding:.1e}")
    if found.converged and residual > 1e-10 and error > 1e-12:
        faults.append(f"converged at a residual of {residual:.1e} with an error of {error:.1e}")
    if not found.converged and rounding < 5e-11:
        faults.append(f"not converged: {found.status}")
    if h > found.hilbert_certificate:
        faults.append(f"Hilbert distance {h:.4e} above its bound {found.hilbert_certificate:.4e}")
    if divergence > found.kl_certificate:
        faults.append(f"divergence {divergence:.4e} above its bound {found.kl_certificate:.4e}")
    return faults


def search(start, stop):
    """Return the violations of the games with these seeds, half of them at beta = 0."""
    faults = []
    for seed in range(start, stop):
        rng = np.random.default_rng([2026, seed])
        beta = 0.0 if seed % 2 else float(10 ** rng.uniform(-7, 1))
        game = random_game(rng, beta)
        new = violations_at(game) if beta else violations_at_zero(game)
        faults += [f"seed {seed}, beta {beta:.3g}, {game.n_responses} responses: {fault}" for fault in new]
    return faults


def test_a_short_search():
    assert search(0, 200) == []


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_a_long_search(block):
    assert search(1000 * (block + 1), 1000 * (block + 2)) == []
