r"""Models fitted to comparisons: Bradley-Terry with standard errors, and intransitive scores of low rank."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, inf, log
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse.csgraph import NegativeCycleError, bellman_ford, connected_components
from scipy.special import expit, log_expit, xlogy

from .._display import optional
from .._validation import one_of, positive_number, whole
from .base import Preference
from .laplacian import groups, laplacian, solve_laplacian
from .low_rank import LowRankPreference
from .matrix import BradleyTerryPreference, MatrixPreference

if TYPE_CHECKING:
    from .comparisons import Comparisons

REWARD_PRIOR = 0.5
"""The prior of the rewards in a low-rank model, and of the Bradley-Terry model that it is compared with."""
STARTS = 4
"""From how many random embeddings a low-rank model is fitted; the best counts."""
STEPS = 200
"""After how many Newton steps a fit is given up."""
LISTED = 5
"""How many names an error message lists at most."""


# -- Bradley-Terry -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BradleyTerryFit:
    r"""What a fit says beside the preference: `fit` of what `Comparisons.bradley_terry` returns.

    The likelihood is that of the rewards `r` and, for ties after Davidson, :math:`\nu`:
    a win, a loss and a tie are as likely as :math:`e^{d/2} : e^{-d/2} : \nu` with :math:`d=r_i-r_j`.
    """

    names: tuple[Hashable, ...]
    reward: np.ndarray
    ties: str
    prior: float
    tie_parameter: float
    r""":math:`\nu`; 0 if ties count half."""
    log_likelihood: float
    """Of the data alone, without the prior."""
    steps: int
    """Newton steps."""
    _pairs: tuple[np.ndarray, ...] = field(repr=False)

    @cached_property
    def covariance(self) -> np.ndarray:
        r"""Covariance of the rewards, shape ``(m, m)``: the inverse information, on rewards of mean zero if no prior.

        The variance of :math:`r_i-r_j` is ``c[i, i] + c[j, j] - 2 c[i, j]``. Takes :math:`O(m^3)` time.
        """
        i, j, won, lost, tied = self._pairs
        likelihood = _Likelihood(len(self.names), i, j, won, lost, tied, self.prior)
        theta = log(self.tie_parameter) if self.tie_parameter > 0 else None
        *_, weight, border, corner = likelihood.derivatives(self.reward, theta)
        m = len(self.names)
        information = laplacian(m, likelihood.i, likelihood.j, weight).toarray()
        information[np.diag_indices(m)] += likelihood.ridge(self.reward)
        if theta is not None:
            information -= np.outer(border, border) / corner
        shift = 0.0 if self.prior > 0 else float(np.max(np.diagonal(information), initial=0.0)) or 1.0
        lower, _ = dpotrf(information + shift / m, lower=1)
        inverse = np.tril(dpotri(lower, lower=1)[0])
        inverse += np.tril(inverse, -1).T
        return inverse - (1 / (shift * m) if shift else 0.0)

    @cached_property
    def standard_errors(self) -> np.ndarray:
        """Standard error of each reward, shape ``(m,)``: the root of the diagonal of `covariance`."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))

    def expected_scores(self) -> MatrixPreference:
        r"""Return :math:`P(\text{win}) + \frac12P(\text{tie})`, which after Davidson is no Bradley-Terry preference."""
        d = self.reward[:, None] - self.reward[None, :]
        tie = self.tie_parameter
        half = np.exp(-np.abs(d) / 2)  # e^{-|d|/2}: the outcomes are 1 : half^2 : tie * half
        better = (1 + tie * half / 2) / (1 + half**2 + tie * half)
        out = MatrixPreference(np.where(d >= 0, better, 1 - better))
        out.names = self.names
        return out

    def to_frame(self) -> Any:
        """Return rewards and standard errors by name, best first, as a pandas DataFrame."""
        pd = optional("pandas", "BradleyTerryFit.to_frame", "plot")
        columns = {"reward": self.reward, "standard_error": self.standard_errors}
        return pd.DataFrame(columns, index=list(self.names)).sort_values("reward", ascending=False, kind="stable")


