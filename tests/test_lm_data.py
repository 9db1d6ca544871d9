"""Prompts and pairs from files, in every schema that is read, and what is said of a wrong one."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from lm_tiny import write_lines

from windlm.data import Data, Pair, load_pairs, load_prompts, read

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
BINARISED = [
    {
        "prompt": f"question {i}",
        "prompt_id": str(i),
        "chosen": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "good"}],
        "rejected": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "bad"}],
        "messages": TALK,
        "score_chosen": 8.0,
        "score_rejected": 2.0,
    }
    for i in range(3)
]
RAW = [
    {
        "source": "a",
        "instruction": f"question {i}",
        "models": ["m", "n", "o"],
        "completions": [
            {"response": "bad", "overall_score": 2.0},
            {"response": "good", "overall_score": 8.0},
            {"response": "fair", "overall_score": 5.0},
        ],
    }
    for i in range(3)
]


@pytest.mark.parametrize("rows", [BINARISED, RAW], ids=["binarised", "raw"])
def test_both_schemas_of_ultrafeedback_give_prompts_and_pairs(rows, tmp_path):
    source = write_lines(tmp_path / "data.jsonl", rows)
    assert load_prompts(Data(source)) == ["question 0", "question 1", "question 2"]
    assert load_prompts(Data(source, limit=1, chat=True)) == [[{"role": "user", "content": "question 0"}]]
    assert load_pairs(Data(source))[0] == Pair("question 0", "good", "bad")
    assert len(load_pairs(Data(source, limit=2))) == 2


def test_equal_scores_make_no_pair(tmp_path):
    tie = {"instruction": "a", "completions": [{"response": c, "overall_score": 3} for c in "xy"]}
    assert len(load_pairs(Data(write_lines(tmp_path / "a.jsonl", [tie, *RAW])))) == 3
    with pytest.raises(ValueError, match="no pairs"):
        load_pairs(Data(write_lines(tmp_path / "b.jsonl", [tie])))


def test_an_answer_at_the_end_of_a_conversation_is_what_is_asked_for(tmp_path):
    source = write_lines(tmp_path / "chat.jsonl", [{"messages": TALK}, {"messages": TALK[:1]}])
    assert load_prompts(Data(source)) == [TALK[:1]]  # the same prompt twice is one prompt


def test_every_form_of_file_is_read_alike(tmp_path):
    rows = [{"ask": "one", "n": 1}, {"ask": "two", "n": 2}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    sources = [write_lines(tmp_path / "a.jsonl", rows), str(tmp_path / "a.json")]
    for source in sources:
        assert load_prompts(Data(source, prompt="ask")) == ["one", "two"]
    assert load_prompts(Data(str(tmp_path / "a.txt"))) == ["one", "two"]
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.Table.from_pylist([*rows, {"ask": "x", "n": 3}]), tmp_path / "a.parquet")
    assert load_prompts(Data(str(tmp_path / "a.parquet"), prompt="ask", limit=2)) == ["one", "two"]
    assert read(sources[0]) == rows


def test_a_hub_data_set_is_asked_for_by_name_and_split(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or BINARISED)
    assert len(load_prompts(Data("HuggingFaceH4/ultrafeedback_binarized"))) == 3
    load_prompts(Data("owner/name", subset="main", split="test"))
    assert asked == [
        (("HuggingFaceH4/ultrafeedback_binarized", None), {"split": "train_prefs"}),
        (("owner/name", "main"), {"split": "test"}),
    ]


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([{"ask": "x", "n": 1}], {}, "'prompt' or .*it has 'ask', 'n'"),
        ([{"ask": "x", "n": 1}], {"prompt": "asked"}, "no column 'asked'; it has 'ask', 'n'"),
        ([{"prompt": "x"}, {"other": "x"}], {}, "Row 1 .*no column 'prompt'; it has 'other'"),
        ([{"prompt": " "}], {}, "Row 0 .*empty"),
        ([{"prompt": 3}], {}, "Row 0 .*not 3"),
        ([{"prompt": [{"role": "assistant", "content": "x"}]}], {}, "only answers"),
        ([{"prompt": [{"says": "x"}]}], {}, "role and content"),
        ([], {}, "no rows"),
    ],
)
def test_bad_rows_are_named(rows, settings, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        load_prompts(Data(write_lines(tmp_path / "a.jsonl", rows), **settings))


def test_bad_sources_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\nno json\n')
    (tmp_path / "b.jsonl").write_text("[1]\n")
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "d.csv").write_text("x")
    for name, said in {
        "a.jsonl": "Line 2 .*no JSON",
        "b.jsonl": "Line 1 .*a list",
        "c.json": "a list of objects",
        "d.csv": "must end in",
        "e.jsonl": "no file",
        "nowhere/at/all": "no file",
    }.items():
        with pytest.raises(ValueError, match=said):
            load_prompts(Data(str(tmp_path / name)))


def test_pairs_name_their_columns_too(tmp_path):
    with pytest.raises(ValueError, match="without 'good' and 'rejected', has no column 'completions'; it has 'prompt'"):
        load_pairs(Data(write_lines(tmp_path / "a.jsonl", [{"prompt": "x"}])), chosen="good")
    with pytest.raises(ValueError, match="an answer is a text"):
        load_pairs(Data(write_lines(tmp_path / "b.jsonl", [{"prompt": "x", "chosen": 1, "rejected": "y"}])))
