# Small GPT-2 and BERT models of transformers with random weights: their states, what they give for some ids, losses and a
# few gradients. Ids and token types are written as kiln has them, from 1.
#   python3 spec/golden/text_models.py spec/golden     writes gpt2.safetensors and bert.safetensors there
import json
import sys

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

folder = sys.argv[1]


def randomise(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "ln_" in name or "LayerNorm" in name
            p.copy_(torch.randn_like(p) * (0.1 if norm or p.dim() == 1 else 0.25))
            if norm and name.endswith("weight"):
                p.add_(1.0)
    return model.eval()


def write(name, tensors, options):
    tensors = {key: t.detach().clone().contiguous() for key, t in tensors.items()}
    save_file(tensors, f"{folder}/{name}.safetensors", metadata={"options": json.dumps(options)})


def state_of(model):
    return {"state." + name: p for name, p in model.named_parameters()}


def gpt2():
    options = dict(vocab_size=61, n_positions=24, n_embd=24, n_layer=3, n_head=4)
    model = randomise(GPT2LMHeadModel(GPT2Config(**options, bos_token_id=0, eos_token_id=0)), 1)
    out = state_of(model)
    ids = torch.randint(0, 61, (2, 9))
    labels = ids.clone()
    labels[0, 3] = -100
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    result = model(ids, labels=labels)
    result.loss.backward()
    out |= {"ids": ids + 1, "labels": torch.where(labels < 0, labels, labels + 1), "mask": mask}
    out |= {"logits": result.logits, "loss": result.loss, "masked_logits": model(ids, attention_mask=mask).logits[:, :6]}
    out["hidden"] = model.transformer(ids).last_hidden_state
    for name in ("transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.ln_1.weight",
                 "transformer.h.1.attn.c_attn.weight", "transformer.h.1.attn.c_proj.bias",
                 "transformer.h.2.mlp.c_fc.weight", "transformer.ln_f.bias"):
        out["grad." + name] = dict(model.named_parameters())[name].grad
    model.generation_config.eos_token_id = None
    out["greedy"] = model.generate(ids[:, :4], max_new_tokens=16, do_sample=False, pad_token_id=0,
                                   attention_mask=torch.ones(2, 4, dtype=torch.int64)) + 1
    write("gpt2", out, options)


def bert():
    options = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                   max_position_embeddings=24)
    model = randomise(BertModel(BertConfig(**options)), 2)
    out = state_of(model)
    ids = torch.randint(1, 61, (2, 9))
    ids[0, 2] = ids[1, 7] = 0  # padding, whose row gets no gradient
    types = torch.zeros(2, 9, dtype=torch.int64)
    types[:, 5:] = 1
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    result = model(ids, attention_mask=mask, token_type_ids=types)
    plain = model(ids)
    weight = mask.unsqueeze(-1).float()
    hidden = model(ids, attention_mask=mask).last_hidden_state
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    factors = torch.randn_like(result.last_hidden_state)
    loss = (result.last_hidden_state * factors).sum() + result.pooler_output.pow(2).sum()
    loss.backward()
    out |= {"ids": ids + 1, "types": types + 1, "mask": mask, "factors": factors, "loss": loss}
    out |= {"hidden": result.last_hidden_state, "pooled": result.pooler_output}
    out |= {"plain_hidden": plain.last_hidden_state, "plain_pooled": plain.pooler_output}
    out["embedding"] = torch.nn.functional.normalize(mean, p=2, dim=1)
    for name in ("embeddings.word_embeddings.weight", "embeddings.token_type_embeddings.weight",
                 "embeddings.LayerNorm.bias", "encoder.layer.0.attention.self.query.weight",
                 "encoder.layer.1.attention.output.LayerNorm.weight", "encoder.layer.1.intermediate.dense.weight",
                 "pooler.dense.bias"):
        out["grad." + name] = dict(model.named_parameters())[name].grad
    write("bert", out, options)


gpt2()
bert()
