"""What the side-by-side tools share: random small models and their values by transformers.

The reference runs in float32 on the CPU with the eager attention and expert paths on one thread, so
that its figures do not depend on the machine's core count.  Names of gradients are those of the
model's own files: transformers' conversion from memory to files is applied to them as it is to weights.
"""

import contextlib
import importlib
import json
import math
import os
import random
import subprocess

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

FAMILIES = ("lfm2", "lfm2_moe", "lfm3", "llama", "mamba", "mamba2")
EAGER = {"attn_implementation": "eager"}


def versions():
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def build(family, settings, seed):
    """A model of `family` whose every parameter is random, none left at an initial one or zero."""
    config = AutoConfig.for_model(family, **settings)
    torch.manual_seed(seed)
    model = eager(AutoModelForCausalLM.from_config(config, **EAGER))
    randomise(model, seed)
    return model


def eager(model):
    """Float32, evaluation mode, and the plain loop over experts (others refuse odd widths)."""
    if model.config.model_type == "lfm2_moe":
        model.set_experts_implementation("eager")
    return model.float().eval()


def randomise(model, seed):
    """Values at which a mistake shows: norms away from one, biases away from zero, rows that pad."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, deviation):
        noise = torch.randn(tensor.shape, generator=generator)
        with torch.no_grad():
            tensor.copy_(mean + deviation * noise)

    for name, tensor in sorted(model.named_parameters()):
        if "norm" in name.split(".")[-2]:
            normal(tensor, 1.0, 0.3)
        elif name.endswith("bias"):
            normal(tensor, 0.0, 0.2)
        elif "embed_tokens" in name or "lm_head" in name:
            normal(tensor, 0.0, 0.3)
        elif name.endswith("feed_forward.gate.weight"):
            normal(tensor, 0.0, 2.0 / math.sqrt(tensor.shape[-1]))
        elif name.endswith("conv.conv.weight"):
            normal(tensor, 0.0, 1.0 / math.sqrt(tensor.shape[-1]))
        else:
            normal(tensor, 0.0, 1.0 / math.sqrt(tensor.shape[-1]))
    for name, tensor in model.named_buffers():
        if name.endswith("expert_bias"):
            normal(tensor, 0.0, 0.15)


def load(folder):
    """The folder's model in float32, or an error when a tensor is missing, left over or misshapen."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, **EAGER
    )
    wrong = {kind: list(names) for kind, names in info.items() if names}
    if wrong:
        raise ValueError(f"{folder}: transformers does not take it as it is: {wrong}")
    return eager(model)


@contextlib.contextmanager
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_ember(program, *arguments):
    """Runs the program with nothing on its terminal; an exit status other than 0 is an error."""
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def write_recipe(path, model, ids, **train):
    """A recipe that starts from the folder `model` and takes its batches, in order, from the file `ids`."""
    recipe = {"model": os.path.abspath(model), "data": {"ids": os.path.abspath(ids)}, "train": train, "seed": 1}
    with open(path, "w") as f:
        json.dump(recipe, f, indent=2)
    return path


def learnable_ids(vocab, steps, batch, tokens, seed):
    """[steps, batch, tokens] of a random second-order source, on which a model's loss has far to fall."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(0, vocab, (8, 8, 3), generator=generator)
    rows = steps * batch
    ids = torch.randint(0, vocab, (rows, tokens), generator=generator)
    for t in range(2, tokens):
        pick = torch.randint(0, 3, (rows,), generator=generator)
        ids[:, t] = table[ids[:, t - 1] % 8, ids[:, t - 2] % 8, pick]
    return ids.reshape(steps, batch, tokens)


def decayed_groups(model, decay):
    """Decay for matrices, embedding and convolution; none for norms and biases."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def next_token_loss(logits, ids):
    """Mean cross-entropy over B * (T - 1), in nats."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def values(model, ids, grad=True):
    """`logits`, and with grad `loss` and `grad.NAME` of every parameter, under the files' names."""
    with one_thread():
        if not grad:
            with torch.no_grad():
                return {"logits": model(input_ids=ids, use_cache=False).logits.contiguous()}
        model.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits
        loss = next_token_loss(logits, ids)
        loss.backward()
    # named_parameters() gives a tied tensor once, under its first name, with the sum of both uses.
    grads = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in model.named_parameters()
    }
    out = {"logits": logits.detach().contiguous(), "loss": loss.detach().reshape(1)}
    for name, tensor in revert_weight_conversion(model, grads).items():
        out["grad." + name] = tensor.contiguous()
    model.zero_grad()
    return out