class _Likelihood:
    """The log-likelihood of rewards, as a function of the differences of compared pairs."""

    def __init__(
        self,
        m: int,
        i: np.ndarray,
        j: np.ndarray,
        won: np.ndarray,
        lost: np.ndarray,
        tied: np.ndarray,
        prior: float,
    ) -> None:
        self.m, self.i, self.j, self.won, self.lost, self.tied, self.prior = m, i, j, won, lost, tied, prior
        self.total = won + lost + tied

    def _logs(self, r: np.ndarray, theta: float | None) -> tuple[np.ndarray, ...]:
        """Return the log-probabilities of a win, a loss and a tie of each pair."""
        d = r[self.i] - r[self.j]
        if theta is None:
            return log_expit(d), log_expit(-d), np.full_like(d, -inf)
        size = np.logaddexp(np.logaddexp(d / 2, -d / 2), theta)
        return d / 2 - size, -d / 2 - size, theta - size

    def data(self, r: np.ndarray, theta: float | None) -> float:
        """Return the log-likelihood of the comparisons."""
        win, loss, tie = self._logs(r, theta)
        return float(self.won @ win + self.lost @ loss + (0.0 if theta is None else self.tied @ tie))

    def value(self, r: np.ndarray, theta: float | None) -> float:
        """Return the log-likelihood with the prior."""
        return self.data(r, theta) + self.prior * float(np.sum(log_expit(r) + log_expit(-r)))

    def ridge(self, r: np.ndarray) -> np.ndarray:
        """Return what the prior adds to the diagonal of the information."""
        return 2 * self.prior * expit(r) * expit(-r)

    def derivatives(self, r: np.ndarray, theta: float | None) -> tuple[Any, ...]:
        """Return the gradients by rewards and theta, and the information: pair weights, border and corner."""
        win, loss, tie = (np.exp(x) for x in self._logs(r, theta))
        if theta is None:
            slope, weight, cross = self.won * loss - self.lost * win, self.total * win * loss, np.zeros(0)
            by_theta = corner = 0.0
        else:
            slope = (self.won - self.lost - self.total * (win - loss)) / 2
            weight = self.total * (win + loss - (win - loss) ** 2) / 4
            cross = -self.total * tie * (win - loss) / 2
            by_theta, corner = float(np.sum(self.tied - self.total * tie)), float(np.sum(self.total * tie * (1 - tie)))
        gradient = self._gather(slope) + self.prior * (expit(-r) - expit(r))
        border = np.zeros(self.m) if theta is None else self._gather(cross)
        return gradient, by_theta, weight, border, corner

    def _gather(self, flow: np.ndarray) -> np.ndarray:
        """Return the sum over pairs of a quantity that changes its sign with their order."""
        return np.bincount(self.i, flow, minlength=self.m) - np.bincount(self.j, flow, minlength=self.m)


def bradley_terry(
    comparisons: Comparisons, ties: Literal["half", "davidson"] = "half", prior: float = 0.0
) -> BradleyTerryPreference:
    r"""Fit the Bradley-Terry model by maximum likelihood.

    Newton's method on the concave log-likelihood, with Laplacians of the graph of comparisons: thousands of items.

    Parameters
    ----------
    comparisons : Comparisons
    ties : str
        ``"half"``: a tie is half a win on each side. ``"davidson"``: a win, a loss and a tie are as likely as
        :math:`e^{d/2} : e^{-d/2} : \nu`, with one :math:`\nu` for all pairs (Davidson 1970); the preference returned is
        that of decided comparisons, and its ``fit.expected_scores()`` counts ties half.
    prior : float
        Each item is given so many wins, and as many losses, against an opponent of reward 0.

    Returns
    -------
    BradleyTerryPreference
        Of rewards of mean zero, or, with a prior, relative to that opponent; its `fit` has standard errors.

    Raises
    ------
    ValueError
        If there is no finite maximum and no prior: groups that never met, or items that nobody beat, by name.
    """
    one_of(ties, "ties", ("half", "davidson"))
    prior = positive_number(prior, "prior", zero=True)
    names, m = comparisons.names, len(comparisons.names)
    davidson = ties == "davidson" and bool(np.any(comparisons.tie_counts()))
    i, j, won, lost = comparisons.pairs()
    tied = comparisons.tie_counts() if davidson else np.zeros(len(i))
    won, lost = won - tied / 2, lost - tied / 2
    if prior == 0:
        _check_finite(comparisons)
    if davidson:
        _check_ties(m, i, j, won, lost, tied, prior)
    likelihood = _Likelihood(m, i, j, won, lost, tied, prior)
    r, theta, steps = _newton(likelihood, 0.0 if davidson else None)
    out = BradleyTerryPreference(r)
    out.names = names
    out.fit = BradleyTerryFit(
        names=names,
        reward=r,
        ties=ties,
        prior=prior,
        tie_parameter=0.0 if theta is None else exp(theta),
        log_likelihood=likelihood.data(r, theta),
        steps=steps,
        _pairs=(i, j, won, lost, tied),
    )
    return out


