"""What data may come as: every holder of numbers that has one meaning is read, the rest is refused by name.

And what was read is kept: no later change of the caller's array reaches a game.
"""

import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from scipy import sparse

import windgames as wg
from windgames._array import to_numpy
from windgames.bandits import LogLinear, Tabular
from windgames.oracles import Oracle

P = np.array([[0.5, 0.75, 0.25], [0.25, 0.5, 1.0], [0.75, 0.0, 0.5]])
REF = np.array([0.25, 0.25, 0.5])
REWARD = np.array([1.0, 2.0, 4.0])
EMBEDDING = np.array([[0.1, 0.2], [0.3, 0.1], [0.2, 0.3]])
SKEW = np.array([[0.0, -1.0], [1.0, 0.0]])
COUNTS = np.array([[0.0, 3, 1], [1, 0, 2], [3, 2, 0]])

# -- aliasing ----------------------------------------------------------------------------------------------


def win_rate_game(preference):
    m = preference.n_responses
    return wg.WinRateGame(preference, to_numpy(preference.example).dtype.type(1) * np.full(m, 1 / m), 0.3)


ENTRANCES = {
    "matrix": (P, lambda x, _: win_rate_game(wg.MatrixPreference(x))),
    "reward": (REWARD, lambda x, _: win_rate_game(wg.RewardPreference(x))),
    "Bradley-Terry": (REWARD, lambda x, _: win_rate_game(wg.BradleyTerryPreference(x))),
    "embedding": (EMBEDDING, lambda x, _: win_rate_game(wg.LowRankPreference(x))),
    "skew": (SKEW, lambda x, lib: win_rate_game(wg.LowRankPreference(lib.asarray(EMBEDDING), x))),
    "counts": (COUNTS, lambda x, _: win_rate_game(wg.from_counts(x))),
    "ref": (REF, lambda x, lib: wg.WinRateGame(wg.MatrixPreference(lib.asarray(P)), x, 0.3)),
    "log_ref": (np.log(REF), lambda x, lib: wg.WinRateGame(wg.MatrixPreference(lib.asarray(P)), None, 0.3, log_ref=x)),
    "beta": (np.array([0.3, 0.1]), lambda x, lib: wg.WinRateGame(wg.MatrixPreference(lib.asarray(P)), REF, x)),
    "payoff": (P[:2], lambda x, _: win_rate_game(wg.embed_zero_sum(x).preference)),
}


@pytest.mark.parametrize("name", ENTRANCES)
def test_a_later_change_of_the_callers_array_changes_nothing(library, name):
    data, make = ENTRANCES[name]
    theirs = library.asarray(data.copy())
    game, untouched = make(theirs, library), make(library.asarray(data.copy()), library)
    theirs[...] = 0.77
    for method in (game.payoff, game.best_response):
        same = getattr(untouched, method.__name__)
        np.testing.assert_array_equal(to_numpy(method(game.log_ref)), to_numpy(same(game.log_ref)))
    np.testing.assert_array_equal(to_numpy(game.log_ref), to_numpy(untouched.log_ref))
    found = wg.equilibrium(game)
    assert np.all(found.converged)
    np.testing.assert_array_equal(to_numpy(found.policy), to_numpy(wg.equilibrium(untouched).policy))


def test_what_a_game_holds_cannot_be_edited():
    """In numpy, where arrays can be read-only."""
    matrix, reward = wg.MatrixPreference(P), wg.RewardPreference(REWARD)
    low, game = wg.LowRankPreference(EMBEDDING, SKEW), wg.WinRateGame(reward, REF, [0.1, 0.2])
    made = [p.matrix() for p in (matrix, wg.BradleyTerryPreference(REWARD))] + [matrix.log_matrix()]
    for held in (*made, reward.reward, low.embedding, low.skew, game.ref, game.log_ref, game.beta):
        with pytest.raises(ValueError, match="read-only"):
            held[0] = 0.0
    for kind in (wg.wind, wg.extragradient, wg.sppo):
        eta = np.array([0.1, 0.2])
        rule = kind(eta)
        eta[:] = 9.0
        np.testing.assert_array_equal(rule.eta, [0.1, 0.2])


