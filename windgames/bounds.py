r"""Rates, thresholds and constants of the theory as functions; `theory.md` has the proofs.

Arguments broadcast like numpy arrays unless said otherwise.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import xlogy

# -- best-of-n ---------------------------------------------------------------------------------------------


def _check_mixing(n: float, alpha1: float, alpha2: float) -> None:
    if not 1 < n < inf:
        raise ValueError(f"n must be a finite number above 1, but it is {n}.")
    if not (alpha1 > 0 and alpha2 >= 0 and alpha1 + alpha2 <= 1 + 1e-12):
        raise ValueError(
            f"alpha1 must be positive, alpha2 non-negative and their sum at most 1, "
            f"but alpha1 = {alpha1}, alpha2 = {alpha2}."
        )


def implied_beta(n: float, alpha1: float, alpha2: float = 0.0) -> float:
    r"""Return :math:`\beta = (1-\alpha_1-\alpha_2)/((n-1)\alpha_1)` of iterative best-of-n (theory 3.5, paper).

    Raises
    ------
    ValueError
        If ``n <= 1`` or the weights lie outside the simplex or ``alpha1 = 0``.
    """
    _check_mixing(n, alpha1, alpha2)
    return max(0.0, 1 - alpha1 - alpha2) / ((n - 1) * alpha1)


def implied_eta(n: float, alpha1: float, alpha2: float = 0.0) -> float:
    r"""Return :math:`\eta = (n-1)\alpha_1/(\alpha_1+\alpha_2)`, the step of WIND that iterative best-of-n takes.

    Theory 3.5 (derived). Raises ValueError as `implied_beta`.
    """
    _check_mixing(n, alpha1, alpha2)
    return (n - 1) * alpha1 / (alpha1 + alpha2)


def best_of_n_contraction(n: float, alpha1: float, alpha2: float = 0.0) -> float:
    r"""Return :math:`n\alpha_1+\alpha_2`, the Hilbert-metric factor of a step of iterative best-of-n.

    Theory 3.7 (derived); below 1 exactly if the implied `beta` is above 1. Raises ValueError as `implied_beta`.
    """
    _check_mixing(n, alpha1, alpha2)
    return n * alpha1 + alpha2


def best_of_n_kl_bound(n: Any) -> Any:
    r"""Return :math:`\log n - (n-1)/n \ge KL(B_n(\pi)\|\pi)` for every policy (theory 3.4)."""
    n = np.asarray(n, dtype=float)
    if not np.all((n >= 1) & (n < inf)):
        raise ValueError(f"n must be finite and at least 1, but it is {n}.")
    return (np.log(n) - (n - 1) / n)[()]


# -- constants of a preference -----------------------------------------------------------------------------


def _square(matrix: Any) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or 0 in matrix.shape:
        raise ValueError(f"matrix must have shape (..., m, m), but its shape is {matrix.shape}.")
    if not np.all(np.isfinite(matrix)) or np.any(matrix < 0):
        raise ValueError("matrix must hold finite non-negative entries.")
    return matrix


def _largest_row_span(rows: np.ndarray) -> np.ndarray:
    """Return the largest span (max minus min) of the difference of two rows, in O(m^3) time, O(m^2) memory."""
    out = np.zeros(rows.shape[:-2])
    for i in range(rows.shape[-2] - 1):
        d = rows[..., i + 1 :, :] - rows[..., i : i + 1, :]
        out = np.maximum(out, np.max(np.max(d, axis=-1) - np.min(d, axis=-1), axis=-1))
    return out


def interaction_constant(matrix: Any) -> Any:
    r"""Return :math:`L = \frac12\max_{i,j,k,l}|P_{ij}-P_{kj}-P_{il}+P_{kl}|`, shape ``(...)`` (theory 5.2).

    How strongly one player's payoff reacts to the other's policy: at most 1 for entries in [0, 1], at most 1/2
    for rewards and Bradley-Terry (theory 5.3), 0 if the game is a decision problem.
    """
    return (_largest_row_span(_square(matrix)) / 2)[()]


def birkhoff_contraction(matrix: Any) -> Any:
    r"""Return Birkhoff's :math:`\kappa(P)=\tanh(\Delta/4)`, shape ``(...)`` (theory 3.7).

    :math:`\Delta = \log\max P_{ij}P_{kl}/(P_{kj}P_{il})`; 1 where two rows have different supports, 0 where all
    rows are proportional.

    Raises
    ------
    ValueError
        If a row is zero: then :math:`\log P\pi` is not defined.
    """
    matrix = _square(matrix)
    support = matrix > 0
    if not np.all(support.any(axis=-1)):
        raise ValueError("matrix must not have a zero row.")
    same = np.all(support == support[..., :1, :], axis=(-1, -2))
    # Columns that are zero in every row carry no ratio: any common value does.
    with np.errstate(divide="ignore"):
        logs = np.where(support, np.log(matrix), 0.0)
    # A common constant in empty columns would widen the span; take the row's own first entry of the support.
    first = np.take_along_axis(logs, np.argmax(support, axis=-1)[..., None], axis=-1)
    logs = np.where(support, logs, first)
    return np.where(same, np.tanh(_largest_row_span(logs) / 4), 1.0)[()]


# -- rates -------------------------------------------------------------------------------------------------


def _positive(x: Any, name: str, *, zero: bool = False, infinite: bool = False) -> np.ndarray:
    x = np.asarray(x, dtype=float)
    good = (x >= 0) if zero else (x > 0)
    if not np.all(good & ((x < inf) | infinite)):
        raise ValueError(f"{name} must be {'non-negative' if zero else 'positive'} and finite, but it is {x}.")
    return x


def _interaction(interaction: Any) -> np.ndarray:
    interaction = np.asarray(interaction, dtype=float)
    if not np.all((interaction >= 0) & (interaction <= 1)):
        raise ValueError(f"interaction must lie in [0, 1], but it is {interaction}.")
    return interaction


def wind_max_step(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`4\beta/L^2`, the largest step for which WIND's rate is proven (theory 5.2, derived).

    The paper's is :math:`\beta`. Infinite at ``L = 0``, where one best response is the solution; 0 at ``beta = 0``.
    """
    beta, interaction = _positive(beta, "beta", zero=True), _interaction(interaction)
    free = (interaction == 0) & (beta > 0)
    return np.where(free, inf, 4 * beta / np.where(interaction == 0, 1.0, interaction) ** 2)[()]