def _newton(likelihood: _Likelihood, theta: float | None) -> tuple[np.ndarray, float | None, int]:
    """Maximise the log-likelihood by Newton steps that never lower it."""
    m, i, j = likelihood.m, likelihood.i, likelihood.j
    r, steps = np.zeros(m), 0
    value = likelihood.value(r, theta)
    while steps < STEPS:
        steps += 1
        gradient, by_theta, weight, border, corner = likelihood.derivatives(r, theta)
        ridge = likelihood.ridge(r) if likelihood.prior > 0 else 0.0
        step = solve_laplacian(m, i, j, weight, gradient, ridge)
        turn = 0.0
        if theta is not None:
            along = solve_laplacian(m, i, j, weight, border, ridge)
            turn = (by_theta - float(border @ step)) / (corner - float(border @ along))
            step = step - turn * along
        gain = float(gradient @ step) + by_theta * turn
        largest = max(float(np.max(np.abs(step), initial=0.0)), abs(turn))
        size = 1.0
        while size > 1e-10:
            moved, turned = r + size * step, None if theta is None else theta + size * turn
            new = likelihood.value(moved, turned)
            if new >= value + 1e-4 * size * gain - 1e-14 * abs(value):
                break
            size /= 2
        r, theta, value = moved, turned, new
        if size * largest <= 1e-10 * max(1.0, float(np.max(np.abs(r), initial=0.0))):
            return r, theta, steps
    raise ValueError(
        f"Newton's method did not settle in {steps} steps: counts of very different sizes leave some rewards all but "
        f"free. Pass prior > 0."
    )


def _check_finite(comparisons: Comparisons) -> None:
    """Refuse comparisons whose likelihood has no maximum, by name."""
    shares, names = comparisons.shares(), comparisons.names
    apart = groups(shares, "weak")
    if len(apart) > 1:
        raise ValueError(
            f"The items fall into {len(apart)} groups that never met, such as that of {names[apart[0][0]]!r} "
            f"({len(apart[0])} items) and that of {names[apart[-1][0]]!r} ({len(apart[-1])}): nothing compares their "
            f"rewards. Pass prior > 0, or fit each group alone."
        )
    count, label = connected_components(shares, directed=True, connection="strong")
    if count == 1:
        return
    edges = shares.tocoo()
    beaten = np.zeros(count, dtype=bool)
    winner, loser = (label[k] for k in edges.coords)
    beaten[loser[winner != loser]] = True
    best = [np.flatnonzero(label == k) for k in np.flatnonzero(~beaten)]
    alone = [names[k[0]] for k in best if len(k) == 1]
    who = (
        f"{listed(alone)} {'was' if len(alone) == 1 else 'were'} never beaten"
        if alone
        else f"nobody outside ever beat any of {listed([names[k] for k in best[0]])}"
    )
    raise ValueError(f"No finite rewards maximise the likelihood: {who}. Pass prior > 0, or drop them.")


def _check_ties(
    m: int, i: np.ndarray, j: np.ndarray, won: np.ndarray, lost: np.ndarray, tied: np.ndarray, prior: float
) -> None:
    r"""Refuse comparisons that fit ever better as Davidson's parameter grows.

    That is so exactly if rewards exist that differ by at least 1 along each win and by at most 1 along each tie, and
    with a prior if there are no wins: difference constraints, which hold unless a cycle has more wins than ties.
    """
    if prior > 0 and np.any(won + lost > 0):
        return
    if prior == 0:
        edges: dict[str, list[np.ndarray]] = {"i": [], "j": [], "w": []}
        # the constraint x_j <= x_i + w; where a pair has both, that of the win (w = -1) implies that of the tie
        for a, b, wins in ((i, j, won), (j, i, lost)):
            use = (wins > 0) | (tied > 0)
            edges["i"].append(a[use])
            edges["j"].append(b[use])
            edges["w"].append(np.where(wins[use] > 0, -1.0, 1.0))
        coords = (np.concatenate(edges["i"]), np.concatenate(edges["j"]))
        graph = sparse.csr_array((np.concatenate(edges["w"]), coords), shape=(m, m))
        try:
            bellman_ford(graph, indices=0)
        except NegativeCycleError:
            return
    raise ValueError(
        "Davidson's likelihood has no maximum: rewards and the tie parameter grow together, since no cycle of "
        "comparisons holds more wins than ties. Pass prior > 0 and at least one win, or ties='half'."
    )


