import json

import pytest

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.data.chat import (
    TEMPLATES,
    closing_token_id,
    encode_examples,
    load_tokenizer,
    render,
    stop_token_ids,
    template_text,
)

END_OF_TEXT, IM_START, IM_END = 256, 257, 258


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "qwen-boxed",
            b"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n2+2?\nPlease reason step "
            b"by step, and put your final answer within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("abel", b"Question:\n2+2?\nAnswer:\nLet's think step by step.\n"),
        (
            "qwen25-math-cot",
            b"<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
            b"<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("plain", b"2+2?"),
        (
            "chat",
            b"<|im_start|>user\n2+2?\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>"
            b"\n<|im_start|>assistant\n",
        ),
    ],
)
def test_a_template_renders_to_the_published_bytes(template, expected, tokenizer):
    assert render(template, "2+2?", tokenizer).encode() == expected


def test_braces_and_the_word_input_in_a_problem_are_left_alone(tokenizer):
    problem = r"Let $f_{input} = \frac{1}{2}$; {input} and {0}"
    for template in TEMPLATES:
        assert render(template, problem, tokenizer).count(problem) == 1


def test_an_unknown_template_is_a_usage_error_that_lists_the_known_ones(tokenizer):
    with pytest.raises(UsageError, match="one of qwen-boxed, abel, qwen25-math-cot, plain, chat, got 'qwen'"):
        render("qwen", "x", tokenizer)


def test_the_chat_template_of_a_tokenizer_without_one_is_a_usage_error(save_tokenizer):
    with pytest.raises(UsageError, match="no chat template"):
        render("chat", "x", load_tokenizer(save_tokenizer(chat_template=None)))


def test_a_chat_template_that_fails_is_one_line(save_tokenizer):
    broken = load_tokenizer(save_tokenizer(chat_template="{{ raise_exception('roles must alternate') }}"))
    with pytest.raises(W2SRError, match="chat template fails: roles must alternate"):
        render("chat", "x", broken)


def test_the_text_of_chat_is_the_tokenizers_own_template(tokenizer):
    assert template_text("chat", tokenizer).startswith("{% for m in messages %}")
    assert template_text("abel", tokenizer) == TEMPLATES["abel"]


def test_a_tokenizer_that_begins_texts_with_bos_gets_it_once_in_the_prompt(save_tokenizer):
    llama = load_tokenizer(
        save_tokenizer(specials=("<s>", "</s>"), adds_bos="<s>", bos_token="<s>", eos_token="</s>", pad_token=None)
    )
    prompt = render("abel", "2+2?", llama)
    assert prompt == "<s>" + TEMPLATES["abel"].replace("{input}", "2+2?")
    assert llama(prompt, add_special_tokens=False)["input_ids"].count(llama.bos_token_id) == 1


def test_a_missing_tokenizer_is_one_line_that_names_the_directory(tmp_path):
    with pytest.raises(W2SRError, match=r"no tokenizer\.json; save the tokenizer") as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("text", ["{bad", "{}", '{"model": {"type": "Unheard"}}'])
def test_a_broken_tokenizer_is_one_line(tokenizer_dir, text):
    (tokenizer_dir / "tokenizer.json").write_text(text)
    with pytest.raises(W2SRError, match="the tokenizer cannot be read") as error:
        load_tokenizer(tokenizer_dir)
    assert "\n" not in str(error.value)


def test_loading_keeps_special_tokens_and_chat_template(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|endoftext|>", "<|endoftext|>", None)
    assert tokenizer.chat_template.startswith("{% for m in messages %}")
    assert tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"] == [IM_END]
    assert tokenizer.decode(tokenizer("a  b . é")["input_ids"]) == "a  b . é"


def test_both_ends_of_qwen_stop_a_response_and_the_reason_names_them(tokenizer_dir, tokenizer):
    (tokenizer_dir / "config.json").write_text(json.dumps({"eos_token_id": END_OF_TEXT}))
    ids, reason = stop_token_ids(tokenizer_dir, tokenizer)
    assert sorted(ids) == [END_OF_TEXT, IM_END]
    assert "<|endoftext|> 256 (config.json, tokenizer, end of a turn or text)" in reason
    assert "<|im_end|> 258 (end of a turn or text)" in reason


def test_the_generation_config_may_name_several_ends(tokenizer_dir, tokenizer):
    (tokenizer_dir / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, END_OF_TEXT]}))
    assert stop_token_ids(tokenizer_dir, tokenizer)[0] == (7, END_OF_TEXT, IM_END)


