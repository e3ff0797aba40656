"""Writes the demo model's Hugging Face folder as one GGUF file in Q8_0.

    export.py HF_FOLDER OUT.gguf

Matrices become Q8_0, norms stay F32. The rows of q and k are reordered within every head from the
two halves of `transformers` to GGUF's neighbouring pairs ("llama" rope). The head is tied: there is
no output.weight.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import load_file

NAME = "Shoal demo"
DESCRIPTION = ("A LLaMA of 7.3 million parameters trained on public-domain English novels. It shows"
               " that Shoal works; it knows nothing and follows no instructions.")
CHAT_TEMPLATE = ("{{- bos_token }}"
                 "{%- for message in messages %}"
                 "{%- if not loop.first %}{{- '\\n\\n' }}{%- endif %}"
                 "{{- message['content'] }}"
                 "{%- endfor %}")

LAYER_TENSORS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def pairs_from_halves(rows, heads):
    """Row i of a head's first half and row i of its second half become neighbours."""
    size = rows.shape[0] // heads
    halves = rows.reshape(heads, 2, size // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def gguf_tensors(weights, config):
    """(GGUF name, float32 array) in file order."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    yield "token_embd.weight", weights["model.embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in LAYER_TENSORS.items():
            array = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in heads:
                array = pairs_from_halves(array, heads[ours])
            yield f"blk.{layer}.{ours}.weight", array
    yield "output_norm.weight", weights["model.norm.weight"]


def write_model(writer, config, parameters):
    head_size = config["hidden_size"] // config["num_attention_heads"]
    writer.add_type("model")
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license("Apache-2.0")
    writer.add_languages(["en"])
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])


def write_tokenizer(writer, tokenizer, config):
    ids = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(ids, key=ids.get)
    assert [ids[token] for token in tokens] == list(range(config["vocab_size"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL
                            for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()

    config = json.loads((arguments.folder / "config.json").read_text())
    tokenizer = json.loads((arguments.folder / "tokenizer.json").read_text())
    weights = load_file(arguments.folder / "model.safetensors")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(arguments.out, "llama")
    write_model(writer, config, sum(array.size for array in weights.values()))
    write_tokenizer(writer, tokenizer, config)
    for name, array in gguf_tensors(weights, config):
        kind = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else gguf.GGMLQuantizationType.Q8_0
        data = array.astype(np.float32)
        if array.ndim > 1:
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
