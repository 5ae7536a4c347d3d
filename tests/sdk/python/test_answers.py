"""Calls that work: passed through, held, dripped, streamed, polled, embedded."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import APITimeoutError, AsyncOpenAI, ConflictError

from conftest import (
    DEADLINE,
    DRIP_AFTER,
    MODEL,
    OFFPEAK_URL,
    ask_anew,
    batch_lines,
    chat,
    connect,
    new_key,
    purchases,
    slow,
    tries,
    wait_for_purchase,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


# Without a deadline: straight through.


def test_plain_call(client, question):
    raw = client.chat.completions.with_raw_response.create(**chat(question))
    assert "offpeak-request-id" not in raw.headers
    assert question in raw.parse().choices[0].message.content
    assert (tries(question), batch_lines(question)) == (1, 0)


def test_plain_stream(client, question):
    stream = client.chat.completions.create(
        **chat(question), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert question in text
    assert len(chunks) > 3
    assert chunks[-1].usage.total_tokens > 0


# With a deadline: held until a batch has answered.


def test_deferred_call_holds(client, question):
    raw = client.chat.completions.with_raw_response.create(
        **chat(question), extra_headers=DEADLINE
    )
    assert raw.status_code == 200
    assert raw.headers["offpeak-lane"] == "batch"
    assert raw.headers["offpeak-request-id"].startswith("op_")
    assert raw.headers["offpeak-reason"]
    completion = raw.parse()
    assert question in completion.choices[0].message.content
    assert completion.usage.total_tokens > 0
    assert completion.id.startswith("chatcmpl-")
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_deadline_among_the_default_headers(question):
    with connect(default_headers=DEADLINE) as client:
        completion = client.chat.completions.create(**chat(question))
    assert question in completion.choices[0].message.content
    assert batch_lines(question) == 1


def test_many_at_once():
    questions = [ask_anew() for _ in range(20)]

    async def ask_all():
        async with AsyncOpenAI(
            base_url=f"{OFFPEAK_URL}/v1", api_key=new_key(), default_headers=DEADLINE
        ) as client:
            calls = [client.chat.completions.create(**chat(text)) for text in questions]
            return await asyncio.gather(*calls)

    for text, completion in zip(questions, asyncio.run(ask_all()), strict=True):
        assert text in completion.choices[0].message.content
        assert tries(text) == 1


def test_drip_outlives_the_clients_idle_limit(question):
    """The read timeout is far below the time the answer takes."""
    patience = DRIP_AFTER + 2
    with connect(timeout=patience, max_retries=0) as client:
        completion = client.chat.completions.create(
            **chat(question, **slow(patience + 2)), extra_headers=DEADLINE
        )
    assert question in completion.choices[0].message.content
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_a_resend_takes_over(question):
    """The client gives up in the silence before the drip and sends again, as often
    as the SDK does of itself."""
    patience = DRIP_AFTER * 0.5
    with connect(timeout=patience, max_retries=2) as client:
        raw = client.chat.completions.with_raw_response.create(
            **chat(question, **slow(patience)), extra_headers=DEADLINE
        )
        assert purchases(client) == 1
    assert raw.retries_taken > 0
    assert question in raw.parse().choices[0].message.content
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_a_resend_that_overtakes_the_hang_up(client, question):
    """Its retry count says which call it replaces, while that one still seems to
    be on the line; what is told on that line is not retried into a purchase."""
    call = chat(question, **slow(DRIP_AFTER + 1))
    resend = {**DEADLINE, "x-stainless-retry-count": "1"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.chat.completions.create, **call, extra_headers=DEADLINE)
        wait_for_purchase(client)
        with connect(api_key=client.api_key) as other:
            completion = other.chat.completions.create(**call, extra_headers=resend)
        assert question in completion.choices[0].message.content
        with pytest.raises(ConflictError):
            first.result()
    assert purchases(client) == 1
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_a_new_client_takes_over_what_was_left(question):
    """A program that died and starts over sends no retry count."""
    call = chat(question, **slow(DRIP_AFTER))
    with connect(timeout=DRIP_AFTER * 0.5, max_retries=0) as client:
        with pytest.raises(APITimeoutError):
            client.chat.completions.create(**call, extra_headers=DEADLINE)
    with connect(api_key=client.api_key) as client:
        # The proxy hears of the hang-up on another connection than the next call.
        client.models.list()
        completion = client.chat.completions.create(**call, extra_headers=DEADLINE)
    assert question in completion.choices[0].message.content
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_two_equal_calls_get_two_answers(client, question):
    def ask(_):
        return client.chat.completions.with_raw_response.create(
            **chat(question), extra_headers=DEADLINE
        )

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert first.headers["offpeak-request-id"] != second.headers["offpeak-request-id"]
    assert first.parse().id != second.parse().id
    assert (tries(question), batch_lines(question)) == (2, 2)


def test_an_idempotency_key_joins_equal_calls(client, question):
    headers = {**DEADLINE, "Idempotency-Key": question.replace(" ", "-")}

    def ask(_):
        return client.chat.completions.create(**chat(question), extra_headers=headers)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert first.id == second.id
    assert tries(question) == 1


# Not held: 202 and polling.


def test_respond_async_and_retrieve(client, question):
    raw = client.chat.completions.with_raw_response.create(
        **chat(question, **slow(1)), extra_headers={**DEADLINE, "Prefer": "respond-async"}
    )
    assert raw.status_code == 202
    assert raw.headers["preference-applied"] == "respond-async"
    assert int(raw.headers["retry-after"]) >= 0
    stub = raw.parse()
    assert stub.id.startswith("op_")
    assert raw.headers["location"].endswith(f"/v1/chat/completions/{stub.id}")
    assert (stub.object, stub.status, stub.choices) == ("chat.completion", "queued", [])

    pending = client.chat.completions.with_raw_response.retrieve(stub.id)
    assert pending.status_code == 202
    assert pending.parse().id == stub.id

    answer = client.chat.completions.with_raw_response.retrieve(
        stub.id, extra_headers={"Prefer": "wait=60"}
    )
    assert answer.status_code == 200
    completion = answer.parse()
    assert question in completion.choices[0].message.content
    assert completion.id.startswith("chatcmpl-")
    again = client.chat.completions.with_raw_response.retrieve(stub.id)
    assert again.content == answer.content
    assert tries(question) == 1


def test_wait_is_bounded(client, question):
    raw = client.chat.completions.with_raw_response.create(
        **chat(question, **slow(5)), extra_headers={**DEADLINE, "Prefer": "wait=1"}
    )
    assert raw.status_code == 202
    stub = raw.parse()
    answer = client.chat.completions.retrieve(stub.id, extra_headers={"Prefer": "wait=60"})
    assert question in answer.choices[0].message.content
    assert tries(question) == 1


# stream=True with a deadline: the result, replayed.


def test_deferred_stream_of_text(client, question):
    stream = client.chat.completions.create(
        **chat(question, n=2),
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=DEADLINE,
    )
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    chunks = list(stream)
    assert {c.object for c in chunks} == {"chat.completion.chunk"}
    assert len({c.id for c in chunks}) == 1
    text, ends = ["", ""], {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        text[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert question in text[0] and question in text[1] and text[0] != text[1]
    assert ends == {0: "stop", 1: "stop"}
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_deferred_stream_without_usage(client, question):
    stream = client.chat.completions.create(
        **chat(question), stream=True, extra_headers=DEADLINE
    )
    chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_deferred_stream_waits_with_heartbeats(question):
    with connect(timeout=DRIP_AFTER + 2, max_retries=0) as client:
        stream = client.chat.completions.create(
            **chat(question, **slow(DRIP_AFTER + 4)), stream=True, extra_headers=DEADLINE
        )
        text = "".join(c.choices[0].delta.content or "" for c in stream)
    assert question in text
    assert tries(question) == 1


def test_deferred_stream_of_tool_calls(client, question):
    with client.chat.completions.stream(
        **chat(question, tools=[TOOL]), extra_headers=DEADLINE
    ) as stream:
        completion = stream.get_final_completion()
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather" and call.id.startswith("call_")
    assert json.loads(call.function.arguments)["city"]
    assert batch_lines(question) == 1


def test_deferred_stream_of_a_response(client, question):
    stream = client.responses.create(
        model=MODEL, input=question, stream=True, extra_headers=DEADLINE
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert question in text
    assert events[-1].response.output_text == text
    assert events[-1].response.usage.total_tokens > 0
    assert batch_lines(question) == 1


def test_deferred_stream_of_a_responses_tool_call(client, question):
    tool = {"type": "function", "name": "weather", "strict": False, **TOOL["function"]}
    with client.responses.stream(
        model=MODEL, input=question, tools=[tool], extra_headers=DEADLINE
    ) as stream:
        response = stream.get_final_response()
    (call,) = (item for item in response.output if item.type == "function_call")
    assert call.name == "weather" and json.loads(call.arguments)["city"]
    assert batch_lines(question) == 1


# Responses.


def test_deferred_response_holds(client, question):
    response = client.responses.create(model=MODEL, input=question, extra_headers=DEADLINE)
    assert response.status == "completed"
    assert question in response.output_text
    assert batch_lines(question) == 1


def test_background_response_and_retrieve(client, question):
    response = client.responses.create(
        model=MODEL, input=question, background=True, extra_headers=DEADLINE, **slow(1)
    )
    op = response.id
    assert op.startswith("op_")
    assert response.status == "queued"
    while response.status in ("queued", "in_progress"):
        response = client.responses.retrieve(op, extra_headers={"Prefer": "wait=5"})
    assert response.status == "completed"
    assert question in response.output_text
    assert tries(question) == 1


def test_background_response_is_cancelled(client, question):
    response = client.responses.create(
        model=MODEL, input=question, background=True, extra_headers=DEADLINE, **slow(600)
    )
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"
    assert tries(question) == 0


# The other endpoints.


def test_deferred_legacy_completion(client, question):
    completion = client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt=question, extra_headers=DEADLINE
    )
    assert question in completion.choices[0].text
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_deferred_moderation(client, question):
    verdict = client.moderations.create(
        model="omni-moderation-latest", input=question, extra_headers=DEADLINE
    )
    assert len(verdict.results) == 1
    assert (tries(question), batch_lines(question)) == (1, 1)


# Embeddings.


def embedding(client, text, **more):
    return client.embeddings.create(model="text-embedding-3-small", input=text, **more)


def test_deferred_embeddings(client, question):
    other = ask_anew()
    deferred = embedding(client, [question, other], extra_headers=DEADLINE)
    assert [item.index for item in deferred.data] == [0, 1]
    plain = embedding(client, [question, other])
    for one, two in zip(deferred.data, plain.data, strict=True):
        assert len(one.embedding) == 1536
        assert one.embedding == pytest.approx(two.embedding)


def test_deferred_embeddings_in_both_encodings(client, question):
    floats = embedding(client, question, encoding_format="float", extra_headers=DEADLINE)
    encoded = embedding(client, question, encoding_format="base64", extra_headers=DEADLINE)
    text = encoded.data[0].embedding
    assert isinstance(text, str)
    decoded = struct.unpack("<1536f", base64.b64decode(text))
    assert floats.data[0].embedding == pytest.approx(decoded)


# The deadline in the base URL.


def test_deadline_in_the_base_url(question):
    with connect(base_url=f"{OFFPEAK_URL}/within/6h/v1") as client:
        raw = client.models.with_raw_response.list()
        assert raw.headers["offpeak-reason"] == "not-deferrable"
        assert MODEL in {model.id for model in raw.parse()}
        assert MODEL in {model.id for model in client.models.list()}

        answer = client.chat.completions.with_raw_response.create(**chat(question))
        assert answer.headers["offpeak-lane"] == "batch"
        assert question in answer.parse().choices[0].message.content
    assert batch_lines(question) == 1
