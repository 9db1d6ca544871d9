r"""Rates, thresholds and constants of the theory as functions; `theory.md` has the proofs.

Arguments broadcast like numpy arrays unless noted otherwise.
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

    Theory 3.5 (derived). Raises ValueError like `implied_beta`.
    """
    n, alpha1, alpha2 = _mixing(n, alpha1, alpha2)
    return ((n - 1) * alpha1 / (alpha1 + alpha2))[()]


def best_of_n_contraction(n: Any, alpha1: Any, alpha2: Any = 0.0) -> Any:
    r"""Return :math:`n\alpha_1+\alpha_2`, the Hilbert-metric factor per step of iterative best-of-n.

    Theory 3.7 (derived); below 1 exactly if the implied `beta` is above 1. Raises ValueError like `implied_beta`.
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

    It measures how strongly one player's payoff reacts to the other's policy: at most 1 for entries in [0, 1], at most
    1/2 for rewards and Bradley-Terry (theory 5.3), 0 if the opponent's policy only shifts the payoff. Raises ValueError
    if the matrix is not square or holds a negative or non-finite entry. O(m^3) time, O(m^2) memory per context.
    """
    return (_largest_row_span(_square(matrix)) / 2)[()]


def interaction_bound(matrix: Any) -> Any:
    r"""Return an upper bound on :math:`L` in O(m^2) time, shape ``(...)``; at most 1 for entries in [0, 1].

    For any row `c`, :math:`L\le\max_i\mathrm{span}(P_i-c)`, since the span of a difference of two rows is at most the
    sum of their spans. This is the smaller of the bounds for ``c = 0`` and for `c` the midrange of each column. Raises
    ValueError like `interaction_constant`.
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
    with np.errstate(divide="ignore"):
        logs = np.where(support, np.log(matrix), 0.0)
    # In empty columns the row's first entry of the support stands in, which leaves the span unchanged.
    first = np.take_along_axis(logs, np.argmax(support, axis=-1)[..., None], axis=-1)
    logs = np.where(support, logs, first)
    return np.where(same, np.tanh(_largest_row_span(logs) / 4), 1.0)[()]


# -- rates -------------------------------------------------------------------------------------------------


def wind_max_step(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`4\beta/L^2`, the largest step for which WIND's rate is proven (theory 5.2, derived).

    The paper proves the rate up to :math:`\beta`. Infinite at ``L = 0``, where one best response is the solution; 0 at
    ``beta = 0``. Raises ValueError if `beta` is negative or not finite, or `interaction` outside [0, 1].
    """
    beta, interaction = positive(beta, "beta", zero=True), fraction(interaction, "interaction")
    free = (interaction == 0) & (beta > 0)
    safe = np.where(interaction == 0, 1.0, interaction)
    with np.errstate(over="ignore"):  # a step too large for a float is infinite
        return np.where(free, inf, 4 * beta / safe / safe)[()]


