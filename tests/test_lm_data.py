"""Prompts and pairs from files, in every schema that is read, and what is said of a wrong one."""

import gzip
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import lm_tiny
from lm_tiny import write_lines

from windlm.data import Data, Pair, Prompts, fitting, load_pairs, load_prompts, read
from windlm.models import ModelSettings, load_policy

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
        ([{"prompt": [{"role": "assistant", "content": "x"}]}], {}, "only assistant messages"),
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
        "a.jsonl": "Line 2 .*not JSON",
        "b.jsonl": "Line 1 .*a list",
        "c.json": "a list of objects",
        "d.csv": "a file that ends in",
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


# -- lines and characters ------------------------------------------------------------------------------------

SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\r"]
"""What str.splitlines takes for the end of a line, and JSON lines does not."""


@pytest.mark.parametrize("character", SEPARATORS, ids=ascii)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_only_a_newline_ends_a_line(character, name, tmp_path):
    rows = [{"prompt": f"one{character}two"}, {"prompt": "three"}]
    lines = [f'{{"prompt": "{row["prompt"]}"}}' for row in rows]  # raw, not escaped
    text = f"[{', '.join(lines)}]" if name == "a.json" else "\n".join(lines) + "\n"
    content = b"\xef\xbb\xbf" + text.encode()  # with a byte order mark
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert load_prompts(Data(str(tmp_path / name))) == [row["prompt"] for row in rows]


def test_lines_of_plain_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\u2028two\r\n\nthree\n".encode())
    assert load_prompts(Data(str(tmp_path / "a.txt"))) == ["one\u2028two", "three"]


def test_what_is_no_text_is_named_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "\\ud83d\\ude00"}\n{"x": [{"y": "\\udc00 end"}], "prompt": "p"}\n')
    with pytest.raises(ValueError, match=r"Line 2 of .*lone surrogate, .udc00"):
        load_prompts(Data(str(tmp_path / "a.jsonl")))
    (tmp_path / "a.json").write_text('[{"prompt": "a"}, {"\\ud800": "b"}]')
    with pytest.raises(ValueError, match=r"Row 1 of .*lone surrogate"):
        load_prompts(Data(str(tmp_path / "a.json")))
    (tmp_path / "b.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xe9t\xe9"}\n')
    with pytest.raises(ValueError, match=r"Line 2 of .*not UTF-8"):
        load_prompts(Data(str(tmp_path / "b.jsonl")))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 50)[:-9])
    with pytest.raises(ValueError, match="not a complete gzip file"):
        load_prompts(Data(str(tmp_path / "c.jsonl.gz")))
    (tmp_path / "d.jsonl.gz").write_bytes(b'{"prompt": "a"}\n')
    with pytest.raises(ValueError, match="not a complete gzip file"):
        load_prompts(Data(str(tmp_path / "d.jsonl.gz")))
    (tmp_path / "e.json").write_text("[{]")
    with pytest.raises(ValueError, match=r"e\.json is not JSON"):
        load_prompts(Data(str(tmp_path / "e.json")))


# -- schemas -------------------------------------------------------------------------------------------------


def talk(*turns):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]


def spoken(*turns):
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[i % 2]}: {turn}" for i, turn in enumerate(turns))


@pytest.mark.parametrize("form", [spoken, talk])
def test_two_conversations_with_a_common_beginning_are_a_pair(form, tmp_path):
    rows = [
        {"chosen": form("hi", "yes", "why?", "so"), "rejected": form("hi", "yes", "why?", "no")},
        {"chosen": form("hi", "so, that"), "rejected": form("hi", "so")},  # one answer begins with the other
        {"chosen": form("hi", "a", "b", "c"), "rejected": form("hi", "d")},  # they part early: the next answer counts
        {"chosen": form("hi", "same"), "rejected": form("hi", "same", "thanks")},  # no preference
    ]
    source = write_lines(tmp_path / "a.jsonl", rows)
    asked = [talk("hi", "yes", "why?"), talk("hi"), talk("hi")]
    answers = [("so", "no"), ("so, that", "so"), ("a", "d")]
    assert load_pairs(Data(source)) == [Pair(p, *a) for p, a in zip(asked, answers, strict=True)]
    assert load_prompts(Data(source), ()) == asked[:2]


