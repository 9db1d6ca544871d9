"""Equilibria in sixty digits, from the definition alone: an oracle for certificates in double precision."""

from decimal import Context, Decimal, localcontext

import numpy as np

DIGITS = 60
STEP = Decimal(10) ** -25
"""Of the difference quotients; their error of the same order is that of one step of Newton's method, relatively."""


def exact(x):
    """Return nested lists of decimals, equal to the floats."""
    return [exact(y) for y in x] if np.ndim(x) else Decimal(float(x))


def reward_matrix(reward, tie):
    one = {True: Decimal(1), False: Decimal(0)}
    return [[Decimal(tie) if a == b else one[bool(a > b)] for b in reward] for a in reward]


def bradley_terry_matrix(reward, scale):
    r = exact(reward)
    return [[1 / (1 + ((b - a) / Decimal(scale)).exp()) for b in r] for a in r]


def low_rank_matrix(embedding, skew):
    a, J = exact(embedding), exact(skew)
    k = range(len(J))
    return [[Decimal("0.5") + sum(x[s] * J[s][t] * y[t] for s in k for t in k) for y in a] for x in a]


def constant_sum_part(P):
    """Theory 2.8: the game that is certified."""
    m = range(len(P))
    return [[(1 + P[i][j] - P[j][i]) / 2 for j in m] for i in m]


def win_rate(P):
    return lambda pi: [sum(a * b for a, b in zip(row, pi, strict=True)) for row in P]


def log_win_rate(P):
    return lambda pi: [sum(a * b for a, b in zip(row, pi, strict=True)).ln() for row in P]


def best_of_n(reward, n):
    """Theory 3.6, with masses of responses that are not better, and worse."""
    n = Decimal(n)

    def payoff(pi):
        out = []
        for r in reward:
            F = sum(p for p, s in zip(pi, reward, strict=True) if s <= r)
            below = sum((p for p, s in zip(pi, reward, strict=True) if s < r), Decimal(0))
            mass = sum(p for p, s in zip(pi, reward, strict=True) if s == r)
            if mass > below * Decimal(10) ** -20:
                mean = (F**n - below**n) / (n * mass)
            else:  # the first terms of the series in mass/below, which the difference would cancel
                e = mass / below
                mean = below ** (n - 1) * (1 + (n - 1) / 2 * e * (1 + (n - 2) / 3 * e))
            out.append(mean.ln() / (n - 1))
        return out

    return payoff


def policy(z):
    weights = [x.exp() for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def equilibrium(payoff, ref, beta, start):
    """Return log(pi/pi_0) of the equilibrium by Newton's method with difference quotients; None if it fails."""
    with localcontext(Context(prec=DIGITS, Emin=-(10**9), Emax=10**9)):
        log_ref, beta = [x.ln() for x in exact(ref)], Decimal(float(beta))
        z = exact(start)
        z = [x - z[0] for x in z]

        def residual(z):
            u = payoff(policy(z))
            return [z[i] - log_ref[i] + log_ref[0] - (u[i] - u[0]) / beta if i else Decimal(0) for i in range(len(z))]

        for _ in range(12):
            r = residual(z)
            columns = []
            for k in range(1, len(z)):
                moved = list(z)
                moved[k] += STEP
                columns.append([(b - a) / STEP for a, b in zip(r, residual(moved), strict=True)][1:])
            step = solve([list(row) for row in zip(*columns, strict=True)], [-x for x in r[1:]])
            if step is None:
                return None
            z = [z[0], *(a + b for a, b in zip(z[1:], step, strict=True))]
            if max(map(abs, step), default=Decimal(0)) < Decimal(10) ** -30:
                return z
        return None


def solve(A, b):
    """Solve a linear system by elimination with pivoting."""
    n = len(b)
    rows = [[*row, x] for row, x in zip(A, b, strict=True)]
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        if rows[pivot][k] == 0:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, n):
            f = rows[i][k] / rows[k][k]
            rows[i] = [x - f * y for x, y in zip(rows[i], rows[k], strict=True)]
    x = [Decimal(0)] * n
    for k in reversed(range(n)):
        x[k] = (rows[k][n] - sum((rows[k][j] * x[j] for j in range(k + 1, n)), Decimal(0))) / rows[k][k]
    return x


def distances(log_policy, z):
    """Return the Hilbert distance, and KL(policy || exact), of a policy in double precision."""
    with localcontext(Context(prec=DIGITS, Emin=-(10**9), Emax=10**9)):
        p, q = policy(exact(log_policy)), policy(z)
        d = [(a / b).ln() for a, b in zip(p, q, strict=True)]
        return max(d) - min(d), sum(a * x for a, x in zip(p, d, strict=True))
