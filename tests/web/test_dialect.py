"""The dialect as its own clients speak it: the `openai` package, and curl."""

import json
import subprocess
from typing import Any

import httpx2
import openai
import pytest

from elman_client import Client
from tests.server_process import PATIENCE

SAMPLED: dict[str, Any] = {"model": "lstm", "prompt": "To be", "seed": 7, "max_tokens": 60}


@pytest.fixture
def ai(web):
    """The `openai` package's client of the door; it would go through the tester's proxies otherwise."""
    http_client = httpx2.Client(trust_env=False)
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", timeout=PATIENCE, http_client=http_client) as client:
        yield client


@pytest.fixture
def expected(server_process) -> str:
    """What the server itself generates for the same request."""
    with Client(server_process.address) as client:
        return "".join(client.generate("To be", model="lstm", seed=7, max_chars=60))


def test_the_openai_package_gets_the_text_of_the_server(ai, expected):
    """Whole or streamed, the text is the one that gRPC gives; usage counts characters."""
    whole = ai.completions.create(**SAMPLED)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (expected, "length")
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 60)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = list(ai.completions.create(**SAMPLED, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert (last.choices, last.usage.total_tokens) == ([], 65)


async def test_the_asynchronous_openai_package_streams(web, expected):
    """The package's client for asyncio reads the same text."""
    http_client = httpx2.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=f"{web.url}/v1", api_key="none", http_client=http_client) as ai:
        stream = await ai.completions.create(**SAMPLED, stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == expected


def test_curl_reads_events(web, expected):
    """`curl -N` shows one event after the other, each with an id, and [DONE] at the end."""
    body = json.dumps({**SAMPLED, "stream": True})
    command = ["curl", "-sN", "--noproxy", "*", f"{web.url}/v1/completions", "-H", "content-type: application/json"]
    said = subprocess.check_output([*command, "-d", body], text=True, timeout=PATIENCE)
    *events, done, rest = said.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("id: text-7-") for event in events)
    data = [json.loads(event.partition("\ndata: ")[2]) for event in events]
    assert "".join(each["choices"][0]["text"] for each in data) == expected


def test_choices_have_seeds_that_follow_one_another(ai):
    """Choice k of n is the text of seed + k; streamed, the choices are those of the whole answer."""
    whole = ai.completions.create(**SAMPLED, n=3)
    alone = ai.completions.create(**{**SAMPLED, "seed": 9})
    assert whole.choices[2].text == alone.choices[0].text
    texts = ["", "", ""]
    for chunk in ai.completions.create(**SAMPLED, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def test_several_prompts_are_several_texts(ai):
    """A list of prompts is answered in its order, n choices each."""
    both = ai.completions.create(**{**SAMPLED, "prompt": ["To be", "ROMEO:"]}, n=2)
    second = ai.completions.create(**{**SAMPLED, "prompt": "ROMEO:"}, n=2)
    assert [choice.text for choice in both.choices[2:]] == [choice.text for choice in second.choices]


def test_a_text_is_scored_without_being_continued(ai, server_process):
    """`echo` with `max_tokens` 0 and `logprobs` is how likely the prompt is: what the server's Score says."""
    answer = ai.completions.create(model="lstm", prompt="To be, or", echo=True, max_tokens=0, logprobs=2)
    with Client(server_process.address) as client:
        scored = client.score("To be, or", model="lstm", top_n=2)
    logprobs = answer.choices[0].logprobs
    assert (answer.choices[0].text, logprobs.tokens) == ("To be, or", list("To be, or"))
    assert logprobs.token_logprobs == [each.log_probability for each in scored.details]
    assert logprobs.top_logprobs[3] == {top.text: top.log_probability for top in scored.details[3].top}


def test_probabilities_come_with_the_text(ai):
    """With `logprobs` each character has its own, and the likeliest ones; the offsets count from the prompt."""
    logprobs = ai.completions.create(**SAMPLED, logprobs=3, echo=True).choices[0].logprobs
    assert "".join(logprobs.tokens[:5]) == "To be"
    assert logprobs.text_offset == list(range(65))
    assert {len(top) for top in logprobs.top_logprobs[1:]} == {3}


def test_filters_act(ai):
    """`logit_bias` is by character; what a stop text ends does not contain it."""
    only = ai.completions.create(**SAMPLED, logit_bias={"e": 100})
    assert only.choices[0].text == "e" * 60
    stopped = ai.completions.create(**SAMPLED, logit_bias={"e": 100}, stop=["eee"])
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("", "stop")


def test_a_chat_is_its_template(ai, server_process):
    """The network reads speakers and empty lines, and stops at one."""
    messages = [
        {"role": "system", "content": "A room."},
        {"role": "user", "content": "Who is there"},
        {"role": "assistant", "content": "I.", "name": "JULIET"},
        {"role": "user", "name": "ROMEO", "content": [{"type": "text", "text": "Who"}]},
    ]
    chat = ai.chat.completions.create(model="lstm", messages=messages, seed=1, max_tokens=300)
    read = "A room.\n\nUSER:\nWho is there\n\nJULIET:\nI.\n\nROMEO:\nWho\n\nJULIET:\n"
    with Client(server_process.address) as client:
        said = "".join(client.generate(read, model="lstm", seed=1, max_chars=300, stop_strings="\n\n"))
    assert chat.choices[0].message.content == said
    stream = ai.chat.completions.create(model="lstm", messages=messages, seed=1, max_tokens=300, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == said


def test_a_session_keeps_a_chat(ai, http, server_process):
    """A session is created on demand and returned; later, only what follows the last answer is read."""
    first = [{"role": "user", "content": "Who is there"}]
    asked = {"model": "lstm", "max_tokens": 20, "seed": 3}
    chat = ai.chat.completions.create(**asked, messages=first, extra_body={"session": "new"})
    name, said = chat.session, chat.choices[0].message.content
    more = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": "Go"}]
    second = ai.chat.completions.create(**asked, messages=more, extra_headers={"x-elman-session": name})
    with Client(server_process.address) as client:
        text = client.session(name).transcript().text
    expected = f"USER:\nWho is there\n\nASSISTANT:\n{said}\n\nUSER:\nGo\n\nASSISTANT:\n"
    assert text == expected + second.choices[0].message.content
    http.delete(f"/v1/{name}").raise_for_status()


def test_models_are_listed(ai):
    """Each model is listed, and found by its id."""
    ids = [model.id for model in ai.models.list()]
    assert ids == ["bytes", "elman", "gru", "lstm", "nan"]
    assert ai.models.retrieve("lstm").elman["hidden_size"] == 16


def test_a_byte_level_model_streams_characters(ai):
    """What is generated byte by byte arrives as whole characters, the same whole or streamed."""
    asked = {"model": "bytes", "prompt": "é", "seed": 1, "max_tokens": 40}
    whole = ai.completions.create(**asked)
    streamed = "".join(chunk.choices[0].text for chunk in ai.completions.create(**asked, stream=True))
    assert streamed == whole.choices[0].text


def test_an_error_of_the_server_is_the_packages_error(ai):
    """Status, sentence and reason of the server arrive as the package's own classes."""
    with pytest.raises(openai.NotFoundError) as caught:
        ai.completions.create(**{**SAMPLED, "model": "gone"})
    assert caught.value.code == "MODEL_NOT_FOUND"
    with pytest.raises(openai.BadRequestError) as refused:
        ai.completions.create(**{**SAMPLED, "prompt": "日本"})
    assert refused.value.code == "CHARACTER_NOT_IN_VOCABULARY"
    with pytest.raises(openai.APIError, match="internal error"):
        list(ai.completions.create(model="nan", prompt="!!", logit_bias={"!": 100}, max_tokens=50, stream=True))
