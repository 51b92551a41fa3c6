"""Writes the HyenaDNA folders of tests/golden/models/: tiny random models with their values in double.

    python tools/make_hyena_goldens.py [--out tests/golden/models]

The model below follows the formulas of Poli et al. 2023 (arXiv:2302.10866) and Nguyen et al. 2023
(arXiv:2306.15794) with direct sums in place of Fourier transforms, in float64, so that its values
owe nothing to anybody's transform.  Needs torch and safetensors.
"""

import argparse
import json
import math
import os
import shutil

import torch
from safetensors.torch import save_file

BASE = {
    "model_type": "hyenadna", "architectures": ["HyenaDNAForCausalLM"], "vocab_size": 12,
    "pad_vocab_size_multiple": 8, "d_model": 12, "n_layer": 2, "d_inner": 20, "max_seq_len": 30,
    "emb_dim": 5, "filter_order": 10, "num_inner_mlps": 2, "hyena_order": 2, "short_filter_order": 3,
    "use_bias": True, "train_freq": True, "activation_freq": 3, "embed_dropout": 0.1,
    "hyena_dropout": 0.0, "hyena_filter_dropout": 0.0, "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02, "pad_token_id": 4,
}
# name: settings, prefix of names, whether every sine's frequency is written
GOLDENS = {
    "hyenadna": ({}, "hyena.", True),
    "hyenadna-order-3": (
        {"hyena_order": 3, "filter_shift": 0.0, "num_inner_mlps": 1, "emb_dim": 3, "max_seq_len": 21,
         "short_filter_order": 4, "layer_norm_epsilon": 1e-3},
        "", False),
    "hyenadna-untied": (
        {"tie_word_embeddings": False, "train_freq": False, "num_inner_mlps": 3, "d_inner": None,
         "vocab_size": 16, "filter_shift": 0.3, "n_layer": 1, "max_seq_len": 100},
        "hyena.", False),
}