def test_an_answer_of_several_paragraphs_stays_whole(tmp_path):
    rows = [{"chosen": spoken("hi", "one\n\ntwo") + "\n\nAssistant: three", "rejected": spoken("hi", "no: Human: x")}]
    (pair,) = load_pairs(Data(write_lines(tmp_path / "a.jsonl", rows)))
    assert pair == Pair(talk("hi"), "one\n\ntwo\n\nthree", "no: Human: x")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "plain text", "rejected": "other"}, "Row 0 .*no prompt: name its column.*plain text"),
        ({"chosen": spoken("a", "x"), "rejected": spoken("b", "y")}, "Row 0 .*begin alike"),
        ({"chosen": spoken("a", "x", "b"), "rejected": spoken("a", "x", "c")}, "no pairs: every row is a tie"),
        ({"chosen": spoken("a"), "rejected": spoken("a")}, "continue with the assistant"),
        ({"prompt": "p", "output_1": "x", "output_2": "y", "label": 3}, "label.*one of 1, 2, 0, but it is .3."),
        ({"prompt": "p", "response_a": "x", "response_b": "y"}, "label"),
    ],
)
def test_pairs_that_cannot_be_told_apart_are_refused(row, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        load_pairs(Data(write_lines(tmp_path / "a.jsonl", [row])))


def test_an_instruction_has_its_input(tmp_path):
    rows = [
        {"instruction": "Sort.", "input": "b a", "output": "a b"},
        {"instruction": "Greet.", "input": "", "output": ""},
    ]
    source = write_lines(tmp_path / "a.jsonl", rows)
    assert load_prompts(Data(source)) == ["Sort.\n\nb a", "Greet."]
    assert load_prompts(Data(source, prompt="instruction")) == ["Sort.", "Greet."]  # asked for by name: as it is
    assert load_prompts(Data(source, limit=1, chat=True)) == [talk("Sort.\n\nb a")]


def test_labelled_answers_are_pairs(tmp_path):
    given = {"instruction": "Add.", "input": "1 1", "response1": "2", "response2": "3"}
    votes = [(1, 1, 2), (2, 2, 2), (1, 2, 0), (0, 0, 1), (1, 1, 0)]
    rows = [given | {f"annotator{i}": v for i, v in enumerate(row, 1)} for row in votes]
    right, wrong = Pair("Add.\n\n1 1", "2", "3"), Pair("Add.\n\n1 1", "3", "2")
    assert load_pairs(Data(write_lines(tmp_path / "a.jsonl", rows))) == [right, wrong, right]
    rows = [{"input": "q", "output_1": "x", "output_2": "y", "label": label} for label in (2, 1)]
    assert load_pairs(Data(write_lines(tmp_path / "b.jsonl", rows))) == [Pair("q", "y", "x"), Pair("q", "x", "y")]
    rows = [{"prompt": "q", "response_a": "x", "response_b": "y", "label": label} for label in ("B", "tie", "A")]
    assert load_pairs(Data(write_lines(tmp_path / "c.jsonl", rows))) == [Pair("q", "y", "x"), Pair("q", "x", "y")]
    rows = [{"input": "q", "targets": {"choices": ["x", "y"], "labels": labels}} for labels in ([1, 0], [0, 1])]
    assert load_pairs(Data(write_lines(tmp_path / "d.jsonl", rows))) == [Pair("q", "x", "y"), Pair("q", "y", "x")]


def test_labels_in_other_words(tmp_path):
    given = {"prompt": "q", "conversation_a": talk("q", "x"), "conversation_b": talk("q", "y")}
    rows = [given | {"winner": winner} for winner in ("model_b", "tie (bothbad)", "Model_A")]
    assert load_pairs(Data(write_lines(tmp_path / "a.jsonl", rows))) == [Pair("q", "y", "x"), Pair("q", "x", "y")]
    rows = [{"prompt": "q", "response_a": "x", "response_b": "y", "label": label} for label in ("b", " Tie ", "a")]
    assert load_pairs(Data(write_lines(tmp_path / "b.jsonl", rows))) == [Pair("q", "y", "x"), Pair("q", "x", "y")]


def test_several_scored_completions(tmp_path):
    rows = [
        {"prompt": "q", "completions": ["a", "b", "c"], "scores": [1, 3.5, 2]},
        {"prompt": "q", "responses": ["a", "b"], "rewards": [0.5, -1]},
        {"prompt": "q", "answers": [{"answer": "a", "rank": 2.0}, {"answer": "b", "rank": 1.0}]},
        {"prompt": "q", "responses": [talk("q", "a"), talk("q", "b")], "scores": [0, 1]},
        {"prompt": "q", "responses": ["a", "b"], "scores": [1, 1]},
        {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 3.0, "score_rejected": 3.0},
    ]
    wanted = [("b", "a"), ("a", "b"), ("b", "a"), ("b", "a")]
    assert load_pairs(Data(write_lines(tmp_path / "a.jsonl", rows))) == [Pair("q", *pair) for pair in wanted]
    for bad, said in (
        ({"completions": ["a"], "scores": [1, 2]}, "1 answers, but 2 scores"),
        ({"completions": ["a", "b"], "scores": [1, "good"]}, "scores must be numbers"),
        ({"completions": ["a", "b"], "scores": [1, float("nan")]}, "scores must be finite"),
        ({"completions": ["a", "b"]}, "each completion must have 'response'"),
    ):
        with pytest.raises(ValueError, match=f"Row 0 .*{said}"):
            load_pairs(Data(write_lines(tmp_path / "b.jsonl", [{"prompt": "q"} | bad])))


# -- conversations -------------------------------------------------------------------------------------------


def test_parts_are_joined_and_what_is_no_text_is_refused(tmp_path):
    def prompt_of(*messages):
        return load_prompts(Data(write_lines(tmp_path / "a.jsonl", [{"messages": list(messages)}])))[0]

    parts = [{"type": "text", "text": "one, "}, {"type": "text", "text": "two"}]
    assert prompt_of({"role": "user", "content": parts}) == talk("one, two")
    for message, said in (
        ({"role": "user", "content": [*parts, {"type": "image", "url": "x"}]}, "must be a text, or a list of parts"),
        ({"role": "user", "content": None}, "must be a text"),
        ({"role": "user", "content": []}, "must be a text"),
        ({"role": "tool", "content": "4"}, "the role must be .* but it is 'tool'"),
        ({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}, "has tool_calls"),
    ):
        with pytest.raises(ValueError, match=f"Row 0 .*message 1.*{said}"):
            prompt_of(talk("hi")[0], message)
    assert prompt_of({"role": "user", "content": "hi", "tool_calls": None}) == talk("hi")


def test_a_system_message_is_put_before_every_conversation(tmp_path):
    own = [{"role": "system", "content": "Sing."}, *talk("a")]
    source = write_lines(tmp_path / "a.jsonl", [{"messages": talk("a")}, {"messages": own}])
    first, second = load_prompts(Data(source, system="Be brief."))
    assert first == [{"role": "system", "content": "Be brief."}, *talk("a")]
    assert second == own
    source = write_lines(tmp_path / "b.jsonl", [{"prompt": "a", "chosen": "x", "rejected": "y"}])
    assert load_prompts(Data(source, system="Be brief."))[0] == first
    assert load_pairs(Data(source, system="Be brief."))[0].prompt == first


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return lm_tiny.make(tmp_path_factory.mktemp("tiny") / "model")


def loaded(model, template=None, **settings):
    policy = load_policy(ModelSettings(model, **{"max_new_tokens": 4} | settings))
    if template is not None:
        policy.tokenizer.chat_template = template
    return policy


def test_template_arguments_reach_the_template(model):
    policy = loaded(model, "{{ 'think' if enable_thinking else 'talk' }}:" + lm_tiny.CHAT)
    prompts = Prompts([talk("a")])
    for value, said in (("false", "talk"), ("true", "think")):
        data = Data("x", template_args=(f"enable_thinking={value}",))
        assert policy.tokenizer.decode(policy.encode(fitting(policy, prompts, data))[0]).startswith(said)
    with pytest.raises(ValueError, match="does not read the argument 'enable_thinkin'"):
        fitting(policy, prompts, Data("x", template_args=("enable_thinkin=false",)))
    for bad in ("enable_thinking", "a b=1", "=1"):
        with pytest.raises(ValueError, match="template_args are name=value"):
            Data("x", template_args=(bad,))


def test_a_template_without_a_system_role_says_so(model):
    prompts = Prompts([[{"role": "system", "content": "Be brief."}, *talk("a")]])
    assert loaded(model).encode(prompts)
    raises = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}x"
    with pytest.raises(ValueError, match="refuses prompt 0, with the roles system, user: System role not supported"):
        loaded(model, raises).encode(prompts)
    with pytest.raises(ValueError, match="leaves out the system message of prompt 0"):
        loaded(model, "{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}").encode(prompts)
    with pytest.raises(ValueError, match="Prompt 0 is a conversation, but the tokenizer has no chat template"):
        loaded(model, "").encode(prompts)