def listed(names: Sequence[Hashable]) -> str:
    """Return names for a message, the first few of many."""
    few = ", ".join(repr(name) for name in names[:LISTED])
    return few if len(names) <= LISTED else f"{few} and {len(names) - LISTED} more"


# -- low rank ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LowRankFit:
    """What a fit says beside the preference: `fit` of what `Comparisons.low_rank` returns.

    Held-out numbers are means per comparison, over comparisons that were left out of the fit in turn; None if no
    folds were asked for.
    """

    rank: int
    link: str
    prior: float
    log_likelihood: float
    """Of the data alone, without the prior."""
    held_out: float | None = None
    held_out_bradley_terry: float | None = None
    """The same of `bradley_terry` with `REWARD_PRIOR`, on the same folds."""
    gain: float | None = None
    """What low rank predicts better than Bradley-Terry: above a few `gain_error`, the comparisons are cyclic."""
    gain_error: float | None = None
    """Standard error of `gain`, comparisons taken as independent."""


def low_rank(
    comparisons: Comparisons,
    rank: int,
    prior: float = 3.0,
    rng: Any = None,
    link: Literal["linear", "logistic"] = "linear",
    folds: int = 5,
) -> Preference:
    r"""Fit a general, intransitive model by penalised maximum likelihood: a reward and ``rank - 2`` cyclic dimensions.

    Item `i` has a reward :math:`r_i` and a vector :math:`x_i`; `J` is made of blocks ``[[0, -1], [1, 0]]``.

    - ``link="logistic"``: :math:`P_{ij} = \sigma(r_i - r_j + x_i^\top Jx_j)`, Bradley-Terry and a cyclic part.
    - ``link="linear"``: :math:`P_{ij} = \frac12 + c(s_i - s_j) + y_i^\top Jy_j` with
      :math:`(s_i, y_i) = (r_i, x_i)\sqrt{(\frac12-c^2)/(1+r_i^2+|x_i|^2)}` and `c` fitted, which keeps every score
      inside (-1/2, 1/2): a `LowRankPreference` of that rank, whose games are solved without a matrix.

    The penalty :math:`\frac12\text{prior}\sum|x_i|^2` draws pairs that never met to what the rewards say of them. The
    likelihood has several maxima; the best of a few starts is taken.

    Parameters
    ----------
    comparisons : Comparisons
        Ties count half.
    rank : int
        Even; 2 is a reward alone.
    prior : float
        The larger, the less cyclic; the value of largest ``fit.held_out`` is the one that the comparisons ask for. The
        prior of the rewards is that of `bradley_terry` with `REWARD_PRIOR`.
    rng : numpy Generator or seed, optional
        For the starts and the folds.
    link : str
    folds : int
        The comparisons are split into so many parts, and each is predicted from the rest, by this model and by
        Bradley-Terry: "is it cyclic?" is answered by ``fit.gain``. 0 leaves that out. With the linear link the gain of
        rank 2 is what the link alone makes better.

    Returns
    -------
    LowRankPreference, or MatrixPreference for the logistic link
        With a `fit`.
    """
    rank, folds = whole(rank, "rank"), whole(folds, "folds")
    if rank == 0 or rank % 2:
        raise ValueError(
            f"rank must be an even positive number, since scores come in pairs of coordinates, but it is {rank}."
        )
    one_of(link, "link", ("linear", "logistic"))
    prior = positive_number(prior, "prior")
    rng = np.random.default_rng(rng)
    out = _fit_low_rank(comparisons, rank, prior, rng, link)
    likelihood = comparisons.log_likelihood(out)
    told = {} if folds == 0 else _held_out(comparisons, rank, prior, rng, link, folds)
    out.names = comparisons.names
    out.fit = LowRankFit(rank=rank, link=link, prior=prior, log_likelihood=likelihood, **told)
    return out


