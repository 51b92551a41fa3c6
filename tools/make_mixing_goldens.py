"""Writes goldens of sequence mixing written down as formulas, in double precision and without chunks.

    python tools/make_mixing_goldens.py [--out tests/golden]

tests/golden/models/: linear attention as a masked matrix of all pairs of tokens, adaptive token
mixing, and torch's own LSTM and GRU; tests/golden/vision/: VMamba, whose selective scan goes token by token.  Needs torch and
safetensors.
"""

import argparse
import json
import math
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)


class Weights:
    """Random parameters by the names that Ember's files have, made when they are first asked for."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.all = {}

    def get(self, name, *shape):
        if name not in self.all:
            w = torch.randn(shape, generator=self.generator)
            if len(shape) > 1:
                w /= math.sqrt(math.prod(shape[1:]))
            else:
                w *= 0.3
            if "norm" in name and name.endswith("weight"):
                w += 1
            if "A_log" in name:
                w = 0.3 * torch.randn(shape, generator=self.generator)
            self.all[name] = w.float().double().requires_grad_()
        assert self.all[name].shape == shape
        return self.all[name]

    def random(self, *shape):
        return torch.randn(shape, generator=self.generator).float().double()


def rmsnorm(x, w, eps=1e-5):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w


# ---- models of tokens: T x D, one sequence at a time ----

FEATURES = {
    "identity": lambda x: x,
    "elu1": lambda x: F.elu(x) + 1,
    "relu": F.relu,
    "softmax": lambda x: x.softmax(-1),
}


def rope(x, theta):
    """[T, H, K], pairs (i, i + K/2)."""
    T, _, K = x.shape
    angle = torch.arange(T)[:, None] * theta ** (-2 * torch.arange(K // 2) / K)
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., : K // 2], x[..., K // 2 :]
    return torch.cat([a * c - b * s, a * s + b * c], -1)


def linear_attention(x, w, at, o):
    T, D = x.shape
    H, G = o["heads"], o.get("kv_heads") or o["heads"]
    K = o.get("head_dim") or D // H

    def project(name, heads):
        return (x @ w.get(f"{at}.{name}_proj.weight", heads * K, D).T).view(T, heads, K)

    q, k, v = project("q", H), project("k", G), project("v", G)
    if o.get("rope", "none") != "none":
        q, k = rope(q, 1e4), rope(k, 1e4)
    f = FEATURES[o.get("feature", "elu1")]
    q, k = f(q), f(k)
    log_decay = torch.zeros(T, G)
    if o.get("decay") == "fixed":
        last = o.get("decay_last") or o["decay_first"] + G - 1
        log_decay = torch.log1p(-(2.0 ** -torch.linspace(o["decay_first"], last, G))).expand(T, G)
    if o.get("decay") == "gate":
        gate = x @ w.get(f"{at}.decay_proj.weight", G, D).T + w.get(f"{at}.decay_proj.bias", G)
        log_decay = F.logsigmoid(gate) / o.get("gate_temperature", 16)
    L = log_decay.cumsum(0)
    past = torch.arange(T)[:, None] >= torch.arange(T)
    heads = []
    for h in range(H):
        g = h // (H // G)
        decay = (L[:, None, g] - L[None, :, g]).masked_fill(~past, -math.inf).exp()
        p = q[:, h] @ k[:, g].T * decay
        if o.get("normalise", True):
            y = p @ v[:, g] / (p.sum(-1, keepdim=True) + o.get("eps", 1e-6))
        else:
            y = p @ v[:, g] * K**-0.5
        if o.get("head_norm"):
            y = rmsnorm(y, w.get(f"{at}.head_norm.weight", K))
        heads.append(y)
    y = torch.cat(heads, -1)
    if o.get("output_gate"):
        y = F.silu(x @ w.get(f"{at}.gate_proj.weight", H * K, D).T) * y
    return y @ w.get(f"{at}.o_proj.weight", D, H * K).T


def adaptive(x, context, w, at, o):
    D, A = x.shape[-1], o["adapt"]
    kind = o.get("generator", "low_rank")
    r = o.get("rank", 16)
    n = r if kind == "low_rank" else D
    c = rmsnorm(context, w.get(f"{at}.context_norm.weight", D))
    a = torch.tanh(c @ w.get(f"{at}.featurizer.weight", A, D).T + w.get(f"{at}.featurizer.bias", A))
    g = a @ w.get(f"{at}.gain.weight", n, A).T + w.get(f"{at}.gain.bias", n)
    wx = x @ w.get(f"{at}.weight", D, D).T + w.get(f"{at}.bias", D)
    if kind == "low_rank":
        v = x @ w.get(f"{at}.down.weight", r, D).T
        return wx + (g * v) @ w.get(f"{at}.up.weight", D, r).T
    if kind == "diagonal":
        return g * wx
    return g * wx + a @ w.get(f"{at}.shift.weight", D, A).T + w.get(f"{at}.shift.bias", D)


def token_mixing(x, w, at, o):
    T = x.shape[0]
    return adaptive(x, x.cumsum(0) / torch.arange(1, T + 1)[:, None], w, at, o)


def adaptive_linear(x, w, at, o):
    return adaptive(x, x, w, at, o)


def gated(x, w, at, o, gates):
    """torch's LSTM (4 gates) or GRU (3) from a state of zeros, and the matrix behind it."""
    D, H = x.shape[-1], o["units"]
    made = o.get("output_size", 0) or D
    parts = [w.get(f"{at}.weight_ih", gates * H, D), w.get(f"{at}.weight_hh", gates * H, H),
             w.get(f"{at}.bias_ih", gates * H), w.get(f"{at}.bias_hh", gates * H)]
    zero = torch.zeros(1, 1, H)
    cell, start = (torch._VF.lstm, (zero, zero)) if gates == 4 else (torch._VF.gru, zero)
    h = cell(x[None], start, parts, True, 1, 0.0, False, False, True)[0][0]
    if not o.get("projection", True):
        return h
    return h @ w.get(f"{at}.fc.weight", made, H).T + w.get(f"{at}.fc.bias", made)


