"""The study of language models in its small form: tables, sentences, the picture."""

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("tyro")
pytest.importorskip("transformers")

import scripts
from scripts import RESULTS, sidecar

TABLES = ("methods", "slower", "summary", "floor", "robust", "memory")
smoke = scripts.smoke("lm", "--jobs", 1)


def test_every_study_leaves_a_table_a_sidecar_and_a_sentence(smoke):
    folder, told = smoke
    assert told.count("=>") == 4
    for name in TABLES:
        sidecar(folder, f"lm_{name}")


def test_methods_have_the_same_tokens_and_start_at_the_same_place(smoke):
    table = pd.read_csv(smoke[0] / "lm_methods.csv")
    assert table.method.nunique() == 8
    for _, rows in table.groupby("judge"):
        first = rows[rows["round"] == 0]
        assert (first.kl_to_ref.abs() < 1e-12).all()
        assert np.ptp(first.kl_from_solution) < 1e-9
        last = rows.groupby("method").tokens.last()
        assert last.max() < 1.3 * last.min()
    assert (table.gap >= 0).all()
    # the certificate of theory 2.3, on transformers: gap / beta bounds the divergence to the equilibrium
    assert (table.kl_to_solution <= table.gap / 0.2 * (1 + 1e-6) + 1e-9).all()


def test_the_floor_is_measured_at_the_end(smoke):
    table = pd.read_csv(smoke[0] / "lm_floor.csv").set_index("change")
    methods = pd.read_csv(smoke[0] / "lm_methods.csv").query("judge == 'reward' and method == 'WIND'")
    assert table.tokens["standard"] == methods.tokens.iloc[-1]
    assert table.fraction["standard"] == pytest.approx(methods.fraction.iloc[-1])


def test_a_wrong_judge_moves_the_aim(smoke):
    table = pd.read_csv(smoke[0] / "lm_robust.csv")
    right, wrong = (table[(table.flips > 0) == side] for side in (False, True))
    assert (right.aim == 0).all()
    assert (wrong.aim > 0.01).all()
    assert (wrong.aim_on_average > 0.01).all()
    assert table.parameters.nunique() == 2
    assert table.beta.nunique() == 2


def test_a_wrong_judge_says_what_he_is_told_to():
    from lm_studies.task import BETA, Task

    import windgames as wg

    right = Task("reward", 0, smoke=True)
    answers = right.enumeration.text
    asked = (right.prompts, [answers] * len(right.prompts))
    told = right.preference(*asked).matrix()
    assert told == pytest.approx(right.whole.matrix())
    flipped = Task("reward", 0, smoke=True, flips=0.25)
    assert flipped.whole.matrix() == pytest.approx(right.whole.matrix())
    wrong = flipped.preference(*asked).matrix() != told
    off = 1 - 1 / len(answers)
    assert 0.15 * off < wrong.mean() < 0.35 * off  # of 420 pairs
    biased = Task("reward", 0, smoke=True, bias=0.3)
    lifted = biased.judged.reward - right.whole.reward
    assert sorted(set(lifted.round(9).ravel())) == [0, 2]
    assert (lifted > 0).mean() == pytest.approx(0.3, abs=0.05)
    # each aims at the equilibrium of what he says, which an independent run of theory 5.2's rule finds as well
    for task in (flipped, biased):
        game = wg.WinRateGame(task.judged, np.exp(task.log_ref), BETA)
        found = wg.solve(game, wg.extragradient(), tol=1e-9, max_steps=5000)
        assert task.aim.log_policy == pytest.approx(found.log_policy, abs=1e-6)


def test_tokens_to_a_level_are_the_quickest_variant_s_on_the_same_seeds():
    from lm_studies.methods import summarise

    rows = [
        ("WIND", "standard", 0, [1, 0.4, 0.1], [0, 100, 200]),
        ("WIND", "standard", 1, [1, 0.8, 0.1], [0, 100, 200]),
        ("SPPO", "standard", 0, [1, 0.5, 2.0], [0, 50, 100]),
        ("SPPO", "slow", 0, [1, 0.9, 0.3], [0, 90, 180]),
    ]
    table = pd.DataFrame(
        [
            {"judge": "reward", "method": m, "variant": v, "seed": s, "fraction": f, "tokens": t, "round": i}
            | dict.fromkeys(("kl_from_solution", "gap", "kl_to_ref", "seconds"), f)
            for m, v, s, fractions, tokens in rows
            for i, (f, t) in enumerate(zip(fractions, tokens, strict=True))
        ]
    )
    found = summarise(table).set_index("method")
    assert found.nearest_variant["SPPO"] == "slow"
    assert found["tokens_to_0.5"]["SPPO"] == 50
    assert found["wind_ratio_to_0.5"]["SPPO"] == 2  # of WIND's seed 0, not of the mean of both
    assert found["tokens_to_0.5"]["WIND"] == 150


def test_the_picture_names_its_table(smoke):
    image = pytest.importorskip("PIL.Image")
    with image.open(smoke[0] / "lm.png") as picture:
        assert picture.width > 500
        assert "lm_methods.csv" in picture.info["Source"]


def test_the_committed_table_supports_what_the_readme_says():
    summary = pd.read_csv(RESULTS / "lm_summary.csv").set_index(["judge", "method"])
    wind = summary.xs("WIND", level="method")
    assert (wind.final_fraction < 0.05).all()
    for method in ("SPPO", "J-BOND", "iterative BOND", "best-of-n, likelihood"):
        assert (summary.xs(method, level="method").final_fraction > 1).all()  # further away than they began