def test_views_and_repetition():
    """A transposed, strided or repeated view is copied as it is seen; what broadcasting repeats takes no memory."""
    wide = np.zeros((6, 6))
    wide[::2, ::2] = P.T
    p = wg.MatrixPreference(wide[::2, ::2].T)
    wide[:] = 0.3
    np.testing.assert_array_equal(p.matrix(), P)
    many = wg.MatrixPreference(np.broadcast_to(P, (5000, 3, 3)))
    assert many.matrix().shape == (5000, 3, 3)
    assert many.matrix().strides[0] == 0
    locked = P.copy()
    locked.flags.writeable = False
    view = locked[:]  # its base could be unlocked and edited
    p = wg.MatrixPreference(view)
    locked.flags.writeable = True
    locked[:] = 0.3
    np.testing.assert_array_equal(p.matrix(), P)


def test_learners_and_oracles_keep_what_they_were_given(rng):
    log_ref, features, reward = np.log(REF[None]), rng.normal(size=(1, 3, 2)), REWARD.copy()
    table, linear = Tabular(log_ref), LogLinear(log_ref, features)
    oracle = Oracle(wg.MatrixPreference(P), reward=reward)
    theta = np.ones(2)
    before = table.log_policy(table.start()), linear.log_policy(theta), oracle.score(np.arange(3)[None])
    for x in (log_ref, features, reward):
        x[:] = 0.1
    after = table.log_policy(table.start()), linear.log_policy(theta), oracle.score(np.arange(3)[None])
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gradient_reaches_rewards_whose_matrix_was_seen_without_one():
    torch = pytest.importorskip("torch")
    leaf, log_policy = torch.tensor(REWARD, requires_grad=True), torch.log(torch.tensor(REF))
    p = wg.BradleyTerryPreference(leaf)
    with torch.no_grad():
        p.matrix()
    for times in (1, 2):  # and twice
        p.win_rate(log_policy)[0].backward()
        s = p.matrix().detach()[0]
        np.testing.assert_allclose(leaf.grad[1:] / times, -(REF * (s * (1 - s)).numpy())[1:], atol=1e-15)


def test_a_gradient_still_reaches_the_callers_tensor():
    torch = pytest.importorskip("torch")
    for make, data in (
        (wg.MatrixPreference, P),
        (wg.BradleyTerryPreference, REWARD),
        (wg.LowRankPreference, EMBEDDING),
    ):
        leaf = torch.tensor(data, requires_grad=True)
        make(leaf).win_rate(torch.log(torch.tensor(REF)))[0].backward()
        assert torch.any(leaf.grad != 0)


# -- what has one meaning ----------------------------------------------------------------------------------


def holders(x):
    """The numbers of `x` in containers that say the same; all entries are dyadic, so exact in every type."""
    pandas = pytest.importorskip("pandas")
    torch = pytest.importorskip("torch")
    yield "list", x.tolist()
    yield "fractions", np.vectorize(Fraction, otypes=[object])(x)
    yield "list of fractions", np.vectorize(Fraction, otypes=[object])(x).tolist()
    yield "decimals", np.vectorize(Decimal, otypes=[object])(x)
    yield (
        "mixed objects",
        np.array([Fraction(v) if k % 2 else float(v) for k, v in enumerate(x.flat)], object).reshape(x.shape),
    )
    yield "unmasked", np.ma.masked_array(x, mask=np.zeros(x.shape, dtype=bool))
    yield "mask of nothing", np.ma.masked_array(x)
    yield "big endian", x.astype(">f8")
    yield "longdouble", x.astype(np.longdouble)
    yield "float16", x.astype(np.float16)
    yield "float32", x.astype(np.float32)
    yield "Fortran order", np.asfortranarray(x)
    if x.ndim == 1:
        yield "nullable", pandas.Series(x, dtype="Float64")
        yield "nullable array", pandas.array(x, dtype="Float64")
        yield "series", pandas.Series(x)
    if x.ndim == 2:
        yield "nullable frame", pandas.DataFrame(x).astype("Float64")
        yield "csr", sparse.csr_array(x)
        yield "coo matrix", sparse.coo_matrix(x)
        yield "matrix", np.matrix(x)
        yield "torch csr", torch.tensor(x).to_sparse_csr()
    yield "torch", torch.tensor(x)
    yield "torch coo", torch.tensor(x).to_sparse()
    yield "torch bfloat16", torch.tensor(x, dtype=torch.bfloat16)
    yield "torch float8", torch.tensor(x).to(torch.float8_e5m2)
    yield "quantised", torch.quantize_per_tensor(torch.tensor(x, dtype=torch.float32), 1 / 32, 0, torch.quint8)


