"""Log-probabilities through OpenAI's own client: the right values, beside the text of their tokens.

They are those of the distribution that the model gave, before any setting (docs/sampling.md), so
`shoal eval`, which prints logits, and logits that another program wrote down can say what is right.
"""
import math

import openai
import pytest

from conftest import golden, model_path

PROMPT = "Once upon a time"
N = 12


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0) as c:
        yield c


def complete(client, **fields):
    fields = {"model": client.models.list().data[0].id, "prompt": PROMPT, "temperature": 0,
              "max_tokens": N, **fields}
    return client.completions.create(**fields)


def chat(client, **fields):
    fields = {"model": client.models.list().data[0].id, "temperature": 0, "max_tokens": N,
              "messages": [{"role": "user", "content": PROMPT}], "logprobs": True, **fields}
    return client.chat.completions.create(**fields)


def log_softmax(shoal, model, text):
    """text of a token -> log-probability after `text`, from the logits of a program of its own run."""
    found = shoal.json("eval", model, "--next", text, "--top", 10000)["next"]
    best = found[0]["logit"]
    total = math.log(math.fsum(math.exp(t["logit"] - best) for t in found)) + best
    return {t["text"]: t["logit"] - total for t in reversed(found)}


@pytest.mark.parametrize("extra", [
    {}, {"temperature": 1.7, "seed": 3},
    {"temperature": 0.5, "seed": 4, "presence_penalty": 1, "extra_body": {"top_k": 40}},
])
def test_values_are_those_of_the_model(shoal, server, client, extra):
    answer = complete(client, logprobs=5, **extra).choices[0]
    found = answer.logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == N
    for i in range(0, N, 3):
        before = PROMPT + answer.text[:found.text_offset[i]]
        expected = log_softmax(shoal, server.model_path, before)
        assert found.token_logprobs[i] == pytest.approx(expected[found.tokens[i]], abs=1e-4)
        best = sorted(expected.values(), reverse=True)[:5]
        values = sorted(found.top_logprobs[i].values(), reverse=True)
        assert values[:5] == pytest.approx(best, abs=1e-4)
        assert len(values) == (5 if found.tokens[i] in list(expected)[-5:] else 6)
        assert found.top_logprobs[i][found.tokens[i]] == found.token_logprobs[i]


def test_values_are_those_of_another_program(processes):
    """stories260K's logits, computed in double precision elsewhere: differences are the same."""
    server = processes.server(model_path("stories260K"), "--kv", "f32")
    with openai.OpenAI(base_url=f"{server.base_url()}/v1", api_key="none", max_retries=0) as client:
        for case in golden("stories260K", "greedy.json")["cases"]:
            found = complete(client, prompt=case["prompt_ids"], max_tokens=1, logprobs=5)
            values = sorted(found.choices[0].logprobs.top_logprobs[0].values(), reverse=True)
            logits = [logit for _, logit in case["top5_next"]]
            assert [v - values[0] for v in values] == pytest.approx(
                [logit - logits[0] for logit in logits], abs=2e-3)
            assert 0 < sum(math.exp(v) for v in values) <= 1


def test_offsets_and_tokens_are_the_text(client):
    answer = complete(client, logprobs=0, max_tokens=40).choices[0]
    found = answer.logprobs
    assert "".join(found.tokens) == answer.text
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]
    assert [list(top) for top in found.top_logprobs] == [[token] for token in found.tokens]
    assert complete(client).choices[0].logprobs is None


