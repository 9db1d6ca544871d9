"""Winners in exact rational arithmetic, for games of a few responses: an oracle that shares nothing with windgames."""

from fractions import Fraction
from itertools import combinations

import numpy as np


def fractions_of(P):
    """Return twice P - 1/2, skew, as exact fractions of the floats in P (half the difference with the transpose)."""
    m = len(P)
    return [[Fraction(float(P[i, j])) - Fraction(float(P[j, i])) for j in range(m)] for i in range(m)]


def solve(rows, right):
    """Return the solution of a square system of fractions, or None if it is singular."""
    n = len(rows)
    T = [[*row, b] for row, b in zip(rows, right, strict=True)]
    for k in range(n):
        pivot = next((i for i in range(k, n) if T[i][k] != 0), None)
        if pivot is None:
            return None
        T[k], T[pivot] = T[pivot], T[k]
        T[k] = [x / T[k][k] for x in T[k]]
        for i in range(n):
            if i != k and T[i][k] != 0:
                T[i] = [x - T[i][k] * y for x, y in zip(T[i], T[k], strict=True)]
    return [row[-1] for row in T]


def vertices(A):
    """Return all vertices of the polytope of winners, x >= 0, Ax <= 0, sum x = 1.

    Of all choices of m - 1 tight inequalities floating point picks those that may give a vertex, and fractions decide.
    """
    m = len(A)
    if m == 1:
        return [[Fraction(1)]]
    B = np.array([[float(x) for x in row] for row in A])
    tight = np.array(list(combinations(range(2 * m), m - 1)), dtype=int).reshape(-1, m - 1)
    lines = np.concatenate([np.eye(m), B])
    systems = np.concatenate([lines[tight], np.ones((len(tight), 1, m))], axis=1)
    regular = np.flatnonzero(np.abs(np.linalg.det(systems)) > 1e-13)
    right = np.zeros((m, 1))
    right[-1] = 1
    x = np.linalg.solve(systems[regular], np.broadcast_to(right, (len(regular), m, 1)))[..., 0]
    candidates = regular[np.all(x >= -1e-9, axis=1) & np.all(x @ B.T <= 1e-9, axis=1)]
    exact_lines = [[Fraction(int(i == j)) for j in range(m)] for i in range(m)] + A
    found, seen = [], set()
    for k in candidates:
        rows = [exact_lines[i] for i in tight[k]] + [[Fraction(1)] * m]
        y = solve(rows, [Fraction(0)] * (m - 1) + [Fraction(1)])
        if y is None or tuple(y) in seen:
            continue
        if min(y) >= 0 and all(sum(a * b for a, b in zip(row, y, strict=True)) <= 0 for row in A):
            seen.add(tuple(y))
            found.append(y)
    return found


def gain(A, policy):
    """Return the largest gain of a deviation, exactly, of a policy given in floats (normalised exactly)."""
    p = [Fraction(float(x)) for x in policy]
    total = sum(p)
    return max(sum(a * b for a, b in zip(row, p, strict=True)) for row in A) / (2 * total)
