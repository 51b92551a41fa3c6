"""Writes tests/golden/models/: tiny random models with the values that transformers gives for them.

    python tools/make_goldens.py [--out tests/golden/models] [--only NAME ...]

Each folder holds the model as save_pretrained writes it, in.safetensors and out.safetensors.
tests/golden/README.md says what is in them.  Needs torch, transformers and safetensors.
"""

import argparse
import json
import os
import shutil
import sys

import reference
import torch
from safetensors.torch import save_file

FOLDER_LIMIT = 300_000  # bytes: the whole set stays small enough to live in the repository
MARGIN = 2e-3  # between the last expert chosen and the next one, see reference.router_margin()

LFM2 = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 54,
    "block_multiple_of": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "layer_types": ["conv", "full_attention", "conv"],
}
MOE = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 40,
    "moe_intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_dense_layers": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "layer_types": ["conv", "full_attention", "conv"],
}
LFM3 = {
    "vocab_size": 72,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 5,
    "max_position_embeddings": 128,
    "layer_types": ["sliding_attention", "conv", "full_attention"],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA = {
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}

MAMBA = {
    "vocab_size": 64,
    "hidden_size": 24,
    "state_size": 8,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
}

MAMBA2 = {
    "vocab_size": 64,
    "hidden_size": 24,
    "num_heads": 6,
    "head_dim": 8,
    "n_groups": 2,
    "state_size": 7,
    "num_hidden_layers": 2,
    "chunk_size": 8,
    "pad_token_id": 0,
}

# name: family, settings, and how the folder differs from what save_pretrained would write of itself.
GOLDENS = {
    "lfm2": ("lfm2", LFM2, {}),
    "lfm2-conv-bias": (
        "lfm2",
        LFM2 | {"conv_bias": True, "conv_L_cache": 4, "tie_word_embeddings": False, "pad_token_id": None},
        {},
    ),
    # The keys of older files: transformers reads them and writes the newer ones.
    "lfm2-legacy-config": (
        "lfm2",
        LFM2 | {"layer_types": ["conv", "conv", "full_attention"], "intermediate_size": 60, "block_ffn_dim_multiplier": 1.3,
                "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
        {
            "rename": {"intermediate_size": "block_ff_dim", "tie_word_embeddings": "tie_embedding"},
            "drop": ["layer_types", "rope_parameters", "dtype"],
            "set": {"full_attn_idxs": [2], "rope_theta": 50000.0, "rope_scaling": None, "torch_dtype": "float32"},
        },
    ),
    "lfm2-head-dim": (
        "lfm2",
        LFM2 | {"head_dim": 12, "num_key_value_heads": 1, "block_auto_adjust_ff_dim": False, "intermediate_size": 37,
                "norm_eps": 1e-3, "conv_L_cache": 5, "layer_types": ["full_attention", "conv", "full_attention"]},
        {},
    ),
    "lfm2-bf16": ("lfm2", LFM2 | {"num_attention_heads": 2, "num_key_value_heads": 2, "layer_types": ["conv", "conv", "full_attention"]}, {"dtype": torch.bfloat16}),
    "lfm2-sharded": ("lfm2", LFM2 | {"conv_L_cache": 2, "tie_word_embeddings": False}, {"shard": "24KB"}),
    "lfm2_moe": ("lfm2_moe", MOE, {}),
    "lfm2_moe-scaled": (
        "lfm2_moe",
        MOE | {"norm_topk_prob": False, "routed_scaling_factor": 2.5, "num_experts_per_tok": 3, "num_dense_layers": 0,
               "conv_bias": True, "num_hidden_layers": 2, "layer_types": ["full_attention", "conv"]},
        {},
    ),
    "lfm2_moe-no-bias": (
        "lfm2_moe",
        MOE | {"use_expert_bias": False, "routed_scaling_factor": 0.5, "tie_word_embeddings": False, "num_experts_per_tok": 1,
               "norm_topk_prob": False, "num_dense_layers": 2, "num_experts": 9},
        {},
    ),
    "lfm2_moe-idle-expert": ("lfm2_moe", MOE | {"num_experts": 8, "num_experts_per_tok": 2}, {"starve": 5}),
    "lfm3": ("lfm3", LFM3, {}),
    "lfm3-plain": (
        "lfm3",
        LFM3 | {"use_sandwich_norm": False, "use_attention_gate": False, "attention_bias": True, "conv_bias": True,
                "conv_L_cache": 3, "tie_word_embeddings": False, "sliding_window": 1, "head_dim": 12, "pad_token_id": None},
        {},
    ),
    "lfm3-partial-rotary": (
        "lfm3",
        LFM3 | {
            "sliding_window": 9,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "proportional", "rope_theta": 700.0, "partial_rotary_factor": 0.75},
                "full_attention": {"rope_type": "proportional", "rope_theta": 90000.0, "partial_rotary_factor": 0.25},
            },
            "layer_types": ["full_attention", "sliding_attention", "conv"],
        },
        {},
    ),
    "llama": ("llama", LLAMA, {}),
    "llama-bias": (
        "llama",
        LLAMA | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 4,
                 "pad_token_id": 79, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {},
    ),
    "llama-3-rope": (
        "llama",
        LLAMA | {
            "head_dim": 20,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        {
            "drop": ["rope_parameters", "dtype"],
            "set": {
                "rope_theta": 500.0,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                },
                "torch_dtype": "float32",
            },
        },
    ),
    "mamba": ("mamba", MAMBA, {}),
    "mamba-bias": (
        "mamba",
        MAMBA | {"state_size": 5, "conv_kernel": 3, "expand": 1, "use_bias": True, "use_conv_bias": False, "time_step_rank": 5,
                 "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3, "pad_token_id": None},
        {},
    ),
    "mamba-odd": (
        "mamba",
        MAMBA | {"hidden_size": 21, "state_size": 7, "conv_kernel": 5, "expand": 3, "use_conv_bias": False, "time_step_rank": 1,
                 "tie_word_embeddings": False},
        {},
    ),
    "mamba-wide": (
        "mamba",
        MAMBA | {"hidden_size": 13, "state_size": 1, "conv_kernel": 2, "expand": 4, "use_bias": True, "time_step_rank": 6,
                 "num_hidden_layers": 3},
        {},
    ),
    "mamba2": ("mamba2", MAMBA2, {}),
    "mamba2-bias": (
        "mamba2",
        MAMBA2 | {"n_groups": 1, "state_size": 5, "conv_kernel": 3, "use_bias": True, "use_conv_bias": False,
                  "tie_word_embeddings": True, "layer_norm_epsilon": 1e-3, "pad_token_id": None, "time_step_limit": [0.3, 1.1]},
        {},
    ),
    "mamba2-odd": (
        "mamba2",
        MAMBA2 | {"hidden_size": 15, "num_heads": 6, "head_dim": 5, "n_groups": 3, "state_size": 9, "conv_kernel": 3,
                  "use_conv_bias": False, "chunk_size": 7},
        {},
    ),
    "mamba2-groups": (
        "mamba2",
        MAMBA2 | {"hidden_size": 21, "expand": 4, "num_heads": 12, "head_dim": 7, "n_groups": 4, "state_size": 3,
                  "conv_kernel": 2, "use_bias": True, "tie_word_embeddings": True, "chunk_size": 5},
        {},
    ),
    "mamba2-narrow": (
        "mamba2",
        MAMBA2 | {"hidden_size": 26, "expand": 1, "num_heads": 2, "head_dim": 13, "n_groups": 2, "state_size": 11,
                  "conv_kernel": 5, "use_bias": True, "use_conv_bias": False, "num_hidden_layers": 1, "chunk_size": 32},
        {},
    ),
}


def rewrite_config(folder, how):
    if not any(key in how for key in ("rename", "drop", "set")):
        return
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    for key in how.get("drop", []):
        config.pop(key, None)
    for old, new in how.get("rename", {}).items():
        config[new] = config.pop(old)
    config |= how.get("set", {})
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def order_metadata(path):
    """save_file leaves the order of metadata to chance; in order, a second run gives the same bytes."""
    with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header, data = json.loads(f.read(size)), f.read()
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data)


