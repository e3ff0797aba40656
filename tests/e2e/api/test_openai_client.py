"""The API as OpenAI's own Python client sees it, against a real `shoal serve`."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

PROMPT = "Once upon a time"


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0) as c:
        yield c


def complete(client, server, **fields):
    fields.setdefault("prompt", PROMPT)
    fields.setdefault("temperature", 0)
    fields.setdefault("max_tokens", 12)
    return client.completions.create(model=server.model_id, **fields)


def stream_text(chunks, index=0):
    """Text, finish reasons and usage of a completion's stream."""
    text, finishes, usage = "", [], None
    for chunk in chunks:
        if chunk.usage is not None:
            usage = chunk.usage
        for choice in chunk.choices:
            if choice.index == index:
                text += choice.text
                if choice.finish_reason is not None:
                    finishes.append(choice.finish_reason)
    return text, finishes, usage


def test_models(client, server):
    models = client.models.list().data
    assert [m.id for m in models] == [server.model_id]
    assert client.models.retrieve(server.model_id).id == server.model_id
    with pytest.raises(openai.NotFoundError) as refusal:
        client.models.retrieve("gpt-4")
    assert refusal.value.code == "model_not_found"


def test_completion(client, server):
    answer = complete(client, server)
    assert answer.object == "text_completion"
    assert answer.model == server.model_id
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].text) > 0
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens >= 2
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.timings["prefill_tok_s"] > 0


def test_stream_equals_plain(client, server):
    plain = complete(client, server)
    text, finishes, usage = stream_text(complete(
        client, server, stream=True, stream_options={"include_usage": True}))
    assert text == plain.choices[0].text
    assert finishes == ["length"]
    assert usage == plain.usage


def test_stream_without_usage(client, server):
    _, finishes, usage = stream_text(complete(client, server, stream=True))
    assert finishes == ["length"]
    assert usage is None


def test_seed_repeats(client, server):
    def sample(seed):
        return complete(client, server, temperature=1, seed=seed).choices[0].text

    assert sample(5) == sample(5)
    assert len({sample(seed) for seed in range(6)}) > 1


def test_without_seed_texts_differ(client, server):
    texts = {complete(client, server, temperature=1.5, max_tokens=24).choices[0].text
             for _ in range(6)}
    assert len(texts) > 1


def test_default_length_is_16(client, server):
    answer = client.completions.create(model=server.model_id, prompt=PROMPT, temperature=0,
                                       extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16


def test_several_prompts_equal_single_ones(client, server):
    prompts = [PROMPT, "The", "It was a very"]
    single = [complete(client, server, prompt=p).choices[0].text for p in prompts]
    together = complete(client, server, prompt=prompts)
    assert [c.text for c in together.choices] == single
    assert [c.index for c in together.choices] == [0, 1, 2]
    for i in range(3):
        text, finishes, _ = stream_text(complete(client, server, prompt=prompts, stream=True), i)
        assert text == single[i]
        assert len(finishes) == 1


def test_clients_at_once_get_what_they_get_alone(client, server):
    prompts = [f"{word} " * (1 + i % 5) for i, word in enumerate(
        ["Once", "The cat", "Lily", "A dog", "He", "She said", "In the park", "Mom", "One day"])]
    alone = [complete(client, server, prompt=p, temperature=0.8, seed=i).choices[0].text
             for i, p in enumerate(prompts)]

    def one(i):
        if i % 2 == 0:
            return complete(client, server, prompt=prompts[i], temperature=0.8,
                            seed=i).choices[0].text
        return stream_text(complete(client, server, prompt=prompts[i], temperature=0.8, seed=i,
                                    stream=True))[0]

    with ThreadPoolExecutor(len(prompts)) as threads:
        for _ in range(3):
            assert list(threads.map(one, range(len(prompts)))) == alone


def test_stop_string(client, server):
    whole = complete(client, server, max_tokens=24).choices[0].text
    words = whole.split()
    assert len(words) >= 3
    stop = words[2]
    answer = complete(client, server, max_tokens=24, stop=[stop, "\x01 never"])
    assert answer.choices[0].text == whole[:whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    text, finishes, _ = stream_text(complete(client, server, max_tokens=24, stop=stop, stream=True))
    assert text == answer.choices[0].text
    assert finishes == ["stop"]


def test_logit_bias_bans_a_token(client, server):
    first = complete(client, server, max_tokens=1).choices[0].text
    seen = set()
    for token in range(32):  # any ban must not break; those of other tokens change nothing
        seen.add(complete(client, server, max_tokens=1,
                          logit_bias={str(token): -100}).choices[0].text)
    assert first in seen


def test_extra_sampling_fields(client, server):
    greedy = complete(client, server).choices[0].text
    same = complete(client, server, temperature=1, extra_body={"top_k": 1})
    assert same.choices[0].text == greedy
    penalised = complete(client, server, max_tokens=48, extra_body={"repetition_penalty": 1.8})
    assert penalised.choices[0].text != complete(client, server, max_tokens=48).choices[0].text


def test_every_sampler_setting(client, server):
    settings = [{"typical_p": 0.5}, {"mirostat": 2, "mirostat_tau": 3}, {"min_p": 0.2},
                {"xtc_probability": 1, "xtc_threshold": 0.05}, {"dry_multiplier": 5}]
    for extra in settings:
        texts = [complete(client, server, temperature=1, seed=7, max_tokens=40,
                          extra_body=more).choices[0].text for more in (extra, extra, {})]
        assert texts[0] == texts[1] and texts[0], extra
        assert texts[0] != texts[2] or "dry_multiplier" in extra, extra


def test_dry_ends_repetition(client, server):
    """A prompt that has said the same line four times goes on with it, unless DRY is there."""
    line = " One, two, three, four."
    options = {"prompt": "He said:" + line * 6 + " One, two,", "max_tokens": 6}
    plain = complete(client, server, **options).choices[0].text
    dry = {"dry_multiplier": 20, "dry_sequence_breakers": []}
    assert complete(client, server, extra_body=dry, **options).choices[0].text != plain
    with pytest.raises(openai.BadRequestError, match="dry_sequence_breakers"):
        complete(client, server, extra_body={**dry, "dry_sequence_breakers": ["x|y|z|x"]})


def test_abandoned_stream_frees_the_server(client, server):
    for _ in range(8):
        stream = complete(client, server, max_tokens=400, stream=True,
                          extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    assert complete(client, server).usage.completion_tokens == 12


def test_chat(client, server):
    """The demo model's template joins the messages as plain text: one message is a completion."""
    prompt = "The prince went to the door, and"
    messages = [{"role": "user", "content": prompt}]
    options = {"model": server.model_id, "messages": messages, "temperature": 0, "max_tokens": 12}
    answer = client.chat.completions.create(**options)
    assert answer.choices[0].message.role == "assistant"
    plain = client.completions.create(model=server.model_id, prompt=prompt, temperature=0,
                                      max_tokens=12)
    assert answer.choices[0].message.content == plain.choices[0].text
    assert answer.usage.prompt_tokens == plain.usage.prompt_tokens  # one BOS, not two
    text = "".join(chunk.choices[0].delta.content or ""
                   for chunk in client.chat.completions.create(**options, stream=True))
    assert text == plain.choices[0].text


def test_wrong_model_is_404(client, server):
    with pytest.raises(openai.NotFoundError) as refusal:
        client.completions.create(model="gpt-4", prompt="x")
    assert refusal.value.code == "model_not_found"
    assert server.model_id in refusal.value.message
