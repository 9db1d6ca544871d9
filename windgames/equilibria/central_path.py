r"""The central path of a constant-sum game with entropy, by a predictor and a corrector (theory 6.7).

Around the equilibrium of the win-rate game with price :math:`\beta\ge0` lies the curve of the :math:`x` in the simplex
with

.. math:: t_i = v - (Ax)_i + \beta\log(x_i/\rho_i) > 0,\qquad x_it_i = \mu,

:math:`A=P-\frac12`. It ends, as :math:`\mu\to0`, at the equilibrium, or at ``beta = 0`` among the winners with the
largest support there is. Unlike the path in beta it is followed in some ten strides whatever the price and the
reference are.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs

STRIDES = 80
"""Far more than have ever been needed; a context that needs more ends where it is."""
ITERATED, PRODUCTS = 200, 30
"""From so many responses on a single system is tried by conjugate gradients, at most so many iterations of two products
each. A factorisation costs as much as some thirty of them."""


def central_path(
    A: np.ndarray, log_ref: np.ndarray, beta: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Follow the path of each context from the uniform policy until :math:`m\mu` is at most `stop`.

    Parameters
    ----------
    A : array, shape ``(n, m, m)`` or ``(1, m, m)`` for all contexts
        Preferences less a half.
    log_ref : array, shape ``(n, m)``
        Finite log-probabilities. They do not count where ``beta = 0``.
    beta, stop : array, shape ``(n,)``

    Returns
    -------
    x, t : array, shape ``(n, m)``
        Policy and slack.
    systems : array of int, shape ``(n,)``
        Linear systems that were set up.
    """
    n, m = log_ref.shape
    x, price = np.full((n, m), 1 / m), beta[:, None]
    level = gains(A, x) - price * (np.log(x) - log_ref)
    top = np.max(level, axis=-1, keepdims=True)
    v = top + np.maximum(np.ptp(level, axis=-1, keepdims=True), 1e-3)
    t = v - level
    systems, active = np.zeros(n, dtype=int), np.arange(n)
    patient = m >= ITERATED and n == 1
    for _ in range(STRIDES):
        active = active[np.sum(x[active] * t[active], axis=-1) > stop[active]]
        if not active.size:
            break
        i = active
        matrix, here, slack, cost = (A if len(A) == 1 else A[i]), x[i], t[i], price[i]
        mu = np.mean(here * slack, axis=-1, keepdims=True)
        off = v[i] - gains(matrix, here) + cost * (np.log(here) - log_ref[i]) - slack
        # at the end of a path that is followed too far systems are singular: such steps are not taken
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            solve = _System(matrix, (cost + slack) / here, patient)
            ones = solve(np.ones_like(here))
            dx, dt, _ = _newton(solve, ones, off, here, slack, np.zeros_like(here))
            size = _inside(here, dx, slack, dt, 1.0)
            left = np.mean((here + size * dx) * (slack + size * dt), axis=-1, keepdims=True)
            # a corrector: towards the centre as far as the predictor did not get, with its second-order term
            dx, dt, dv = _newton(solve, ones, off, here, slack, (left / mu) ** 3 * mu - dx * dt)
            size = _inside(here, dx, slack, dt, 0.99)
        sane = np.all(np.isfinite(dx) & np.isfinite(dt), axis=-1) & (size[:, 0] > 1e-10)
        systems[i] += 1
        patient = solve.patient
        i, size, dx, dt, dv = i[sane], size[sane], dx[sane], dt[sane], dv[sane]
        x[i], t[i], v[i] = x[i] + size * dx, t[i] + size * dt, v[i] + size * dv
        active = i
    return x, t, systems


def _newton(
    solve: _System, ones: np.ndarray, off: np.ndarray, x: np.ndarray, t: np.ndarray, aim: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps of `x`, `t` and `v` that take `off` to zero and the products `x t` to `aim`, to first order."""
    dx = solve(-off + (aim - x * t) / x)
    dv = np.sum(dx, axis=-1, keepdims=True) / np.sum(ones, axis=-1, keepdims=True)
    dx -= dv * ones
    return dx, (aim - x * t - t * dx) / x, dv


def gains(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the products `A x` of all contexts, of one matrix for all or of one each."""
    return x @ A[0].T if len(A) == 1 else (A @ x[..., None])[..., 0]


def _inside(x: np.ndarray, dx: np.ndarray, t: np.ndarray, dt: np.ndarray, share: float) -> np.ndarray:
    """Return the step, at most a full one, that goes at most a share of the way to where `x` or `t` has a zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.minimum(np.where(dx < 0, -x / dx, np.inf), np.where(dt < 0, -t / dt, np.inf))
    return np.minimum(1.0, share * np.min(room, axis=-1, keepdims=True))


class _System:
    r"""Solves :math:`(\mathrm{diag}(e)-A)x=g` for several `g`, one context a row."""

    def __init__(self, A: np.ndarray, e: np.ndarray, patient: bool) -> None:
        self.A, self.e, self.patient = A, e, patient
        self.factors: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, g: np.ndarray) -> np.ndarray:
        if self.patient:
            root = 1 / np.sqrt(self.e[0])
            b = root * g[0]
            y = few_products(self.A[0], root, b, 1e-5 * float(np.linalg.norm(b)))
            if y is not None:
                return (root * y)[None]
            self.patient = False
        if not self.factors:
            index = np.arange(self.e.shape[-1])
            for k, e in enumerate(self.e):
                matrix = -self.A[k if len(self.A) > 1 else 0]
                matrix[index, index] += e
                self.factors.append(dgetrf(matrix)[:2])
        return np.stack([dgetrs(*lu, b)[0] for lu, b in zip(self.factors, g, strict=True)])


def few_products(
    A: np.ndarray, root: np.ndarray, b: np.ndarray, enough: float, normal: np.ndarray | None = None
) -> np.ndarray | None:
    r"""Solve :math:`(I-K)y=b` by conjugate gradients to an error of `enough`, or return None where they are slow.

    :math:`K=RAR` with the diagonal `root` and `A` skew, on the complement of the unit vector `normal` if there is one.
    What is iterated is :math:`(I+K^\top K)y=(I+K)b`, whose residual bounds the error.
    """

    def turned(y: np.ndarray) -> np.ndarray:
        y = root * (A @ (root * y))
        return y if normal is None else y - normal * (normal @ y)

    y, left = np.zeros_like(b), b + turned(b)
    move, size = left.copy(), float(left @ left)
    for _ in range(PRODUCTS):
        if size <= enough**2:
            return y
        image = move - turned(turned(move))
        length = size / float(move @ image)
        y += length * move
        left -= length * image
        before, size = size, float(left @ left)
        move = left + (size / before) * move
    return y if size <= enough**2 else None