def starve(model, expert):
    """No token reaches `expert` of any layer: its gradient is zero, not absent."""
    for name, tensor in model.named_buffers():
        if name.endswith("expert_bias"):
            tensor[expert] = -10.0


def write(root, name, batch=2, tokens=23):
    family, settings, how = GOLDENS[name]
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    for seed in range(1, 200):
        model = reference.build(family, settings, seed)
        if "starve" in how:
            starve(model, how["starve"])
        ids = reference.random_ids(settings["vocab_size"], batch, tokens, seed)
        margin = reference.router_margin(model, ids)
        if margin > MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a clear choice of experts")
    model.to(how.get("dtype", torch.float32))
    model.save_pretrained(folder, max_shard_size=how.get("shard", "1GB"))
    os.remove(os.path.join(folder, "generation_config.json"))
    rewrite_config(folder, how)

    model = reference.load(folder)  # what the files say, their rounding to bf16 included
    out = reference.values(model, ids)
    with reference.in_double(model):
        exact = reference.values(model, ids)
    distance = {k: reference.difference(out[k], exact[k]) for k in out}
    worst = max(distance, key=distance.get)
    metadata = {"family": family, "seed": str(seed), "float32_from_float64": f"{distance[worst]:.1e}"}
    metadata |= reference.versions()
    if margin < float("inf"):
        metadata["router_margin"] = f"{margin:.1e}"
    save_file({"input_ids": ids.to(torch.int32 if family == "llama" else torch.int64)}, os.path.join(folder, "in.safetensors"))
    save_file(out, os.path.join(folder, "out.safetensors"), metadata=metadata)
    order_metadata(os.path.join(folder, "out.safetensors"))
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)

    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name:24} seed {seed:3}  {size:7} bytes  loss {out['loss'].item():.4f}  "
          f"float32 from float64: {distance[worst]:.1e} ({worst})  margin {margin:.1e}")
    if size > FOLDER_LIMIT:
        raise SystemExit(f"{name}: {size} bytes, at most {FOLDER_LIMIT} are wanted")
    if distance[worst] > 2e-5:
        raise SystemExit(f"{name}: float32 is {distance[worst]:.1e} away from float64, too far for a golden")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "models")
    parser.add_argument("--out", default=os.path.normpath(root))
    parser.add_argument("--only", nargs="*", choices=sorted(GOLDENS), default=None)
    args = parser.parse_args()
    for name in args.only or GOLDENS:
        write(args.out, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