@pytest.mark.filterwarnings(
    "ignore:Sparse CSR tensor support", "ignore:.*quantize:", "ignore:.*deprecated", "ignore:the matrix subclass"
)
@pytest.mark.parametrize(
    ("data", "make"),
    [
        (P, lambda x: wg.MatrixPreference(x).matrix()),
        (REWARD, lambda x: wg.RewardPreference(x).matrix()),
        (REWARD, lambda x: wg.BradleyTerryPreference(x).reward),
        (EMBEDDING.round(0) + 0.25, lambda x: wg.LowRankPreference(x).embedding),
        (COUNTS, lambda x: wg.from_counts(x).matrix()),
        (P[:2], lambda x: wg.embed_zero_sum(x).preference.matrix()),
        (REF, lambda x: wg.WinRateGame(wg.MatrixPreference(P), to_numpy_ref(x), 0.5).ref),
        (np.array([0.5, 0.25]), lambda x: wg.WinRateGame(wg.MatrixPreference(P), REF, x).beta),
        (np.array([0.5, 0.25]), lambda x: wg.bounds.linear_rate(x, 1.0)),
        (np.array([0.5, 0.25]), lambda x: wg.wind(x).eta),
    ],
)
def test_containers_that_say_the_same_are_read_alike(data, make):
    expected = to_numpy(make(data)).astype(float)
    for name, held in holders(data):
        np.testing.assert_allclose(to_numpy(make(held)).astype(float), expected, rtol=2e-3, err_msg=name)


def to_numpy_ref(x):
    """A reference is in the library of the preference; a tensor beside a numpy preference is refused, not read."""
    torch = pytest.importorskip("torch")
    if isinstance(x, torch.Tensor):
        with pytest.raises(ValueError, match="use one array library"):
            wg.WinRateGame(wg.MatrixPreference(P), x.dequantize() if x.is_quantized else x, 0.5)
        return REF
    return x


def test_exact_fractions_make_an_exact_game():
    third = Fraction(1, 3)
    game = wg.WinRateGame(wg.MatrixPreference(np.array([[Fraction(1, 2), third], [1 - third, Fraction(1, 2)]])),
                          [third, 1 - third], Fraction(1, 10))  # fmt: skip
    assert game.beta == 0.1
    assert game.preference.matrix()[0, 1] == 1 / 3


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.uint64, bool, np.float16])
def test_sums_of_narrow_counts_do_not_wrap(dtype):
    """200 + 200 in eight bits, 60,000 + 60,000 in sixteen, or in half precision."""
    most = 1 if dtype is bool else 60000.0 if dtype is np.float16 else np.iinfo(dtype).max
    if most >= 2**53:
        most = 2**52
    counts = np.array([[0, most], [most, 0]]).astype(dtype)
    for held in (counts, *tensors(counts)):
        matrix = to_numpy(wg.from_counts(held).matrix())
        np.testing.assert_array_equal(matrix, np.full((2, 2), 0.5))
        assert matrix.dtype == np.float64


def tensors(x):
    torch = pytest.importorskip("torch")
    yield torch.tensor(x)


