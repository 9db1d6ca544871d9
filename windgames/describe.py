r"""What kind of preference is this: an order, a cycle, a reward with noise?

The answers decide which game and which rule fit, before anything is solved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.linalg import solve as solve_linear
from scipy.sparse.csgraph import connected_components

from ._array import array_namespace, to_numpy
from ._display import html_table, text_table
from ._validation import positive_number
from .preferences import Preference, RewardPreference


@dataclass(frozen=True, repr=False)
class Description:
    r"""The findings of `describe`.

    For a single context every field is a plain value. For a batch each is a numpy array of the shape of the contexts
    (of dtype object where a value may be None or a tuple); `potential` has shape ``(..., m)`` in both cases.

    "Beats" means: by more than `tol` more often than the other way round; "ties" means: neither beats the other.
    """

    preference: Preference
    constant_sum: Any
    """Whether :math:`P + P^\top = 1`, which a win-rate game needs."""
    worst_entry: Any
    """The pair where it is violated most, or None if it is not."""
    worst_error: Any
    r"""The largest entry of :math:`|P+P^\top-1|`."""
    transitive: Any
    """Whether "beats or ties" is transitive (weak stochastic transitivity), so that it orders the responses."""
    condorcet_winner: Any
    """The response that beats every other one, or None."""
    top_cycle: Any
    """The Smith set: the smallest set whose members beat everything outside it."""
    top_tied: Any
    """Whether the top cycle is no cycle but a class: its members all tie."""
    inconsistent_ties: Any
    """Tied pairs that some third response tells apart: it fares differently against the two."""
    inconsistent_example: Any
    """The first such pair and its third response ``(i, j, k)``, or None."""
    decided_pairs: Any
    """Pairs without finite log-odds, which the decomposition of the log-odds leaves out."""
    reward_share: Any
    r"""Share of :math:`\sum_{i<j}\log^2(P_{ij}/P_{ji})` that a reward explains; None if there is nothing to explain."""
    cyclic_share: Any
    """The rest of it."""
    reward_share_linear: Any
    r"""The same share for :math:`P-P^\top`, over all pairs."""
    potential: np.ndarray
    """The reward of the log-odds, of mean zero in each set of responses that finite log-odds connect."""
    zero_rows: Any
    """Whether some response beats nobody, not even itself: then a log-win-rate game is not defined."""
    tol: float

    @property
    def summary(self) -> str:
        """A sentence or two: what the preference is, and which games and rules fit it."""
        columns = self._contexts("constant_sum", "zero_rows", "transitive", "top_tied", "top_cycle")
        kinds = Counter(_summary(*row, alone=not self.preference.batch_shape) for row in columns)
        if len(kinds) == 1:
            return ": ".join(next(iter(kinds))) + "."
        return " ".join(
            f"{head} in {count} of {len(columns)} contexts: {rest}." for (head, rest), count in kinds.most_common()
        )

    def _contexts(self, *names: str) -> list[tuple[Any, ...]]:
        columns = []
        for name in names:
            value = getattr(self, name)
            columns.append(list(value.ravel()) if self.preference.batch_shape else [value])
        return list(zip(*columns, strict=True))

    def _rows(self) -> list[tuple[str, str]]:
        batch = self.preference.batch_shape
        m = self.preference.n_responses
        count = int(np.prod(batch))

        def yes(name: str) -> str:
            value = getattr(self, name)
            return f"{int(np.sum(value))} of {count} contexts" if batch else ("yes" if value else "no")

        def span(name: str, form: str = "{:.1%}", none: str = "nothing to explain") -> str:
            values = [v for (v,) in self._contexts(name) if v is not None]
            if not values:
                return none
            low, high = min(values), max(values)
            text = form.format(low) if low == high else f"{form.format(low)} to {form.format(high)}"
            return text if len(values) == count else f"{text} (in {len(values)} of {count} contexts)"

        constant = yes("constant_sum")
        if not np.all(self.constant_sum):
            error, entry = max(row for row in self._contexts("worst_error", "worst_entry") if row[1] is not None)
            constant += f": P + Pᵀ is off 1 by {error:.3g} at {entry}"
        winners = [w for (w,) in self._contexts("condorcet_winner")]
        found = sum(w is not None for w in winners)
        winner = f"in {found} of {count} contexts" if batch else ("none" if winners[0] is None else f"{winners[0]}")
        ties = span("inconsistent_ties", "{:d}")
        example = next((e for (e,) in self._contexts("inconsistent_example") if e is not None), None)
        if example is not None:
            i, j, k = example
            ties += f", such as {i} and {j}, which {k} tells apart"
        top = [t for (t,) in self._contexts("top_cycle")]
        sizes = [len(t) for t in top]
        named = "" if batch or sizes[0] > 8 else ": " + ", ".join(map(str, top[0]))
        size = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
        return [
            ("constant-sum", constant),
            ("transitive", yes("transitive")),
            ("Condorcet winner", winner),
            ("top cycle", f"{size} of {m} responses{named}"),
            ("inconsistent ties", ties),
            ("decided pairs", f"{span('decided_pairs', '{:d}')} of {m * (m - 1) // 2}"),
            ("reward share of log-odds", span("reward_share")),
            ("reward share of P - Pᵀ", span("reward_share_linear")),
            ("in short", self.summary),
        ]

    def __repr__(self) -> str:
        return text_table(f"Description of {self.preference!r}", self._rows())

    def _repr_html_(self) -> str:
        return html_table(f"Description of {self.preference!r}", self._rows())


def _summary(
    constant_sum: bool, zero_rows: bool, transitive: bool, top_tied: bool, top: tuple[int, ...], *, alone: bool
) -> tuple[str, str]:
    """Return what the preference is and what fits it; responses are named if there is one context alone."""
    order = "Transitive" if transitive else "Intransitive"
    if not constant_sum:
        log = (
            "and no log-win-rate game, since a row is zero"
            if zero_rows
            else "but the log-win-rate game takes it as it is, with one equilibrium of full support for beta > 1"
        )
        return f"{order}, not constant-sum", f"no win-rate game before it is symmetrised, {log}"
    fits = "the win-rate game with beta > 0 has one equilibrium"
    best = "the best responses" if not alone else f"response {top[0]}" if len(top) == 1 else "the tied best responses"
    if transitive:
        return order, f"{fits}, and it tends to {best} as beta falls; so do unregularised rules (SPPO)"
    if top_tied:
        return f"{order} below the top", f"unregularised rules (SPPO, beta = 0) collapse onto {best}; {fits}"
    return f"{order} at the top", f"unregularised rules (SPPO, beta = 0) may cycle; {fits}"


def describe(preference: Preference, tol: float = 1e-9) -> Description:
    r"""Say whether a preference is constant-sum, transitive, cyclic at the top, and how much of it is a reward.

    Write :math:`i R j` if :math:`P_{ij}\ge P_{ji}-\text{tol}`. Since `R` is complete, it is transitive exactly if all
    pairs inside each strongly connected component of `R` are tied, and its components are ordered; the highest one is
    the Smith set. In a transitive relation two tied responses fare alike against every third; a pair that does not is
    an inconsistent tie, the mildest form of intransitivity.

    How much of the preference is a reward is the least-squares part of the Hodge decomposition: `r` minimises
    :math:`\sum_{i<j} (\log\frac{P_{ij}}{P_{ji}} - (r_i - r_j))^2` over the pairs with finite log-odds. For a
    Bradley-Terry preference it returns the reward over its scale, and its share is 1. The same for
    :math:`P-P^\top` needs no finite log-odds. For a `RewardPreference` everything follows from the order of the
    rewards, and no matrix is built.

    Parameters
    ----------
    preference : Preference
    tol : float
        Margins :math:`P_{ij}-P_{ji}` up to this size count as ties; raised to four roundings of the preference's dtype.

    Returns
    -------
    Description

    Raises
    ------
    ValueError
        If `preference` is not a windgames preference, or `tol` is negative or not finite.

    Examples
    --------
    >>> import windgames as wg
    >>> found = wg.describe(wg.MatrixPreference([[0.5, 0.1, 0.8], [0.9, 0.5, 0.3], [0.2, 0.7, 0.5]]))
    >>> found.transitive, found.condorcet_winner, found.top_cycle
    (False, None, (0, 1, 2))
    """
    if not isinstance(preference, Preference):
        raise ValueError(
            f"preference must be a windgames preference, but it is a {type(preference).__name__}. "
            f"Wrap a matrix in MatrixPreference, rewards in RewardPreference."
        )
    tol = positive_number(tol, "tol", zero=True)
    digits = 4 * float(array_namespace(preference.example).finfo(preference.example.dtype).eps)
    tol = max(tol, digits)
    batch = preference.batch_shape
    if isinstance(preference, RewardPreference):
        values = to_numpy(preference.reward)
        rows = [_of_reward(values[i], preference.ties, i) for i in np.ndindex(batch)]
    else:
        values = to_numpy(preference.matrix()).astype(float)
        rows = [_of_matrix(values[i], tol, max(1e-12, digits), i) for i in np.ndindex(batch)]
    gathered = {name: _gather([row[name] for row in rows], batch) for name in rows[0] if name != "potential"}
    potential = np.stack([row["potential"] for row in rows]).reshape(*batch, preference.n_responses)
    known = {f.name for f in fields(Description)} - {"preference", "potential", "tol"}
    assert gathered.keys() == known
    return Description(preference=preference, potential=potential, tol=tol, **gathered)


def _gather(values: list[Any], batch: tuple[int, ...]) -> Any:
    """Return the plain value of a single context, an array of the shape of the contexts of several."""
    if batch == ():
        return values[0]
    plain = all(isinstance(v, bool | int | float) for v in values)
    out = np.empty(len(values), dtype=type(values[0]) if plain else object)
    for i, value in enumerate(values):
        out[i] = value
    return out.reshape(batch)


def _of_matrix(P: np.ndarray, tol: float, rounding: float, index: tuple[int, ...]) -> dict[str, Any]:
    """Describe one matrix."""
    m = len(P)
    margin = P - P.T
    sign = np.where(np.abs(margin) <= tol, 0, np.sign(margin)).astype(np.int8)
    relation = sign >= 0
    label = connected_components(relation, directed=True, connection="strong")[1]
    same = label[:, None] == label[None, :]
    # R is complete, so members of the highest component stand above everything, and no one else as high.
    top = np.flatnonzero(label == label[np.argmax(relation.sum(axis=1))])
    wins = np.sum(sign > 0, axis=1)
    count, example = _inconsistent_ties(sign)

    finite = (P > 0) & (P.T > 0) & ~np.eye(m, dtype=bool)
    odds = np.zeros_like(P)
    odds[finite] = np.log(P[finite]) - np.log(P.T[finite])
    potential, reward_share, cyclic_share = _hodge(odds, finite, tol)
    linear = _hodge(margin, ~np.eye(m, dtype=bool), tol)[1]

    asymmetry = np.abs(P + P.T - 1)
    where = tuple(map(int, np.unravel_index(np.argmax(asymmetry), asymmetry.shape)))
    constant = bool(asymmetry[where] <= rounding)
    return {
        "constant_sum": constant,
        "worst_entry": None if constant else (*index, *where),
        "worst_error": float(asymmetry[where]),
        "transitive": bool(np.all(sign[same] == 0)),
        "condorcet_winner": int(np.argmax(wins)) if np.max(wins) == m - 1 else None,
        "top_cycle": tuple(map(int, top)),
        "top_tied": bool(np.all(sign[np.ix_(top, top)] == 0)),
        "inconsistent_ties": count,
        "inconsistent_example": example,
        "decided_pairs": int(m * (m - 1) - finite.sum()) // 2,
        "reward_share": reward_share,
        "cyclic_share": cyclic_share,
        "reward_share_linear": linear,
        "potential": potential,
        "zero_rows": bool(np.any(np.all(P == 0, axis=1))),
    }


def _inconsistent_ties(sign: np.ndarray) -> tuple[int, tuple[int, int, int] | None]:
    """Count the tied pairs that fare differently against some third response; return the first, with the third."""
    kind = np.unique(sign, axis=0, return_inverse=True)[1].reshape(-1)
    pairs = np.argwhere(np.triu((sign == 0) & (kind[:, None] != kind[None, :]), 1))
    if len(pairs) == 0:
        return 0, None
    i, j = pairs[0]
    return len(pairs), (int(i), int(j), int(np.argmax(sign[i] != sign[j])))


def _hodge(flow: np.ndarray, pairs: np.ndarray, tol: float) -> tuple[np.ndarray, float | None, float | None]:
    """Return the potential of a skew flow on the given pairs, and the shares of its gradient and of the rest."""
    m = len(flow)
    n, label = connected_components(pairs, directed=False)
    if np.max(np.abs(flow)) <= tol:
        return np.zeros(m), None, None
    # The Laplacian is singular on each component's constants; adding their projection leaves the mean-zero solution.
    size = np.bincount(label, minlength=n)
    laplacian = np.diag(pairs.sum(axis=1).astype(float)) - pairs
    laplacian += (label[:, None] == label[None, :]) / size[label]
    potential = solve_linear(laplacian, np.sum(flow, axis=1), assume_a="pos")
    gradient = np.where(pairs, potential[:, None] - potential[None, :], 0.0)
    norm = np.sum(flow**2)
    return potential, float(np.sum(gradient**2) / norm), float(np.sum((flow - gradient) ** 2) / norm)


def _of_reward(reward: np.ndarray, ties: str, index: tuple[int, ...]) -> dict[str, Any]:
    """Describe the order of a reward, from its classes alone."""
    m = len(reward)
    _, label, size = np.unique(reward, return_inverse=True, return_counts=True)
    label = label.reshape(-1)
    top = np.flatnonzero(label == len(size) - 1)
    below = np.cumsum(size) - size
    decided = (m * m - int(np.sum(size.astype(np.int64) ** 2))) // 2
    # P - P^T holds signs; its potential is the mean of a row, (worse - better)/m.
    mean = (below - (m - below - size)) / m
    linear = float(m * np.sum(size * mean**2) / decided) if decided else None
    return {
        "constant_sum": ties == "half",
        "worst_entry": None if ties == "half" else (*index, 0, 0),
        "worst_error": 0.0 if ties == "half" else 1.0,
        "transitive": True,
        "condorcet_winner": int(top[0]) if len(top) == 1 else None,
        "top_cycle": tuple(map(int, top)),
        "top_tied": True,
        "inconsistent_ties": 0,
        "inconsistent_example": None,
        "decided_pairs": decided + (int(np.sum(size * (size - 1))) // 2 if ties == "strict" else 0),
        "reward_share": None,
        "cyclic_share": None,
        "reward_share_linear": linear,
        "potential": np.zeros(m),
        "zero_rows": ties == "strict",
    }