def test_chat_values_are_those_of_a_completion(client):
    plain = complete(client, logprobs=3).choices[0].logprobs
    content = chat(client, top_logprobs=3).choices[0].logprobs.content
    assert [t.token for t in content] == plain.tokens
    assert [t.logprob for t in content] == plain.token_logprobs
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == token.logprob  # greedy takes the best
        assert token.top_logprobs[0].token == token.token
        values = [t.logprob for t in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert bytes(token.bytes).decode() == token.token
    assert [t.top_logprobs for t in chat(client).choices[0].logprobs.content] == [[]] * N
    assert chat(client, logprobs=False).choices[0].logprobs is None


def chunks_of(stream, index=0):
    return [choice for chunk in stream for choice in chunk.choices if choice.index == index]


def test_streams_carry_tokens_with_their_text(client):
    plain = complete(client, logprobs=2, max_tokens=30).choices[0]
    chunks = chunks_of(complete(client, logprobs=2, max_tokens=30, stream=True))
    assert "".join(c.text for c in chunks) == plain.text
    for c in chunks:
        assert "".join(c.logprobs.tokens) == c.text
    for member in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [x for c in chunks for x in getattr(c.logprobs, member)] == getattr(
            plain.logprobs, member)
    chunks = chunks_of(chat(client, top_logprobs=2, max_tokens=30, stream=True))
    with_text = [c for c in chunks if c.delta.content]
    assert "".join(c.delta.content for c in with_text) == plain.text
    for c in with_text:
        assert "".join(t.token for t in c.logprobs.content) == c.delta.content
    assert [t.logprob for c in with_text
            for t in c.logprobs.content] == plain.logprobs.token_logprobs
    assert all(c.logprobs is None for c in chunks if not c.delta.content)


def test_stop_strings_hold_tokens_back_with_their_text(client):
    whole = complete(client, logprobs=1, max_tokens=30).choices[0]
    tokens = whole.logprobs.tokens
    first = whole.text.index(tokens[8])
    for stop in (tokens[8] + tokens[9][:1],  # begins with a token, ends inside another
                 tokens[8][1:] + tokens[9],  # begins inside one
                 whole.text[first + 1:first + 12]):
        cut = complete(client, logprobs=1, max_tokens=30, stop=stop).choices[0]
        assert cut.finish_reason == "stop"
        assert cut.text == whole.text[:whole.text.index(stop)]
        n = sum(offset < len(cut.text) for offset in whole.logprobs.text_offset)
        assert cut.logprobs.tokens == tokens[:n]
        assert cut.logprobs.token_logprobs == whole.logprobs.token_logprobs[:n]
        chunks = chunks_of(complete(client, logprobs=1, max_tokens=30, stop=stop, stream=True))
        assert "".join(c.text for c in chunks) == cut.text
        assert [t for c in chunks for t in c.logprobs.tokens] == cut.logprobs.tokens
        for c in chunks[:-1]:
            assert "".join(c.logprobs.tokens) == c.text
        # What the stop string only seemed to begin comes out in the end, with its tokens.
        longer = complete(client, logprobs=1, max_tokens=30, stop=stop + "\x01", stream=True)
        chunks = chunks_of(longer)
        assert [t for c in chunks for t in c.logprobs.tokens] == tokens
        assert all("".join(c.logprobs.tokens) == c.text for c in chunks)


def test_each_choice_has_its_own(client):
    plain = complete(client, n=3, temperature=1.2, seed=5, logprobs=2, max_tokens=20)
    assert len({tuple(c.logprobs.tokens) for c in plain.choices}) == 3
    chunks = list(complete(client, n=3, temperature=1.2, seed=5, logprobs=2, max_tokens=20,
                           stream=True))
    for choice in plain.choices:
        assert "".join(choice.logprobs.tokens) == choice.text
        mine = chunks_of(chunks, choice.index)
        assert [t for c in mine for t in c.logprobs.tokens] == choice.logprobs.tokens
        assert [v for c in mine
                for v in c.logprobs.token_logprobs] == choice.logprobs.token_logprobs


def test_characters_in_pieces(client, shoal, server):
    """An emoji byte by byte: bytes are right, and its tokens come in one chunk."""
    ids = shoal.json("tokenize", server.model_path, "\U0001f600", "--no-bos")["ids"][-4:]
    assert len(set(ids)) == 4, "expected a token for each byte"
    # Each is far ahead until it was chosen: a penalty this large takes its whole bias back.
    forced = {"max_tokens": 4,
              "logit_bias": {str(token): 100 - 20 * i for i, token in enumerate(ids)},
              "extra_body": {"repetition_penalty": 1000}}
    text = complete(client, logprobs=1, **forced).choices[0]
    assert text.text == "\U0001f600"
    assert text.logprobs.tokens == ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\x98", "bytes:\\x80"]
    assert text.logprobs.text_offset == [0, 0, 0, 0]
    content = chat(client, **forced).choices[0].logprobs.content
    assert [t.bytes for t in content] == [[0xF0], [0x9F], [0x98], [0x80]]
    assert [t.token for t in content] == ["\\xf0", "\\x9f", "\\x98", "\\x80"]
    chunks = chunks_of(chat(client, stream=True, **forced))
    assert [(c.delta.content, len(c.logprobs.content)) for c in chunks if c.delta.content] == [
        ("\U0001f600", 4)]
    begun = chat(client, **{**forced, "max_tokens": 2}).choices[0]
    assert begun.message.content == "\ufffd"  # and it never ended
    assert [t.bytes for t in begun.logprobs.content] == [[0xF0], [0x9F]]


@pytest.mark.parametrize("field, value, part", [
    ("logprobs", 21, "at most 20, found 21"), ("logprobs", -1, "found -1"),
    ("logprobs", "five", "must be an integer, found a string"),
])
def test_wrong_values_are_named(client, field, value, part):
    with pytest.raises(openai.BadRequestError, match=part) as refusal:
        complete(client, extra_body={field: value})
    assert refusal.value.param == field


@pytest.mark.parametrize("fields, part", [
    ({"logprobs": 3}, "must be true or false, found 3"),
    ({"logprobs": True, "top_logprobs": 21}, "at most 20, found 21"),
    ({"logprobs": False, "top_logprobs": 2}, "needs \"logprobs\": true"),
])
def test_wrong_chat_values_are_named(client, fields, part):
    with pytest.raises(openai.BadRequestError, match=part):
        chat(client, **fields)
