"""A training step of liquid cells: ncps on PyTorch beside Ember, in turns.

    python bench/compare_recurrent.py build/release/ember [--repeats 5]

AutoNCP(28, 4), 20 inputs, batch 32, 64 time steps, float32. ncps: forward, backward, Adam; Ember:
`ember bench recurrent --backward`, and `ember bench optimizer` says what AdamW adds (6,852 values:
microseconds). Needs torch and ncps.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch
from ncps.torch import CfC, LTC
from ncps.wirings import AutoNCP

BATCH, LENGTH, INPUTS = 32, 64, 20


def peer_step(net, x, target, optimizer):
    start = time.perf_counter()
    y, _ = net(x)
    loss = ((y - target) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def ours(ember, cell, threads):
    out = subprocess.run(
        [ember, "bench", "recurrent", "--type", cell, "--batch", str(BATCH), "--length", str(LENGTH), "--input", str(INPUTS),
         "--units", "28", "--wiring", "auto:28,4", "--backward", "--seconds", "0.5", "--threads", str(threads), "--json"],
        check=True, capture_output=True, text=True,
    )
    return json.loads(out.stdout)["median"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ember")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(1)
    x, target = torch.randn(BATCH, LENGTH, INPUTS), torch.randn(BATCH, LENGTH, 4)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for cell, kind in (("ltc", LTC), ("cfc", CfC)):
            net = kind(INPUTS, AutoNCP(28, 4))
            optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
            peer_step(net, x, target, optimizer)
            theirs, mine = [], []
            for _ in range(args.repeats):
                theirs.append(peer_step(net, x, target, optimizer))
                mine.append(ours(args.ember, cell, threads))
            a, b = statistics.median(theirs), statistics.median(mine)
            print(f"{cell} threads {threads}: ncps {1e3 * a:.1f} ms, ember {1e3 * b:.3f} ms, {a / b:.0f} x")


if __name__ == "__main__":
    main()