def test_long_prompts_stop_are_dropped_or_lose_their_beginning(model):
    prompts = Prompts(["a" * 600, "short", "b" * 10], {"n": [1, 2, 3]})
    policy = loaded(model)
    with pytest.raises(ValueError, match=r"Prompt 0 has 600 tokens; .* context of 512"):
        fitting(policy, prompts, Data("x"))
    assert fitting(policy, prompts, Data("x", overlong="drop")) == prompts.rows([1, 2])
    with pytest.raises(ValueError, match="Prompt 0 has 600 tokens; the most that a prompt may have is 8"):
        fitting(policy, prompts, Data("x", max_tokens=8))
    assert fitting(policy, prompts, Data("x", max_tokens=8, overlong="drop")) == prompts.rows([1])
    with pytest.raises(ValueError, match="All 3 prompts of x are longer than 2 tokens"):
        fitting(policy, prompts, Data("x", max_tokens=2, overlong="drop"))
    assert fitting(policy, prompts, Data("x", overlong="truncate")) == prompts
    assert [len(ids) for ids in policy.encode(prompts)] == [508, 5, 10]
    fitting(policy, prompts, Data("x", max_tokens=3, overlong="truncate"))
    assert policy.tokenizer.decode(policy.encode(prompts)[1]) == "ort"
    for bad in ({"max_tokens": 0}, {"overlong": "skip"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Data("x", **bad)


# -- data sets of the datasets library -----------------------------------------------------------------------


def test_data_sets_and_saved_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]
    table = datasets.Dataset.from_list(rows)
    assert Prompts.of(table) == Prompts(["a", "b"], {"answer": [1, 2]})
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "all")
    assert load_prompts(Data(str(tmp_path / "one"))) == ["a", "b"]
    assert load_prompts(Data(str(tmp_path / "all"), split="test")) == ["b"]
    with pytest.raises(ValueError, match="no split 'dev'; it has train, test"):
        load_prompts(Data(str(tmp_path / "all"), split="dev"))


