"""Output that nobody takes, standard streams that are not there, and models whose parts disagree."""
import os
import subprocess

import gguf_file
import pytest
from shoal_process import SLOWNESS


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    shape = gguf_file.Shape(context=4096)
    return gguf_file.write(tmp_path_factory.mktemp("model") / "tiny.gguf",
                           gguf_file.model_metadata(shape), gguf_file.model_tensors(shape))


def sh(shoal, script, *arguments):
    """Exit status and stderr of a shell line in which "$@" is the binary with these arguments."""
    completed = subprocess.run(["sh", "-c", script, "sh", shoal.binary, *map(str, arguments)],
                               stdin=subprocess.DEVNULL, capture_output=True, check=False,
                               timeout=60 * SLOWNESS)
    return completed.returncode, completed.stderr.decode()


@pytest.mark.parametrize("where", [">&-", ">/dev/full", "<&- >&-"])
@pytest.mark.parametrize("verb", ["run", "run --json", "inspect", "--help", "run --help", "--version"])
def test_output_that_cannot_be_written(shoal, tiny, verb, where):
    words = verb.split()
    if words[0] == "run" and "--help" not in words:
        words[1:1] = [tiny, "-p", "ab", "-n", "3"]
    if words[0] == "inspect":
        words.append(tiny)
    status, stderr = sh(shoal, f'"$@" {where}', *words)
    assert status == 1
    assert stderr.splitlines()[-1].endswith("writing to standard output failed")


def test_closed_streams_do_not_reach_the_model_file(shoal, tiny):
    before = tiny.read_bytes()
    status, _ = sh(shoal, '"$@" <&- >&- 2>&-', "run", tiny, "-p", "ab", "-n", "3")
    assert status == 1
    assert tiny.read_bytes() == before


def test_run_ends_when_its_reader_goes(shoal, tiny):
    read, write = os.pipe()
    process = subprocess.Popen(
        [shoal.binary, "run", tiny, "-p", "ab", "--ignore-eos", "--threads", "1"],
        stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    _, stderr = process.communicate(timeout=60 * SLOWNESS)
    assert process.returncode == 1
    assert b"writing to standard output failed" in stderr


def test_a_tokenizer_larger_than_the_model(shoal, tmp_path):
    """Ids that the model has no rows for are refused, wherever they come from."""
    shape = gguf_file.Shape()
    tensors = [(name, dtype, [dims[0], 200] if name in ("token_embd.weight", "output.weight") else dims)
               for name, dtype, dims in gguf_file.model_tensors(shape)]
    metadata = [(key, kind, 200 if key == "llama.vocab_size" else value)
                for key, kind, value in gguf_file.model_metadata(shape)]
    path = gguf_file.write(tmp_path / "small.gguf", metadata, tensors)
    text = tmp_path / "text"
    text.write_text("zzzzzzzz" * 40)
    shoal.fails("run", path, "-p", "zz", "-n", "3", mentions=["199"])
    shoal.fails("eval", path, "--next", "zz", mentions=["199"])
    shoal.fails("eval", path, "--ppl", text, "--block", "128", mentions=["199"])


def test_a_file_without_end(shoal, tiny):
    shoal.fails("eval", tiny, "--ppl", "/dev/zero", mentions=["/dev/zero", "67108864 bytes"])
