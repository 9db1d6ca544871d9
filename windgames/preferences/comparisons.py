"""Tables of comparisons: who beat whom, how often, and what was never asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from os import PathLike
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.special import xlogy

from .._array import to_numpy
from .._validation import at_least, is_frame, is_table, number, numbers, one_of, own_names, positive_number
from .base import Preference
from .fitting import bradley_terry, low_rank
from .laplacian import groups
from .matrix import BradleyTerryPreference, MatrixPreference

MOST = 1e300
"""Counts must not add up to more: sums of them are to be floats."""
TIES = ("tie", "tie (bothbad)", "bothbad", "both_bad")
"""What arena logs write for a draw."""


class Comparisons:
    r"""Counted comparisons of named items, from battles, counts, ballots or arena logs.

    A pair that was never compared is unknown, not even: `missing` says which, and nothing here takes it for a draw
    unless a prior is asked for. Use one of the constructors `from_pairs`, `from_counts`, `from_rankings`, `from_arena`.

    Attributes
    ----------
    names : tuple
        The items; all tables follow their order.

    Examples
    --------
    >>> import windgames as wg
    >>> chess = wg.Comparisons.from_counts(
    ...     [[0, 22, 8], [13, 0, 23], [10, 12, 0]], names=["Topalov", "Anand", "Karpov"]
    ... )
    >>> chess
    Comparisons of 3 items: 88 comparisons, 0 of them ties; 0 of 3 pairs never compared
    >>> game = wg.WinRateGame(chess.empirical(), ref=[1 / 3] * 3, beta=0)
    >>> print((wg.equilibrium(game).policy * 215).round(9))  # 99/215, 35/215, 81/215
    [99. 35. 81.]
    """

    names: tuple[Hashable, ...]
    _first: np.ndarray
    _second: np.ndarray
    _tie: np.ndarray
    _counts: np.ndarray
    _ballots: sparse.csr_array | None

    def __init__(self) -> None:
        raise TypeError("Comparisons is made by from_pairs, from_counts, from_rankings or from_arena.")

    @classmethod
    def _make(
        cls,
        names: Sequence[Hashable],
        cells: tuple[np.ndarray, np.ndarray, np.ndarray],
        counts: np.ndarray,
        ballots: sparse.csr_array | None = None,
    ) -> Comparisons:
        """Return comparisons of cells (winner, loser, tie), `counts` times each, or each ballot's cells so often."""
        self = object.__new__(cls)
        with np.errstate(over="ignore"):
            total = float(np.sum(counts))
        if total > MOST:
            raise ValueError(f"The counts add up to {total:g}, more than {MOST:g}: divide them by a common factor.")
        self.names = tuple(names)
        self._first, self._second, self._tie = cells
        self._counts, self._ballots = counts, ballots
        return self

    def _with_counts(self, counts: np.ndarray) -> Comparisons:
        return self._make(self.names, (self._first, self._second, self._tie), counts, self._ballots)

    # -- constructors --------------------------------------------------------------------------------------

    @classmethod
    def from_pairs(cls, winner: Any, loser: Any, tie: Any = None, weight: Any = None, names: Any = None) -> Comparisons:
        """Count battles, one per row.

        Parameters
        ----------
        winner, loser : sequence
            Labels, such as columns of a table. Rows are matched by position.
        tie : sequence of bool, optional
            Rows that ended in a draw, where the order of the two labels means nothing.
        weight : sequence of float, optional
            Each row counts as so many comparisons; 1 if None.
        names : sequence, optional
            All items, in the order of the tables; the labels that occur, sorted, if None.

        Raises
        ------
        ValueError
            If columns differ in length, a label is missing, not in `names` or compared with itself, a tie is not a
            boolean, or a weight is negative or not finite. The message names the row.
        """
        columns = {"winner": _column(winner, "winner"), "loser": _column(loser, "loser")}
        rows = len(columns["winner"])
        known = _names(names, columns)
        first, second = (_encode(column, known, name) for name, column in columns.items())
        ties = np.zeros(rows, dtype=bool) if tie is None else _booleans(tie, "tie")
        weights = np.ones(rows) if weight is None else _weights(weight, "weight")
        for name, length in (("loser", len(second)), ("tie", len(ties)), ("weight", len(weights))):
            if length != rows:
                raise ValueError(f"winner has {rows} rows, but {name} has {length}.")
        own = np.flatnonzero(first == second)
        if own.size:
            raise ValueError(
                f"Row {own[0]} compares {columns['winner'][own[0]]!r} with itself ({own.size} such rows): drop them."
            )
        low, high = np.minimum(first, second), np.maximum(first, second)
        m = len(known)
        key = (np.where(ties, low, first) * m + np.where(ties, high, second)) * 2 + ties
        key, where = np.unique(key[weights > 0], return_inverse=True)
        counts = np.bincount(where, weights[weights > 0], minlength=len(key))
        return cls._make(tuple(known), _cells(key, m), counts)

    @classmethod
    def from_counts(cls, wins: Any, ties: Any = None, names: Any = None) -> Comparisons:
        """Take counts as they are.

        Parameters
        ----------
        wins : array or DataFrame, shape ``(m, m)``
            ``wins[i, j]`` counts how often `i` beat `j`. Of a DataFrame the labels are kept: rows and columns may
            differ and be in another order (a crosstab leaves out who never won), and what has no cell counts 0.
        ties : array or DataFrame, shape ``(m, m)``, optional
            Symmetric: ``ties[i, j] = ties[j, i]`` counts the draws of the pair.
        names : sequence, optional
            All items, in the order of the tables; the labels of `wins`, or the numbers from 0, if None.

        Raises
        ------
        ValueError
            If a shape is not square, a count is negative or not finite, an item was compared with itself, `ties` is
            not symmetric, or labels are doubled or not in `names`. The message names the entry.
        """
        tables = {"wins": wins} | ({} if ties is None else {"ties": ties})
        labels = [axis for table in tables.values() if is_frame(table) for axis in (table.index, table.columns)]
        if names is None and not labels:
            names = range(_square(wins, "wins").shape[0])
        if names is None:
            names = list(dict.fromkeys(label for axis in labels for label in _column(axis, "label")))
        known = _names(names, {})
        dense = {name: _aligned(table, known, name) for name, table in tables.items()}
        T = dense.get("ties")
        if T is not None and not np.array_equal(T, T.T):
            i, j = np.argwhere(T != T.T)[0]
            raise ValueError(
                f"ties must be symmetric, but the pair of {_at(known, i)} and {_at(known, j)} has {T[i, j]:g} and "
                f"{T[j, i]:g}. If each draw is counted on one side only, pass ties + ties.T."
            )
        parts = [(dense["wins"], False)] + ([] if T is None else [(np.triu(T), True)])
        found = [(*np.nonzero(table), np.full(np.count_nonzero(table), tie)) for table, tie in parts]
        counts = np.concatenate([table[np.nonzero(table)] for table, _ in parts])
        first, second, tied = (np.concatenate(column) for column in zip(*found, strict=True))
        return cls._make(tuple(known), (first, second, tied), counts)

    @classmethod
    def from_rankings(
        cls,
        rankings: Iterable[Any],
        names: Any = None,
        weight: Any = None,
        unranked: Literal["below", "missing"] = "below",
    ) -> Comparisons:
        """Count rankings, such as ballots: one comparison for each pair on each of them.

        Parameters
        ----------
        rankings : iterable
            Each either items from best to worst, where a list, tuple or set among them holds items that are tied, or
            a mapping from items to ranks of which the smallest is the best.
        names : sequence, optional
            All items; those that are ranked by anybody, sorted, if None.
        weight : sequence of float, optional
            How often each ranking was given; once if None.
        unranked : str
            Items that a ranking leaves out are below all that it ranks, as in elections (``"below"``), or were not
            compared by it (``"missing"``). Between two of them it says nothing.

        Raises
        ------
        ValueError
            If a ranking is a string, empty of items that can be read, or holds an item twice or one not in `names`.
        """
        one_of(unranked, "unranked", ("below", "missing"))
        if is_table(rankings) or isinstance(rankings, Mapping | str | bytes) or not hasattr(rankings, "__iter__"):
            raise ValueError(
                "rankings must be a sequence of rankings, one for each voter: of a table pass the rows, such as "
                "frame.to_numpy() where they list items from best to worst, frame.to_dict('records') where they hold "
                "ranks."
            )
        read = [_tiers(ranking, row) for row, ranking in enumerate(rankings)]
        ranked = {f"ranking {row}": [label for tier in tiers for label in tier] for row, tiers in enumerate(read)}
        known = _names(names, ranked)
        weights = np.ones(len(read)) if weight is None else _weights(weight, "weight")
        if len(weights) != len(read):
            raise ValueError(f"There are {len(read)} rankings, but weight has {len(weights)} entries.")
        m = len(known)
        distinct: dict[tuple[tuple[int, ...], ...], float] = {}
        for row, tiers in enumerate(read):
            code = tuple(tuple(sorted(_encode(tier, known, f"ranking {row}"))) for tier in tiers)
            flat = [k for tier in code for k in tier]
            if len(set(flat)) < len(flat):
                twice = next(k for k in flat if flat.count(k) > 1)
                raise ValueError(f"ranking {row} holds {_at(known, twice)} more than once.")
            if weights[row] > 0:
                distinct[code] = distinct.get(code, 0.0) + weights[row]
        keys = [_ballot_cells(code, m, unranked == "below") for code in distinct]
        key, where = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *keys]), return_inverse=True)
        rows = np.repeat(np.arange(len(keys)), [len(k) for k in keys])
        ballots = sparse.csr_array((np.ones(len(rows)), (rows, where)), shape=(len(keys), len(key)))
        return cls._make(tuple(known), _cells(key, m), np.array(list(distinct.values()), dtype=float), ballots)

    @classmethod
    def from_arena(
        cls, frame: Any, columns: Sequence[str] = ("model_a", "model_b", "winner"), names: Any = None
    ) -> Comparisons:
        """Count battles as arena logs have them.

        Parameters
        ----------
        frame : DataFrame, or dict of lists
        columns : three strings
            The two columns of models and that of the verdict, which holds the name of the winner's column, ``tie`` or
            ``tie (bothbad)``.
        names : sequence, optional
            All models, in the order of the tables; those that occur, sorted, if None.

        Raises
        ------
        ValueError
            If a column is not there, or a verdict is none of those; the message names the row.
        """
        if isinstance(frame, str | PathLike):
            raise ValueError(f"frame must be a DataFrame or a mapping of columns: read {str(frame)!r} with pandas.")
        if not isinstance(frame, Mapping) and not is_table(frame):
            raise ValueError(f"frame must be a DataFrame or a mapping of columns, but it is a {type(frame).__name__}.")
        if isinstance(columns, str) or len(columns) != 3:
            raise ValueError(f"columns must be three names, of the two models and of the verdict, not {columns!r}.")
        first, second, verdict = columns
        there = list(getattr(frame, "column_names", frame if isinstance(frame, Mapping) else frame.columns))
        for name in columns:
            if name not in there:
                raise ValueError(
                    f"frame has no column {name!r}, but {', '.join(map(repr, there))}. Name the two models' columns "
                    f"and the verdict's: columns=(...)."
                )
        verdicts = _column(frame[verdict], verdict)
        meaning = {first: 0, second: 1} | dict.fromkeys(TIES, 2)
        row = next((row for row, said in enumerate(verdicts) if not (_is_label(said) and said in meaning)), None)
        if row is not None:
            raise ValueError(
                f"Row {row} of {verdict!r} is {verdicts[row]!r}, but a verdict is {first!r}, {second!r} or 'tie'."
            )
        code = np.array([meaning[said] for said in verdicts], dtype=int)
        a, b = (np.array([*_column(frame[name], name), None], dtype=object)[:-1] for name in (first, second))
        if not len(a) == len(b) == len(code):
            raise ValueError(f"The columns of frame have {len(a)}, {len(b)} and {len(code)} rows.")
        return cls.from_pairs(np.where(code == 1, b, a), np.where(code == 1, a, b), tie=code == 2, names=names)

    # -- tables --------------------------------------------------------------------------------------------

    @cached_property
    def _totals(self) -> np.ndarray:
        """How often each cell was seen."""
        return self._counts if self._ballots is None else self._counts @ self._ballots

    def _tables(self, totals: np.ndarray) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Return wins and ties as sparse matrices."""
        m, tie = len(self.names), self._tie
        wins = sparse.csr_array((totals[~tie], (self._first[~tie], self._second[~tie])), shape=(m, m))
        ties = sparse.csr_array((totals[tie], (self._first[tie], self._second[tie])), shape=(m, m))
        return wins, (ties + ties.T).tocsr()

    def shares(self) -> sparse.csr_array:
        """Return wins with half of the ties, sparse, shape ``(m, m)``."""
        return self._shares

    @cached_property
    def _shares(self) -> sparse.csr_array:
        wins, ties = self._tables(self._totals)
        shares = (wins + ties / 2).tocsr()
        shares.eliminate_zeros()
        return shares

    @property
    def wins(self) -> np.ndarray:
        """How often each item beat each other, shape ``(m, m)``."""
        return self._tables(self._totals)[0].toarray()

    @property
    def ties(self) -> np.ndarray:
        """How often each pair drew, shape ``(m, m)``, symmetric."""
        return self._tables(self._totals)[1].toarray()

    @property
    def missing(self) -> np.ndarray:
        """Mask of the pairs that were never compared, shape ``(m, m)``; False on the diagonal."""
        shares = self._shares.toarray()
        return (shares + shares.T == 0) & ~np.eye(len(self.names), dtype=bool)

    @cached_property
    def connected(self) -> tuple[tuple[Hashable, ...], ...]:
        """Strong components of "beat or drew with somebody", by name, largest first.

        Rewards of a Bradley-Terry model are finite without a prior exactly if there is one.
        """
        return tuple(tuple(self.names[k] for k in group) for group in groups(self._shares, "strong"))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        m, total, ties = len(self.names), self._totals.sum(), self._totals[self._tie].sum()
        pairs = m * (m - 1) // 2
        return (
            f"Comparisons of {m} items: {total:.12g} comparisons, {ties:.12g} of them ties; "
            f"{pairs - self.pairs()[0].size} of {pairs} pairs never compared"
        )

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return each compared pair ``i < j`` once, with the win shares of `i` and of `j`."""
        both = sparse.triu(self._shares + self._shares.T, 1).tocoo()
        i, j = both.coords
        won = _entries(self._shares, i, j)
        return i, j, won, both.data - won

    def tie_counts(self) -> np.ndarray:
        """Return the number of ties of each of `pairs`."""
        i, j, *_ = self.pairs()
        return _entries(self._tables(self._totals)[1], i, j)

    # -- preferences ---------------------------------------------------------------------------------------

    def empirical(self, prior: float = 0.0) -> MatrixPreference:
        r"""Return the observed win rates, ties counted half.

        :math:`P_{ij} = (w_{ij} + \frac12t_{ij} + a)/(w_{ij} + w_{ji} + t_{ij} + 2a)` with `a` the prior; 1/2 on the
        diagonal. The preference keeps the names, and the counts in `win_counts`, so that pairs which only the prior
        fills can be told from even ones.

        Raises
        ------
        ValueError
            If `prior` is 0 and a pair was never compared; the message names it and says how many there are.
        """
        return self._empirical(self._shares.toarray(), prior)

    def _named(self, matrix: np.ndarray, shares: np.ndarray | None = None) -> MatrixPreference:
        out = MatrixPreference(matrix)
        out.names, out.win_counts = self.names, shares
        return out

    def _empirical(self, shares: np.ndarray, prior: float) -> MatrixPreference:
        """Return the observed win rates of tables of wins with half of the ties."""
        prior = positive_number(prior, "prior", zero=True)
        eye = np.eye(len(self.names), dtype=bool)
        total = shares + shares.swapaxes(-1, -2) + 2 * prior
        missing = (total == 0) & ~eye
        if missing.any():
            *draw, i, j = np.argwhere(missing)[0]
            lost = int(missing.sum()) // 2
            where = f"in draw {draw[0]}; {lost} such pairs in all draws" if draw else f"{lost} such pairs in all"
            raise ValueError(
                f"{self.names[i]!r} and {self.names[j]!r} were never compared ({where}). Compare them, pass prior > 0 "
                f"to count every pair as that many wins on both sides, or fit a model: bradley_terry, low_rank."
            )
        safe = np.where(eye | (total == 0), 1.0, total)
        return self._named(np.where(eye, 0.5, (shares + prior) / safe), shares)

    def margins(self) -> MatrixPreference:
        r"""Return :math:`P_{ij} = \frac12 + (w_{ij}-w_{ji})/(2\max|w-w^\top|)`.

        The winners at ``beta = 0`` are then the maximal lotteries of the margin graph. A pair that was never compared
        has margin 0; `win_counts` remembers it.
        """
        shares = self._shares.toarray()
        out = preference_of_margins(shares - shares.T, self.names)
        out.win_counts = shares
        return out

    def bradley_terry(self, ties: Literal["half", "davidson"] = "half", prior: float = 0.0) -> BradleyTerryPreference:
        r"""Fit the model :math:`P_{ij} = \sigma(r_i-r_j)` by maximum likelihood; see `fitting.bradley_terry`."""
        return bradley_terry(self, ties, prior)

    def low_rank(
        self,
        rank: int,
        prior: float = 3.0,
        rng: Any = None,
        link: Literal["linear", "logistic"] = "linear",
        folds: int = 5,
    ) -> Preference:
        """Fit a general, intransitive model of low rank; see `fitting.low_rank`."""
        return low_rank(self, rank, prior, rng, link, folds)

    def log_likelihood(self, preference: Preference) -> float:
        r"""Return :math:`\sum_{ij}(w_{ij}+\frac12t_{ij})\log P_{ij}` of a preference over the same items."""
        P = to_numpy(preference.matrix()).astype(float)
        if P.shape != (len(self.names),) * 2:
            raise ValueError(
                f"The preference must have one context of {len(self.names)} responses, one per item, but its matrix "
                f"has shape {P.shape}."
            )
        shares = self._shares.tocoo()
        return float(np.sum(xlogy(shares.data, P[shares.coords])))

    # -- resampling ----------------------------------------------------------------------------------------

    def _whole_counts(self, what: str) -> np.ndarray:
        counts = self._counts
        if np.any(counts != np.floor(counts)):
            k = int(np.argmax(counts != np.floor(counts)))
            raise ValueError(
                f"{what} draws whole comparisons, but one of them counts {counts[k]:g} times. Give whole weights, and "
                f"ties as ties, not as half wins."
            )
        if not 0 < counts.sum() < 2**62:
            few = "there is none" if counts.sum() == 0 else f"not {counts.sum():g}: divide the counts"
            raise ValueError(f"{what} needs at least one comparison and fewer than 2**62, but {few}.")
        return counts.astype(np.int64)

    def resample(
        self, n: int, rng: Any = None, prior: float = 0.0, estimate: Callable[[Comparisons], Preference] | None = None
    ) -> MatrixPreference:
        """Return `n` bootstrap preferences as the contexts of one, for intervals of an equilibrium in one call.

        As many comparisons as there are, or as many ballots where they are from rankings, are drawn with replacement.

        Parameters
        ----------
        n : int
        rng : numpy Generator or seed, optional
        prior : float
            As in `empirical`; a pair that was compared once is missing in a third of the draws.
        estimate : callable, optional
            From the comparisons of a draw to a preference; `empirical` with `prior` if None.

        Returns
        -------
        MatrixPreference
            With ``batch_shape == (n,)``.
        """
        n, rng = at_least(n, "n", 1), np.random.default_rng(rng)
        counts = self._whole_counts("resample")
        total = int(counts.sum())
        draws = rng.multinomial(total, counts / total, size=n).astype(float)
        if estimate is not None:
            return self._named(np.stack([to_numpy(estimate(self._with_counts(draw)).matrix()) for draw in draws]))
        cells = draws if self._ballots is None else draws @ self._ballots
        m = len(self.names)
        shares = np.zeros((n, m, m))
        tie, first, second = self._tie, self._first, self._second
        shares[:, first[~tie], second[~tie]] = cells[:, ~tie]
        shares[:, first[tie], second[tie]] += cells[:, tie] / 2
        shares[:, second[tie], first[tie]] += cells[:, tie] / 2
        return self._empirical(shares, prior)

    def split(self, folds: int, rng: Any = None) -> Iterator[tuple[Comparisons, Comparisons]]:
        """Yield ``(rest, fold)`` for each of some random folds of the comparisons, or of the ballots."""
        folds = at_least(folds, "folds", 2)
        counts = self._whole_counts("split")
        parts = np.random.default_rng(rng).multinomial(counts, np.full(folds, 1 / folds)).astype(float)
        for part in parts.T:
            yield self._with_counts(counts - part), self._with_counts(part)


