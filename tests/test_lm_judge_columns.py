"""Rewards that read columns of the data set, several rewards, and responses that were cut."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")

import lm_tiny

from windlm import Config, wind
from windlm.cli import main
from windlm.cli.run import RunConfig
from windlm.cli.settings import build, settings
from windlm.data import Data, Prompts, load_prompts
from windlm.judges import PairwiseJudge, RewardJudge
from windlm.judges.verifiable import final_number, last_number
from windlm.models import JudgeSettings
from windlm.tabular import small_policy
from windlm.train import train

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
SUMS = Prompts(["1+1", "1+1", "2+2"], {"answer": ["2", "II", "4"], "source": ["a", "b", "a"]})
REPLIES = [["2", "II"], ["2", "II"], ["4", "2"]]
RIGHT = [[1, 0], [0, 1], [1, 0]]


def by_name(prompts, responses, answer):
    return [float(r == a) for r, a in zip(responses, answer, strict=True)]


def by_position(p, r, answer):
    return by_name(p, r, answer)


def by_keyword(p, r, *, answer, nothing=None):
    assert nothing is None  # there is no such column
    return by_name(p, r, answer)


def with_all(prompts, responses, **columns):
    assert set(columns) == {"answer", "source"}
    return by_name(prompts, responses, columns["answer"])


def of_trl(prompts, completions, answer, **kwargs):
    assert set(kwargs) == {"source"}
    return by_name(prompts, completions, answer)


def of_trl_alone(completions, **kwargs):
    assert kwargs["prompts"] == ["1+1", "1+1", "1+1", "1+1", "2+2", "2+2"]
    return by_name(None, completions, kwargs["answer"])


class Callable:
    def __call__(self, prompts, responses, answer):
        return by_name(prompts, responses, answer)


REWARDS = [by_name, by_position, by_keyword, with_all, of_trl, of_trl_alone, Callable()]


@pytest.mark.parametrize("reward", REWARDS, ids=lambda f: getattr(f, "__name__", "object"))
def test_a_reward_reads_the_columns_that_it_names(reward):
    """And two rows with the same prompt and other answers stay two."""
    judge = RewardJudge(reward)
    np.testing.assert_array_equal(judge.rewards(SUMS, REPLIES, SUMS.columns), RIGHT)
    assert judge.calls == 6
    judge.rewards(SUMS, REPLIES, SUMS.columns)
    assert judge.calls == 6  # known


def test_only_the_columns_that_are_read_tell_verdicts_apart():
    plain, reads = RewardJudge(lambda prompts, responses: [1.0] * len(responses)), RewardJudge(by_name)
    for judge, calls in ((plain, 4), (reads, 6)):
        judge.rewards(SUMS, REPLIES, SUMS.columns)
        assert judge.calls == calls
    assert plain.columns == ()
    assert reads.columns == ("answer",)
    assert RewardJudge(with_all).columns is None


def test_a_column_may_have_the_name_of_an_argument():
    """The argument is what the judge gives; UltraFeedback has completions, rollouts have responses."""
    columns = {"responses": ["mine"], "completions": ["yours"], "p": ["theirs"]}

    def reward(prompts, responses, **others):
        assert responses == ["x"]
        assert others == {"completions": ["yours"], "p": ["theirs"]}
        return [1.0]

    def positional(p, r, **others):
        assert (p, r) == (["q"], ["x"])
        assert set(others) == {"responses", "completions"}
        return [1.0]

    for function in (reward, positional):
        assert RewardJudge(function).rewards(["q"], [["x"]], columns) == 1
    wins = PairwiseJudge(lambda prompts, first, second, completions: [float(c == "yours") for c in completions])
    assert wins.preference(["q"], [["x", "y"]], columns).matrix()[0, 0, 1] == 0.5  # 1 in both orders


def test_a_conversation_is_given_as_trl_gives_it():
    seen = []

    def reward(prompts, completions, completion_ids):
        seen.append((prompts, completions, completion_ids))
        return [0.0] * len(prompts)

    talk = [{"role": "user", "content": "q"}]
    RewardJudge(reward).rewards([talk, "p"], [["x"], ["y"]], {"token_ids": [[[1, 2]], [[3]]]})
    assert seen == [([talk, "p"], [[{"role": "assistant", "content": "x"}], "y"], [[1, 2], [3]])]


def test_absent_columns_are_named_before_anything_is_sampled(tmp_path):
    policy, asked = small_policy(letters=4, length=3), []
    judge = RewardJudge([by_name, lambda prompts, responses: asked.append(1)])
    with pytest.raises(ValueError, match=r"reads the columns 'answer'; the data have 'label'"):
        train(policy, Prompts(["a"], {"label": ["b"]}), judge, wind(0.1), Config(tmp_path, progress=False, cpu=True))
    assert not asked
    with pytest.raises(ValueError, match="'answer'; the data have none"):
        RewardJudge(by_name).rewards(["a"], [["b"]])
    with pytest.raises(ValueError, match="'answer'; the data have none"):
        PairwiseJudge(lambda prompts, first, second, answer: [0.5]).check(["a"], 3)
    with pytest.raises(ValueError, match="columns of the data set, not token_ids"):
        PairwiseJudge(lambda prompts, first, second, token_ids: [0.5])


def test_a_comparison_reads_columns_too():
    def wins(prompts, first, second, answer):
        return [0.5 + 0.5 * ((a == x) - (b == x)) for a, b, x in zip(first, second, answer, strict=True)]

    matrix = PairwiseJudge(wins).preference(SUMS, REPLIES, SUMS.columns).matrix()
    np.testing.assert_array_equal(matrix[:, 0, 1], [1, 0, 1])


def test_rewards_are_summed_with_their_weights():
    def length(prompts, responses):
        return [float(len(r)) for r in responses]

    def where_it_applies(prompts, responses, source):
        return [None if s == "b" else 10.0 for s in source]

    judge = RewardJudge([by_name, length, where_it_applies], weights=[1.0, -0.5, 0.1])
    expected = np.array(RIGHT) - 0.5 * np.array([[1, 2], [1, 2], [1, 1]]) + np.array([[1.0], [0], [1]])
    np.testing.assert_allclose(judge.rewards(SUMS, REPLIES, SUMS.columns), expected, atol=1e-12)
    np.testing.assert_array_equal(judge.parts(SUMS, REPLIES, SUMS.columns)[..., 0], RIGHT)
    assert judge.preference(SUMS, REPLIES, SUMS.columns).matrix()[0, 0, 1] == 1
    with pytest.raises(ValueError, match="weights must be 2 finite numbers"):
        RewardJudge([length, length], weights=[1.0])
    with pytest.raises(ValueError, match="reward 1 of 2 of response '2'"):
        RewardJudge([length, lambda p, r: [float("nan")] * len(r)]).rewards(SUMS, REPLIES)


def test_training_gives_token_ids_ends_and_special_tokens(tmp_path):
    seen = []

    def reward(prompts, responses, token_ids, ended, text_with_special_tokens, answer):
        seen.extend(zip(responses, token_ids, ended, text_with_special_tokens, answer, strict=True))
        return [float(len(r)) for r in responses]

    def length(prompts, responses):
        return [float(len(r)) for r in responses]

    policy = small_policy(letters=3, length=2)
    judge = RewardJudge([reward, length], weights=[0.5, 1.0], cut=3.0)
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": "a", "answer": "2"}]
    found = train(policy, rows, judge, wind(0.1), Config(tmp_path, rounds=1, draws=16, progress=False, cpu=True))
    row = found[1]
    assert row["reward_reward"] == row["reward_length"] > 0
    assert row["reward"] == pytest.approx(1.5 * row["reward_length"] - 3 * row["cut"], abs=1e-6)
    assert {answer for *_, answer in seen} == {"1", "2"}
    assert {end for _, _, end, _, _ in seen} == {"cut", "end token"}
    for text, ids, end, special, _ in seen:
        assert policy.tokenizer.decode(ids, skip_special_tokens=True) == text
        assert policy.tokenizer.decode(ids) == special
        assert (end == "cut") == (ids[-1] not in policy.stop_ids)


def test_a_response_that_was_cut_loses_the_penalty():
    judge = RewardJudge(lambda prompts, responses: [1.0] * len(responses), cut=0.25)
    found = judge.rewards(["p", "q"], [["x", "y"], ["x", "z"]], {"ended": [["cut", "end token"], ["stop text", "cut"]]})
    np.testing.assert_array_equal(found, [[0.75, 1], [1, 0.75]])
    assert judge.response_columns == ["ended"]
    assert judge.columns == ()  # of the data set
    with pytest.raises(ValueError, match="cut must be"):
        RewardJudge(by_name, cut=-1.0)


# -- a verifiable reward -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He has 3 apples, so 3*4 = 12.", "12"),
        ("#### 1,080", "1080"),
        ("The answer is $2.50", "2.5"),
        ("-7", "-7"),
        ("5 - 12 = -7, or -7.0", "-7"),
        ("it is .5", "0.5"),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    found = final_number(text)
    assert found == (None if number is None else type(found)(number))


def test_answers_of_gsm8k_are_compared_by_the_last_number():
    judge = RewardJudge(last_number)
    prompts = Prompts.of([{"question": "6*7?", "answer": "6*7 = <<6*7=42>>42\n#### 42"}])
    found = judge.rewards(prompts, [["It is 42.", "42.0", "41", "", "42 or 43"]], prompts.columns)
    np.testing.assert_array_equal(found, [[1, 1, 0, 0, 0]])
    with pytest.raises(ValueError, match="'none' has no number"):
        last_number(["q"], ["1"], ["none"])


FOLDER = Path(os.environ.get("WINDLM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Local copies of public data sets, where there are any."""


