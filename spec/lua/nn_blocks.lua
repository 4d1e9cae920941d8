-- Norms, embeddings, attention, transformers and losses of kiln.nn: what golden_layers.lua does not compare with PyTorch.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local nn, F = kiln.nn, kiln.nn.functional

test("arguments in order, or by name", function()
  equal(nn.BatchNorm2d(3, 0.1, 0.2).momentum, 0.2)
  equal(nn.BatchNorm2d(3, { momentum = 0.2 }).eps, 1e-5)
  equal(nn.MultiheadAttention(4, 2, 0.1, { bias = false }).dropout, 0.1)
  equal(nn.TransformerEncoderLayer(4, 2, 7).linear1.weight.shape, { 7, 4 })
  equal(tostring(nn.HuberLoss("sum", 0.5)), "HuberLoss(reduction = sum, delta = 0.5)")
  equal(nn.NLLLoss(kiln.ones(3)).weight:size(1), 3)
  raises(function() nn.LayerNorm(3, { epsilon = 1 }) end, "nn_blocks.lua:", "LayerNorm: there is no option 'epsilon'")
  raises(function() nn.HuberLoss { delt = 1 } end, "nn_blocks.lua:", "HuberLoss: there is no option 'delt'; there are reduction, delta")
end)

test("what norms refuse", function()
  raises(function() nn.BatchNorm2d(3)(kiln.ones(2, 3)) end, "nn_blocks.lua:", "BatchNorm2d: an input of 4 dims is needed, got 2")
  raises(function() nn.BatchNorm1d(3)(kiln.ones(2, 3, 1, 1)) end, "BatchNorm1d: an input of 2 or 3 dims is needed, got 4")
  raises(function() nn.InstanceNorm1d(3)(kiln.ones(2)) end, "InstanceNorm1d: an input of 2 or 3 dims is needed, got 1")
  raises(function() nn.BatchNorm1d(3)(kiln.ones(2, 4)) end, "nn_blocks.lua:", "BatchNorm1d: made for 3 channels, the input has 4 (dim 2)")
  raises(function() nn.BatchNorm1d(3, { momentum = "none" }) end, "BatchNorm1d: momentum must be a number, or false")
  raises(function() nn.GroupNorm(2, 5) end, "GroupNorm: 2 groups do not divide 5 channels")
  raises(function() nn.LayerNorm {} end, "LayerNorm: normalized_shape must be a size or a list of sizes")
end)

