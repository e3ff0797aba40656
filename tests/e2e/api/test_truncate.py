"""Prompts that are longer than the context: refused with both numbers, or cut where that is asked for."""
import openai
import pytest

from conftest import model_path

CONTEXT = 64


@pytest.fixture(scope="module")
def server(shared_processes):
    return shared_processes.server(model_path("demo"), "--ctx", str(CONTEXT))


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.base_url()}/v1", api_key="none", max_retries=0) as c:
        yield c


def complete(client, prompt, max_tokens=8, **extra):
    return client.completions.create(model=client.models.list().data[0].id, prompt=prompt,
                                     temperature=0, max_tokens=max_tokens,
                                     extra_body={"ignore_eos": True, **extra})


@pytest.fixture(scope="module")
def long_ids(shoal):
    ids = shoal.json("tokenize", model_path("demo"), "The prince went to the door and said. " * 12)
    return ids["ids"]


def test_a_long_prompt_is_refused_with_both_numbers(client, long_ids):
    assert len(long_ids) > CONTEXT
    for extra in ({}, {"truncate": False}, {"truncate_prompt_tokens": CONTEXT + 1}):
        with pytest.raises(openai.BadRequestError) as refusal:
            complete(client, long_ids, **extra)
        assert refusal.value.code == "context_length_exceeded"
        n = extra.get("truncate_prompt_tokens", len(long_ids))
        assert str(CONTEXT) in refusal.value.message and str(n) in refusal.value.message


@pytest.mark.parametrize("extra, max_tokens, kept", [
    ({"truncate": True}, 8, CONTEXT - 8),
    ({"truncate": True}, -1, CONTEXT - 1),
    ({"truncate_prompt_tokens": -1}, 8, CONTEXT - 8),
    ({"truncate_prompt_tokens": 20}, 8, 20),
    ({"truncate_prompt_tokens": 60, "truncate": True}, 8, CONTEXT - 8),
])
def test_the_end_of_the_prompt_stays(client, long_ids, extra, max_tokens, kept):
    cut = complete(client, long_ids, max_tokens, **extra)
    assert cut.usage.prompt_tokens == kept
    assert cut.usage.completion_tokens == (max_tokens if max_tokens > 0 else 1)
    assert cut.usage.prompt_tokens_details.truncated_tokens == len(long_ids) - kept
    assert cut.timings["truncated_tokens"] == len(long_ids) - kept
    by_hand = [long_ids[0], *long_ids[-(kept - 1):]]  # BOS stays in front
    assert complete(client, by_hand, max_tokens).choices[0].text == cut.choices[0].text


def test_what_fits_is_left_alone(client):
    prompt = "Once upon a time"
    plain = complete(client, prompt)
    same = complete(client, prompt, truncate=True)
    assert same.choices[0].text == plain.choices[0].text
    assert same.usage.prompt_tokens == plain.usage.prompt_tokens
    assert same.timings["truncated_tokens"] == 0


def test_text_and_chats_are_cut_too(client):
    text = "The prince went to the door and said. " * 12
    plain = complete(client, text, truncate=True)
    chat = client.chat.completions.create(
        model=client.models.list().data[0].id, messages=[{"role": "user", "content": text}],
        temperature=0, max_tokens=8, extra_body={"ignore_eos": True, "truncate": True})
    assert plain.timings["truncated_tokens"] > 0
    assert chat.choices[0].message.content == plain.choices[0].text
    usage = [c.usage for c in client.completions.create(
        model=client.models.list().data[0].id, prompt=text, temperature=0, max_tokens=8,
        stream=True, stream_options={"include_usage": True},
        extra_body={"truncate": True}) if c.usage is not None]
    assert usage[0].prompt_tokens == CONTEXT - 8


def test_no_room_for_a_prompt_is_refused(client):
    with pytest.raises(openai.BadRequestError, match=f"max_tokens of {CONTEXT}"):
        complete(client, "Once", CONTEXT, truncate=True)


def test_run_truncates_when_told(shoal):
    text = "The prince went to the door and said. " * 12
    arguments = ("run", model_path("demo"), "-p", text, "-n", "8", "--ctx", str(CONTEXT))
    shoal.fails(*arguments, mentions=["too long", str(CONTEXT), "--truncate"])
    answer = shoal.json(*arguments, "--truncate")
    assert answer["timings"]["n_prompt"] == CONTEXT - 8
    assert answer["timings"]["n_truncated"] == len(answer["prompt_ids"]) - (CONTEXT - 8)
    assert "tokens of the prompt were dropped" in shoal.ok(*arguments, "--truncate").stderr
