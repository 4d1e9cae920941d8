# Records what transformers' LlamaForCausalLM gives, for spec/lua/llama.lua: two small models with random weights, their
# logits, and greedy decoding with a cache. Token ids are written from 1. Needs torch, transformers, safetensors.
#
#   python3 llama.py [llama.safetensors]
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

models = {
    "shared": dict(vocab_size=67, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, max_position_embeddings=64),
    "tied": dict(vocab_size=41, hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=3,
                 num_key_value_heads=3, head_dim=12, max_position_embeddings=48, rms_norm_eps=1e-5, tie_word_embeddings=True,
                 rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
}
out = {}
for name, sizes in models.items():
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="eager")).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
        tokens = torch.randint(0, sizes["vocab_size"], (2, 11))
        out[f"{name}.logits"] = model(tokens).logits.contiguous()
        greedy = model.generate(tokens[:1], max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    for key, parameter in model.named_parameters():
        out[f"{name}.state.{key}"] = parameter.detach().contiguous()
    out[f"{name}.tokens"] = tokens + 1
    out[f"{name}.greedy"] = greedy[0, 11:] + 1
save_file(out, sys.argv[1] if len(sys.argv) > 1 else "llama.safetensors")