def extragradient_max_step(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`2(\beta+\sqrt{\beta^2+L^2})/L^2`, the extragradient's largest step (theory 5.4, derived)."""
    beta, interaction = _positive(beta, "beta", zero=True), _interaction(interaction)
    safe = np.where(interaction == 0, 1.0, interaction)
    return np.where(interaction == 0, inf, 2 * (beta + np.hypot(beta, safe)) / safe**2)[()]


def linear_rate(beta: Any, eta: Any) -> Any:
    r"""Return :math:`1/(1+\beta\eta)`, the factor a step of :math:`KL(\pi^*\|\pi_t)` (theory 5.1, 5.2, 5.4)."""
    return 1 / (1 + _positive(beta, "beta", zero=True) * _positive(eta, "eta", infinite=True))


def geometric_bound(initial: Any, factor: Any, steps: Any, floor: Any = 0.0) -> Any:
    r"""Return ``factor**steps * initial + floor`` with the steps along a new last axis."""
    initial, factor, floor = (np.asarray(x, dtype=float)[..., None] for x in (initial, factor, floor))
    return factor ** np.asarray(steps) * initial + floor


def inexact_floor(beta: Any, eps: Any) -> Any:
    r"""Return :math:`(\epsilon/\beta)^2`, WIND's worst floor under payoff errors of half-span `eps` (theory 5.5).

    For :math:`\eta\le2\beta`; the errors may be chosen by an adversary.
    """
    return (_positive(eps, "eps", zero=True) / _positive(beta, "beta")) ** 2


def noise_floor(beta: Any, eta: Any, eps: Any) -> Any:
    r"""Return :math:`\eta\epsilon^2/(\beta(1+\beta\eta))`, the floor of the mean under unbiased errors (theory 5.6)."""
    beta, eta = _positive(beta, "beta"), _positive(eta, "eta")
    return eta * _positive(eps, "eps", zero=True) ** 2 / (beta * (1 + beta * eta))


def log_payoff_contraction(beta: Any, eta: Any, kappa: Any = 1.0) -> Any:
    r"""Return :math:`(1+\eta\kappa)/(1+\beta\eta)`, WIND's Hilbert-metric factor on a log payoff (theory 3.7).

    At ``eta = inf`` it is :math:`\kappa/\beta`, that of the best-response map. Below 1 for :math:`\beta>\kappa`.
    """
    beta, eta = _positive(beta, "beta"), _positive(eta, "eta", infinite=True)
    return (1 / eta + kappa) / (1 / eta + beta)


# -- certificates ------------------------------------------------------------------------------------------


def hilbert_certificate_factor(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`1+L/(2\beta)`: :math:`h(\pi,\pi^*)` is at most that times the residual (theory 2.4)."""
    return 1 + _interaction(interaction) / (2 * _positive(beta, "beta"))


def log_hilbert_certificate_factor(beta: Any, kappa: Any = 1.0) -> Any:
    r"""Return :math:`1/(1-\kappa/\beta)`, infinite for :math:`\beta\le\kappa` (theory 2.5)."""
    beta, kappa = np.broadcast_arrays(_positive(beta, "beta"), _interaction(kappa))
    proven = beta > kappa
    return np.where(proven, beta / np.where(proven, beta - kappa, 1.0), inf)[()]


def kl_from_hilbert(h: Any) -> Any:
    r"""Return :math:`\min(h, h^2/8) \ge KL(p\|q)` for two policies at Hilbert distance `h` (theory 1.3)."""
    h = np.asarray(h, dtype=float)
    if not np.all(h >= 0):
        raise ValueError(f"A Hilbert distance is non-negative, but it is {h}.")
    return np.minimum(h, h * h / 8)[()]


# -- collapse and the two games at small beta --------------------------------------------------------------


def _top_mass(top_mass: Any) -> np.ndarray:
    top_mass = np.asarray(top_mass, dtype=float)
    if not np.all((top_mass > 0) & (top_mass <= 1)):
        raise ValueError(f"top_mass must lie in (0, 1], but it is {top_mass}.")
    return top_mass


def collapse_index(beta: Any, top_mass: Any) -> Any:
    r"""Return :math:`\frac{1-\rho_T}{\rho_T}\,\frac{s^s}{(1+s)^{1+s}}` with :math:`s=1/\beta-1` (theory 3.9, derived).

    Below 1, every equilibrium of the log-win-rate game (weak ties) puts all its mass on the responses of largest
    reward, whose reference mass is `top_mass`. Sharp for two responses. For ``0 < beta < 1``; at ``beta = 1`` the
    limit :math:`(1-\rho_T)/\rho_T`.
    """
    beta, top = _positive(beta, "beta"), _top_mass(top_mass)
    if np.any(beta > 1):
        raise ValueError(f"The collapse threshold is about beta <= 1, but beta is {beta}.")
    s = 1 / beta - 1
    return ((1 - top) / top * np.exp(xlogy(s, s) - xlogy(1 + s, 1 + s)))[()]


def win_rate_top_deficit(beta: Any, top_mass: Any) -> Any:
    r"""Return an upper bound on :math:`1-T`, `T` the win-rate equilibrium's mass on the best responses.

    The largest root-free reading of theory 4.1: with :math:`K=(1-\rho_T)/\rho_T` the logit `w` of `T` satisfies
    :math:`w \ge \sigma(w)/(2\beta) - \log K` and :math:`\sigma(w)\ge\rho_T`; this is :math:`1-\sigma` of the smallest
    such `w`. Computed without cancellation, down to 1e-300. For a reward with half ties and ``beta > 0``.
    """
    beta, top = np.broadcast_arrays(_positive(beta, "beta"), _top_mass(top_mass))
    out = np.empty(beta.shape)
    for index in np.ndindex(beta.shape):
        out[index] = _top_deficit(float(beta[index]), float(top[index]))
    return out[()]


def _top_deficit(beta: float, top: float) -> float:
    if top == 1:
        return 0.0
    start = np.log(top) - np.log1p(-top)  # logit of rho_T, which is - log K

    def sigma(w: float) -> float:
        return 1 / (1 + np.exp(-w)) if w >= 0 else np.exp(w) / (1 + np.exp(w))

    def g(w: float) -> float:  # allowed where g <= 0
        return sigma(w) / (2 * beta) + start - w

    # g' = sigma (1 - sigma)/(2 beta) - 1 changes sign at most twice, at sigma (1 - sigma) = 2 beta.
    edges = [start]
    if 8 * beta < 1:
        half = np.sqrt(1 - 8 * beta)
        # 1 - sigma and sigma at the critical points, product 2 beta
        high = (1 + half) / 2
        w = np.log(high) - np.log(2 * beta / high)
        edges += [x for x in (-w, w) if x > start]
    edges.append(start + 1 / (2 * beta) + 1)  # g < 0 there
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        if g(high) <= 0:
            w = brentq(g, low, high, xtol=1e-13, rtol=1e-14)
            # step back so that rounding cannot make the bound too small
            return sigma(-(w - 1e-12 * (1 + abs(w))))
    raise AssertionError("g is negative at the last edge")


def win_rate_top_mass(beta: Any, top_mass: Any) -> Any:
    r"""Return a lower bound on the win-rate equilibrium's mass on the best responses (theory 4.1, derived)."""
    return 1 - win_rate_top_deficit(beta, top_mass)


def equilibria_distance_bound(beta: Any, top_mass: Any) -> Any:
    r"""Return a bound on the total variation between the equilibria of the two games (theory 4.2, derived).

    Win-rate game with half ties against any equilibrium of the log-win-rate game with weak ties, one reward. Both
    are proportional to the reference on the best responses, so the distance is at most the larger mass they leave
    elsewhere: exponentially small in 1/beta where the log-win-rate game has collapsed (`collapse_index` below 1);
    elsewhere only the trivial ``1 - top_mass`` is proven.
    """
    beta, top = np.broadcast_arrays(_positive(beta, "beta"), _top_mass(top_mass))
    below = beta < 1
    index = collapse_index(np.where(below, beta, 0.5), top)
    collapsed = below & (index < 1)
    return np.where(collapsed, np.minimum(win_rate_top_deficit(beta, top), 1 - top), 1 - top)[()]