@pytest.mark.skipif(not (FOLDER / "gsm8k").is_dir(), reason=f"there is no folder {FOLDER / 'gsm8k'}")
def test_every_solution_of_gsm8k_is_right():
    prompts = load_prompts(Data(str(FOLDER / "gsm8k" / "test.jsonl.gz")), ["answer"])
    solutions = prompts.columns["answer"]
    assert last_number(prompts, solutions, solutions) == [1.0] * 1319
    assert sum(last_number(prompts, [*solutions[1:], ""], solutions)) < 132


# -- the command line ----------------------------------------------------------------------------------------

OWN = """
def digits(prompts, responses, answer):
    return [float(sum(c in answer[i] for c in r)) for i, r in enumerate(responses)]
def brief(prompts, responses, token_ids):
    return [-float(len(ids)) for ids in token_ids]
"""


def test_rewards_with_columns_and_weights_from_the_command_line(tmp_path):
    lm_tiny.make(tmp_path / "policy")
    (tmp_path / "mine.py").write_text(OWN)
    rows = [{"question": "1+1", "answer": "#### 2"}, {"question": "1+1", "answer": "#### 3"}]
    source = lm_tiny.write_lines(tmp_path / "rows.jsonl", [*rows, rows[0]])
    words = ["train", "--model.name", tmp_path / "policy", "--model.max-new-tokens", 4, "--data.source", source]
    names = [f"{tmp_path / 'mine.py'}:{name}" for name in ("digits", "brief")]
    words += [
        "--judge.kind",
        "reward",
        "--judge.name",
        *names,
        "windlm.judges.verifiable:last_number",
        "--judge.weights",
        1,
        0.5,
        2,
        "--judge.cut",
        0.1,
    ]
    words += ["--train.out", tmp_path / "run", "--train.rounds", 1, "--train.draws", 4, "--train.cpu"]
    main([str(w) for w in [*words, "--train.no-progress"]])
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
    parts = [row[f"reward_{name}"] for name in ("digits", "brief", "last_number")]
    assert row["reward"] == pytest.approx(np.dot(parts, [1, 0.5, 2]) - 0.1 * row["cut"], abs=1e-6)
    assert row["tokens"] <= 2 * (4 + 4) * 4  # two prompts, not one and not three
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    again = settings(RunConfig, ["--config", str(tmp_path / "run" / "config.json")])
    assert again.judge.names[1].endswith("mine.py:brief")
    assert saved["judge"]["weights"] == [1.0, 0.5, 2.0]
    with pytest.raises(SystemExit, match="weights must be 3 numbers"):
        main([str(w) for w in words if w not in (0.5, 2)])
    words[words.index(tmp_path / "run")] = tmp_path / "other"
    words[words.index(source)] = lm_tiny.write_lines(tmp_path / "none.jsonl", [{"question": "1+1"}])
    with pytest.raises(SystemExit, match="reads the columns 'answer'"):
        main([str(w) for w in words])