def test_a_model_without_any_end_is_an_error(save_tokenizer):
    directory = save_tokenizer(specials=("<|im_start|>",), eos_token=None, pad_token=None)
    with pytest.raises(W2SRError, match=r"set eos_token_id in config\.json"):
        stop_token_ids(directory, load_tokenizer(directory))
    with pytest.raises(W2SRError, match="no end-of-sequence token"):
        closing_token_id(directory, load_tokenizer(directory), "plain")


def test_an_eos_that_is_no_integer_is_one_line(tokenizer_dir, tokenizer):
    (tokenizer_dir / "config.json").write_text('{"eos_token_id": "<|endoftext|>"}')
    with pytest.raises(W2SRError, match="eos_token_id: expected an integer"):
        stop_token_ids(tokenizer_dir, tokenizer)


@pytest.mark.parametrize(
    ("template", "closing"),
    [
        ("qwen-boxed", IM_END),
        ("qwen25-math-cot", IM_END),
        ("chat", IM_END),
        ("abel", END_OF_TEXT),
        ("plain", END_OF_TEXT),
    ],
)
def test_a_response_closes_as_its_template_ends_turns(template, closing, tokenizer_dir, tokenizer):
    assert closing_token_id(tokenizer_dir, tokenizer, template) == closing
    assert closing in stop_token_ids(tokenizer_dir, tokenizer)[0]


def test_without_im_end_in_the_vocabulary_a_chat_like_prompt_closes_with_eos(save_tokenizer):
    directory = save_tokenizer(specials=("<|endoftext|>",))
    assert closing_token_id(directory, load_tokenizer(directory), "qwen-boxed") == END_OF_TEXT


def test_the_config_names_eos_where_the_tokenizer_does_not(save_tokenizer):
    directory = save_tokenizer(eos_token=None, pad_token=None)
    (directory / "config.json").write_text('{"eos_token_id": [42, 43]}')
    assert closing_token_id(directory, load_tokenizer(directory), "abel") == 42


def test_an_example_is_prompt_response_and_closing_token(tokenizer):
    (example,) = encode_examples(tokenizer, ["<|im_start|>ab"], ["cd"], [IM_END])
    a, b, c, d = tokenizer("abcd")["input_ids"]
    assert list(example.tokens) == [IM_START, a, b, c, d, IM_END]
    assert example.prompt_length == 3


def test_the_prompts_tokens_are_those_of_inference_even_where_joined_text_would_merge(save_tokenizer):
    merging = load_tokenizer(save_tokenizer(merges=[("a", "b")]))
    assert len(merging("ab")["input_ids"]) == 1
    (example,) = encode_examples(merging, ["xa"], ["b"], [END_OF_TEXT])
    assert list(example.tokens[:2]) == merging("xa")["input_ids"]
    assert (len(example.tokens), example.prompt_length) == (4, 2)


def test_many_examples_at_once_equal_one_by_one(tokenizer):
    prompts, responses, closings = ["ab", "c", "ab"], ["x", "", "yz"], [IM_END, END_OF_TEXT, None]
    together = encode_examples(tokenizer, prompts, responses, closings)
    alone = [encode_examples(tokenizer, *([part] for part in one)) for one in zip(prompts, responses, closings)]
    assert together == [example for (example,) in alone]
    assert list(together[2].tokens) == tokenizer("abyz")["input_ids"]


@pytest.mark.parametrize("half", [0xD83D, 0xDE00])
@pytest.mark.parametrize("template", TEMPLATES)
def test_half_of_a_surrogate_pair_is_read_as_the_replacement_character(template, half, tokenizer):
    prompts = [render(template, text, tokenizer) for text in (f"1+{chr(half)}", "1+\ufffd")]
    assert prompts[0] == prompts[1]
    assert tokenizer.encode(prompts[0], add_special_tokens=False)
    found, expected = encode_examples(tokenizer, prompts, [f"{chr(half)}2", "\ufffd2"], [None, None])
    assert found == expected
    assert encode_examples(tokenizer, ["\U0001f600"], ["\U0001f600"], [None])[0].tokens == [
        *tokenizer("\U0001f600" * 2)["input_ids"]
    ]
