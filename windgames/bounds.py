r"""Rates, thresholds and constants of the theory as functions; `theory.md` has the proofs.

Arguments broadcast like numpy arrays unless said otherwise.
"""

from __future__ import annotations

from math import inf, lgamma
from typing import Any

import numpy as np

from ._validation import fraction, numbers, positive

# -- best-of-n ---------------------------------------------------------------------------------------------


def _mixing(n: Any, alpha1: Any, alpha2: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, alpha1, alpha2 = numbers(n, "n"), numbers(alpha1, "alpha1"), numbers(alpha2, "alpha2")
    if not np.all((n > 1) & (n < inf)):
        raise ValueError(f"n must be a finite number above 1, but it is {n}.")
    if not np.all((alpha1 > 0) & (alpha2 >= 0) & (alpha1 + alpha2 <= 1 + 1e-12)):
        raise ValueError(
            f"alpha1 must be positive, alpha2 non-negative and their sum at most 1, "
            f"but alpha1 = {alpha1}, alpha2 = {alpha2}."
        )
    return n, alpha1, alpha2


def implied_beta(n: Any, alpha1: Any, alpha2: Any = 0.0) -> Any:
    r"""Return :math:`\beta = (1-\alpha_1-\alpha_2)/((n-1)\alpha_1)` of iterative best-of-n (theory 3.5, paper).

    Raises
    ------
    ValueError
        If ``n <= 1`` or the weights lie outside the simplex or ``alpha1 = 0``.
    """
    n, alpha1, alpha2 = _mixing(n, alpha1, alpha2)
    # Weights that sum to 1 up to rounding (1e-12) mean beta = 0.
    with np.errstate(over="ignore"):
        return (np.maximum(0.0, 1 - alpha1 - alpha2) / (n - 1) / alpha1)[()]


def implied_eta(n: Any, alpha1: Any, alpha2: Any = 0.0) -> Any:
    r"""Return :math:`\eta = (n-1)\alpha_1/(\alpha_1+\alpha_2)`, the step of WIND that iterative best-of-n takes.

    Theory 3.5 (derived). Raises ValueError as `implied_beta`.
    """
    n, alpha1, alpha2 = _mixing(n, alpha1, alpha2)
    return ((n - 1) * alpha1 / (alpha1 + alpha2))[()]


def best_of_n_contraction(n: Any, alpha1: Any, alpha2: Any = 0.0) -> Any:
    r"""Return :math:`n\alpha_1+\alpha_2`, the Hilbert-metric factor of a step of iterative best-of-n.

    Theory 3.7 (derived); below 1 exactly if the implied `beta` is above 1. Raises ValueError as `implied_beta`.
    """
    n, alpha1, alpha2 = _mixing(n, alpha1, alpha2)
    return (n * alpha1 + alpha2)[()]


def best_of_n_kl_bound(n: Any) -> Any:
    r"""Return :math:`\log n - (n-1)/n \ge KL(B_n(\pi)\|\pi)` for every policy (theory 3.4, derived).

    For a reward and real :math:`n\ge1`, and for ``n = 2`` with any constant-sum preference. Raises ValueError if `n`
    is below 1 or not finite.
    """
    n = numbers(n, "n")
    if not np.all((n >= 1) & (n < inf)):
        raise ValueError(f"n must be finite and at least 1, but it is {n}.")
    return (np.log(n) - (n - 1) / n)[()]


# -- constants of a preference -----------------------------------------------------------------------------


def _square(matrix: Any) -> np.ndarray:
    matrix = numbers(matrix, "matrix")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or 0 in matrix.shape:
        raise ValueError(f"matrix must have shape (..., m, m), but its shape is {matrix.shape}.")
    if not np.all(np.isfinite(matrix)) or np.any(matrix < 0):
        bad = matrix[~(np.isfinite(matrix) & (matrix >= 0))][0]
        raise ValueError(f"matrix must hold finite non-negative entries, but it holds {bad}.")
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
    for rewards and Bradley-Terry (theory 5.3), 0 if the game is a decision problem. Raises ValueError if the matrix
    is not square or holds a negative or non-finite entry. O(m^3) time, O(m^2) memory per context.
    """
    return (_largest_row_span(_square(matrix)) / 2)[()]


def interaction_bound(matrix: Any) -> Any:
    r"""Return an upper bound of :math:`L` in O(m^2) time, shape ``(...)``; at most 1 for entries in [0, 1].

    :math:`\max_i\mathrm{span}(P_i-c)` for any row of numbers `c`, since the span of a difference of two rows is at most
    the sum of two such spans; the smaller one of zeros and the middle of each column. Raises ValueError as
    `interaction_constant`.
    """
    matrix = _square(matrix)
    middle = (np.max(matrix, axis=-2, keepdims=True) + np.min(matrix, axis=-2, keepdims=True)) / 2
    return np.minimum(*(np.max(np.ptp(matrix - c, axis=-1), axis=-1) for c in (0.0, middle)))[()]


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


def wind_max_step(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`4\beta/L^2`, the largest step for which WIND's rate is proven (theory 5.2, derived).

    The paper's is :math:`\beta`. Infinite at ``L = 0``, where one best response is the solution; 0 at ``beta = 0``.
    Raises ValueError if `beta` is negative or not finite, or `interaction` outside [0, 1].
    """
    beta, interaction = positive(beta, "beta", zero=True), fraction(interaction, "interaction")
    free = (interaction == 0) & (beta > 0)
    safe = np.where(interaction == 0, 1.0, interaction)
    with np.errstate(over="ignore"):  # a step too large for a float is infinite
        return np.where(free, inf, 4 * beta / safe / safe)[()]


def extragradient_max_step(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`2(\beta+\sqrt{\beta^2+L^2})/L^2`, the extragradient's largest step (theory 5.4, derived).

    Infinite at ``L = 0``. Raises ValueError as `wind_max_step`.
    """
    beta, interaction = positive(beta, "beta", zero=True), fraction(interaction, "interaction")
    safe = np.where(interaction == 0, 1.0, interaction)
    with np.errstate(over="ignore"):
        return np.where(interaction == 0, inf, 2 * (beta + np.hypot(beta, safe)) / safe / safe)[()]


def linear_rate(beta: Any, eta: Any) -> Any:
    r"""Return :math:`1/(1+\beta\eta)`, the factor a step of :math:`KL(\pi^*\|\pi_t)` (theory 5.1, 5.2, 5.4).

    1 at ``beta = 0``: no rate. Raises ValueError if `beta` is negative or `eta` not positive; ``eta = inf`` is allowed.
    """
    beta, eta = np.broadcast_arrays(positive(beta, "beta", zero=True), positive(eta, "eta", infinite=True))
    with np.errstate(over="ignore"):
        return (1 / (1 + beta * np.where(beta == 0, 1.0, eta)))[()]


def geometric_bound(initial: Any, factor: Any, steps: Any, floor: Any = 0.0) -> Any:
    r"""Return ``factor**steps * initial + floor`` with the steps along a new last axis.

    An infinite `initial` bounds nothing at any step. Raises ValueError if an argument is NaN or negative.
    """
    initial = positive(initial, "initial", zero=True, infinite=True)[..., None]
    factor = positive(factor, "factor", zero=True)[..., None]
    floor = positive(floor, "floor", zero=True, infinite=True)[..., None]
    with np.errstate(over="ignore"):  # a bound beyond the largest float is infinite
        power = factor ** positive(steps, "steps", zero=True)
        empty = np.isinf(initial) | np.isinf(floor)
        start = np.where(np.isinf(initial), 0.0, initial)
        return np.where(empty, inf, np.where(start == 0, 0.0, np.where(start == 0, 1.0, power) * start) + floor)


def inexact_floor(beta: Any, eps: Any) -> Any:
    r"""Return :math:`(\epsilon/\beta)^2`, WIND's worst floor under payoff errors of half-span `eps` (theory 5.5).

    Derived, for :math:`\eta\le2\beta/L^2`; the errors may be chosen by an adversary. Raises ValueError if `beta` is
    not positive or `eps` negative.
    """
    with np.errstate(over="ignore"):
        return (positive(eps, "eps", zero=True) / positive(beta, "beta")) ** 2


def noise_floor(beta: Any, eta: Any, eps: Any) -> Any:
    r"""Return :math:`\eta\epsilon^2/(\beta(1+\beta\eta))`, the floor of the mean under unbiased errors (theory 5.6).

    Derived, for :math:`\eta\le4\beta/L^2`. Raises ValueError if `beta` or `eta` is not positive or `eps` negative.
    """
    beta, eta, eps = positive(beta, "beta"), positive(eta, "eta"), positive(eps, "eps", zero=True)
    with np.errstate(over="ignore"):
        return (eps / beta * (eps / (1 / eta + beta)))[()]


def wind_decaying_step(t: Any, beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`\eta_t=\frac2{\beta(t+t_0)}`, :math:`t_0=\max(1,L^2/(2\beta^2))`, for sampled WIND (theory 7.7).

    At most :math:`4\beta/L^2`, and small enough later on that the noise averages out. Derived. Raises ValueError if
    `beta` is not positive, `t` negative or `interaction` outside [0, 1].
    """
    beta, t0 = _decay(beta, interaction)
    return (2 / (beta * (positive(t, "t", zero=True) + t0)))[()]


def decaying_bound(initial: Any, t: Any, beta: Any, eps: Any, interaction: Any = 1.0) -> Any:
    r"""Return the bound on :math:`E\,KL(\pi^*\|\pi_t)` under `wind_decaying_step` and unbiased errors (theory 7.7).

    .. math:: \frac{t_0(t_0+1)\,KL_0+4\epsilon^2t/\beta^2}{(t+t_0)(t+t_0+1)}

    `eps` bounds the root mean square of the error's half-span: where every response meets the same draws, `L` of a
    judge who is certain and 1 of one who tosses coins. Derived. Raises ValueError as `wind_decaying_step`, and if
    `initial` or `eps` is negative.
    """
    beta, t0 = _decay(beta, interaction)
    t, initial, eps = (positive(x, name, zero=True) for x, name in ((t, "t"), (initial, "initial"), (eps, "eps")))
    with np.errstate(over="ignore"):
        share = t0 / (t + t0) * ((t0 + 1) / (t + t0 + 1))
        return (share * initial + 4 * (eps / beta) ** 2 * (t / (t + t0) / (t + t0 + 1)))[()]


def _decay(beta: Any, interaction: Any) -> tuple[np.ndarray, np.ndarray]:
    beta, interaction = positive(beta, "beta"), fraction(interaction, "interaction")
    with np.errstate(over="ignore"):
        return beta, np.minimum(np.maximum(1.0, (interaction / beta) ** 2 / 2), 1e300)


def coverage_floor(beta: Any, eps: Any, concentrability: Any) -> Any:
    r"""Return :math:`2\sqrt C\,\epsilon/\beta`, WIND's floor under errors bounded in the mean square (theory 7.8).

    `eps` is the root mean square error of the win rates under the current policy, `concentrability` a bound on
    :math:`E_{\pi_t}(q/\pi_t)^2` for the equilibrium and the next policy. Derived, for :math:`\eta\le4\beta/L^2`. Raises
    ValueError if `beta` is not positive, `eps` negative or `concentrability` below 1.
    """
    C = numbers(concentrability, "concentrability")
    if not np.all(C >= 1):
        raise ValueError(f"concentrability must be at least 1, but it is {C}: a policy covers itself at 1.")
    return (2 * np.sqrt(C) * positive(eps, "eps", zero=True) / positive(beta, "beta"))[()]


def stability_bound(lipschitz: Any, curvature: Any, n: Any) -> Any:
    r"""Return :math:`2G^2/(\mu n)`, the expected generalisation gap of least squares over `n` prompts (theory 7.9).

    Raises ValueError if an argument is not positive (`lipschitz` may be 0).
    """
    lipschitz, curvature = positive(lipschitz, "lipschitz", zero=True), positive(curvature, "curvature")
    return (2 * lipschitz**2 / curvature / positive(n, "n"))[()]


def log_win_rate_error(w: Any, k: int) -> tuple[Any, Any]:
    r"""Return bias and standard deviation of :math:`\log\frac{B+1}{k+1}` as an estimate of :math:`\log w` (theory 7.6).

    `B` is binomial with `k` trials of probability `w`: iterative best-of-n by samples regresses onto such logarithms.
    Summed exactly. Raises ValueError if `w` lies outside (0, 1] or `k` is not a positive integer.
    """
    w = numbers(w, "w")
    if not np.all((w > 0) & (w <= 1)):
        raise ValueError(f"w must lie in (0, 1], but it is {w}.")
    if not (int(k) == k and k >= 1):
        raise ValueError(f"k must be a positive integer, but it is {k}.")
    k = int(k)
    b = np.arange(k + 1)
    choose = np.array([lgamma(k + 1) - lgamma(i + 1) - lgamma(k - i + 1) for i in b])
    p = w[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.where(b == k, 0.0, (k - b) * np.log1p(-p))
    law = np.exp(choose + b * np.log(p) + tail)
    value = np.log((b + 1) / (k + 1))
    mean = np.sum(law * value, axis=-1)
    spread = np.sum(law * (value - mean[..., None]) ** 2, axis=-1)
    return (mean - np.log(w))[()], np.sqrt(spread)[()]


def log_payoff_contraction(beta: Any, eta: Any, kappa: Any = 1.0) -> Any:
    r"""Return :math:`(1+\eta\kappa)/(1+\beta\eta)`, WIND's Hilbert-metric factor on a log payoff (theory 3.7).

    At ``eta = inf`` it is :math:`\kappa/\beta`, that of the best-response map. Below 1 for :math:`\beta>\kappa`.
    Derived. Raises ValueError if `beta` or `eta` is not positive or `kappa` outside [0, 1].
    """
    beta, eta = positive(beta, "beta"), positive(eta, "eta", infinite=True)
    kappa = fraction(kappa, "kappa")
    inverse_eta = 1 / eta  # 0 at eta = inf, and no overflow of beta eta
    return ((inverse_eta + kappa) / (inverse_eta + beta))[()]


# -- certificates ------------------------------------------------------------------------------------------


def hilbert_certificate_factor(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`1+L/(2\beta)`: :math:`h(\pi,\pi^*)` is at most that times the residual (theory 2.4).

    Derived, win-rate game. Raises ValueError if `beta` is not positive or `interaction` outside [0, 1].
    """
    interaction, beta = fraction(interaction, "interaction"), positive(beta, "beta")
    with np.errstate(over="ignore"):
        return (1 + interaction / beta / 2)[()]


def log_hilbert_certificate_factor(beta: Any, kappa: Any = 1.0) -> Any:
    r"""Return :math:`1/(1-\kappa/\beta)`, infinite for :math:`\beta\le\kappa` (theory 2.5, derived).

    For policies of full support. Raises ValueError if `beta` is not positive or `kappa` outside [0, 1].
    """
    beta, kappa = np.broadcast_arrays(positive(beta, "beta"), fraction(kappa, "kappa"))
    proven = beta > kappa
    return np.where(proven, beta / np.where(proven, beta - kappa, 1.0), inf)[()]


def kl_from_hilbert(h: Any) -> Any:
    r"""Return :math:`\min(h, h^2/8) \ge KL(p\|q)` for two policies at Hilbert distance `h` (theory 1.3, derived).

    Raises ValueError if `h` is negative or NaN; an infinite `h` bounds nothing.
    """
    h = positive(h, "h", zero=True, infinite=True)
    return (h * np.minimum(1.0, h / 8))[()]


# -- collapse and the two games at small beta --------------------------------------------------------------


def _top_mass(top_mass: Any) -> np.ndarray:
    """Return the mass; what exceeds 1 by at most 1e-12 is the rounding of a sum and counts as 1."""
    top_mass = numbers(top_mass, "top_mass")
    if not np.all((top_mass > 0) & (top_mass <= 1 + 1e-12)):
        raise ValueError(f"top_mass must lie in (0, 1], but it is {top_mass}.")
    return np.minimum(top_mass, 1.0)


def collapse_index(beta: Any, top_mass: Any) -> Any:
    r"""Return :math:`\frac{1-\rho_T}{\rho_T}\,\frac{s^s}{(1+s)^{1+s}}` with :math:`s=1/\beta-1` (theory 3.9, derived).

    Below 1, every equilibrium of the log-win-rate game (weak ties) puts all its mass on the responses of largest
    reward, whose reference mass is `top_mass`. Sharp for two responses. For ``0 < beta < 1``; at ``beta = 1`` the
    limit :math:`(1-\rho_T)/\rho_T`. Raises ValueError if `beta` lies outside (0, 1] or `top_mass` outside (0, 1].
    """
    beta, top = positive(beta, "beta"), _top_mass(top_mass)
    if np.any(beta > 1):
        raise ValueError(
            f"beta must be at most 1, but it is {beta}: above 1 there is an equilibrium of full support (theory 3.7)."
        )
    # s/(1 + s) = 1 - beta and 1/(1 + s) = beta, so s^s/(1 + s)^(1 + s) = beta (1 - beta)^s without cancellation.
    one = beta == 1
    exponent = np.where(one, 0.0, (1 - beta) * (np.log1p(-np.where(one, 0.0, beta)) / beta))
    with np.errstate(over="ignore"):
        return ((1 - top) * (beta / top) * np.exp(exponent))[()]


def win_rate_top_deficit(beta: Any, top_mass: Any) -> Any:
    r"""Return an upper bound on :math:`1-T`, `T` the win-rate equilibrium's mass on the best responses.

    .. math:: \operatorname{logit} T \ge \operatorname{logit}\rho_T + \frac{1}{2\beta},

    with equality where the reward takes two values (theory 4.1, derived; the implicit bound
    :math:`1-T\le\frac{1-\rho_T}{\rho_T}Te^{-T/(2\beta)}` is weaker). For a reward with half ties and ``beta > 0``.
    Computed without cancellation; below about ``beta = 1/1480`` it underflows to 0. Raises ValueError if `beta` is not
    positive and finite or `top_mass` outside (0, 1].
    """
    beta, top = np.broadcast_arrays(positive(beta, "beta"), _top_mass(top_mass))
    with np.errstate(divide="ignore", over="ignore"):
        return np.exp(-np.logaddexp(0.0, np.log(top) - np.log1p(-top) + 0.5 / beta))[()]


def win_rate_top_mass(beta: Any, top_mass: Any) -> Any:
    r"""Return a lower bound on the win-rate equilibrium's mass on the best responses (theory 4.1, derived).

    One minus `win_rate_top_deficit`, which see; it rounds to 1 where the deficit is below 1e-16.
    """
    return 1 - win_rate_top_deficit(beta, top_mass)


def equilibria_distance_bound(beta: Any, top_mass: Any) -> Any:
    r"""Return a bound on the total variation between the equilibria of the two games (theory 4.2, derived).

    Win-rate game with half ties against any equilibrium of the log-win-rate game with weak ties, one reward. Both
    are proportional to the reference on the best responses, so the distance is at most the larger mass they leave
    elsewhere: exponentially small in 1/beta where the log-win-rate game has collapsed (`collapse_index` below 1);
    elsewhere only the trivial ``1 - top_mass`` is proven. Raises ValueError as `win_rate_top_deficit`.
    """
    beta, top = np.broadcast_arrays(positive(beta, "beta"), _top_mass(top_mass))
    below = beta < 1
    index = collapse_index(np.where(below, beta, 0.5), top)
    collapsed = below & (index < 1)
    return np.where(collapsed, np.minimum(win_rate_top_deficit(beta, top), 1 - top), 1 - top)[()]