def lstm(x, w, at, o):
    return gated(x, w, at, o, 4)


def gru(x, w, at, o):
    return gated(x, w, at, o, 3)


MIXERS = {m.__name__: m for m in (linear_attention, token_mixing, adaptive_linear, lstm, gru)}


def text_model(ids, w, config):
    D, V = config["hidden_size"], config["vocab_size"]
    x = w.get("embedding.weight", V, D)[ids]
    for i, block in enumerate(config["blocks"]):
        for half in ("sequence", "channel"):
            if half in block:
                at = f"blocks.{i}.{half}"
                o = block[half]
                n = rmsnorm(x, w.get(f"blocks.{i}.{half}_norm.weight", D))
                x = x + MIXERS[o["type"]](n, w, at, o)
    x = rmsnorm(x, w.get("final_norm.weight", D))
    return x @ w.get("head.weight", V, D).T


def attention_config(*options):
    return {
        "model_type": "ember",
        "hidden_size": 24,
        "vocab_size": 29,
        "tie_word_embeddings": False,
        "blocks": [
            {"type": "pre_norm", "sequence": {"type": "linear_attention", **o}} for o in options
        ],
    }


def mixing_config(*kinds):
    o = {"adapt": 7, "rank": 5}
    return {
        **attention_config(),
        "blocks": [
            {
                "type": "pre_norm",
                "sequence": {"type": "token_mixing", "generator": k, **o},
                "channel": {"type": "adaptive_linear", "generator": k, **o},
            }
            for k in kinds
        ],
    }


RETENTION = {"feature": "identity", "normalise": False, "head_norm": True, "output_gate": True}
TEXT = {
    "linear_attention": attention_config(
        {"heads": 4, "kv_heads": 2, "feature": "elu1"},
        {"heads": 3, "feature": "softmax", "head_dim": 10},
        {"heads": 2, "feature": "relu", "eps": 0.5},
    ),
    "linear_attention-retention": attention_config(
        {**RETENTION, "heads": 4, "kv_heads": 2, "rope": "half", "decay": "fixed", "decay_first": 2.0},
        {**RETENTION, "heads": 2, "decay": "gate", "gate_temperature": 2.0},
        {"heads": 2, "decay": "gate"},
    ),
    "token_mixing": mixing_config("low_rank", "diagonal", "film"),
    "lstm-gru": {
        **attention_config(),
        "blocks": [
            {"type": "pre_norm", "sequence": {"type": "lstm", "units": 19}},
            {"type": "pre_norm", "sequence": {"type": "gru", "units": 33}},
            {"type": "pre_norm", "sequence": {"type": "lstm", "units": 24, "projection": False}},
            {"type": "pre_norm", "sequence": {"type": "gru", "units": 24, "projection": False}},
        ],
    },
}


