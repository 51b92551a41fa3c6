#!/usr/bin/env python3
"""VMamba beside PyTorch: `ember forward` and `ember train` against the formulas in plain PyTorch,
f32, on the same images. Both sides take turns.

The selective scan of VMamba has a CUDA kernel alone; without it the original runs the loop over
tokens that is written here.

    python bench/compare_vmamba.py --ember build/release/ember [--side 64] [--batch 8] [--rounds 3]
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file


class Norm(nn.LayerNorm):
    """Over the channels of [B, C, H, W]."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def scan(u, dt, A, B, C, D):
    """u, dt [B, K, E, L], A [K, E], B, C [B, K, L], D [K, E]: one state for each channel."""
    decay, new = torch.exp(dt * A[None, :, :, None]), dt * u * B[:, :, None]
    h, out = torch.zeros_like(u[..., 0]), []
    for t in range(u.shape[-1]):
        h = decay[..., t] * h + new[..., t]
        out.append(h)
    return torch.stack(out, -1) * C[:, :, None] + u * D[None, :, :, None]


class SS2D(nn.Module):
    def __init__(self, width, ratio):
        super().__init__()
        self.E, self.R = int(width * ratio), -(-width // 16)
        E, R = self.E, self.R
        self.in_proj, self.out_proj = nn.Conv2d(width, E, 1, bias=False), nn.Conv2d(E, width, 1, bias=False)
        self.conv2d = nn.Conv2d(E, E, 3, padding=1, groups=E, bias=False)
        self.x_proj = nn.Parameter(0.02 * torch.randn(4, R + 2, E))
        self.dt_projs = nn.Parameter(0.02 * torch.randn(4, E, R))
        self.dt_bias = nn.Parameter(torch.zeros(4, E))
        self.A_logs, self.Ds = nn.Parameter(torch.zeros(4, E)), nn.Parameter(torch.ones(4, E))
        self.out_norm = Norm(E)

    def forward(self, x):
        N, _, H, V = x.shape
        x = F.silu(self.conv2d(self.in_proj(x)))
        rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
        u = torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], 1)
        p = torch.einsum("nkel,kce->nkcl", u, self.x_proj)
        dt, B, C = p[:, :, : self.R], p[:, :, self.R], p[:, :, self.R + 1]
        dt = F.softplus(torch.einsum("nkrl,ker->nkel", dt, self.dt_projs) + self.dt_bias[None, :, :, None])
        y = scan(u, dt, -torch.exp(self.A_logs), B, C, self.Ds)
        y = y[:, :2] + y[:, 2:].flip(-1)
        y = y[:, 0].view(N, -1, H, V) + y[:, 1].view(N, -1, V, H).transpose(2, 3)
        return self.out_proj(self.out_norm(y))


class Block(nn.Module):
    def __init__(self, width, ratio, mlp):
        super().__init__()
        hidden = int(width * mlp)
        self.norm, self.op, self.norm2 = Norm(width), SS2D(width, ratio), Norm(width)
        self.mlp = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, width, 1))

    def forward(self, x):
        x = x + self.op(self.norm(x))
        return x + self.mlp(self.norm2(x))


class VMamba(nn.Module):
    """v05_noz with the second patch embedding and the third merging."""

    def __init__(self, config):
        super().__init__()
        d, depths = config["dims"], config["depths"]
        self.embed = nn.Sequential(
            nn.Conv2d(3, d // 2, 3, 2, 1), Norm(d // 2), nn.GELU(), nn.Conv2d(d // 2, d, 3, 2, 1), Norm(d)
        )
        layers = []
        for i, depth in enumerate(depths):
            layers += [Block(d << i, config["ssm_ratio"], config["mlp_ratio"]) for _ in range(depth)]
            if i + 1 < len(depths):
                layers += [nn.Conv2d(d << i, d << i + 1, 3, 2, 1), Norm(d << i + 1)]
        self.layers, self.norm = nn.Sequential(*layers), Norm(d << len(depths) - 1)
        self.head = nn.Linear(d << len(depths) - 1, config["num_classes"])

    def forward(self, x):
        return self.head(self.norm(self.layers(self.embed(x))).mean((2, 3)))


def config_of(side):
    return {
        "model_type": "vmamba", "imgsize": side, "in_chans": 3, "num_classes": 1000, "patch_size": 4,
        "depths": [2, 2, 8, 2], "dims": 96, "ssm_d_state": 1, "ssm_ratio": 1.0, "ssm_conv_bias": False,
        "forward_type": "v05_noz", "mlp_ratio": 4.0, "norm_layer": "ln2d", "downsample_version": "v3",
        "patchembed_version": "v2", "drop_path_rate": 0.0,
    }  # fmt: skip


def torch_times(model, images, labels, optimizer):
    start = time.perf_counter()
    with torch.no_grad():
        model(images)
    middle = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return middle - start, time.perf_counter() - middle


def ember_step(ember, recipe, out):
    subprocess.run([ember, "train", recipe, "--out", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(out, "logs/train.jsonl")) as f:
        seconds = [json.loads(line)["seconds"] for line in f]
    return statistics.median(b - a for a, b in zip(seconds, seconds[1:]))


def ember_forward(ember, model, files, out):
    """Seconds of an image: the difference of two sizes, so that opening the model does not count."""
    times = []
    for path in files:
        start = time.perf_counter()
        subprocess.run([ember, "forward", model, "--in", path, "--out", out, "--quiet"], check=True)
        times.append(time.perf_counter() - start)
    return times[1] - times[0]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ember", default="build/release/ember")
    p.add_argument("--side", type=int, default=64)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    torch.manual_seed(0)
    config = config_of(a.side)
    model = VMamba(config)
    count = sum(w.numel() for w in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    images = torch.randn(a.batch, 3, a.side, a.side)
    labels = torch.randint(0, 1000, (a.batch,))
    rows = images.flatten(2).transpose(1, 2).contiguous()
    with tempfile.TemporaryDirectory() as work:
        at = lambda name: os.path.join(work, name)  # noqa: E731
        save_file({"inputs": rows[None], "labels": labels[None].int()}, at("data"))
        save_file({"inputs": rows[:1].contiguous()}, at("one"))
        save_file({"inputs": torch.cat([rows, rows[:1]])}, at("more"))
        with open(at("recipe.json"), "w") as f:
            json.dump({"model": config, "data": {"tensors": at("data")},
                       "train": {"steps": 5, "lr": 1e-5, "schedule": "constant", "dtype": "f32"}}, f)  # fmt: skip
        ours, theirs = [], []
        torch_times(model, images, labels, optimizer)
        for i in range(a.rounds):
            out = at(f"run{i}")
            step = ember_step(a.ember, at("recipe.json"), out)
            ours.append((ember_forward(a.ember, out, (at("one"), at("more")), at("out")), step))
            theirs.append(torch_times(model, images, labels, optimizer))
        tensors = load_file(os.path.join(out, "model.safetensors"))
        found = sum(t.numel() for t in tensors.values())
        assert found == count, f"{found} parameters here, {count} in PyTorch"
    print(f"VMamba-T (s1l8), {count} parameters, {a.batch} images of {a.side} x {a.side}, f32")
    print("| | Ember, s | PyTorch, s | ratio |\n| --- | ---: | ---: | ---: |")
    for i, name in enumerate(("forward", "training step")):
        x, y = (statistics.median(t[i] for t in side) for side in (ours, theirs))
        print(f"| {name} | {x:.3f} | {y:.3f} | {y / x:.1f} |")


if __name__ == "__main__":
    main()