@pytest.mark.parametrize(
    ("judge", "names"),
    [
        ({"name": "a.py:f"}, ("a.py:f",)),
        ({"name": ["a.py:f"]}, ("a.py:f",)),
        ({"name": ["a:f", "b:g"]}, ("a:f", "b:g")),
    ],
)
def test_a_file_names_one_function_or_several(judge, names):
    whole = {"model": {"name": "m"}, "data": {"source": "d"}, "train": {"out": "o"}}
    assert build(RunConfig, whole | {"judge": {"kind": "reward"} | judge}).judge.names == names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge.kind", "pairrm", "--judge.weights", "1"], "judge pairrm does not use weights; it uses kind, name"),
        (["--judge.kind", "pair-rm"], "must be one of reward-model, reward, pairwise, pairrm, .* Did you mean pairrm"),
        (["--judge.kind", "chat", "--judge.tries", "0"], "tries must be at least 1"),
        (["--judge.preference", "bradley-terry", "--judge.ties", "weak"], "bradley-terry does not use ties"),
    ],
)
def test_each_kind_of_judge_has_its_flags(words, said):
    given = ["--model.name", "m", "--data.source", "d", "--train.out", "o", *words]
    with pytest.raises(ValueError, match=said):
        settings(RunConfig, given)


def test_pairrm_has_a_name_of_its_own():
    run = settings(RunConfig, ["--model.name", "m", "--data.source", "d", "--train.out", "o", "--judge.kind", "pairrm"])
    assert (run.judge.name, run.judge.interaction, run.judge.pairwise) == ("llm-blender/PairRM-hf", 1.0, True)
    assert JudgeSettings("pairrm") == run.judge
    assert JudgeSettings() == JudgeSettings("reward-model", "")
    with pytest.raises(ValueError, match="kind must be one of"):
        JudgeSettings("elo")
