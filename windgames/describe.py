r"""Describe a preference: transitive or cyclic, and how much of it a reward explains.

The answers decide which games and rules suit it, before anything is solved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ._array import to_numpy
from ._display import html_table, optional, text_table
from ._validation import positive_number
from .preferences import BradleyTerryPreference, Preference, RewardPreference
from .preferences.base import ties_tol
from .preferences.laplacian import groups, solve_laplacian

BLOCK = 64
"""Rows of a matrix that are looked at together."""
LARGEST_ODDS = 700.0
"""Log-odds up to this are those of two positive floats."""


@dataclass(frozen=True, repr=False)
class Description:
    r"""The findings of `describe`.

    For a single context every field is a plain value. For a batch each is a numpy array of the shape of the contexts
    (of dtype object where a value may be None or a tuple); `rank`, `group`, `potential` and `component` have shape
    ``(..., m)`` in both cases. Responses are given by index; the repr and `to_frame` show their names.

    "Beats" means: by more than `tol` more often than the other way round; "ties" means: neither beats the other. A pair
    that was never compared does neither.
    """

    preference: Preference
    constant_sum: Any
    """Whether :math:`P + P^\top = 1`, which a win-rate game needs."""
    worst_entry: Any
    """The entry that violates it most, or None if none does."""
    worst_error: Any
    r"""The largest entry of :math:`|P+P^\top-1|`."""
    transitive: Any
    """Whether "beats or ties" is transitive (weak stochastic transitivity), and so orders the responses."""
    condorcet_winner: Any
    """The response that beats every other one, or None."""
    top_cycle: Any
    """The Smith set: the smallest set whose members beat everything outside it."""
    top_tied: Any
    """Whether the top cycle is no cycle but a class: its members all tie."""
    schwartz_set: Any
    """The union of the smallest sets that nobody outside beats; it lies in the Smith set, and differs by ties alone."""
    rank: np.ndarray
    """Place of each response in its group, 1 for the best: whoever beats another stands before it, except in a cycle,
    whose members are in the order of the potential of :math:`P-P^\top`; who never won anything stands last, and classes
    of tied responses share a place."""
    group: np.ndarray
    """Number of the group of responses that comparisons connect, 0 for the largest: between groups nothing is known."""
    never_compared: Any
    """Pairs that were never compared, where the preference knows its counts; they are left out of everything here."""
    inconsistent_ties: Any
    """Number of tied pairs with a third response that fares differently against the two."""
    inconsistent_example: Any
    """The first such pair and its third response ``(i, j, k)``, or None."""
    decided_pairs: Any
    """Compared pairs without finite log-odds, which the decomposition of the log-odds leaves out."""
    reward_share: Any
    r"""Share of :math:`\sum_{i<j}n_{ij}\log^2(P_{ij}/P_{ji})` that a reward explains, with :math:`n_{ij}` the number of
    comparisons, 1 where it is not known; None if there is nothing to explain."""
    cyclic_share: Any
    """One minus `reward_share`: the part that no reward explains."""
    reward_share_linear: Any
    r"""The same share for :math:`P-P^\top`, over all pairs."""
    potential: np.ndarray
    """The reward of the log-odds, of mean zero in each component; NaN where a response has no finite log-odds."""
    component: np.ndarray
    """Number of the set of responses that finite log-odds connect: potentials of two sets cannot be compared."""
    zero_rows: Any
    """Whether some response beats nobody, not even itself: then a log-win-rate game is not defined."""
    tol: float
    """Margins up to this size count as ties."""

    @property
    def summary(self) -> str:
        """A sentence or two: what the preference is, and which games and rules fit it."""
        columns = self._contexts("constant_sum", "zero_rows", "transitive", "top_tied", "never_compared", "top_cycle")
        alone = not self.preference.batch_shape
        best = [f"response {self._name(top[0])}" if alone else "" for *_, top in columns]
        kinds = Counter(_summary(*row) for row in zip(*zip(*columns, strict=True), best, strict=True))
        if len(kinds) == 1:
            return ": ".join(next(iter(kinds))) + "."
        return " ".join(
            f"{head} in {count} of {len(columns)} contexts: {rest}." for (head, rest), count in kinds.most_common()
        )

    def differences(self) -> np.ndarray:
        """Return by how much each potential is above each other, shape ``(..., m, m)``; NaN across components."""
        r, label = self.potential, self.component
        same = label[..., :, None] == label[..., None, :]
        return np.where(same, r[..., :, None] - r[..., None, :], np.nan)

    def to_frame(self) -> Any:
        """Return rank, group, potential and component of one context as a pandas DataFrame, best first, by name."""
        pd = optional("pandas", "Description.to_frame", "plot")
        if self.preference.batch_shape:
            raise ValueError(
                f"to_frame is for one context, but there are {self.preference.batch_shape}: describe one of them."
            )
        names = self.preference.names
        columns = {name: getattr(self, name) for name in ("group", "rank", "potential", "component")}
        index = None if names is None else pd.Index(list(names))
        return pd.DataFrame(columns, index=index).sort_values(["group", "rank"], kind="stable")

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
        name = self._name
        winner = f"in {found} of {count} contexts" if batch else ("none" if winners[0] is None else name(winners[0]))
        ties = span("inconsistent_ties", "{:d}")
        example = next((e for (e,) in self._contexts("inconsistent_example") if e is not None), None)
        if example is not None:
            i, j, k = example
            ties += f", such as {name(i)} and {name(j)}, which {name(k)} tells apart"

        def members(field: str) -> str:
            sets = [t for (t,) in self._contexts(field)]
            sizes = [len(t) for t in sets]
            size = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
            listed = "" if batch or sizes[0] > 8 else ": " + ", ".join(map(name, sets[0]))
            return f"{size} of {m} responses{listed}"

        pairs = m * (m - 1) // 2
        never = []
        if np.any(self.never_compared):
            separate = int(np.max(self.group)) + 1
            fell = f", which leaves {separate} groups that never met" if separate > 1 and not batch else ""
            never = [("never compared", f"{span('never_compared', '{:d}')} of {pairs} pairs were never compared{fell}")]
        return [
            *never,
            ("constant-sum", constant),
            ("transitive", yes("transitive")),
            ("Condorcet winner", winner),
            ("top cycle", members("top_cycle")),
            ("Schwartz set", members("schwartz_set")),
            ("inconsistent ties", ties),
            ("decided pairs", f"{span('decided_pairs', '{:d}')} of {pairs}"),
            ("reward share of log-odds", span("reward_share")),
            ("reward share of P - Pᵀ", span("reward_share_linear")),
            ("in short", self.summary),
        ]

    def _name(self, k: int) -> str:
        names = self.preference.names
        return str(k) if names is None else str(names[k])

    def __repr__(self) -> str:
        return text_table(f"Description of {self.preference!r}", self._rows())

    def _repr_html_(self) -> str:
        return html_table(f"Description of {self.preference!r}", self._rows())


def _summary(
    constant_sum: bool, zero_rows: bool, transitive: bool, top_tied: bool, never: int, top: tuple[int, ...], best: str
) -> tuple[str, str]:
    """Return what the preference is and what fits it; the best response is named if there is one context alone."""
    order = "Transitive" if transitive else "Intransitive"
    if not constant_sum:
        log = (
            "and no log-win-rate game, since it has a zero row"
            if zero_rows
            else "but a log-win-rate game, with one equilibrium of full support for beta > 1"
        )
        return f"{order}, not constant-sum", f"no win-rate game before it is symmetrised, {log}"
    if never:
        return (
            f"{order} where it was compared",
            "what equilibria play also depends on what was filled in for the other pairs; compare those, or fit a "
            "model (Comparisons.bradley_terry, low_rank)",
        )
    fits = "the win-rate game with beta > 0 has one equilibrium"
    best = (best if len(top) == 1 else "the tied best responses") if best else "the best responses"
    if transitive:
        return order, f"{fits}, and it tends to {best} as beta falls; so do unregularised rules (SPPO)"
    if top_tied:
        return f"{order} below the top", f"unregularised rules (SPPO, beta = 0) collapse onto {best}; {fits}"
    return f"{order} at the top", f"unregularised rules (SPPO, beta = 0) may cycle; {fits}"


def describe(preference: Preference, tol: float = 0.0) -> Description:
    r"""Say whether a preference is constant-sum, transitive, cyclic at the top, and how much of it is a reward.

    Write :math:`i R j` if :math:`P_{ij}\ge P_{ji}-\text{tol}`. Since `R` is complete, it is transitive exactly if all
    pairs inside each strongly connected component of `R` are tied, and its components are ordered; the highest one is
    the Smith set. In a transitive relation two tied responses fare alike against every third; a pair that does not is
    an inconsistent tie, the mildest form of intransitivity.

    How much of the preference is a reward is the least-squares part of the Hodge decomposition: `r` minimises
    :math:`\sum_{i<j} n_{ij}(\log\frac{P_{ij}}{P_{ji}} - (r_i - r_j))^2` over the pairs with finite log-odds, with
    :math:`n_{ij}` the number of comparisons, or 1. For a Bradley-Terry preference it returns the reward over its scale,
    and its share is 1. The same for :math:`P-P^\top` needs no finite log-odds. For a `RewardPreference`, and for a
    `BradleyTerryPreference` without chains of near ties, all follows from the rewards, and no matrix is built.

    Where the preference comes from counts (`Comparisons.empirical`, `from_counts`), pairs that were never compared are
    unknown: they are left out, and the Smith set is that of what is known.

    Parameters
    ----------
    preference : Preference
    tol : float
        Margins :math:`P_{ij}-P_{ji}` up to this size count as ties; at least four roundings of the preference's dtype,
        which are ties at ``beta = 0``, too.

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
    >>> description = wg.describe(wg.MatrixPreference([[0.5, 0.1, 0.8], [0.9, 0.5, 0.3], [0.2, 0.7, 0.5]]))
    >>> description.transitive, description.condorcet_winner, description.top_cycle
    (False, None, (0, 1, 2))
    """
    if not isinstance(preference, Preference):
        raise ValueError(
            f"preference must be a windgames preference, but it is a {type(preference).__name__}. "
            f"Wrap a matrix in MatrixPreference, rewards in RewardPreference."
        )
    tol = positive_number(tol, "tol", zero=True)
    rounding = ties_tol(preference.example)
    tol = max(tol, rounding)
    batch, m = preference.batch_shape, preference.n_responses
    rows = _contexts(preference, tol, max(1e-12, rounding))
    found = {
        name: np.stack([row[name] for row in rows]).reshape(*batch, m)
        if isinstance(rows[0][name], np.ndarray)
        else _gather([row[name] for row in rows], batch)
        for name in rows[0]
    }
    assert found.keys() == {f.name for f in fields(Description)} - {"preference", "tol"}
    return Description(preference=preference, tol=tol, **found)


def _contexts(preference: Preference, tol: float, rounding: float) -> list[dict[str, Any]]:
    """Describe each context, from the rewards where that can be."""
    contexts = list(np.ndindex(preference.batch_shape))
    if isinstance(preference, RewardPreference):
        values = to_numpy(preference.reward)
        return [_of_reward(values[i], preference.ties, i) for i in contexts]
    won = preference.win_counts
    if isinstance(preference, BradleyTerryPreference) and won is None:
        values = to_numpy(preference.reward).astype(float) / preference.scale
        rows = [_of_logits(values[i], tol, i) for i in contexts]
        if all(row is not None for row in rows):
            return rows  # type: ignore[return-value]
    values = to_numpy(preference.matrix()).astype(float)
    won = None if won is None else to_numpy(won).astype(float)
    return [_of_matrix(values[i], tol, rounding, i, None if won is None else won[i]) for i in contexts]


def _gather(values: list[Any], batch: tuple[int, ...]) -> Any:
    """Return the plain value of a single context, an array of the shape of the contexts of several."""
    if batch == ():
        return values[0]
    plain = all(isinstance(v, bool | int | float) for v in values)
    out = np.empty(len(values), dtype=type(values[0]) if plain else object)
    for i, value in enumerate(values):
        out[i] = value
    return out.reshape(batch)


def _of_matrix(
    P: np.ndarray, tol: float, rounding: float, index: tuple[int, ...], won: np.ndarray | None
) -> dict[str, Any]:
    """Describe one matrix, of which only the compared pairs are known if there are counts of wins."""
    m = len(P)
    pairs = m * (m - 1) // 2
    counts = None if won is None else won + won.T
    known = None if counts is None else counts > 0
    if known is not None:
        np.fill_diagonal(known, False)
        if np.count_nonzero(known) == 2 * pairs:
            known = None
    zero_rows = bool(np.any(np.max(P, axis=1) == 0))
    own = np.abs(2 * np.diagonal(P) - 1)
    if np.any(own > 0):
        P = P.copy()
        np.fill_diagonal(P, 0.5)
    scan = _scan(P, known, tol)
    if own.max() > scan.error:
        scan.error, scan.worst = float(own.max()), (int(np.argmax(own)),) * 2
    sign, wins = scan.sign, np.count_nonzero(scan.sign > 0, axis=1)
    if known is None and counts is None:
        linear, linear_share, *_ = scan.margin.mean_potential(m, tol)
    else:
        linear, linear_share, *_ = _least_squares(m, *_edges(known, m), lambda i, j: P[i, j] - P[j, i], counts, tol)
        linear = np.nan_to_num(linear)  # of those who met nobody
    finite = scan.finite
    if finite is None and counts is None:
        potential, reward_share, cyclic_share, component = scan.odds.mean_potential(m, tol)
    else:
        potential, reward_share, cyclic_share, component = _least_squares(
            m, *_edges(finite, m), lambda i, j: np.log(P[i, j]) - np.log(P[j, i]), counts, tol
        )

    tiers = _tiers(wins - np.count_nonzero(sign < 0, axis=1))
    top = np.sort(tiers[0])
    inside = np.ix_(top, top)
    met = pairs if known is None else int(np.count_nonzero(known)) // 2
    met_at_top = len(top) * (len(top) - 1) if known is None else int(np.count_nonzero(known[inside]))
    group, places = (np.zeros(m, dtype=int), [tiers]) if known is None else _places(sign, known, linear, won)
    rank, cyclic = _ranks(places, sign, linear)
    ties, example = _inconsistent_ties(sign, known)
    constant = bool(scan.error <= rounding)
    return {
        "constant_sum": constant,
        "worst_entry": None if constant else (*index, *scan.worst),
        "worst_error": scan.error,
        "transitive": not cyclic,
        "condorcet_winner": int(np.argmax(wins)) if np.max(wins) == m - 1 else None,
        "top_cycle": tuple(map(int, top)),
        "top_tied": not np.any(sign[inside]) and met_at_top == len(top) * (len(top) - 1),
        "schwartz_set": tuple(map(int, top[_undominated(sign[inside])])),
        "rank": rank,
        "group": group,
        "never_compared": pairs - met,
        "inconsistent_ties": ties,
        "inconsistent_example": example,
        "decided_pairs": 0 if finite is None else met - int(np.count_nonzero(finite)) // 2,
        "reward_share": reward_share,
        "cyclic_share": cyclic_share,
        "reward_share_linear": linear_share,
        "potential": potential,
        "component": component,
        "zero_rows": zero_rows,
    }


@dataclass
class _Flow:
    """Sums of a skew flow over all pairs."""

    total: np.ndarray
    """Sum of each row."""
    norm: float = 0.0
    """Sum of the squares of all pairs."""
    largest: float = 0.0

    def add(self, start: int, stop: int, flow: np.ndarray) -> None:
        """Add the rows from `start` to `stop` and their mirror images, given the columns from `start` on."""
        width = stop - start
        self.total[start:stop] += flow.sum(axis=1)
        self.total[stop:] -= flow[:, width:].sum(axis=0)
        self.norm += float(np.vdot(flow, flow)) - float(np.sum(flow[:, :width] ** 2)) / 2
        self.largest = max(self.largest, float(flow.max()), -float(flow.min()))

    def mean_potential(self, m: int, tol: float) -> tuple[np.ndarray, float | None, float | None, np.ndarray]:
        """Return what `_least_squares` returns for all pairs alike, where the potential is the mean of a row."""
        label = np.zeros(m, dtype=int)
        if self.largest <= tol:
            return np.zeros(m), None, None, label
        potential = self.total / m
        share = min(1.0, float(m * (potential @ potential) / self.norm))
        return potential, share, 1 - share, label


@dataclass
class _Scan:
    """What one pass over a matrix gathers."""

    sign: np.ndarray
    """1 where the row beats the column, -1 where it is beaten, 0 for ties and unknown pairs."""
    finite: np.ndarray | None
    """Mask of the pairs with finite log-odds; None if that are all."""
    margin: _Flow
    odds: _Flow
    error: float = 0.0
    worst: tuple[int, int] = (0, 0)


def _scan(P: np.ndarray, known: np.ndarray | None, tol: float) -> _Scan:
    """Pass over the pairs once, in blocks of rows that stay in the cache."""
    m = len(P)
    out = _Scan(np.zeros((m, m), dtype=np.int8), known, _Flow(np.zeros(m)), _Flow(np.zeros(m)))
    for start in range(0, m, BLOCK):
        stop = min(m, start + BLOCK)
        p, q = P[start:stop, start:], P[start:, start:stop].T
        error = np.abs(p + q - 1)
        if error.max() > out.error:
            i, j = np.unravel_index(np.argmax(error), error.shape)
            out.error, out.worst = float(error[i, j]), (start + int(i), start + int(j))
        flow = p - q
        if known is not None:
            flow[~known[start:stop, start:]] = 0.0
        out.margin.add(start, stop, flow)
        sign = (flow > tol).astype(np.int8) - (flow < -tol)
        out.sign[start:stop, start:], out.sign[start:, start:stop] = sign, -sign.T
        decided = (p == 0) | (q == 0)
        if decided.any():
            if out.finite is None or out.finite is known:
                out.finite = ~np.eye(m, dtype=bool) if known is None else known.copy()
            out.finite[start:stop, start:] &= ~decided
            out.finite[start:, start:stop] &= ~decided.T
        elif out.finite is None:
            out.odds.add(start, stop, np.log(p) - np.log(q))
    return out


def _ranks(places: list[list[np.ndarray]], sign: np.ndarray, potential: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the place of each response in its group, and whether there is a cycle."""
    rank, cyclic = np.zeros(len(sign), dtype=int), False
    for tiers in places:
        place = 1
        for tier in tiers:
            rank[tier] = place
            if len(tier) > 1 and np.any(sign[np.ix_(tier, tier)]):
                cyclic = True
                rank[tier[np.argsort(-potential[tier], kind="stable")]] = place + np.arange(len(tier))
            place += len(tier)
    return rank, cyclic


