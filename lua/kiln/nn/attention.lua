-- MultiheadAttention (Vaswani et al., 2017): its parameters. What is computed of them is in attend.lua.
local kiln = require "kiln"
local attend = require "kiln.nn.attend"
local arguments = require "kiln.nn.arguments"
local init = require "kiln.nn.init"
local Linear = require("kiln.nn.linear").Linear
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

--- MultiheadAttention(width, heads [, dropout = 0, bias = true, add_bias_kv = false, add_zero_attn = false, kdim, vdim,
--- batch_first = false])
local Attention = Module:extend "MultiheadAttention"

function Attention:init(width, heads, ...)
  local options = arguments.read("MultiheadAttention", { "dropout", 0, "bias", true, "add_bias_kv", false,
    "add_zero_attn", false, "kdim", arguments.optional, "vdim", arguments.optional, "batch_first", false }, ...)
  arguments.count("MultiheadAttention", "the width", width)
  arguments.count("MultiheadAttention", "the number of heads", heads)
  if width % heads ~= 0 then fail("MultiheadAttention: %d heads do not divide a width of %d", heads, width) end
  self.embed_dim, self.num_heads, self.head_dim = width, heads, width // heads
  self.kdim = arguments.count("MultiheadAttention", "kdim", options.kdim or width)
  self.vdim = arguments.count("MultiheadAttention", "vdim", options.vdim or width)
  self.dropout = arguments.probability("MultiheadAttention", options.dropout)
  self.batch_first, self.add_zero_attn = options.batch_first, options.add_zero_attn
  local function matrix(...) return Parameter(init.xavier_uniform(kiln.empty(...))) end
  if self.kdim == width and self.vdim == width then
    self.in_proj_weight = matrix(3 * width, width)
  else
    self.q_proj_weight, self.k_proj_weight = matrix(width, width), matrix(width, self.kdim)
    self.v_proj_weight = matrix(width, self.vdim)
  end
  self.out_proj = Linear(width, width, { bias = options.bias })
  if options.bias then
    self.in_proj_bias = Parameter(kiln.zeros(3 * width))
    init.zeros(self.out_proj.bias)
  end
  if options.add_bias_kv then
    self.bias_k = Parameter(kiln.randn(1, 1, width) / math.sqrt(width))
    self.bias_v = Parameter(kiln.randn(1, 1, width) / math.sqrt(width))
  end
end

--- forward(query, key, value [, { key_padding_mask, need_weights = true, attn_mask, average_attn_weights = true,
--- is_causal = false }]) on [L, N, E], with batch_first [N, L, E], or [L, E]. A bool mask is true where not to look; numbers are
--- added to the scores. attn_mask is [L, S] or [N heads, L, S], key_padding_mask [N, S]. is_causal without an attn_mask makes
--- one. Gives the output and the weights, averaged over the heads or [N, heads, L, S].
function Attention:forward(query, key, value, options)
  return attend("MultiheadAttention", self, query, key, value, options or {}, self.batch_first, self.out_proj)
end

function Attention:extra() return ("%d, %d head%s"):format(self.embed_dim, self.num_heads, self.num_heads == 1 and "" or "s") end

return { MultiheadAttention = Attention }
