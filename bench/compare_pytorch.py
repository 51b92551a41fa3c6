"""Training speed beside PyTorch's: f32, bf16 autocast, and bf16 under torch.compile, taking turns with Ember.

    python bench/compare_pytorch.py [--ember PROGRAM | --no-ember] [--rounds R] [--steps N] [--out FILE.json]

One step is forward, backward, clipping to norm 1 and AdamW, on random ids and random weights, as in
`ember bench train`.  Each contestant runs N steps, then the next one does, R times around, so that a
busy moment of the machine meets them all.  Figures are medians over all timed steps.  PyTorch gets its
best: scaled-dot-product attention, the fused AdamW, and for a mixture of experts the fastest of
transformers' expert paths on this machine.

Peak memory is the largest resident size of a process that runs two steps and nothing else: a new one for
each of PyTorch's modes, on the expert path that was fastest; what importing PyTorch took is given beside it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODES = ("f32", "bf16", "compile")
# batched_mm copies one expert's matrices per chosen expert and token; past this it only swaps.
BATCHED_LIMIT = 4 << 30


def active_parameters(config, model):
    """Parameters that one token meets: a tied matrix once, k experts of E."""
    total = 0
    for name, p in model.named_parameters():
        share = config.num_experts_per_tok / config.num_experts if ".experts." in name else 1
        total += round(p.numel() * share)
    return total


class TorchStep:
    """A model, its optimizer and one training step in one of MODES."""

    def __init__(self, folder, mode, batch, seq, experts=None):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        self.torch, self.mode = torch, mode
        config = AutoConfig.from_pretrained(folder)
        torch.manual_seed(1)
        self.model = AutoModelForCausalLM.from_config(config).float().train()
        self.model.config.use_cache = False
        if experts:
            self.model.set_experts_implementation(experts)
        self.active = active_parameters(config, self.model)
        self.ids = torch.randint(0, config.vocab_size, (64, batch, seq))
        self.count = 0
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
        self.call = torch.compile(self.model) if mode == "compile" else self.model

    def __call__(self):
        torch = self.torch
        ids = self.ids[self.count % len(self.ids)]
        self.count += 1
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.mode != "f32"):
            loss = self.call(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        float(loss.detach())
        return time.perf_counter() - begin


def expert_paths(folder, batch, seq):
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    if "num_experts" not in config:
        return [None]
    copied = 4 * batch * seq * config["num_experts_per_tok"] * 3 * config["moe_intermediate_size"] * config["hidden_size"]
    return ["grouped_mm", "eager"] + (["batched_mm"] if copied < BATCHED_LIMIT else [])


def serve(args):
    """The worker process of one mode: reads how many steps to run, writes their seconds."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    folder, mode = args.worker
    trials, step = {}, None
    for path in expert_paths(folder, args.batch, args.seq):
        try:
            candidate = TorchStep(folder, mode, args.batch, args.seq, path)
            candidate()  # untimed: memory, oneDNN's choices, the compiler
            seconds = min(candidate(), candidate()) if path else candidate()
        except Exception as error:  # a path or the compiler that does not work here is a result too
            trials[str(path)] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            continue
        trials[str(path)] = seconds
        if step is None or seconds < step[1]:
            step = (candidate, seconds, path)
    ready = {"ready": step is not None, "experts": step and step[2], "trials": trials, "torch": torch.__version__,
             "transformers": transformers.__version__}
    if step:
        step = step[0]
        ready["active"] = step.active
    print(json.dumps(ready), flush=True)
    for line in sys.stdin if step else ():
        print(json.dumps([step() for _ in range(int(line))]), flush=True)


def resident(field):
    """VmHWM (the largest so far) or VmRSS of this process, in bytes."""
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith(field + ":"))