test("running values are state, not parameters", function()
  local norm = nn.BatchNorm1d(2)
  equal(#norm:parameters(), 2)
  equal(#norm:buffers(), 3)
  local x = kiln.tensor { { 1.0, 2.0 }, { 3.0, 6.0 } }
  norm(x)
  equal(norm.num_batches_tracked:item(), 1)
  check.near(norm.running_mean:totable(), { 0.2, 0.4 })
  check.near(norm.running_var:totable(), { 0.9 + 0.2, 0.9 + 0.8 })
  norm:eval()(x)
  equal(norm.num_batches_tracked:item(), 1)
  local average = nn.BatchNorm1d(2, { momentum = false })
  average(x)
  average(x * 3)
  check.near(average.running_mean:totable(), { 4, 8 })
end)

test("embeddings: rows that are given, rows of padding", function()
  local table_ = kiln.tensor { { 1.0, 2.0 }, { 3.0, 4.0 } }
  local layer = nn.Embedding.from_pretrained(table_)
  equal(layer.weight.requires_grad, false)
  equal(layer(kiln.tensor { 2 }):totable(), { { 3.0, 4.0 } })
  equal(nn.EmbeddingBag.from_pretrained(table_, { freeze = false, mode = "sum" })(kiln.tensor { { 1, 2 } }):totable(), { { 4.0, 6.0 } })
  equal(nn.Embedding(3, 2, { padding_idx = -1 }).weight[3]:totable(), { 0.0, 0.0 })
  equal(tostring(nn.Embedding(3, 2, { padding_idx = -1 })), "Embedding(3 x 2, padding 3)  6 parameters")
  raises(function() nn.Embedding(3, 2, { padding_idx = 4 }) end, "Embedding: padding_idx must be one of the 3 entries, got 4")
  raises(function() nn.Embedding(3, 2, { sparse = true }) end, "Embedding: there are no sparse gradients")
  raises(function() nn.EmbeddingBag(3, 2, { mode = "median" }) end, "EmbeddingBag: mode must be 'sum', 'mean' or 'max', got median")
  raises(function() nn.EmbeddingBag(3, 2)(kiln.tensor { 1, 2 }) end, "nn_blocks.lua:", "rows of indices [B, N] are needed")
  raises(function() nn.EmbeddingBag(3, 2)(kiln.tensor { { 1 } }, nil, kiln.ones(1, 1)) end, "per_sample_weights need the mode 'sum'")
  raises(function() F.embedding(kiln.tensor { 4 }, table_) end, "nn_blocks.lua:", "embedding")
end)

test("attention and transformers", function()
  raises(function() nn.MultiheadAttention(5, 2) end, "MultiheadAttention: 2 heads do not divide a width of 5")
  raises(function() nn.MultiheadAttention(4, 2)(kiln.ones(2, 3, 4), kiln.ones(3, 4), kiln.ones(3, 4)) end,
    "nn_blocks.lua:", "MultiheadAttention: query, key and value must all have 3 dims")
  raises(function() nn.TransformerEncoderLayer(4, 2, { activation = "swish" }) end, "the activation must be 'relu', 'gelu' or a function")
  raises(function() nn.TransformerEncoder(4, 2) end, "TransformerEncoder: a layer is needed, got number")
  equal(nn.Transformer.generate_square_subsequent_mask(2):totable(), { { 0.0, -math.huge }, { 0.0, 0.0 } })
  local layer = nn.TransformerEncoderLayer(4, 2, { dim_feedforward = 3 })
  local stack = nn.TransformerEncoder(layer, 2)
  check.truth(stack.layers[1].linear1.weight:equal(layer.linear1.weight), "the same values")
  check.truth(stack.layers[1].linear1.weight ~= stack.layers[2].linear1.weight, "tensors of their own")
  equal(#stack:parameters(), 2 * #layer:parameters())
  check.truth(stack:state_dict()["layers.0.self_attn.in_proj_weight"], "PyTorch's names")
end)

test("adaptive softmax: probabilities of all classes", function()
  local layer = nn.AdaptiveLogSoftmaxWithLoss(6, 9, { 2, 5 }, { div_value = 2 })
  local x = kiln.randn(4, 6)
  check.near(layer:log_prob(x):exp():sum(2):totable(), { 1, 1, 1, 1 }, 1e-5)
  equal(layer:predict(x):equal(layer:log_prob(x):argmax(2)), true)
  raises(function() nn.AdaptiveLogSoftmaxWithLoss(6, 9, { 5, 2 }) end, "cutoffs must be a list of growing integers between 1 and 8")
  raises(function() nn.AdaptiveLogSoftmaxWithLoss(3, 9, { 2 }) end, "cluster 1 would have no width")
end)

test("what composites detach is detached in a graph", function()
  local function nll(x, t, v) return kiln.gaussian_nll_loss(x, t, v, { eps = 0.5 }) end
  local function hard(x) return (kiln.gumbel_softmax(x, 0.7, true) * kiln.arange(1, 5)):sum() end
  local x, t, v = kiln.randn(3, 4), kiln.randn(3, 4), kiln.rand(3, 4):requires_grad_()
  local y = kiln.randn(3, 4):requires_grad_()
  local eager, captured = kiln.grad({ nll(x, t, v) }, { v })[1], kiln.grad({ kiln.script(nll)(x, t, v) }, { v })[1]
  check.truth(eager:abs():max():item() > 0 and eager:allclose(captured), "gaussian_nll_loss")
  local function slope(f)
    kiln.manual_seed(3)
    return kiln.grad({ f(y) }, { y })[1]
  end
  local want = slope(hard)
  check.truth(want:abs():max():item() > 0 and want:allclose(slope(kiln.script(hard))), "gumbel_softmax")
  check.truth(want:allclose(slope(kiln.trace(hard, { y:detach() }, { warn = function() end }))), "traced")
end)

test("rms_norm in graphs, where its parts are found again, gives eager's bits", function()
  for _, dtype in ipairs { "float32", "float64", "float16" } do
    for _, shape in ipairs { { 64 }, { 3, 1 }, { 5, 7 }, { 2, 3, 172 }, { 1, 1, 64 }, { 2, 3000 }, { 0, 8 }, { 40, 512 } } do
      local x, w = kiln.randn(shape):to(dtype), kiln.randn(shape[#shape]):to(dtype)
      local function both(x, w)
        local y = kiln.rms_norm(x * 2, { x:size(-1) }, w, 1e-5)
        return kiln.rms_norm(y, { x:size(-1) }) + x, kiln.rms_norm(x, x.shape, nil, 1e-6) * w
      end
      local a, b = both(x, w)
      local c, d = kiln.script(both)(x, w)
      check.truth(kiln.equal(a, c) and kiln.equal(b, d), dtype .. " " .. table.concat(shape, " x "))
    end
    local turned = kiln.randn(64, 8):to(dtype):t()
    local f = function(x) return kiln.rms_norm(x, { 64 }) end
    check.truth(kiln.equal(f(turned), kiln.script(f)(turned)), dtype .. " turned")
  end
end)
