"""Equilibria of small games in as many digits as wanted, by mpmath: nothing of the library's solvers is used."""

import mpmath as mp
import numpy as np

import windgames as wg

DIGITS = 60


def wide(x):
    """Return an array of mpmath numbers."""
    return np.vectorize(mp.mpf, otypes=[object])(np.asarray(x, dtype=float))


def matrix_of(preference, data):
    """Return the matrix of a preference from its data, in all digits."""
    if isinstance(preference, wg.BradleyTerryPreference):
        r = data["reward"]
        scale = mp.mpf(preference.scale)
        return np.array([[1 / (1 + mp.exp((b - a) / scale)) for b in r] for a in r], dtype=object)
    if isinstance(preference, wg.LowRankPreference):
        return mp.mpf(0.5) + data["embedding"] @ data["skew"] @ data["embedding"].T
    return data["matrix"]


def data_of(game):
    """Return all that a game is made of, in all digits."""
    p = game.preference
    names = p.data or ("matrix",)
    data = {name: wide(p.matrix() if name == "matrix" else getattr(p, name)) for name in names}
    return data | {"log_ref": wide(game.log_ref), "beta": mp.mpf(game.beta)}


def payoff(game, data, z):
    q = np.array([mp.exp(x) for x in z], dtype=object)
    if isinstance(game, wg.BestOfNGame) and game.n != 2:
        assert isinstance(game.preference, wg.RewardPreference)
        r = wide(game.preference.reward)
        n = mp.mpf(game.n)
        out = []
        for y in r:
            mass, low = sum(q[r == y]), sum(q[r < y], mp.mpf(0))
            power = mass**n if low == 0 else low**n * mp.expm1(n * mp.log1p(mass / low))  # F^n - F_-^n
            out.append(mp.log(power / (n * mass)) / (n - 1))
        return np.array(out, dtype=object)
    win = matrix_of(game.preference, data) @ q
    return win if isinstance(game, wg.WinRateGame) else np.array([mp.log(w) for w in win], dtype=object)


def normalized(z):
    top = max(z)
    total = top + mp.log(sum(mp.exp(x - top) for x in z))
    return np.array([x - total for x in z], dtype=object)


def equilibrium(game, data, start):
    """Newton with a Jacobian by differences, from a policy that is nearly there."""
    z, m = normalized(wide(start)), len(start)
    step = mp.mpf(10) ** (-DIGITS // 3)

    def residual(x):
        x = normalized(x)
        return x - normalized(data["log_ref"] + payoff(game, data, x) / data["beta"])

    for _ in range(12):
        r = residual(z)
        if max(abs(x) for x in r) < mp.mpf(10) ** (-DIGITS + 12):
            return z
        J = mp.matrix(m, m)
        for j in range(m):
            ahead = z.copy()
            ahead[j] += step
            column = (residual(ahead) - r) / step
            for i in range(m):
                J[i, j] = column[i]
        for i in range(m):  # normalisation: the residual does not see a constant
            for j in range(m):
                J[i, j] += 1
        dz = mp.lu_solve(J, mp.matrix([-x for x in r]))
        z = normalized(z + np.array(list(dz), dtype=object))
    raise AssertionError(f"no equilibrium to {DIGITS} digits: residual {max(abs(x) for x in residual(z))}")


def exact(game, start):
    """Return the equilibrium's log-probabilities, right to the last bit, from a policy that is nearly there.

    With ``beta > 0`` a win-rate game has one equilibrium (theory 2.1), so it does not matter whose policy `start` is.
    """
    with mp.workdps(DIGITS):
        return equilibrium(game, data_of(game), start).astype(float)


def derivative(game, tangents, start):
    """Return the tangent of the log-probabilities, by a difference in many digits."""
    with mp.workdps(DIGITS):
        data, h = data_of(game), mp.mpf(10) ** (-DIGITS // 3)
        ends = []
        for sign in (1, -1):
            moved = {k: v + sign * h * (wide(tangents[k]) if k in tangents else 0) for k, v in data.items()}
            ends.append(equilibrium(game, moved, start))
        return ((ends[0] - ends[1]) / (2 * h)).astype(float)