def serve_peak(args):
    """The process whose memory is measured: two steps of one mode, by one expert path."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    folder, mode, path = args.peak
    imported = resident("VmRSS")
    step = TorchStep(folder, mode, args.batch, args.seq, None if path == "None" else path)
    step()
    step()
    print(json.dumps({"peak_bytes": resident("VmHWM"), "imported_bytes": imported}))


class Torch:
    def __init__(self, folder, mode, args):
        self.label = f"torch {mode}"
        command = [sys.executable, os.path.abspath(__file__), "--worker", folder, mode, "--batch", str(args.batch),
                   "--seq", str(args.seq), "--threads", str(args.threads)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.info = json.loads(self.process.stdout.readline() or '{"ready": false}')
        self.works = self.info["ready"]
        if not self.works:
            return
        command[2:5] = ["--peak", folder, mode, str(self.info["experts"])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode == 0:
            self.info |= json.loads(done.stdout)

    def steps(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ember:
    def __init__(self, folder, dtype, args):
        self.label, self.works, self.info = f"ember {dtype}", True, {}
        self.command = [args.ember, "bench", "train", "--config", os.path.join(folder, "config.json"), "--batch", str(args.batch),
                        "--seq", str(args.seq), "--dtype", dtype, "--threads", str(args.threads), "--json"]

    def steps(self, n):
        done = subprocess.run(self.command + ["--steps", str(n)], stdout=subprocess.PIPE, check=True, text=True)
        self.info = json.loads(done.stdout)
        # The program gives the median of its own steps; it stands for each of them.
        return [self.info["step_s"]] * n

    def close(self):
        pass


def measure(folder, args):
    contestants = [Torch(folder, mode, args) for mode in args.modes]
    for c in contestants:
        for path, result in c.info.get("trials", {}).items():
            if path != "None":
                print(f"  {c.label} experts by {path}: {result if isinstance(result, str) else f'{result:.3f} s a step'}", file=sys.stderr)
        if not c.works:
            print(f"  {c.label}: does not work here: {c.info.get('trials')}", file=sys.stderr)
    active = next((c.info["active"] for c in contestants if c.works), 0)
    if not args.no_ember:
        contestants += [Ember(folder, dtype, args) for dtype in ("f32", "bf16")]
    contestants = [c for c in contestants if c.works]
    seconds = {c.label: [] for c in contestants}
    try:
        for _ in range(args.rounds):
            for c in contestants:
                seconds[c.label] += c.steps(args.steps)
    finally:
        for c in contestants:
            c.close()
    tokens = args.batch * args.seq
    result = {"config": os.path.basename(os.path.normpath(folder)), "active_parameters": active, "contestants": {}}
    for c in contestants:
        times = seconds[c.label]
        median = statistics.median(times)
        result["contestants"][c.label] = {
            "step_s": median,
            "min_s": min(times),
            "max_s": max(times),
            "steps": len(times),
            "tokens_per_s": tokens / median,
            "gflops": 6 * active * tokens / median / 1e9,
            "peak_bytes": c.info.get("peak_bytes"),
            "info": c.info,
        }
    rates = {label: r["tokens_per_s"] for label, r in result["contestants"].items()}
    pairs = [(e, t) for e in rates if e.startswith("ember") for t in rates if t.startswith("torch")]
    result["ratios"] = {f"{e} / {t}": rates[e] / rates[t] for e, t in pairs}
    peaks = {label: r["peak_bytes"] for label, r in result["contestants"].items()}
    result["memory_ratios"] = {f"{e} / {t}": peaks[e] / peaks[t] for e, t in pairs if peaks[e] and peaks[t]}
    return result


def show(result):
    print(f"\n{result['config']}: {result['active_parameters']:,} active parameters")
    print(f"{'':16}{'tokens/s':>10}{'GFLOP/s':>10}{'s/step':>10}{'min':>10}{'max':>10}{'MiB':>8}  experts by")
    for label, r in result["contestants"].items():
        print(f"{label:16}{r['tokens_per_s']:10.0f}{r['gflops']:10.1f}{r['step_s']:10.3f}{r['min_s']:10.3f}{r['max_s']:10.3f}"
              f"{(r['peak_bytes'] or 0) / (1 << 20):8.0f}  {r['info'].get('experts') or ''}")
    for pair, ratio in result["ratios"].items():
        memory = result["memory_ratios"].get(pair)
        print(f"{pair:32}{ratio:6.2f} times as fast" + (f", {memory:.2f} of the memory" if memory else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ember", default="build/release/ember", help="the program (default %(default)s)")
    parser.add_argument("--no-ember", action="store_true", help="measure PyTorch alone")
    parser.add_argument("--configs", nargs="+", metavar="FOLDER", default=[os.path.join(HERE, "configs", c) for c in ("lfm2-30m", "lfm2-moe-80m")])
    parser.add_argument("--modes", nargs="*", choices=MODES, default=MODES, help="PyTorch's (default: all)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3, help="times around (default %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker or args.peak:
        return serve(args) if args.worker else serve_peak(args)
    results = []
    for folder in args.configs:
        results.append(measure(folder, args))
        show(results[-1])
    if args.out:
        with open(args.out, "w") as f:
            json.dump({"batch": args.batch, "seq": args.seq, "threads": args.threads, "results": results}, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
