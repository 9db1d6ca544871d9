"""The real run in its small form, on a random model: table, sidecar, picture, and a folder that is a model."""

import json

import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("tyro")
pytest.importorskip("transformers")
pytest.importorskip("vaderSentiment")

import lm_tiny
from scripts import RESULTS, output, sidecar, start


def test_the_run_leaves_a_table_a_picture_and_a_model(tmp_path):
    lm_tiny.make(tmp_path / "model")
    told = output("align", "--model", tmp_path / "model", "--results", tmp_path, "--runs", "WIND")
    assert "=> WIND: win rate" in told
    evaluated = json.loads(next(tmp_path.glob("align/WIND-0-*/evaluation.json")).read_text())["rows"]
    assert {(row["measure"], row["of"]) for row in evaluated} >= {("reward", "model"), ("reward", "reference")}
    assert "win rate against the reference" in told
    table = pd.read_csv(tmp_path / "align.csv")
    assert list(table["round"]) == [0, 1, 2]
    assert table.win_rate.between(0, 1).all()
    assert table.held_kl[0] == 0  # the adapter changes nothing yet
    assert table.held_kl[2] != 0
    assert (table.win_rate_low <= table.win_rate).all()
    assert sidecar(tmp_path, "align")["config"]["model"] is None
    assert (tmp_path / "align.png").exists()
    assert len(list(tmp_path.glob("align/WIND-0-*/model/config.json"))) == 1
    assert set(table.model) == {"model"}


@pytest.mark.slow
def test_runs_at_equal_tokens_are_kept_under_other_settings(tmp_path):
    lm_tiny.make(tmp_path / "model")
    common = ("align", "--model", tmp_path / "model", "--results", tmp_path)
    output(*common, "--runs", "WIND", "J-BOND", "WIND, flipped")
    table = pd.read_csv(tmp_path / "align.csv")
    assert list(table["round"]) == [0, 1, 2, *range(17), 0, 1, 2]
    last = table.groupby("run").total_tokens.max()
    assert last["J-BOND"] == pytest.approx(last["WIND"], rel=0.3)  # the same number of responses
    # other settings, and back: nothing is lost, and nothing is trained again
    output(*common, "--learning-rate", "0.1")
    back = start(*common)
    assert back.returncode == 0, back.stderr[-2000:]
    assert "round 1/" not in back.stderr
    assert "before:" in back.stdout
    fresh = start(*common, "--fresh")
    assert fresh.returncode == 0
    assert "round 1/" in fresh.stderr
    assert "Its reward model is right about" in output(*common, "--runs", "WIND, reward model")


def test_without_the_package_it_says_what_to_do(tmp_path, monkeypatch):
    import align as script

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="make align installs"):
        script.weights(script.SMOLLM)


def test_held_out_openers_are_about_other_things():
    import align as script

    assert len(script.TRAINING) == 64
    assert len(script.HELD) == 20
    assert not any(thing in prompt for thing in script.HELD_OUT.split() for prompt in script.TRAINING)


def test_the_committed_table_supports_what_the_readme_says():
    table = pd.read_csv(RESULTS / "align.csv")
    last = table[table.win_rate.notna()].groupby(["run", "seed"]).tail(1).set_index("run")
    assert (last.loc[["WIND"]].win_rate_low > 0.6).all()
    assert (last.loc[["WIND"]].held_reward_low > last.loc[["WIND"]].reference_reward).all()
    assert (last.win_rate <= last.possible_win_rate + 0.05).all()  # theory 3.12, up to noise of the estimates


def test_a_flipped_judge_is_wrong_about_its_share_of_pairs_and_always_the_same():
    import align as script

    from windlm import RewardJudge

    right = RewardJudge(lambda prompts, responses: [float(r) for r in responses])
    wrong = script.Flipped(right, 0.25)
    prompts, responses = ["a", "b"], [[str(i) for i in range(60)]] * 2
    there, here = wrong.preference(prompts, responses).matrix(), right.preference(prompts, responses).matrix()
    assert wrong.preference(prompts, responses).matrix() == pytest.approx(there)
    share = (there != here).mean() * 60 / 59
    assert share == pytest.approx(0.25, abs=0.03)  # of 3,540 pairs: four standard deviations
    assert there == pytest.approx(1 - there.swapaxes(-1, -2))