def test_largest_counts_of_each_floating_type():
    for dtype in (np.float16, np.float32, np.float64):
        most = np.finfo(dtype).max
        np.testing.assert_allclose(wg.from_counts(np.array([[0, most], [most / 4, 0]], dtype)).matrix()[0, 1], 0.8)


def test_a_reference_is_as_exact_as_its_type():
    """Three thirds in half precision miss one by less than its rounding."""
    for dtype in (np.float16, np.float32):
        game = wg.WinRateGame(wg.MatrixPreference(P), np.full(3, 1 / 3, dtype=dtype), 0.3)
        np.testing.assert_allclose(np.exp(game.log_ref), 1 / 3, rtol=1e-15)
    with pytest.raises(ValueError, match="sum to one"):
        wg.WinRateGame(wg.MatrixPreference(P), np.full(3, 0.33, dtype=np.float16), 0.3)


# -- what has none -----------------------------------------------------------------------------------------

REFUSED = {
    "masked": (lambda x: np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) == 1), "masked"),
    "missing": (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 1, None, x), r"entry \((0, )?1,?\) is None"),
    "text": (lambda x: x.astype(str), "real numbers"),
    "text objects": (lambda x: x.astype(str).astype(object), r"is '"),
    "complex": (lambda x: x + 1j, "complex"),
    "complex objects": (lambda x: (x + 1j).astype(object), "real numbers"),
    "dates": (lambda x: x.astype("datetime64[s]"), "real numbers"),
    "huge": (lambda x: np.vectorize(lambda v: Fraction(v) + 10**400, otypes=[object])(x), "a float can hold"),
    "huge integers": (lambda x: np.full(x.shape, 10**400, dtype=object), r"2\*\*53"),
    "least integer": (lambda x: np.full(x.shape, -(2**63)), r"2\*\*53|int64|-9.2"),
    "ragged": (lambda x: [[0.5], [0.5, 0.5]], "read as an array"),
    "records": (lambda x: np.zeros(x.shape, dtype=[("a", float)]), "real numbers"),
    "nullable": (lambda x: nullable(x), "missing|NA|nan|real numbers"),
    "torch complex": (lambda x: torch_of(x, "complex128"), "complex"),
    "torch meta": (lambda x: torch_of(x, "float64").to("meta"), "meta"),
    "torch nested": (lambda x: nested(x), "nested"),
}


def nullable(x):
    pandas = pytest.importorskip("pandas")
    held = pandas.array(x.ravel(), dtype="Float64")
    held[1] = pandas.NA
    return pandas.Series(held) if x.ndim == 1 else pandas.DataFrame(np.asarray(held, dtype=object).reshape(x.shape))


def torch_of(x, dtype):
    torch = pytest.importorskip("torch")
    return torch.tensor(x, dtype=getattr(torch, dtype))


def nested(x):
    torch = pytest.importorskip("torch")
    return torch.nested.nested_tensor([torch.tensor([1.0]), torch.tensor([1.0, 2.0])])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_single_meaning_is_refused(name):
    spoil, says = REFUSED[name]
    for data, make in (
        (P, wg.MatrixPreference),
        (REWARD, wg.RewardPreference),
        (REWARD, wg.BradleyTerryPreference),
        (EMBEDDING, wg.LowRankPreference),
        (COUNTS, wg.from_counts),
        (P, wg.embed_zero_sum),
        (REF, lambda x: wg.WinRateGame(wg.MatrixPreference(P), x, 0.3)),
        (REF, lambda x: wg.WinRateGame(wg.MatrixPreference(P), REF, x)),
        (REF, lambda x: wg.WinRateGame(wg.MatrixPreference(P), None, 0.3, log_ref=x)),
        (REF, lambda x: wg.bounds.linear_rate(x, 1.0)),
        (REF, wg.wind),
    ):
        with pytest.raises(ValueError, match=says):
            make(spoil(data))