def extragradient_max_step(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`2(\beta+\sqrt{\beta^2+L^2})/L^2`, the extragradient's largest step (theory 5.4, derived).

    Infinite at ``L = 0``. Raises ValueError like `wind_max_step`.
    """
    beta, interaction = positive(beta, "beta", zero=True), fraction(interaction, "interaction")
    safe = np.where(interaction == 0, 1.0, interaction)
    with np.errstate(over="ignore"):
        return np.where(interaction == 0, inf, 2 * (beta + np.hypot(beta, safe)) / safe / safe)[()]


WIND_FAILS_BEYOND = 4.787882427
r"""Smallest `c` with a known counterexample to WIND's rate at :math:`\eta=c\beta/L^2` (theory 5.8); proven up to 4."""


def wind_counterexample(best: Any, start: Any) -> Any:
    r"""Return the `c` beyond which WIND's rate fails at :math:`\eta=c\beta/L^2` in the example of theory 5.8 (derived).

    .. math:: c(\epsilon,q)=\frac{2\,\mathrm{kl}(\epsilon\|q)}{(1-\epsilon)(q-\epsilon)^2}

    Rock-paper-scissors, equilibrium :math:`(\epsilon,\frac{1-\epsilon}2,\frac{1-\epsilon}2)`, start
    :math:`(q,\frac{1-q}2,\frac{1-q}2)`, large `beta`; `best` is :math:`\epsilon`, `start` :math:`q`, and kl is the
    binary divergence. Its minimum is `WIND_FAILS_BEYOND`. Raises ValueError unless both lie in (0, 1) and differ.
    """
    e, q = np.broadcast_arrays(fraction(best, "best"), fraction(start, "start"))
    if not np.all((e > 0) & (e < 1) & (q > 0) & (q < 1) & (e != q)):
        raise ValueError(f"best and start must lie in (0, 1) and differ, but they are {e} and {q}.")
    divergence = e * np.log(e / q) + (1 - e) * np.log((1 - e) / (1 - q))
    return (2 * divergence / ((1 - e) * (q - e) ** 2))[()]


def wind_late_step(beta: Any, interaction: Any = 1.0, distance: Any = 0.0) -> Any:
    r"""Return :math:`\frac{\pi^4}{16}\frac\beta{L^2}/(1+\frac23d)^2`, a step with WIND's rate near the equilibrium.

    Theory 5.9 (derived): :math:`d=\mathrm{TV}(\pi^*,\pi_t)` is the `distance` of the current policy, or any bound on it
    such as :math:`\sqrt{KL(\pi^*\|\pi_t)/2}`. At ``distance = 0`` it is 6.09 times :math:`\beta/L^2`; above 0.35
    `wind_max_step` is larger. Raises ValueError like `wind_max_step`, or if `distance` lies outside
    [0, 1].
    """
    d = fraction(distance, "distance")
    return (wind_max_step(beta, interaction) * (np.pi**4 / 64 / (1 + 2 * d / 3) ** 2))[()]


def optimistic_max_step(beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`(\beta+\sqrt{\beta^2+6L^2})/(3L^2)`, the largest step of `optimistic`.

    Theory 5.11 (derived). Infinite at ``L = 0``. Raises ValueError like `wind_max_step`.
    """
    beta, interaction = positive(beta, "beta", zero=True), fraction(interaction, "interaction")
    safe = np.where(interaction == 0, 1.0, interaction)
    with np.errstate(over="ignore"):
        return np.where(interaction == 0, inf, (beta + np.hypot(beta, np.sqrt(6) * safe)) / 3 / safe / safe)[()]


def tangent_frequencies(matrix: Any, policy: Any) -> np.ndarray:
    r"""Return the moduli of the eigenvalues of :math:`\Pi D^{1/2}AD^{1/2}\Pi` in descending order, shape ``(..., m)``.

    :math:`A` is the skew part of `matrix`, :math:`D=\mathrm{diag}(\pi)`, and :math:`\Pi` projects off
    :math:`\sqrt\pi`, to which the last value, 0, belongs. The first, :math:`\mu\le4L/3.14^2`, determines the rates of
    the rules near an equilibrium (theory 5.10), the last but one that of the proximal point method (theory 6.8;
    derived). Raises ValueError if the shapes do not fit.
    """
    A, p = _square(matrix), fraction(policy, "policy")
    if p.shape[-1:] != A.shape[-1:]:
        raise ValueError(f"policy must have {A.shape[-1]} entries, but its shape is {p.shape}.")
    A = (A - np.swapaxes(A, -1, -2)) / 2
    s = np.sqrt(p)
    s = s / np.linalg.norm(s, axis=-1, keepdims=True)
    K = s[..., :, None] * A * s[..., None, :]
    left = np.sum(s[..., :, None] * K, axis=-2, keepdims=True)  # s'K, and K s = -(s'K)' since K is skew
    K = K - s[..., :, None] * left + np.swapaxes(left, -1, -2) * s[..., None, :]
    return np.linalg.svd(K, compute_uv=False)


def local_rate(beta: Any, eta: Any, frequency: Any) -> Any:
    r"""Return :math:`(1+\eta^2\mu^2)/(1+\beta\eta)^2`, the factor per step that WIND's divergence approaches.

    Theory 5.10 (derived). `frequency` is the first of `tangent_frequencies` at the equilibrium. Above 1 the equilibrium
    repels. At ``eta = inf`` it is :math:`(\mu/\beta)^2`. Raises ValueError if `beta` or `eta` is not positive, or
    `frequency` negative.
    """
    beta, eta = positive(beta, "beta"), positive(eta, "eta", infinite=True)
    inverse, mu = 1 / eta, positive(frequency, "frequency", zero=True)
    return ((np.hypot(inverse, mu) / (inverse + beta)) ** 2)[()]


def local_max_step(beta: Any, frequency: Any) -> Any:
    r"""Return :math:`2\beta/(\mu^2-\beta^2)`, the step below which WIND's equilibrium attracts (theory 5.10, derived).

    Infinite for :math:`\mu\le\beta`. Raises ValueError if `beta` is not positive or `frequency` negative.
    """
    beta, mu = np.broadcast_arrays(positive(beta, "beta"), positive(frequency, "frequency", zero=True))
    unstable = mu > beta
    return np.where(unstable, 2 * beta / np.where(unstable, (mu - beta) * (mu + beta), 1.0), inf)[()]


def omwu_local_rate(eta: Any, frequency: Any, beta: Any = 0.0) -> Any:
    r"""Return the modulus of the larger root of :math:`(1+\beta\eta)\lambda^2-(1+2i\eta\sigma)\lambda+i\eta\sigma`.

    The factor of a step of `omwu` near an equilibrium of full support in a direction of that `frequency` (theory 5.12);
    the divergence falls with its square. Raises ValueError if an argument is negative or not finite.
    """
    eta, sigma = positive(eta, "eta"), positive(frequency, "frequency", zero=True)
    inverse, beta = 1 / eta, positive(beta, "beta", zero=True)
    x = 1j * sigma / (inverse + beta)
    middle = inverse / (inverse + beta) / 2 + x
    size = np.maximum(1.0, np.abs(x))  # whose square may overflow
    root = size * np.sqrt((middle / size) ** 2 - x / size / size)
    return np.maximum(np.abs(middle + root), np.abs(middle - root))[()]


def nash_md_floor(beta: Any, eta: Any, interaction: Any | None = None) -> Any:
    r"""Return the floor of Nash-MD's bound on :math:`KL(\pi^*\|\pi_t)` (theory 5.7, derived).

    From any start it is :math:`\frac1{\beta\eta}\log\frac{\sinh(\eta/2)}{\eta/2}\le\frac\eta{24\beta}`. For a start at
    the reference, if the `interaction` `L` is given, it is the minimum of that and, where
    :math:`\theta=\frac{L^2\eta}{4\beta(1-\beta\eta)}<1`, :math:`\frac{L^2\eta^2}{32\beta^2(1-\theta)}` (theory 5.13).
    Raises ValueError if `beta` or `eta` is not positive, :math:`\beta\eta\ge1`, or `interaction` lies outside [0, 1].
    """
    beta, eta = np.broadcast_arrays(positive(beta, "beta"), positive(eta, "eta"))
    if np.any(beta * eta >= 1):
        raise ValueError(f"Nash-MD needs beta * eta < 1, but it is {beta * eta}.")
    floor = log_moment_bound(eta) / beta / eta
    if interaction is None:
        return floor[()]
    L = fraction(interaction, "interaction")
    share = L**2 * eta / (4 * beta * (1 - beta * eta))
    small = share < 1
    second = inexact_floor(beta, L * eta / 4, np.where(small, share, 0.0))
    return np.where(small, np.minimum(floor, second), floor)[()]


def log_moment_bound(eta: Any) -> Any:
    r"""Return :math:`\log\frac{\sinh(\eta/2)}{\eta/2}\ge\log E_\pi e^{\eta(P\pi-1/2)}`, at most :math:`\eta^2/24`.

    For every constant-sum preference and policy (theory 3.13, derived), with equality for a reward without atoms; the
    general :math:`\eta^2/8` of Hoeffding's lemma is three times that. Raises ValueError if `eta` is negative.
    """
    x = positive(eta, "eta", zero=True) / 2
    small = x < 1e-2
    safe, x = np.where(small, 1.0, x), np.where(small, x, 0.0)
    large = safe + np.log1p(-np.exp(-2 * safe)) - np.log(2 * safe)
    return np.where(small, x**2 / 6 - x**4 / 180 + x**6 / 2835, large)[()]


def proximal_gap_bound(beta: Any, log_ref: Any, steps: Any) -> Any:
    r"""Return :math:`\beta\max\log(1/\rho_0)/K`, the gap of the average of `K` proximal steps (theory 6.8, derived).

    It is the gap :math:`\max P\bar\rho-\frac12` of the game at ``beta = 0``. `log_ref` has shape ``(..., m)``. Raises
    ValueError if `beta` is not positive or `steps` below 1.
    """
    steps = positive(steps, "steps")
    if np.any(steps < 1):
        raise ValueError(f"steps must be at least 1, but it is {steps}.")
    return (positive(beta, "beta") * np.max(-numbers(log_ref, "log_ref"), axis=-1) / steps)[()]


def proximal_local_rate(beta: Any, frequency: Any) -> Any:
    r"""Return :math:`1/(1+\sigma^2/\beta^2)`, the factor per proximal step of the divergence in the limit.

    In a direction of that `frequency` at an equilibrium of full support (theory 6.8, derived); directions of
    frequency 0 lead to other winners. Raises ValueError if `beta` is not positive or `frequency` negative.
    """
    beta, sigma = positive(beta, "beta"), positive(frequency, "frequency", zero=True)
    return ((beta / np.hypot(beta, sigma)) ** 2)[()]


def moving_local_rate(beta: Any, eta: Any, frequency: Any, every: Any) -> Any:
    r"""Return the factor per round of the divergence where WIND's reference is renewed every so many steps.

    .. math:: \frac{|1-(i\sigma/\beta)\lambda^k|^2}{1+\sigma^2/\beta^2},\qquad\lambda=\frac{1+i\eta\sigma}{1+\beta\eta}

    In a direction of that `frequency` at a winner of full support, with :math:`k` = `every` (theory 6.11, derived). For
    large `every`, where :math:`|\lambda|<1`, it tends to `proximal_local_rate`; above 1 the winner repels. Raises
    ValueError if `beta` or `eta` is not positive, `frequency` negative or `every` below 1.
    """
    beta, eta, sigma = positive(beta, "beta"), positive(eta, "eta"), positive(frequency, "frequency", zero=True)
    k = positive(every, "every")
    if np.any(k < 1):
        raise ValueError(f"every must be at least 1, but it is {k}.")
    inverse = 1 / eta
    with np.errstate(over="ignore", divide="ignore"):
        size = np.exp(k * np.log(np.hypot(inverse, sigma) / (inverse + beta)))
        # |beta - i sigma step^k|, by the law of cosines
        share = sigma * size / beta
        square = 1 + share * (share + 2 * np.sin(k * np.arctan2(sigma, inverse)))
        return np.where(share < inf, np.maximum(square, 0.0) * (beta / np.hypot(beta, sigma)) ** 2, inf)[()]


def moving_gap_bound(beta: Any, eta: Any, every: Any, log_ref: Any, rounds: Any, interaction: Any = 1.0) -> Any:
    r"""Return the gap of the average policy where WIND's reference is renewed every so many steps (theory 6.12).

    .. math:: \frac\beta K\max\log\frac1{\rho_0}+(\beta+\tfrac14)\epsilon_k,\qquad
              \epsilon_k=\frac{a^k}\beta+\frac{aL\eta}{2\beta}a^{\frac{k-1}2}\frac{1-a^{k/2}}{1-a^{1/2}},\quad
              a=\frac1{1+\beta\eta}

    Derived: it is the gap :math:`\max P\bar\rho-\frac12` of the game at ``beta = 0``, :math:`\bar\rho` the mean of the
    references after `rounds` :math:`K` rounds of `every` :math:`k` steps, from that of `log_ref`, shape ``(..., m)``.
    For :math:`\eta\le4\beta/L^2`; beyond that it is infinite. It tends to `proximal_gap_bound` for large `every`.
    Raises ValueError if `beta` or `eta` is not positive, `every` or `rounds` below 1 or `interaction` outside [0, 1].
    """
    k = positive(every, "every")
    if np.any(k < 1):
        raise ValueError(f"every must be at least 1, but it is {k}.")
    proximal = proximal_gap_bound(beta, log_ref, rounds)
    beta, eta, L = positive(beta, "beta"), positive(eta, "eta"), fraction(interaction, "interaction")
    half = np.log1p(beta * eta) / 2  # a = exp(-2 half)
    safe = np.where(half > 0, half, 1.0)
    series = np.where(half > 0, np.expm1(-k * safe) / np.expm1(-safe), k)
    error = np.exp(-2 * k * half) / beta + L * eta / (2 * beta) * np.exp(-(k + 1) * half) * series
    return np.where(eta > wind_max_step(beta, L) * (1 + 1e-12), inf, proximal + (beta + 0.25) * error)[()]


def comparisons_lower_bound(beta: Any, comparisons: Any) -> Any:
    r"""Return a lower bound on the expected divergence of every learner after that many random comparisons.

    Theory 7.12 (derived; Le Cam's two-point method): of two games with two responses, win rates
    :math:`\frac12\pm\delta` and :math:`\delta=1/(3\sqrt N)`, one has :math:`E\,KL(\pi^*\|\hat\pi)` of at least

    .. math:: \Big(1-\sqrt{N\delta\log\tfrac{1+2\delta}{1-2\delta}}\Big)
              \big(\log2-H(\sigma(\delta/\beta))\big)\approx\frac1{216\,\beta^2N},

    with `H` the binary entropy. Raises ValueError if `beta` is not positive or `comparisons` below 1.
    """
    N, beta = positive(comparisons, "comparisons"), positive(beta, "beta")
    if np.any(N < 1):
        raise ValueError(f"comparisons must be at least 1, but it is {N}.")
    delta = 1 / (3 * np.sqrt(N))
    distinguishable = np.sqrt(N * delta * 2 * np.arctanh(2 * delta))
    x = delta / beta
    # log 2 - H(sigmoid(x)) = x tanh(x/2)/2 - log cosh(x/2)
    half = x / 2
    gain = np.where(
        half < 1e-2, half**2 / 2 - half**4 / 4, half * np.tanh(half) - half - np.log1p(np.exp(-2 * half)) + np.log(2)
    )
    return ((1 - distinguishable) * gain)[()]


def wrong_judge_bound(beta: Any, eps: Any) -> Any:
    r"""Return :math:`(\epsilon/\beta)^2/2\ge KL(\pi^*\|\pi'^*)` for the equilibria under two judges.

    Theory 5.14 (derived). `eps` is half the span of :math:`(P'-P)\pi'^*`, or a bound on it such as the largest entry of
    :math:`|P'-P|`. The sum of both directions is at most twice that, :math:`\lVert\pi^*-\pi'^*\rVert_1` at most
    :math:`\epsilon/\beta`, and the gap of :math:`\pi'^*` in the true game at most `beta` times it. Raises ValueError
    like `inexact_floor`.
    """
    return inexact_floor(beta, eps, 0.0)


def hacking_beta(eps: Any, loss: Any) -> Any:
    r"""Return :math:`\epsilon^2/(4\delta)`, the `beta` that bounds what optimising a wrong judge can cost.

    From that `beta` on, the equilibrium under a judge of error `eps` (as in `wrong_judge_bound`) truly wins against the
    reference with probability at least :math:`\frac12-\delta`, `loss` being :math:`\delta` (theory 5.16, derived; the
    constant is attained). Raises ValueError if `eps` is negative or `loss` not positive.
    """
    with np.errstate(over="ignore"):
        return (positive(eps, "eps", zero=True) ** 2 / (4 * positive(loss, "loss")))[()]


def true_win_rate_bound(judged: Any, beta: Any, eps: Any) -> Any:
    r"""Return :math:`w-\epsilon\sqrt{(w-\frac12)/\beta}`, which the true win rate against the reference is at least.

    Theory 5.16 (derived): of the equilibrium under a judge of error `eps`, which sees the win rate `judged`, `w`. At
    least :math:`\frac12-\epsilon^2/(4\beta)`, and above one half from :math:`w=\frac12+\epsilon^2/\beta` on. Raises
    ValueError if `judged` lies outside [1/2, 1], `beta` is not positive or `eps` negative.
    """
    w = fraction(judged, "judged")
    if np.any(w < 0.5):
        raise ValueError(f"judged must be at least 1/2, but it is {w}: an equilibrium wins against its reference.")
    return (w - positive(eps, "eps", zero=True) * np.sqrt((w - 0.5) / positive(beta, "beta")))[()]


def linear_rate(beta: Any, eta: Any) -> Any:
    r"""Return :math:`1/(1+\beta\eta)`, the factor per step of :math:`KL(\pi^*\|\pi_t)` (theory 5.1, 5.2, 5.4).

    1 at ``beta = 0``: no rate. Raises ValueError if `beta` is negative or `eta` not positive; ``eta = inf`` is allowed.
    """
    beta, eta = np.broadcast_arrays(positive(beta, "beta", zero=True), positive(eta, "eta", infinite=True))
    with np.errstate(over="ignore"):
        return (1 / (1 + beta * np.where(beta == 0, 1.0, eta)))[()]


def geometric_bound(initial: Any, factor: Any, steps: Any, floor: Any = 0.0) -> Any:
    r"""Return ``factor**steps * initial + floor`` with the steps along a new last axis.

    Where `initial` is infinite, so is the bound at every step. Raises ValueError if an argument is NaN or negative.
    """
    initial = positive(initial, "initial", zero=True, infinite=True)[..., None]
    factor = positive(factor, "factor", zero=True)[..., None]
    floor = positive(floor, "floor", zero=True, infinite=True)[..., None]
    with np.errstate(over="ignore"):  # a bound beyond the largest float is infinite
        power = factor ** positive(steps, "steps", zero=True)
        empty = np.isinf(initial) | np.isinf(floor)
        start = np.where(np.isinf(initial), 0.0, initial)
        return np.where(empty, inf, np.where(start == 0, 0.0, np.where(start == 0, 1.0, power) * start) + floor)


def inexact_floor(beta: Any, eps: Any, share: Any = 0.5) -> Any:
    r"""Return :math:`(\epsilon/\beta)^2/(2(1-\theta))`, WIND's worst floor under payoff errors of half-span `eps`.

    Theory 5.5 (derived), for steps up to the `share` :math:`\theta<1` of `wind_max_step`; the errors may be chosen by
    an adversary. Raises ValueError if `beta` is not positive, `eps` negative or `share` outside [0, 1).
    """
    share = fraction(share, "share")
    if np.any(share == 1):
        raise ValueError(f"share must be below 1, but it is {share}: at the largest step no floor is proven.")
    with np.errstate(over="ignore"):
        return ((positive(eps, "eps", zero=True) / positive(beta, "beta")) ** 2 / (2 * (1 - share)))[()]


def noise_floor(beta: Any, eta: Any, eps: Any) -> Any:
    r"""Return :math:`\eta\epsilon^2/(2\beta(1+\beta\eta))`, the floor of E KL under unbiased errors (theory 5.6).

    `eps` bounds the root mean square of the error's half-span; for errors that average `J` comparisons see
    `comparison_error`. Derived, for :math:`\eta\le4\beta/L^2`. Raises ValueError if `beta` or `eta` is not positive or
    `eps` negative.
    """
    beta, eta, eps = positive(beta, "beta"), positive(eta, "eta"), positive(eps, "eps", zero=True)
    with np.errstate(over="ignore"):
        return (eps / beta * (eps / (2 * (1 / eta + beta))))[()]


def comparison_error(comparisons: Any, beta: Any, eta: Any, interaction: Any | None = None) -> Any:
    r"""Return `eps` for `noise_floor` and `decaying_bound` where win rates are estimated from `J` comparisons.

    .. math:: \epsilon_J^2 = \min\Big\{\epsilon^2,\ \frac{2v}{J}\,\varphi\Big(\frac{2\epsilon\,\eta}{1+\beta\eta}\Big)
              \Big\}, \qquad \varphi(x)=\frac{e^x-1-x}{x^2}

    Theory 7.11 (derived), where every response meets the same `J` fresh draws of the policy: :math:`\epsilon=1,
    v=\frac14` for a judge with random verdicts (`interaction` None), :math:`\epsilon=L,
    v=\min(\frac14,\frac{L^2}2)` for one that answers with the preference itself (`interaction` `L`). It falls like
    :math:`1/\sqrt J`. Under decreasing steps `eta` is the first, largest one. Raises ValueError if `comparisons` is
    below 1, `beta` or `eta` is not positive, or `interaction` lies outside [0, 1].
    """
    J, beta, eta = numbers(comparisons, "comparisons"), positive(beta, "beta"), positive(eta, "eta", infinite=True)
    if not np.all((J >= 1) & np.isfinite(J)):
        raise ValueError(f"comparisons must be finite and at least 1, but it is {J}.")
    eps = fraction(1.0 if interaction is None else interaction, "interaction")
    variance = 0.25 if interaction is None else np.minimum(0.25, eps**2 / 2)
    with np.errstate(over="ignore"):
        squared = 2 * variance / J * _bernstein(2 * eps / (1 / eta + beta))
    return np.sqrt(np.minimum(eps**2, squared))[()]


def _bernstein(x: Any) -> np.ndarray:
    """Return (exp(x) - 1 - x)/x^2, with 1/2 at 0."""
    x = np.asarray(x, dtype=float)
    small = np.abs(x) < 1e-3
    safe = np.where(small, 1.0, x)
    return np.where(small, 0.5 + x / 6 + x * x / 24, (np.expm1(safe) - safe) / safe / safe)


def wind_decaying_step(t: Any, beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`\eta_t=\frac2{\beta(t+t_0)}`, :math:`t_0=\max(1,L^2/(2\beta^2))`, for sampled WIND (theory 7.7).

    At most :math:`4\beta/L^2`, and decreasing so that the noise averages out. Derived. Raises ValueError if
    `beta` is not positive, `t` negative or `interaction` outside [0, 1].
    """
    beta, t0 = _decay(beta, interaction)
    return (2 / (beta * (positive(t, "t", zero=True) + t0)))[()]


def decaying_bound(initial: Any, t: Any, beta: Any, eps: Any, interaction: Any = 1.0) -> Any:
    r"""Return the bound on :math:`E\,KL(\pi^*\|\pi_t)` under `wind_decaying_step` and unbiased errors (theory 7.7).

    .. math:: \frac{t_0(t_0+1)\,KL_0+2\epsilon^2t/\beta^2}{(t+t_0)(t+t_0+1)}

    `eps` bounds the root mean square of the error's half-span: where every response meets the same draws, `L` for a
    deterministic judge and 1 for one with random verdicts, or `comparison_error` of the first step. Derived. Raises
    ValueError like `wind_decaying_step`, and if `initial` or `eps` is negative.
    """
    beta, t0 = _decay(beta, interaction)
    t, initial, eps = (positive(x, name, zero=True) for x, name in ((t, "t"), (initial, "initial"), (eps, "eps")))
    with np.errstate(over="ignore"):
        share = t0 / (t + t0) * ((t0 + 1) / (t + t0 + 1))
        return (share * initial + 2 * (eps / beta * np.sqrt(t / (t + t0) / (t + t0 + 1))) ** 2)[()]


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


def hilbert_certificate(residual: Any, divergence: Any, beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`R+\frac L\beta\sqrt{2k}`, an upper bound on :math:`h(\pi,\pi^*)`.

    Theory 2.7 (derived), win-rate game: the `residual` is :math:`R=h(\pi,BR(\pi))`, the `divergence`
    :math:`k=KL(\pi\|BR(\pi))`. At most `hilbert_certificate_factor` times the residual, since :math:`k\le R^2/8`.
    Raises ValueError like that, or if `residual` or `divergence` is negative.
    """
    interaction, beta = fraction(interaction, "interaction"), positive(beta, "beta")
    R = positive(residual, "residual", zero=True, infinite=True)
    k = positive(divergence, "divergence", zero=True, infinite=True)
    with np.errstate(over="ignore"):
        return (R + one_step_bound(k, beta, interaction))[()]


def one_step_bound(divergence: Any, beta: Any, interaction: Any = 1.0) -> Any:
    r"""Return :math:`\frac L\beta\sqrt{2k}`, an upper bound on :math:`h(BR(\pi),\pi^*)`.

    Theory 2.7 (derived), win-rate game, :math:`k=KL(\pi\|BR(\pi))`. At :math:`\pi=\rho` the best response is RLHF on
    the reference's own win rates (theory 2.9). 0 at ``L = 0``. Raises ValueError like `hilbert_certificate`.
    """
    interaction, beta = fraction(interaction, "interaction"), positive(beta, "beta")
    k = positive(divergence, "divergence", zero=True, infinite=True)
    with np.errstate(over="ignore"):
        root = np.where(interaction == 0, 0.0, np.sqrt(2 * k))
        return (interaction / beta * root)[()]


def log_hilbert_certificate_factor(beta: Any, kappa: Any = 1.0) -> Any:
    r"""Return :math:`1/(1-\kappa/\beta)`, infinite for :math:`\beta\le\kappa` (theory 2.5, derived).

    For policies of full support. Raises ValueError if `beta` is not positive or `kappa` outside [0, 1].
    """
    beta, kappa = np.broadcast_arrays(positive(beta, "beta"), fraction(kappa, "kappa"))
    proven = beta > kappa
    return np.where(proven, beta / np.where(proven, beta - kappa, 1.0), inf)[()]


def kl_from_hilbert(h: Any) -> Any:
    r"""Return :math:`\min(h, h^2/8) \ge KL(p\|q)` for two policies at Hilbert distance `h` (theory 1.3, derived).

    Raises ValueError if `h` is negative or NaN; for an infinite `h` the bound is infinite.
    """
    h = positive(h, "h", zero=True, infinite=True)
    return (h * np.minimum(1.0, h / 8))[()]


# -- collapse and the two games at small beta --------------------------------------------------------------


def _top_mass(top_mass: Any) -> np.ndarray:
    """Return the mass, at most 1; an excess of up to 1e-12 is rounding error and is removed."""
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

    It is one minus `win_rate_top_deficit`, and rounds to 1 where that deficit is below 1e-16.
    """
    return 1 - win_rate_top_deficit(beta, top_mass)


def equilibria_distance_bound(beta: Any, top_mass: Any) -> Any:
    r"""Return a bound on the total variation between the equilibria of the two games (theory 4.2, derived).

    Win-rate game with half ties against any equilibrium of the log-win-rate game with weak ties, one reward. Both
    are proportional to the reference on the best responses, so the distance is at most the larger mass they leave
    elsewhere: exponentially small in 1/beta where the log-win-rate game has collapsed (`collapse_index` below 1);
    elsewhere only the trivial ``1 - top_mass`` is proven. Raises ValueError like `win_rate_top_deficit`.
    """
    beta, top = np.broadcast_arrays(positive(beta, "beta"), _top_mass(top_mass))
    below = beta < 1
    index = collapse_index(np.where(below, beta, 0.5), top)
    collapsed = below & (index < 1)
    return np.where(collapsed, np.minimum(win_rate_top_deficit(beta, top), 1 - top), 1 - top)[()]