def test_a_data_set_that_is_not_there_is_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def fails(*args, **kwargs):
        raise FileNotFoundError("Couldn't find\nany data file")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(ValueError, match=r"'owner/name' .* could not be loaded: Couldn't find any data file") as told:
        load_prompts(Data("owner/name"))
    assert "\n" not in str(told.value)


# -- public data sets ----------------------------------------------------------------------------------------

FOLDER = Path(os.environ.get("WINDLM_TEST_DATA", "no folder"))
"""Local copies of public data sets, each in a folder of its name, where there are any."""
PROMPTLESS = {"hellaswag", "mt_bench"}
"""Folders without a column of prompts."""
PAIRS = {"hh_rlhf", "pandalm", "llmbar", "hhh_alignment", "ultrafeedback_binarized"}
"""Folders of labelled pairs."""


@pytest.mark.skipif(not FOLDER.is_dir(), reason="WINDLM_TEST_DATA names no folder of data sets")
def test_public_data_sets_are_read_or_refused_by_name():
    files = sorted(p for p in FOLDER.rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    assert files
    for file in files:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        rows, kind = read(str(file)), file.relative_to(FOLDER).parts[0]
        assert len(rows) == sum(1 for line in content.split(b"\n") if line), file
        if kind in PROMPTLESS:
            with pytest.raises(ValueError, match="has no column 'prompt'"):
                load_prompts(Data(str(file)))
        else:
            assert 0 < len(load_prompts(Data(str(file)))) <= len(rows)
        if kind in PAIRS:
            pairs = load_pairs(Data(str(file)))
            assert 0.85 * len(rows) < len(pairs) <= len(rows)
            assert all(pair.chosen != pair.rejected for pair in pairs)
        else:
            with pytest.raises(ValueError, match="has no column"):
                load_pairs(Data(str(file)))


# -- columns ---------------------------------------------------------------------------------------------------

ADDED = [{"question": "1+1", "answer": "2"}, {"question": "1+1", "answer": "II"}, {"question": "1+1", "answer": "2"}]


def test_the_same_prompt_with_other_columns_is_another(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", [*ADDED, {"question": "2+2", "more": 3}])
    found = load_prompts(Data(source))
    assert found == ["1+1", "1+1", "2+2"]
    assert found.columns == {"answer": ["2", "II", None], "more": [None, None, 3]}
    assert load_prompts(Data(source), ["less"]).columns == {}
    with pytest.raises(ValueError, match=r"Row 0 of .* has no column 'more', which other rows have"):
        load_prompts(Data(source), ["more"])
    assert load_prompts(Data(source), ()).columns == {}
    assert load_prompts(Data(source, limit=2), ["answer"]).columns == {"answer": ["2", "II"]}


def test_whatever_holds_prompts_is_taken():
    datasets = pytest.importorskip("datasets")
    plain = Prompts.of(["a", TALK[:1]])
    assert plain == ["a", TALK[:1]]
    assert Prompts.of(plain) is plain
    for rows in (ADDED, tuple(ADDED), datasets.Dataset.from_list(ADDED)):
        found = Prompts.of(rows)
        assert found == Prompts(["1+1"] * 3, {"answer": ["2", "II", "2"]})  # nothing is left out
        assert found != Prompts(["1+1"] * 3)
        assert found[1:] == found.rows([1, 2]) == Prompts(["1+1"] * 2, {"answer": ["II", "2"]})
        assert found[-1] == "1+1"
    assert len(Prompts.of([])) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tea", "it is a str: put it into a list"),
        (3, "it is a int"),
        (TALK[:1], "one conversation"),
        ([{"ask": "x"}], "no column 'prompt' or .*it has 'ask'"),
        (["a", ""], "Prompt 1: the prompt is empty"),
    ],
)
def test_what_holds_no_prompts_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Prompts.of(given)
    with pytest.raises(ValueError, match="Column 'a' has 1 values for 2 prompts"):
        Prompts(["x", "y"], {"a": [1]})