def write_text(folder, config, seed):
    w = Weights(seed)
    generator = torch.Generator().manual_seed(seed)
    V = config["vocab_size"]
    ids = torch.randint(0, V, (2, 70), generator=generator)  # more than a chunk of 64
    ids[0, 0], ids[0, 1] = 0, V - 1
    logits = torch.stack([text_model(row, w, config) for row in ids])
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, V), ids[:, 1:].reshape(-1))
    write(folder, config, w, {"input_ids": ids}, "logits", logits, loss)


# ---- images: pixels [B, H, W, C] ----


def layernorm(x, w, at, width):
    return F.layer_norm(x, (width,), w.get(f"{at}.weight", width), w.get(f"{at}.bias", width))


def conv(x, w, at, out, side, stride, padding, bias=True, groups=1):
    inner = x.shape[-1] // groups
    b = w.get(f"{at}.bias", out) if bias else None
    y = F.conv2d(
        x.permute(0, 3, 1, 2), w.get(f"{at}.weight", out, inner, side, side), b, stride, padding,
        groups=groups,
    )
    return y.permute(0, 2, 3, 1)


def selective_scan(x, delta, A, B, C, D):
    """x, delta [B, T, E], A [E, N], B, C [B, T, N], D [E]."""
    h = torch.zeros(x.shape[0], x.shape[2], A.shape[1])
    ys = []
    for t in range(x.shape[1]):
        d = delta[:, t, :, None]
        h = torch.exp(d * A) * h + d * x[:, t, :, None] * B[:, t, None]
        ys.append((h * C[:, t, None]).sum(-1) + D * x[:, t])
    return torch.stack(ys, 1)


def ss2d(x, w, at, o):
    B, H, W, D = x.shape
    E, N, R = int(o["ssm_ratio"] * D), o["ssm_d_state"], math.ceil(D / 16)
    gated = not o["forward_type"].endswith("_noz")
    u = x @ w.get(f"{at}.in_proj.weight", 2 * E if gated else E, D).T
    if gated:
        u, z = u[..., :E], u[..., E:]
    u = F.silu(conv(u, w, f"{at}.conv2d", E, 3, 1, 1, o["ssm_conv_bias"], E))
    if o["forward_type"] == "v0":
        x_proj = w.get(f"{at}.x_proj_weight", 4, R + 2 * N, E)
        dt_proj = w.get(f"{at}.dt_projs_weight", 4, E, R)
    else:
        x_proj = w.get(f"{at}.x_proj.weight", 4 * (R + 2 * N), E).view(4, -1, E)
        dt_proj = w.get(f"{at}.dt_projs.weight", 4 * E, R).view(4, E, R)
    bias = w.get(f"{at}.dt_projs_bias", 4, E)
    A = -w.get(f"{at}.A_logs", 4 * E, N).exp().view(4, E, N)
    skip = w.get(f"{at}.Ds", 4 * E).view(4, E)
    pixel = torch.arange(H * W).view(H, W)
    walks = [pixel.reshape(-1), pixel.T.reshape(-1)]
    walks += [walk.flip(0) for walk in walks]
    flat, y = u.reshape(B, H * W, E), 0
    for k, walk in enumerate(walks):
        s = flat[:, walk]
        p = s @ x_proj[k].T
        delta = F.softplus(p[..., :R] @ dt_proj[k].T + bias[k])
        out = selective_scan(s, delta, A[k], p[..., R : R + N], p[..., R + N :], skip[k])
        y = y + torch.zeros_like(out).index_copy(1, walk, out)
    y = layernorm(y.view(B, H, W, E), w, f"{at}.out_norm", E)
    if gated:
        y = y * F.silu(z)
    return y @ w.get(f"{at}.out_proj.weight", D, E).T


def embed(x, w, o):
    D = o["dims"][0]
    if o["patchembed_version"] == "v1":
        x = conv(x, w, "patch_embed.0", D, o["patch_size"], o["patch_size"], 0)
        return layernorm(x, w, "patch_embed.2", D)
    half = o["patch_size"] // 2
    x = conv(x, w, "patch_embed.0", D // 2, half + 1, half, 1)
    x = F.gelu(layernorm(x, w, "patch_embed.2", D // 2))
    return layernorm(conv(x, w, "patch_embed.5", D, half + 1, half, 1), w, "patch_embed.7", D)


def downsample(x, w, at, out, version):
    if version != "v1":
        x = conv(x, w, f"{at}.1", out, 2 if version == "v2" else 3, 2, 0 if version == "v2" else 1)
        return layernorm(x, w, f"{at}.3", out)
    C = x.shape[-1]
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))  # at the lower and right edge
    x = torch.cat([x[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))], -1)
    return layernorm(x, w, f"{at}.1", 4 * C) @ w.get(f"{at}.2.weight", out, 4 * C).T


