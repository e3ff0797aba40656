"""What a client gets that sends nonsense: a 4xx with an error object, and a server that goes on."""

import http.client
import json
import socket
import urllib.parse

import pytest


def ask(server, method, path, body=None, headers=None):
    where = urllib.parse.urlsplit(server.base_url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode("utf-8")
    finally:
        connection.close()


def post(server, body, path="/v1/completions"):
    if not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    return ask(server, "POST", path, body, {"Content-Type": "application/json"})


def assert_error(answer, status, code, part=""):
    assert answer[0] == status, answer[2]
    error = json.loads(answer[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert part in error["message"]
    return error


@pytest.fixture(autouse=True)
def goes_on(server):
    yield
    status, _, text = post(server, {"prompt": "Once", "max_tokens": 2, "temperature": 0})
    assert status == 200, text
    assert ask(server, "GET", "/health")[0] == 200


def test_health_and_ready(server):
    assert ask(server, "GET", "/health")[2].strip() == '{"status":"ok"}'
    assert ask(server, "GET", "/ready")[0] == 200


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b'{"prompt": "a",}', b'{"prompt": "\xff"}', b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "\\ud800"}', b'{"prompt": ' + b"[" * 100000, b"\x00\x01\x02", b"null",
    b'{"prompt": [' + b"[]," * 100000 + b"[]]}",
])
def test_invalid_json(server, body):
    assert_error(post(server, body), 400, "invalid_json")


@pytest.mark.parametrize("field, value", [
    ("temperature", "hot"), ("temperature", -1), ("top_p", 0), ("top_p", 2), ("top_k", 1.5),
    ("max_tokens", "many"), ("seed", 1.5), ("stop", 5), ("stop", ["x"] * 17),
    ("logit_bias", {"-1": 1}), ("logit_bias", {"99999999": 1}), ("stream", "yes"),
    ("presence_penalty", 3), ("min_p", -0.5), ("prompt", {}), ("prompt", [-1]), ("prompt", None),
    ("prompt", [1 << 40]), ("prompt", []), ("logprobs", True), ("logprobs", 21),
])
def test_bad_values_name_the_field(server, field, value):
    error = assert_error(post(server, {"prompt": "a", field: value}), 400, "invalid_value", field)
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("field, value", [
    ("best_of", 2), ("echo", True), ("suffix", "the end"),
])
def test_unsupported_fields_are_named(server, field, value):
    answer = post(server, {"prompt": "a", field: value})
    assert_error(answer, 400, "unsupported_parameter", f'"{field}" is not supported yet')


def test_unknown_fields_are_listed(server):
    status, headers, _ = post(server, {"prompt": "a", "max_tokens": 1, "top_n_sigma": 2, "n": 1})
    assert status == 200
    assert headers["X-Shoal-Ignored"] == "top_n_sigma"


def test_too_long_prompt(server):
    error = assert_error(post(server, {"prompt": "word " * 200000}), 400, "context_length_exceeded")
    numbers = [int(word) for word in error["message"].split() if word.isdigit()]
    assert len(numbers) == 2 and numbers[1] > numbers[0]


def test_oversized_body(server):
    assert_error(post(server, b"x" * (17 << 20)), 413, "request_too_large", "16777216")


def test_routes_and_methods(server):
    assert_error(ask(server, "GET", "/v2/completions"), 404, "not_found", "/v2/completions")
    answer = ask(server, "GET", "/v1/completions")
    assert_error(answer, 405, "method_not_allowed")
    assert answer[1]["Allow"] == "POST"
    answer = ask(server, "POST", "/v1/completions", "<x/>", {"Content-Type": "text/xml"})
    assert_error(answer, 415, "unsupported_media_type", "text/xml")


@pytest.mark.parametrize("noise", [
    b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * 100000 + b"\r\n\r\n",
])
def test_noise_on_the_socket(server, noise):
    where = urllib.parse.urlsplit(server.base_url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        try:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(100)
        except OSError:  # the server closed before it had read everything
            answer = b""
    assert answer == b"" or b" 4" in answer or b" 5" in answer