def double_attention(module, query, key, value, mask, scaling, dropout=0.0, **kwargs):
    repeat = module.num_key_value_groups
    key, value = (t.repeat_interleave(repeat, dim=1) for t in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def double_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


@contextlib.contextmanager
def in_double(model):
    """The same model computed in float64, without transformers' own casts to float32."""
    module = importlib.import_module(type(model).__module__)
    norm = next(v for k, v in vars(module).items() if k.endswith("RMSNorm"))
    forward, attention = norm.forward, model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register("double", double_attention)
    norm.forward = double_norm
    model.double()
    # An unknown attention gets no mask from transformers, so the eager one's is asked for by name.
    transformers.masking_utils.ALL_MASK_ATTENTION_FUNCTIONS.register(
        "double", transformers.masking_utils.ALL_MASK_ATTENTION_FUNCTIONS["eager"]
    )
    model.set_attn_implementation("double")
    try:
        yield model
    finally:
        norm.forward = forward
        model.float()
        model.set_attn_implementation(attention)


def router_margin(model, ids):
    """The smallest gap, over tokens and layers, between the last expert chosen and the next one.

    A gap near a rounding error would let another correct program choose another expert.
    """
    gaps = []

    def hook(router, args, output):
        logits, _, _ = output
        scores = logits.sigmoid()
        if router.use_expert_bias:
            scores = scores + (args[1] if len(args) > 1 else 0)
        ordered = scores.sort(-1, descending=True).values
        if router.top_k < ordered.shape[-1]:
            gaps.append((ordered[:, router.top_k - 1] - ordered[:, router.top_k]).min().item())

    hooks = [m.register_forward_hook(hook) for n, m in model.named_modules() if n.endswith("feed_forward.gate")]
    with torch.no_grad(), one_thread():
        model(input_ids=ids, use_cache=False)
    for h in hooks:
        h.remove()
    return min(gaps, default=math.inf)


def difference(got, expected):
    """The largest absolute difference over the largest absolute value expected."""
    if got.shape != expected.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    got, expected = got.double(), expected.double()
    if not torch.isfinite(got).all():
        return math.inf
    worst = (got - expected).abs().max().item()
    scale = expected.abs().max().item()
    return worst / scale if scale > 0 else (0.0 if worst == 0 else math.inf)


def random_settings(family, seed):
    """A config of `family` at odd sizes, with every option that the family has drawn at random."""
    r = random.Random(f"{family} {seed}")
    if family == "mamba":
        vocab, hidden = r.choice([33, 64, 97, 150]), 4 * r.randint(2, 12)
        return {
            "vocab_size": vocab,
            "hidden_size": hidden,
            "num_hidden_layers": r.randint(1, 4),
            "state_size": r.randint(1, 20),
            "expand": r.randint(1, 3),
            "conv_kernel": r.randint(2, 6),
            "time_step_rank": r.choice(["auto", r.randint(1, 9)]),
            "use_bias": r.random() < 0.5,
            "use_conv_bias": r.random() < 0.5,
            "layer_norm_epsilon": r.choice([1e-6, 1e-5, 1e-3]),
            "tie_word_embeddings": r.random() < 0.5,
            "pad_token_id": r.choice([None, 0, vocab - 1]),
        }
    if family == "mamba2":
        vocab, groups = r.choice([33, 64, 97, 150]), r.randint(1, 3)
        heads, head_dim = groups * r.randint(1, 4), 2 * r.randint(1, 8)
        return {
            "vocab_size": vocab,
            "hidden_size": heads * head_dim // 2,
            "expand": 2,
            "num_heads": heads,
            "head_dim": head_dim,
            "n_groups": groups,
            "num_hidden_layers": r.randint(1, 4),
            "state_size": r.randint(1, 20),
            "conv_kernel": r.randint(2, 6),
            "chunk_size": r.choice([1, 4, 16, 256]),
            "use_bias": r.random() < 0.5,
            "use_conv_bias": r.random() < 0.5,
            "layer_norm_epsilon": r.choice([1e-6, 1e-5, 1e-3]),
            "tie_word_embeddings": r.random() < 0.5,
            "pad_token_id": r.choice([None, 0, vocab - 1]),
        }
    kv = r.choice([1, 2, 3])
    heads = kv * r.choice([1, 2, 3, 4])
    head_dim = 2 * r.randint(2, 8)
    hidden = heads * head_dim
    vocab = r.choice([33, 64, 97, 150])
    layers = r.randint(2, 6)
    s = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": 512,
        "tie_word_embeddings": r.random() < 0.5,
        "pad_token_id": r.choice([None, 0, vocab - 1]),
        "bos_token_id": 1,
        "eos_token_id": r.choice([2, [2, 3]]),
    }
    theta = r.choice([500.0, 10000.0, 1000000.0])
    epsilon = r.choice([1e-6, 1e-5, 1e-3])
    flat_rope = [
        {"rope_type": "default", "rope_theta": theta},
        {
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ]
    if family == "llama":
        s |= {
            "intermediate_size": r.randint(5, 120),
            "rms_norm_eps": epsilon,
            "attention_bias": r.random() < 0.5,
            "mlp_bias": r.random() < 0.5,
            "rope_parameters": r.choice(flat_rope),
            "hidden_act": r.choice(["silu", "silu", "gelu"]),
        }
        if r.random() < 0.5:
            s["head_dim"] = 2 * r.randint(2, 12)
        return s
    s |= {"norm_eps": epsilon, "conv_bias": r.random() < 0.5, "conv_L_cache": r.randint(1, 8)}
    kinds = ["conv", "full_attention"] + (["sliding_attention"] if family == "lfm3" else [])
    s["layer_types"] = [r.choice(kinds) for _ in range(layers)]
    if family == "lfm3":
        s |= {
            "intermediate_size": r.randint(5, 120),
            "head_dim": 2 * r.randint(2, 10),
            "sliding_window": r.randint(1, 9),
            "use_sandwich_norm": r.random() < 0.7,
            "use_attention_gate": r.random() < 0.7,
            "attention_bias": r.random() < 0.5,
        }
        if r.random() < 0.5:
            s["rope_parameters"] = {
                "sliding_attention": {"rope_type": "default", "rope_theta": theta},
                "full_attention": {
                    "rope_type": "proportional",
                    "rope_theta": 5000.0,
                    "partial_rotary_factor": r.choice([0.25, 0.5, 0.75, 1.0]),
                },
            }
        return s
    s["rope_parameters"] = flat_rope[0]
    if r.random() < 0.3:
        s["head_dim"] = 2 * r.randint(2, 10)
    if family == "lfm2":
        s |= {
            "intermediate_size": r.randint(12, 180),
            "block_auto_adjust_ff_dim": r.random() < 0.5,
            "block_ffn_dim_multiplier": r.choice([1.0, 1.3]),
            "block_multiple_of": r.choice([1, 8, 32]),
        }
        return s
    experts = r.randint(2, 9)
    chosen = r.randint(1, min(4, experts))
    s |= {
        "intermediate_size": r.randint(5, 120),
        "moe_intermediate_size": r.randint(3, 40),
        "num_dense_layers": r.randint(0, layers - 1),
        "num_experts": experts,
        "num_experts_per_tok": chosen,
        "use_expert_bias": r.random() < 0.7,
        # One weight divided by itself has a gradient of rounding errors alone, in any program.
        "norm_topk_prob": chosen > 1 and r.random() < 0.5,
        "routed_scaling_factor": r.choice([1.0, 0.5, 2.5]),
    }
    return s


def random_ids(vocab, batch, tokens, seed):
    """Random ids that hold the first and the last one, whose rows are where paddings usually are."""
    ids = torch.randint(0, vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))
    ids[0, 0], ids[-1, -1] = vocab - 1, 0
    if tokens > 3:
        ids[0, tokens // 2], ids[-1, tokens // 3] = 0, vocab - 1
    return ids