def _entries(table: sparse.csr_array, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the entries at some places of a sparse table."""
    return np.asarray(table[i, j]).reshape(-1) if i.size else np.zeros(0)


def preference_of_margins(margin: np.ndarray, names: Sequence[Hashable] | None = None) -> MatrixPreference:
    """Return the preference whose winners at ``beta = 0`` are the maximal lotteries of a margin graph."""
    if np.any(margin != -margin.T):
        i, j = np.argwhere(margin != -margin.T)[0]
        raise ValueError(f"Margins must be skew-symmetric, but those at ({i}, {j}) and ({j}, {i}) do not cancel.")
    largest = np.max(np.abs(margin), initial=0.0)
    out = MatrixPreference(0.5 + margin / (2 * largest if largest > 0 else 1.0))
    out.names = None if names is None else tuple(names)
    return out


# -- reading what people have --------------------------------------------------------------------------------


def _column(values: Any, name: str) -> list[Any]:
    """Return the entries of a sequence as plain Python values."""
    if isinstance(values, str | bytes):
        raise ValueError(f"{name} must be a sequence, but it is the text {values!r}.")
    if isinstance(values, Mapping | set | frozenset) or is_table(values):
        raise ValueError(
            f"{name} must be a sequence, such as one column of a table, but it is a {type(values).__name__}."
        )
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(f"{name} must have one axis, but its shape is {tuple(values.shape)}.")
    as_list = getattr(values, "tolist", None) or getattr(values, "to_pylist", None)
    try:
        out = list(as_list() if as_list else values)
    except TypeError:
        raise ValueError(f"{name} must be a sequence, but it is {values!r}.") from None
    return out


def _names(names: Any, columns: Mapping[str, list[Any]]) -> dict[Hashable, int]:
    """Return the position of every item: those given, or those that occur, sorted where they can be."""
    if names is None:
        found: dict[Hashable, None] = {}
        for name, column in columns.items():
            for row, label in enumerate(column):
                _check_label(label, f"{name}[{row}]")
                found[label] = None
        try:
            items = sorted(found)  # type: ignore[type-var]
        except TypeError:
            items = list(found)
    else:
        items = _column(names, "names")
        for k, label in enumerate(items):
            _check_label(label, f"names[{k}]")
    known = {label: k for k, label in enumerate(items)}
    if len(known) < len(items):
        twice = next(label for k, label in enumerate(items) if known[label] != k)
        raise ValueError(f"names must differ, but {twice!r} is there more than once.")
    if not known:
        raise ValueError("There are no items: give comparisons, or names.")
    return known


def _is_label(x: Any) -> bool:
    try:
        hash(x)
        return x is not None and not bool(x != x)
    except TypeError:  # pandas.NA has no truth value, a list no hash
        return False


def _check_label(label: Any, where: str) -> None:
    if not _is_label(label):
        raise ValueError(f"{where} is {label!r}, which names nothing: leave it out, or fill it in.")


def _encode(labels: Iterable[Any], known: Mapping[Hashable, int], name: str) -> np.ndarray:
    """Return the positions of labels, or say which is unknown."""
    labels = list(labels)
    try:
        return np.fromiter((known[label] for label in labels), dtype=np.int64, count=len(labels))
    except (KeyError, TypeError):
        pass
    for row, label in enumerate(labels):
        _check_label(label, f"{name}[{row}]")
        if label not in known:
            raise ValueError(f"{name}[{row}] is {label!r}, which is not among the {len(known)} names.")
    raise AssertionError


def _at(known: Mapping[Hashable, int], k: int) -> str:
    return repr(list(known)[k])


def _booleans(values: Any, name: str) -> np.ndarray:
    column = _column(values, name)
    row = next((row for row, value in enumerate(column) if not isinstance(value, bool | np.bool_)), None)
    if row is not None:
        raise ValueError(f"{name} must hold booleans, but {name}[{row}] is {column[row]!r}.")
    return np.array(column, dtype=bool)


def _weights(values: Any, name: str) -> np.ndarray:
    out = numbers(_column(values, name), name)
    if out.ndim != 1:
        raise ValueError(f"{name} must hold one number per row, but its shape is {out.shape}.")
    row = np.flatnonzero(~((out >= 0) & (out < inf)))
    if row.size:
        raise ValueError(f"{name} must be non-negative and finite, but {name}[{row[0]}] is {out[row[0]]}.")
    return out


def _square(table: Any, name: str) -> np.ndarray:
    out = numbers(table, name)
    if out.ndim != 2 or out.shape[0] != out.shape[1]:
        raise ValueError(f"{name} must have shape (m, m), but its shape is {out.shape}.")
    return out


def _aligned(table: Any, known: Mapping[Hashable, int], name: str) -> np.ndarray:
    """Return counts in the order of the names, checked."""
    m = len(known)
    if is_frame(table) and (own_names(table) or own_names(table.T)):
        axes = []
        for axis, labels in (("rows", table.index), ("columns", table.columns)):
            column = _column(labels, axis)
            if len(set(column)) < len(column):
                twice = next(label for label in column if column.count(label) > 1)
                raise ValueError(f"The {axis} of {name} must differ, but {twice!r} is there more than once.")
            axes.append(_encode(column, known, f"{axis} of {name}"))
        out = np.zeros((m, m))
        out[np.ix_(*axes)] = numbers(table.to_numpy(), name)
    else:
        out = _square(table.to_numpy() if is_frame(table) else table, name)
        if len(out) != m:
            raise ValueError(f"{name} has {len(out)} rows, but there are {m} names.")
    wrong = np.argwhere(~((out >= 0) & (out < inf)))
    if len(wrong):
        i, j = wrong[0]
        raise ValueError(
            f"{name} must hold non-negative finite counts, but that of {_at(known, i)} against {_at(known, j)} is "
            f"{out[i, j]}."
        )
    own = np.flatnonzero(np.diagonal(out))
    if own.size:
        raise ValueError(
            f"{name} counts {out[own[0], own[0]]:g} comparisons of {_at(known, own[0])} with itself: set the diagonal "
            f"to 0."
        )
    return out


def _tiers(ranking: Any, row: int) -> list[list[Any]]:
    """Return the tiers of a ranking, best first."""
    if own_names(ranking) is not None:
        ranking = ranking.to_dict()  # a labelled Series maps items to ranks
    if isinstance(ranking, Mapping):
        ranks: dict[Any, list[Any]] = {}
        for label, rank in ranking.items():
            ranks.setdefault(number(rank, f"The rank of {label!r} in ranking {row}"), []).append(label)
        nothing = next((items[0] for rank, items in ranks.items() if rank != rank), None)
        if nothing is not None:
            raise ValueError(f"The rank of {nothing!r} in ranking {row} is NaN: leave out whom it does not rank.")
        return [ranks[rank] for rank in sorted(ranks)]
    if isinstance(ranking, str | bytes):
        raise ValueError(f"ranking {row} is the text {ranking!r}: give a sequence of items, best first.")
    entries = _column(ranking, f"ranking {row}")
    return [list(tier) if isinstance(tier, list | tuple | set | frozenset) else [tier] for tier in entries]


def _ballot_cells(code: tuple[tuple[int, ...], ...], m: int, below: bool) -> np.ndarray:
    """Return the keys of all comparisons that a ranking makes."""
    ranked = [k for tier in code for k in tier]
    tiers = [*code, tuple(np.setdiff1d(np.arange(m), ranked))] if below else list(code)
    out = []
    for k, tier in enumerate(tiers):
        lower = [x for other in tiers[k + 1 :] for x in other]
        out += [(i * m + j) * 2 for i in tier for j in lower]
        if k < len(code):
            out += [(i * m + j) * 2 + 1 for i in tier for j in tier if i < j]
    return np.array(out, dtype=np.int64)


def _cells(key: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pair, tie = np.divmod(key, 2)
    first, second = np.divmod(pair, m)
    return first, second, tie.astype(bool)