def parameters(c, seed):
    """Tensors by their names in files (without prefix), shared ones once; and the names of buffers."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape, mean=0.0, std=None):
        std = std if std is not None else 1 / math.sqrt(shape[-1])
        # Through float32, so that the file holds exactly what the values are made from.
        return (mean + std * torch.randn(*shape, generator=g)).float().double()

    D, F, W, E = c["d_model"], c["d_inner"], c["filter_order"], c["emb_dim"]
    order, L = c["hyena_order"], c["max_seq_len"] + 2
    V = -(-c["vocab_size"] // c["pad_vocab_size_multiple"]) * c["pad_vocab_size_multiple"]
    channels, wide, inner = D * (order - 1), D * (order + 1), c["num_inner_mlps"]
    t = torch.linspace(0, 1, L, dtype=torch.float64)
    w = 2 * math.pi * torch.arange(L, dtype=torch.float64) / L
    f = torch.linspace(1e-4, (E - 1) // 2 - 1, (E - 1) // 2, dtype=torch.float64)
    angle = w[:, None] * f[None]
    z = torch.cat([t[:, None], torch.cos(angle), -torch.sin(angle)], -1)
    p, buffers = {"backbone.embeddings.word_embeddings.weight": normal(V, D, std=0.5)}, set()
    for i in range(c["n_layer"]):
        at = f"backbone.layers.{i}."
        p[at + "mixer.in_proj.weight"], p[at + "mixer.in_proj.bias"] = normal(wide, D), normal(wide, std=0.2)
        p[at + "mixer.out_proj.weight"], p[at + "mixer.out_proj.bias"] = normal(D, D), normal(D, std=0.2)
        K = c["short_filter_order"]
        p[at + "mixer.short_filter.weight"] = normal(wide, 1, K)
        p[at + "mixer.short_filter.bias"] = normal(wide, std=0.2)
        fn = at + "mixer.filter_fn."
        p[fn + "bias"] = normal(channels, std=1.0)
        # Trained positions are near the formula's, not equal to them.
        p[fn + "pos_emb.z"] = (z + 0.05 * torch.randn(L, E, generator=g)).float().double()[None]
        p[fn + "pos_emb.t"] = t.float().double()[None, :, None]
        p[fn + "implicit_filter.0.weight"], p[fn + "implicit_filter.0.bias"] = normal(W, E), normal(W, std=0.2)
        freq = normal(1, W, mean=c["activation_freq"], std=0.3)
        if not c["train_freq"]:
            freq = torch.full((1, W), float(c["activation_freq"]), dtype=torch.float64)
            buffers.add(fn + "implicit_filter.1.freq")
        p[fn + "implicit_filter.1.freq"] = freq
        for j in range(1, inner + 1):
            p[fn + f"implicit_filter.{2 * j}.weight"] = normal(W, W)
            p[fn + f"implicit_filter.{2 * j}.bias"] = normal(W, std=0.2)
        p[fn + f"implicit_filter.{2 * inner + 2}.weight"] = normal(channels, W)
        deltas = torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, channels, dtype=torch.float64)
        p[fn + "modulation.deltas"] = deltas.float().double()[None, None]
        buffers |= {fn + "pos_emb.t", fn + "modulation.deltas"}
        p[at + "mlp.fc1.weight"], p[at + "mlp.fc1.bias"] = normal(F, D), normal(F, std=0.2)
        p[at + "mlp.fc2.weight"], p[at + "mlp.fc2.bias"] = normal(D, F), normal(D, std=0.2)
        for norm in ("norm1", "norm2"):
            p[at + norm + ".weight"], p[at + norm + ".bias"] = normal(D, mean=1, std=0.3), normal(D, std=0.2)
    p["backbone.ln_f.weight"], p["backbone.ln_f.bias"] = normal(D, mean=1, std=0.3), normal(D, std=0.2)
    if not c.get("tie_word_embeddings", True):
        p["lm_head.weight"] = normal(V, D, std=0.3)
    return p, buffers


def convolve(v, k):
    """y[t] = sum_{s <= t} k[t - s] v[s]; v [B, T, D], k [T, D]."""
    T = v.shape[1]
    lag = torch.arange(T)[:, None] - torch.arange(T)[None]
    taps = k[lag.clamp(min=0)] * (lag >= 0)[..., None]
    return torch.einsum("tsd,bsd->btd", taps, v)


def mixer(c, p, at, x):
    D, order, T = c["d_model"], c["hyena_order"], x.shape[1]
    u = x @ p[at + "in_proj.weight"].T + p[at + "in_proj.bias"]
    taps, K = p[at + "short_filter.weight"][:, 0], c["short_filter_order"]
    padded = torch.nn.functional.pad(u, (0, 0, K - 1, 0))
    u = sum(padded[:, j : j + T] * taps[:, j] for j in range(K)) + p[at + "short_filter.bias"]
    *gates, v = u.split(D, dim=-1)
    fn = at + "filter_fn."
    h, freq = p[fn + "pos_emb.z"][0, :T], p[fn + "implicit_filter.1.freq"]
    for j in range(c["num_inner_mlps"] + 1):
        name = fn + f"implicit_filter.{2 * j}."
        h = torch.sin(freq * (h @ p[name + "weight"].T + p[name + "bias"]))
    k = h @ p[fn + f"implicit_filter.{2 * c['num_inner_mlps'] + 2}.weight"].T
    window = torch.exp(-p[fn + "pos_emb.t"][0, :T] * p[fn + "modulation.deltas"][0].abs())
    k = k * (window + c.get("filter_shift", 0.05))
    for o in range(order - 1):
        cut = slice(o * D, (o + 1) * D)
        v = v * gates[order - 1 - o]
        v = convolve(v, k[:, cut]) + v * p[fn + "bias"][cut]
    return (v * gates[0]) @ p[at + "out_proj.weight"].T + p[at + "out_proj.bias"]


def forward(c, p, ids):
    D, eps = c["d_model"], c["layer_norm_epsilon"]

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (D,), p[name + ".weight"], p[name + ".bias"], eps)

    x = p["backbone.embeddings.word_embeddings.weight"][ids]
    for i in range(c["n_layer"]):
        at = f"backbone.layers.{i}."
        x = x + mixer(c, p, at + "mixer.", norm(x, at + "norm1"))
        h = norm(x, at + "norm2") @ p[at + "mlp.fc1.weight"].T + p[at + "mlp.fc1.bias"]
        h = torch.nn.functional.gelu(h, approximate="tanh")
        x = x + h @ p[at + "mlp.fc2.weight"].T + p[at + "mlp.fc2.bias"]
    head = p.get("lm_head.weight", p["backbone.embeddings.word_embeddings.weight"])
    return norm(x, "backbone.ln_f") @ head.T


def write(root, name, batch=2, tokens=23):
    settings, prefix, every_copy = GOLDENS[name]
    c = BASE | settings
    if c["d_inner"] is None:
        c["d_inner"] = 4 * c["d_model"]
        del settings["d_inner"]
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    p, buffers = parameters(c, seed=1)
    ids = torch.randint(0, 16, (batch, tokens), generator=torch.Generator().manual_seed(2))
    ids[0, 0], ids[-1, -1] = 0, 15
    for key, tensor in p.items():
        tensor.requires_grad_(key not in buffers)
    logits = forward(c, p, ids)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()

    def named(key):
        return key if key.startswith("lm_head") else prefix + key

    weights = {named(k): v.detach().float().contiguous() for k, v in p.items()}
    for key in [k for k in weights if k.endswith("implicit_filter.1.freq")]:
        if not c["train_freq"]:
            del weights[key]  # neither parameter nor buffer there: activation_freq says it
        for j in range(1, c["num_inner_mlps"] + 1):
            if every_copy:
                weights[key.replace(".1.freq", f".{2 * j + 1}.freq")] = weights[key].clone()
    out = {"logits": logits.detach(), "loss": loss.detach()[None]}
    out |= {"grad." + named(k): v.grad for k, v in p.items() if v.grad is not None}
    config = {k: v for k, v in (BASE | settings).items() if not (k == "d_inner" and c["d_inner"] == 4 * c["d_model"])}
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")
    save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file({"input_ids": ids}, os.path.join(folder, "in.safetensors"))
    save_file({k: v.float().contiguous() for k, v in out.items()}, os.path.join(folder, "out.safetensors"),
              metadata={"torch": torch.__version__})
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name:20} {size:7} bytes  loss {loss.item():.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "models")
    parser.add_argument("--out", default=os.path.normpath(root))
    for name in GOLDENS:
        write(parser.parse_args().out, name)


if __name__ == "__main__":
    main()