def _tiers(score: np.ndarray) -> list[np.ndarray]:
    """Return the strong components of "beats or ties", best first, from the wins less the losses of each response.

    The relation is complete, so its components are ordered. A set of `k` beats everything outside exactly if it holds
    the `k` highest scores and they sum to ``k (m - k)``: what happens inside cancels.
    """
    m = len(score)
    order = np.argsort(-score, kind="stable")
    size = np.arange(1, m)
    return np.split(order, size[np.cumsum(score[order])[:-1] == size * (m - size)])


def _undominated(sign: np.ndarray) -> np.ndarray:
    """Return the mask of the strong components of "beats" that nobody outside beats."""
    if np.count_nonzero(sign) in (0, len(sign) * (len(sign) - 1)):
        return np.ones(len(sign), dtype=bool)  # all tie, or all beat each other in a cycle
    winner, loser = np.nonzero(sign > 0)
    count, label = connected_components(_graph(len(sign), winner, loser), directed=True, connection="strong")
    beaten = np.zeros(count, dtype=bool)
    beaten[label[loser][label[winner] != label[loser]]] = True
    return ~beaten[label]


def _graph(m: int, i: np.ndarray, j: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(i), dtype=bool), (i, j)), shape=(m, m))


def _places(
    sign: np.ndarray, known: np.ndarray, potential: np.ndarray, won: np.ndarray | None
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Return the group of each response, and the tiers of each group, best first, where not all pairs are known.

    The components of "beats or ties" are partially ordered. Of those that nobody left beats, the one of highest
    potential comes next, and before any that never won.
    """
    m = len(sign)
    group, places = np.zeros(m, dtype=int), []
    count, label = connected_components(_graph(m, *np.nonzero(known & (sign >= 0))), True, "strong")
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label, minlength=count))[:-1])
    height = np.bincount(label, potential) / np.bincount(label)
    winless = np.ones(count, dtype=bool) if won is None else np.bincount(label, won.sum(axis=1)) == 0
    winner, loser = (label[k] for k in np.nonzero(sign > 0))
    below = _graph(count, winner[winner != loser], loser[winner != loser])
    waiting = np.bincount(below.indices, minlength=count)
    for number, responses in enumerate(groups(_graph(m, *np.nonzero(known)), "weak")):
        group[responses] = number
        heap = [(winless[k], -height[k], k) for k in np.unique(label[responses]) if waiting[k] == 0]
        heapify(heap)
        order = []
        while heap:
            *_, k = heappop(heap)
            order.append(members[k])
            for other in below.indices[below.indptr[k] : below.indptr[k + 1]]:
                waiting[other] -= 1
                if waiting[other] == 0:
                    heappush(heap, (winless[other], -height[other], other))
        places.append(order)
    return group, places


def _inconsistent_ties(sign: np.ndarray, known: np.ndarray | None) -> tuple[int, tuple[int, int, int] | None]:
    """Count the tied pairs that fare differently against some third response; return the first, with the third."""
    m = len(sign)
    if known is None:
        if np.count_nonzero(sign) == m * (m - 1):
            return 0, None
        kind = np.unique(sign, axis=0, return_inverse=True)[1].reshape(-1)
        pairs = np.argwhere(np.triu((sign == 0) & (kind[:, None] != kind[None, :]), 1))
    else:
        tied, found = (sign == 0) & known, [np.zeros((0, 2), dtype=int)]
        for i in np.flatnonzero(tied.any(axis=1)):
            others = i + 1 + np.flatnonzero(tied[i, i + 1 :])
            apart = np.any((sign[others] != sign[i]) & known[others] & known[i], axis=1)
            found.append(np.stack([np.full(np.count_nonzero(apart), i), others[apart]], axis=1))
        pairs = np.concatenate(found)
    if len(pairs) == 0:
        return 0, None
    i, j = pairs[0]
    third = sign[i] != sign[j]
    if known is not None:
        third &= known[i] & known[j]
    return len(pairs), (int(i), int(j), int(np.argmax(third)))


def _edges(known: np.ndarray | None, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each known pair once; all pairs if there is no mask."""
    i, j = np.triu_indices(m, 1) if known is None else np.nonzero(np.triu(known, 1))
    return i, j


def _least_squares(
    m: int,
    i: np.ndarray,
    j: np.ndarray,
    flow: Callable[[np.ndarray, np.ndarray], np.ndarray],
    counts: np.ndarray | None,
    tol: float,
) -> tuple[np.ndarray, float | None, float | None, np.ndarray]:
    """Return the potential of a skew flow on some pairs, the shares of its gradient and of the rest, the components."""
    label = np.zeros(m, dtype=int)
    for number, members in enumerate(groups(_graph(m, i, j), "weak")):
        label[members] = number
    alone = (np.bincount(label)[label] == 1) & (m > 1)
    edge = flow(i, j)
    if np.max(np.abs(edge), initial=0.0) <= tol:
        return np.where(alone, np.nan, 0.0), None, None, label
    weight = np.ones(len(i)) if counts is None else counts[i, j]
    right = np.bincount(i, weight * edge, minlength=m) - np.bincount(j, weight * edge, minlength=m)
    potential = solve_laplacian(m, i, j, weight, right)
    gradient = potential[i] - potential[j]
    norm = weight @ edge**2
    shares = float(weight @ gradient**2 / norm), float(weight @ (edge - gradient) ** 2 / norm)
    return np.where(alone, np.nan, potential), *shares, label


def _of_reward(reward: np.ndarray, ties: str, index: tuple[int, ...]) -> dict[str, Any]:
    """Describe the order of a reward from its classes of equal reward."""
    m = len(reward)
    _, label, size = np.unique(reward, return_inverse=True, return_counts=True)
    label = label.reshape(-1)
    top = np.flatnonzero(label == len(size) - 1)
    below = np.cumsum(size) - size
    decided = (m * m - int(np.sum(size.astype(np.int64) ** 2))) // 2
    # components of finite log-odds are the classes of ties, largest first, or single responses
    first = np.unique(label, return_index=True)[1]
    component = np.argsort(np.lexsort((first, -size)))[label] if ties != "strict" else np.arange(m)
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
        "schwartz_set": tuple(map(int, top)),
        "rank": m - np.cumsum(size)[label] + 1,
        "group": np.zeros(m, dtype=int),
        "never_compared": 0,
        "inconsistent_ties": 0,
        "inconsistent_example": None,
        "decided_pairs": decided + (int(np.sum(size * (size - 1))) // 2 if ties == "strict" else 0),
        "reward_share": None,
        "cyclic_share": None,
        "reward_share_linear": linear,
        "potential": np.where(((size == 1) | (ties == "strict")) & (m > 1), np.nan, 0.0)[label],
        "component": component,
        "zero_rows": ties == "strict",
    }


def _of_logits(logits: np.ndarray, tol: float, index: tuple[int, ...]) -> dict[str, Any] | None:
    """Describe a Bradley-Terry preference of scale 1 by its order; None where near ties chain or odds overflow."""
    m, order = len(logits), np.argsort(logits, kind="stable")
    ordered = logits[order]
    with np.errstate(divide="ignore", over="ignore"):
        tied = 2 * np.arctanh(min(tol, 1.0))  # differences up to this are margins up to tol
        label = np.cumsum(np.append(0, np.diff(ordered) > tied))
        first = np.unique(label, return_index=True)[1]
        widths, span = ordered[np.append(first[1:], m) - 1] - ordered[first], ordered[-1] - ordered[0]
        if np.any(widths > tied) or not span < LARGEST_ODDS:
            return None
    place = np.empty(m, dtype=int)
    place[order] = label
    flow = _Flow(np.zeros(m))
    for start in range(0, m, BLOCK):
        stop = min(m, start + BLOCK)
        flow.add(start, stop, np.tanh((logits[start:stop, None] - logits[start:]) / 2))
    some = span > tol
    return _of_reward(place, "half", index) | {
        "decided_pairs": 0,
        "reward_share": 1.0 if some else None,
        "cyclic_share": 0.0 if some else None,
        "reward_share_linear": flow.mean_potential(m, tol)[1],
        "potential": logits - logits.mean() if some else np.zeros(m),
        "component": np.zeros(m, dtype=int),
    }