@pytest.mark.parametrize("value", [np.ma.masked, 1j, np.complex64(1), [None], "much", np.array([0.1, 0.2])])
def test_one_number_is_one_real_number(value):
    for make in (
        lambda x: wg.BradleyTerryPreference(REWARD, scale=x),
        lambda x: wg.from_counts(COUNTS, prior=x),
        lambda x: wg.iterative_bon(x, 0.3),
        lambda x: wg.equilibrium(wg.WinRateGame(wg.MatrixPreference(P), REF, 0.3), tol=x),
    ):
        with pytest.raises(ValueError, match="one number"):
            make(value)


def test_a_response_is_not_compared_with_itself():
    for held in (COUNTS + np.diag([0, 2.0, 0]), [[0.5, 1], [1, 0]], sparse.csr_array(COUNTS + np.eye(3))):
        with pytest.raises(ValueError, match=r"compared with itself, but entry \((\d), \1\)"):
            wg.from_counts(held)
    batch = np.stack([COUNTS, COUNTS + np.diag([0, 0, 1.0])])
    with pytest.raises(ValueError, match=r"entry \(1, 2, 2\) of wins is 1.0"):
        wg.from_counts(batch)
    with pytest.raises(ValueError, match="itself"):
        wg.from_counts(pytest.importorskip("pandas").DataFrame(COUNTS + np.eye(3)))


# -- tensors that require gradients ------------------------------------------------------------------------


def test_numbers_that_require_a_gradient_are_read_without_a_warning():
    """Their gradient goes through `sensitivity`, not through a game's numbers."""
    torch = pytest.importorskip("torch")

    def leaf(x):
        return torch.tensor(x, dtype=torch.float64, requires_grad=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = wg.MatrixPreference(torch.tensor(P))
        for beta in (leaf(0.3), leaf([0.3, 0.1]), leaf(0.0)):
            game = wg.WinRateGame(p, torch.tensor(REF), beta)
            assert np.all(wg.equilibrium(game).converged)
            assert "beta" in repr(game)
            wg.solve(game, wg.extragradient(leaf(0.1)), max_steps=3)
        wg.BestOfNGame(wg.RewardPreference(torch.tensor(REWARD)), torch.tensor(REF), leaf(3.0), leaf(1.5))
        wg.BradleyTerryPreference(leaf(REWARD), scale=leaf(2.0))
        assert wg.bounds.linear_rate(leaf(1.0), leaf(1.0)) == 0.5
        game = wg.WinRateGame(wg.MatrixPreference(leaf(P)), leaf(REF), leaf(0.3))
        assert wg.equilibrium(game, tol=leaf(1e-9)).converged
        assert wg.verify(game, wg.equilibrium(game))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda leaf: wg.MatrixPreference(leaf([[0.5, 1.5], [0.5, 0.5]])), "1.5"),
        (lambda leaf: wg.RewardPreference(leaf([0.0, np.nan])), "nan"),
        (lambda leaf: wg.LowRankPreference(leaf([[0.0, np.inf]])), "inf"),
        (lambda leaf: wg.from_counts(leaf([[0.0, -1.0], [0.0, 0.0]])), "-1.0"),
        (lambda leaf: wg.from_counts(leaf([[1.0, 1.0], [0.0, 0.0]])), "itself"),
        (lambda leaf: wg.embed_zero_sum(leaf([[np.nan]])), "nan"),
        (lambda leaf: wg.WinRateGame(wg.RewardPreference(leaf([0.0, 1.0])), leaf([1.0, 0.0]), 1.0), r"ref\[1\] is 0"),
        (lambda leaf: wg.WinRateGame(wg.RewardPreference(leaf([0.0, 1.0])), leaf([0.5, 0.4]), 1.0), "sums to 0.9"),
        (lambda leaf: wg.WinRateGame(wg.RewardPreference(leaf([0.0, 1.0])), leaf([0.5, 0.5]), leaf(-1.0)), "-1.0"),
        (
            lambda leaf: wg.WinRateGame(wg.RewardPreference(leaf([0.0, 1.0])), leaf([0.5, 0.5]), 1.0).gap(
                leaf([-1.0, -1.0])
            ),
            "sum to 0.73",
        ),
    ],
)
def test_messages_about_such_tensors(make, says):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=says):
        make(lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True))