def _fit_low_rank(
    comparisons: Comparisons, rank: int, prior: float, rng: np.random.Generator, link: str
) -> LowRankPreference | MatrixPreference:
    from scipy.optimize import minimize  # here, since it would double the time of `import windgames`

    m = len(comparisons.names)
    pairs = comparisons.pairs()
    reward = bradley_terry(comparisons, prior=REWARD_PRIOR).fit.reward
    best = None
    for start in range(1 if rank == 2 else STARTS):
        x = rng.normal(size=(m, rank - 2)) * (0.1 if start < STARTS // 2 else 0.5)
        found = minimize(
            _low_rank_loss,
            np.append(np.concatenate([reward[:, None], x], axis=1), np.pi / 4),
            (m, *pairs, prior, link == "linear"),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-11, "gtol": 1e-6},
        )
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    a = _embedding(best.x[:-1].reshape(m, -1), best.x[-1], link == "linear")[0]
    if link == "linear":
        return LowRankPreference(a)
    scores = a @ _turn(a).T
    return MatrixPreference(expit((scores - scores.T) / 2))


def _turn(x: np.ndarray) -> np.ndarray:
    """Return ``x @ J.T``, so that ``y @ _turn(x).T`` holds the scores of the rows of `y` against those of `x`."""
    out = np.empty_like(x)
    out[:, 0::2], out[:, 1::2] = -x[:, 1::2], x[:, 0::2]
    return out


def _embedding(z: np.ndarray, angle: float, linear: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings of rewards and vectors, and by what these were multiplied; `angle` shares out their norm."""
    if not linear:
        return np.concatenate([np.ones((len(z), 1)), z], axis=1), np.ones((len(z), 1))
    h = np.sqrt(0.5) * np.sin(angle) / np.sqrt(1 + np.sum(z**2, axis=1, keepdims=True))
    return np.concatenate([np.full_like(h, np.sqrt(0.5) * np.cos(angle)), h * z], axis=1), h


def _low_rank_loss(
    flat: np.ndarray,
    m: int,
    i: np.ndarray,
    j: np.ndarray,
    won: np.ndarray,
    lost: np.ndarray,
    prior: float,
    linear: bool,
) -> tuple[float, np.ndarray]:
    """Return the penalised loss of rewards and vectors, one row for each item, then the angle, and its gradient."""
    z, angle = flat[:-1].reshape(m, -1), flat[-1]
    a, h = _embedding(z, angle, linear)
    score = np.sum(a[i] * _turn(a)[j], axis=1)
    if linear:
        p, q = 0.5 + score, 0.5 - score
        value, slope = float(np.sum(xlogy(won, p) + xlogy(lost, q))), won / p - lost / q
    else:
        value = float(won @ log_expit(score) + lost @ log_expit(-score))
        slope = won * expit(-score) - lost * expit(score)
    ends = np.concatenate([i, j]), np.concatenate([j, i])
    flow = sparse.csr_array((np.concatenate([slope, -slope]), ends), (m, m))
    by_a = flow @ _turn(a)
    along = np.sum(z * by_a[:, 1:], axis=1, keepdims=True)
    gradient, by_angle = h * by_a[:, 1:], 0.0
    if linear:
        gradient -= h * z * along / (1 + np.sum(z**2, axis=1, keepdims=True))
        by_angle = float(np.sum(h * along)) / np.tan(angle) - np.sqrt(0.5) * np.sin(angle) * float(np.sum(by_a[:, 0]))
    r, x = z[:, 0], z[:, 1:]
    value += REWARD_PRIOR * float(np.sum(log_expit(r) + log_expit(-r))) - prior / 2 * float(np.sum(x**2))
    gradient[:, 0] += REWARD_PRIOR * (expit(-r) - expit(r))
    gradient[:, 1:] -= prior * x
    return -value, -np.append(gradient, by_angle)


def _held_out(
    comparisons: Comparisons, rank: int, prior: float, rng: np.random.Generator, link: str, folds: int
) -> dict[str, float]:
    """Predict each fold from the rest by both models."""
    fits: list[Callable[[Comparisons], Preference]] = [
        lambda rest: _fit_low_rank(rest, rank, prior, rng, link),
        lambda rest: bradley_terry(rest, prior=REWARD_PRIOR),
    ]
    weights, values = [], []
    for rest, fold in comparisons.split(folds, rng):
        shares = fold.shares().tocoo()
        logs = [np.log(fit(rest).matrix()[shares.coords]) for fit in fits]
        weights.append(shares.data)
        values.append(np.stack(logs))
    weight, value = np.concatenate(weights), np.concatenate(values, axis=1)
    total = float(weight.sum())
    both = value @ weight / total
    gain = value[0] - value[1]
    mean = float(gain @ weight / total)
    return {
        "held_out": float(both[0]),
        "held_out_bradley_terry": float(both[1]),
        "gain": mean,
        "gain_error": float(np.sqrt(weight @ (gain - mean) ** 2) / total),
    }