def vmamba(x, w, o):
    x = embed(x, w, o)
    for i, depth in enumerate(o["depths"]):
        D = o["dims"][i]
        for j in range(depth):
            at = f"layers.{i}.blocks.{j}"
            x = x + ss2d(layernorm(x, w, f"{at}.norm", D), w, f"{at}.op", o)
            if o["mlp_ratio"] > 0:
                F1 = int(o["mlp_ratio"] * D)
                h = layernorm(x, w, f"{at}.norm2", D) @ w.get(f"{at}.mlp.fc1.weight", F1, D).T
                h = F.gelu(h + w.get(f"{at}.mlp.fc1.bias", F1))
                x = x + h @ w.get(f"{at}.mlp.fc2.weight", D, F1).T + w.get(f"{at}.mlp.fc2.bias", D)
        if i + 1 < len(o["depths"]):
            x = downsample(x, w, f"layers.{i}.downsample", o["dims"][i + 1], o["downsample_version"])
    D = o["dims"][-1]
    x = layernorm(x, w, "classifier.norm", D).mean((1, 2))
    classes = o["num_classes"]
    return x @ w.get("classifier.head.weight", classes, D).T + w.get("classifier.head.bias", classes)


def vision_config(**more):
    return {"model_type": "vmamba", "in_chans": 3, "num_classes": 5, "drop_path_rate": 0.2, **more}


VISION = {
    "vmamba-v0": vision_config(
        imgsize=[20, 28], patch_size=4, depths=[1, 1], dims=[8, 12], ssm_d_state=4, ssm_ratio=2.0,
        ssm_conv_bias=True, forward_type="v0", mlp_ratio=0.0, norm_layer="ln",
        downsample_version="v1", patchembed_version="v1",
    ),
    "vmamba-v05-noz": vision_config(
        imgsize=[22, 18], patch_size=4, depths=[1, 1], dims=[8, 16], ssm_d_state=1, ssm_ratio=2.0,
        ssm_conv_bias=False, forward_type="v05_noz", mlp_ratio=2.0, norm_layer="ln2d",
        downsample_version="v3", patchembed_version="v2",
    ),
    "vmamba-v05": vision_config(
        imgsize=12, patch_size=2, depths=[1, 1], dims=[8, 16], ssm_d_state=2, ssm_ratio=1.0,
        ssm_conv_bias=True, forward_type="v05", mlp_ratio=1.0, norm_layer="ln",
        downsample_version="v2", patchembed_version="v1",
    ),
}


def write_vision(folder, config, seed):
    w = Weights(seed)
    size = config["imgsize"]
    H, W = size if isinstance(size, list) else (size, size)
    x = w.random(2, H, W, 3)
    y = vmamba(x, w, config)
    write(folder, config, w, {"inputs": x.reshape(2, H * W, 3).float()}, "outputs", y[:, None],
          y.square().mean())


def write(folder, config, w, inputs, name, outputs, loss):
    os.makedirs(folder, exist_ok=True)
    loss.backward()
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
        file.write("\n")
    out = {name: outputs.detach(), "loss": loss.detach().reshape(1)}
    out |= {f"grad.{n}": p.grad for n, p in w.all.items()}
    meta = {"torch": torch.__version__, "precision": "float64, written as float32"}
    save_file({n: p.detach().float() for n, p in w.all.items()},
              os.path.join(folder, "model.safetensors"), {"format": "pt"})
    save_file({n: t.contiguous() for n, t in inputs.items()},
              os.path.join(folder, "in.safetensors"))
    save_file({n: t.float().contiguous() for n, t in out.items()},
              os.path.join(folder, "out.safetensors"), meta)
    print(folder, loss.item())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    out = parser.parse_args().out
    for seed, (name, config) in enumerate(TEXT.items(), 1):
        write_text(os.path.join(out, "models", name), config, seed)
    for seed, (name, config) in enumerate(VISION.items(), 1):
        write_vision(os.path.join(out, "vision", name), config, seed)


if __name__ == "__main__":
    main()
