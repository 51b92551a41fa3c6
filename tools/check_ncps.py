"""Holds Ember against ncps's torch cells at random configs: outputs, loss, gradients, chunks.

    python tools/check_ncps.py build/release/ember [--rounds 40] [--seed 1]
    python tools/check_ncps.py --goldens tests/golden

Needs torch, ncps, numpy and safetensors. With --goldens it writes a few folders (config.json,
model.safetensors, in.safetensors, out.safetensors) and ncps's wirings as files instead.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ncps.torch import CfC, LTC
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random


def forward(net, config, x, spans):
    """What ncps computes, sequence by sequence: its batched time spans are wrong for B > 1."""
    outs = []
    for b in range(x.shape[0]):
        t = None if spans is None else spans[b : b + 1]
        state = None
        row = []
        for i in range(x.shape[1]):
            span = None if t is None else t[:, i : i + 1]
            y, state = net(x[b : b + 1, i : i + 1], state, timespans=span)
            row.append(y)
        outs.append(torch.cat(row, dim=1))
    return torch.cat(outs)


def wiring_of(rng, inputs, all_out=False):
    kind = rng.choice(["auto", "auto", "ncp", "full", "random"])
    if kind == "auto":
        units = rng.randint(8, 30)
        return AutoNCP(units, rng.randint(1, units - 4), rng.choice([0.3, 0.5, 0.7]), seed=rng.randint(1, 9999))
    if kind == "ncp":
        return NCP(rng.randint(4, 9), rng.randint(4, 8), rng.randint(1, 5), 3, 3, rng.randint(1, 6), 2, seed=rng.randint(1, 9999))
    units = rng.randint(2, 12)
    outputs = units if all_out else rng.randint(1, units)  # ncps's CfC cannot do less there
    return FullyConnected(units, outputs) if kind == "full" else Random(units, outputs, 0.4)


def make(rng):
    inputs = rng.randint(1, 12)
    cell = rng.choice(["cfc", "ltc"])
    config = {"model_type": "ncps", "cell": cell, "input_size": inputs}
    mixed = rng.random() < 0.4
    if mixed:
        config["mixed_memory"] = True
    if cell == "ltc":
        wiring = wiring_of(rng, inputs)
        options = {}
        if rng.random() < 0.5:
            options["ode_unfolds"] = rng.randint(1, 9)
        if rng.random() < 0.3:
            options["epsilon"] = 1e-4
        if rng.random() < 0.5:
            options["implicit_param_constraints"] = rng.random() < 0.5
        net = LTC(inputs, wiring, mixed_memory=False, **options)
        if mixed:  # its constructor looks for a property before it is there
            from ncps.torch.lstm import LSTMCell

            net.use_mixed = True
            net.lstm = LSTMCell(inputs, wiring.units)
        config.update(options, units=wiring.units)
        if rng.random() < 0.7 or wiring.output_dim == wiring.units:
            config["output_size"] = wiring.output_dim
    else:
        mode = rng.choice(["default", "pure", "no_gate"])
        options = {"mode": mode} if rng.random() < 0.8 or mode != "default" else {}
        proj = rng.randint(1, 6) if rng.random() < 0.5 else None
        if proj:
            config["proj_size"] = proj
        if rng.random() < 0.5:
            wiring = wiring_of(rng, inputs, True)
            net = CfC(inputs, wiring, proj_size=proj, mixed_memory=mixed, **options)
            config.update(options, wired=True)
            if rng.random() < 0.5:
                config["units"] = wiring.units
        else:
            units = rng.randint(1, 40)
            if rng.random() < 0.7:
                options["activation"] = rng.choice(["lecun_tanh", "silu", "relu", "tanh", "gelu"])
            if rng.random() < 0.7:
                options["backbone_units"] = rng.randint(1, 40)
            if rng.random() < 0.7:
                options["backbone_layers"] = rng.randint(0, 4)
            if rng.random() < 0.4:
                options["backbone_dropout"] = 0.3
            net = CfC(inputs, units, proj_size=proj, mixed_memory=mixed, **options)
            config.update(options, units=units)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.requires_grad and p.dim() == 1 and not name.startswith("rnn_cell.cm"):
                p.add_(0.1 * torch.rand_like(p))
    return net.eval(), config


def write(folder, net, config, x, spans):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, os.path.join(folder, "model.safetensors"))
    given = {"inputs": x}
    if spans is not None:
        given["timespans"] = spans
    save_file(given, os.path.join(folder, "in.safetensors"))


def expected(net, config, x, spans):
    net.zero_grad()
    y = forward(net, config, x, spans)
    loss = (y**2).mean()
    loss.backward()
    out = {"outputs": y.detach(), "loss": loss.detach().reshape(1)}
    for name, p in net.named_parameters():
        if p.requires_grad:
            out["grad." + name] = torch.zeros_like(p) if p.grad is None else p.grad
    return out


def off(found, want):
    return float((found - want).abs().max() / max(float(want.abs().max()), 1e-6))


def check(ember, folder, want):
    def run(name, *more):
        out = os.path.join(folder, name)
        subprocess.run([ember, "forward", folder, "--in", os.path.join(folder, "in.safetensors"), "--out", out, "--quiet", *more], check=True)
        return load_file(out)

    found = run("out.safetensors", "--grad")
    assert set(found) == set(want), (sorted(set(found) ^ set(want)))
    worst = max((off(found[k], want[k]), k) for k in want)
    chunked = run("chunked.safetensors", "--chunk", "3")
    reference = run("reference.safetensors", "--grad", "--backend", "reference")
    worst = max(worst, (off(chunked["outputs"], want["outputs"]), "chunked"))
    worst = max([worst] + [(off(reference[k], want[k]), "reference " + k) for k in want])
    return worst


def wiring_text(w):
    lines = ["ember-wiring 1", f"inputs {w.input_dim}", f"units {w.units}", f"outputs {w.output_dim}"]
    lines.append("layers " + " ".join(str(len(w.get_neurons_of_layer(i))) for i in range(w.num_layers)))
    for name, table in (("sensory", w.sensory_adjacency_matrix), ("synapses", w.adjacency_matrix)):
        pairs = [f"{s}>{d}{'+' if table[s, d] > 0 else '-'}" for s in range(table.shape[0]) for d in range(table.shape[1]) if table[s, d]]
        lines.append(" ".join([name] + pairs))
    return "\n".join(lines) + "\n"


def goldens(folder):
    fixtures = {
        "auto-16-1": (AutoNCP(16, 1), 2),
        "auto-16-4": (AutoNCP(16, 4), 8),
        "auto-28-4": (AutoNCP(28, 4), 20),
        "auto-28-10": (AutoNCP(28, 10), 8),
        "auto-32-8": (AutoNCP(32, 8), 32),
        "ncp-10-10-8": (NCP(10, 10, 8, 6, 6, 4, 6), 8),
        "full-8-4": (FullyConnected(8, 4), 8),
    }
    os.makedirs(os.path.join(folder, "wirings"), exist_ok=True)
    for name, (w, inputs) in fixtures.items():
        w.build(inputs)
        with open(os.path.join(folder, "wirings", name + ".txt"), "w") as f:
            f.write(wiring_text(w))
    torch.manual_seed(3)
    models = {
        "cfc": (CfC(5, 9, backbone_units=12), {"units": 9, "backbone_units": 12}),
        "cfc-pure": (CfC(4, 6, mode="pure", backbone_layers=2, backbone_units=7, proj_size=3), {"units": 6, "mode": "pure", "backbone_layers": 2, "backbone_units": 7, "proj_size": 3}),
        "cfc-mixed": (CfC(3, 7, mode="no_gate", mixed_memory=True, backbone_layers=0), {"units": 7, "mode": "no_gate", "mixed_memory": True, "backbone_layers": 0}),
        "cfc-wired": (CfC(6, AutoNCP(14, 3), mixed_memory=True, proj_size=2), {"units": 14, "wired": True, "mixed_memory": True, "proj_size": 2}),
        "ltc": (LTC(4, AutoNCP(12, 3)), {"cell": "ltc", "units": 12, "output_size": 3}),
        "ltc-explicit": (LTC(3, FullyConnected(6), ode_unfolds=3, implicit_param_constraints=False), {"cell": "ltc", "units": 6, "ode_unfolds": 3, "implicit_param_constraints": False}),
    }
    for name, (net, more) in models.items():
        net.eval()
        size = net.input_size
        config = {"model_type": "ncps", "cell": "cfc", "input_size": size, **more}
        x, spans = torch.randn(3, 7, size), torch.rand(3, 7) * 1.5 + 0.2
        where = os.path.join(folder, "models", "ncps-" + name)
        write(where, net, config, x, spans)
        save_file(expected(net, config, x, spans), os.path.join(where, "out.safetensors"), metadata={"torch": torch.__version__})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ember", nargs="?")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--goldens")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.goldens:
        goldens(args.goldens)
        return 0
    rng = random.Random(args.seed)
    torch.manual_seed(args.seed)
    worst, bad = (0.0, ""), 0
    for i in range(args.rounds):
        net, config = make(rng)
        B, T = rng.randint(1, 4), rng.randint(1, 12)
        x = torch.randn(B, T, config["input_size"])
        spans = torch.rand(B, T) * 2 + 0.1 if rng.random() < 0.7 else None
        with tempfile.TemporaryDirectory() as folder:
            write(folder, net, config, x, spans)
            try:
                found = check(args.ember, folder, expected(net, config, x, spans))
            except (subprocess.CalledProcessError, AssertionError) as e:
                print(f"round {i}: {config}: {e}")
                bad += 1
                continue
        if found[0] > 2e-4:
            print(f"round {i}: {config}: off by {found}")
            bad += 1
        worst = max(worst, found)
    print(f"{args.rounds} configs, {bad} bad; the worst difference is {worst[0]:.2e} of a tensor's largest value ({worst[1]})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
