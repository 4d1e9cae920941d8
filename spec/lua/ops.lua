-- Ops whose arguments and results have a form of their own in Lua. Values of the others: spec/golden/ops.txt.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises

local x = kiln.arange(1, 7):float():reshape(2, 3)

test("split, chunk, unbind give tables of views", function()
  local parts = x:split(2, 2)
  equal(#parts, 2)
  tensor(parts[1], { { 1.0, 2.0 }, { 4.0, 5.0 } })
  tensor(parts[2], { { 3.0 }, { 6.0 } })
  parts = kiln.split(x, { 1, 0, 2 }, -1)
  equal(#parts, 3)
  equal(parts[2].shape, { 2, 0 })
  tensor(parts[3], { { 2.0, 3.0 }, { 5.0, 6.0 } })
  parts = kiln.arange(7):chunk(3)
  equal(#parts, 3)
  tensor(parts[3], { 6 })
  local rows = x:clone():unbind()
  equal(#rows, 2)
  tensor(rows[2], { 4.0, 5.0, 6.0 })
  equal(#x:unbind(2), 3)
  local whole = x:clone()
  whole:split(1)[2]:fill_(0)
  tensor(whole, { { 1.0, 2.0, 3.0 }, { 0.0, 0.0, 0.0 } })
  raises(function() x:split({ 1, 1 }, 2) end, "ops.lua:", "split: the sizes do not add up to the 3 elements of dim 2")
  raises(function() x:split(0) end, "split: the size must be at least 1")
  raises(function() x:chunk(2, 3) end, "chunk: there is no such dim in 2 dimensions")
end)

test("gradients come through parts", function()
  local y = x:clone()
  y.requires_grad = true
  local rows = y:split(1)
  local product = rows[1] * rows[2]
  product:sum():backward()
  tensor(y.grad, { { 4.0, 5.0, 6.0 }, { 1.0, 2.0, 3.0 } })
end)

test("einsum", function()
  local a, b = kiln.randn(2, 3), kiln.randn(3, 4)
  local function near(p, q) check.truth((p - q):abs():max():item() < 1e-5, "einsum") end
  near(kiln.einsum("ij,jk->ik", a, b), a:matmul(b))
  near(kiln.einsum("ij,jk", { a, b }), a:matmul(b))
  near(kiln.einsum("ij->ji", a), a:transpose())
  near(kiln.einsum("ij->", a), a:sum())
  near(kiln.einsum("i,j->ij", a[1], b[1]), kiln.outer(a[1], b[1]))
  near(kiln.einsum("ij,ij->i", a, a), (a * a):sum(2))
  local s = kiln.randn(3, 3)
  near(kiln.einsum("ii", s), s:diag():sum())
  near(kiln.einsum("ii->i", s), s:diag())
  local q, k = kiln.randn(2, 4, 3, 5), kiln.randn(2, 6, 3, 5)
  near(kiln.einsum("bqhd, bkhd -> bhqk", q, k), q:permute(1, 3, 2, 4):matmul(k:permute(1, 3, 4, 2)))
  near(kiln.einsum("ij,jk,kl->il", a, b, b:transpose()), a:matmul(b):matmul(b:transpose()))
  raises(function() kiln.einsum("ij,jk->ik", a) end, "einsum: there are more terms than tensors in 'ij,jk->ik'")
  raises(function() kiln.einsum("ijk->i", a) end, "einsum: 'ijk' does not name the dims of input 1")
  raises(function() kiln.einsum("ij->iz", a) end, "einsum: a letter of the result is in no input")
  raises(function() kiln.einsum("......i->i", a) end, "einsum: only letters, one '...' for each tensor")
end)

test("two results", function()
  local values, at = kiln.tensor({ { 3.0, 1.0, 2.0 } }):sort(2, true)
  tensor(values, { { 3.0, 2.0, 1.0 } })
  tensor(at, { { 1, 3, 2 } })
  values, at = kiln.tensor({ 5.0, 9.0, 7.0 }):topk(2)
  tensor(values, { 9.0, 7.0 })
  tensor(at, { 2, 3 })
  equal((kiln.tensor { 5.0, 9.0, 7.0 }):median():item(), 7.0)
  local u, inverse, counts = kiln.unique(kiln.tensor { 3, 1, 3 })
  tensor(u, { 1, 3 })
  tensor(inverse, { 2, 1, 2 })
  tensor(counts, { 1, 2 })
end)

test("choices are names", function()
  local p = kiln.tensor { 0.5, 2.0 }
  check.truth((p:gelu("tanh") - p:gelu { approximate = "none" }):abs():max():item() > 0, "two forms")
  raises(function() p:gelu("erf") end, "gelu: approximate must be 'none' or 'tanh', not 'erf'")
  raises(function() p:gelu(1) end, "gelu: approximate must be a string, got")
  raises(function() kiln.mse_loss(p, p, "median") end, "mse_loss: reduction must be 'none', 'mean' or 'sum', not 'median'")
  raises(function() kiln.pad(p, { 1, 1 }, "wrap") end, "pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', not 'wrap'")
end)

test("index_put", function()
  local t = kiln.zeros(3, 4)
  local i, j = kiln.tensor { 1, 3, 1 }, kiln.tensor { 2, -1, 2 }
  tensor(t:index_put({ i, j }, kiln.tensor(1.0), true), { { 0.0, 2.0, 0.0, 0.0 }, { 0.0, 0.0, 0.0, 0.0 }, { 0.0, 0.0, 0.0, 1.0 } })
  tensor(kiln.index_put(t, { kiln.tensor { 2 } }, kiln.ones(4)), { { 0.0, 0.0, 0.0, 0.0 }, { 1.0, 1.0, 1.0, 1.0 }, { 0.0, 0.0, 0.0, 0.0 } })
  raises(function() t:index_put({ kiln.tensor { 4 } }, kiln.ones(4)) end, "out of range")
  raises(function() t:index_put({ 1 }, kiln.ones(4)) end, "index_put: entry 1 of the table must be a tensor")
end)

test("running values follow a batch", function()
  local mean, var = kiln.zeros(2), kiln.ones(2)
  local batch = kiln.tensor { { 1.0, 2.0 }, { 3.0, 6.0 } }
  kiln.batch_norm(batch, mean, var, { training = true, momentum = 0.5 })
  tensor(mean, { 1.0, 2.0 })
  tensor(var, { 1.5, 4.5 })
end)

test("norms take their arguments in PyTorch's order", function()
  kiln.manual_seed(11)
  local a, w, b = kiln.randn(2, 4, 3), kiln.randn(3), kiln.randn(3)
  local plain = kiln.layer_norm(a, 3)
  check.truth(kiln.layer_norm(a, { 3 }, w, b):allclose(plain * w + b), "layer_norm(x, shape, w, b)")
  check.truth(kiln.layer_norm(a, { 3 }, nil, b):allclose(plain + b), "no weight, but a bias")
  check.truth(kiln.layer_norm(a, { 4, 3 }, nil, nil, 0.5):equal(kiln.layer_norm(a, { normalized_shape = { 4, 3 }, eps = 0.5 })), "eps")
  check.truth(a:rms_norm({ 3 }, w):allclose(a:rms_norm({ 3 }) * w), "rms_norm(x, shape, w)")
  local cw, cb = kiln.randn(4), kiln.randn(4)
  local grouped = kiln.group_norm(a, 2)
  check.truth(kiln.group_norm(a, 2, cw, cb):allclose(grouped * cw:reshape(4, 1) + cb:reshape(4, 1)), "group_norm(x, groups, w, b)")
  check.truth(kiln.group_norm(a, 2, nil, cb, 1e-5):allclose(grouped + cb:reshape(4, 1)), "group_norm without weight")
  local mean, var = kiln.randn(4), kiln.rand(4) + 1.0
  local eval = kiln.batch_norm(a, mean, var, nil, nil, false, 0.1, 0.0)
  check.truth(eval:allclose((a - mean:reshape(4, 1)) / var:sqrt():reshape(4, 1)), "batch_norm by running values")
  local batch = kiln.batch_norm(a, nil, nil, cw, cb, true)
  check.truth(batch:allclose(kiln.batch_norm(a, { training = true }) * cw:reshape(4, 1) + cb:reshape(4, 1)), "no running values")
  check.truth(kiln.instance_norm(a, nil, nil, cw, cb):allclose(kiln.instance_norm(a) * cw:reshape(4, 1) + cb:reshape(4, 1)), "instance_norm")
  raises(function() kiln.batch_norm(a, mean, nil, cw, cb) end, "batch_norm: running_mean and running_var are needed, both of them")
end)

test("instance_norm's running values follow", function()
  local mean, var = kiln.zeros(1), kiln.ones(1)
  kiln.instance_norm(kiln.tensor { { { 1.0, 3.0 } }, { { 2.0, 6.0 } } }, mean, var, nil, nil, true, 0.5)
  tensor(mean, { 1.5 })
  tensor(var, { 3.0 })
end)

test("dropout of whole channels, gumbel_softmax", function()
  kiln.manual_seed(3)
  local y = kiln.feature_dropout(kiln.ones(20, 10, 6), 0.5)
  local sums = y:sum(3)
  check.truth((sums:eq(0) | sums:eq(12)):all():item(), "a channel goes as a whole")
  local kept = sums:gt(0):sum():item()
  check.truth(kept > 60 and kept < 140, "about half")
  local z = kiln.alpha_dropout(kiln.randn(20000), 0.3)
  check.near(z:mean():item(), 0, 0.03)
  check.near(z:std():item(), 1, 0.03)
  local logits = kiln.tensor({ 0.0, 1.0, 2.0 }):expand(6000, 3)
  local hard = kiln.gumbel_softmax(logits, 0.5, true)
  tensor(hard:sum(2):unique(), { 1.0 })
  check.truth((hard:mean(1) - kiln.tensor({ 0.0, 1.0, 2.0 }):softmax(1)):abs():max():item() < 0.03, "as often as softmax says")
  local l = kiln.zeros(2, 3, { requires_grad = true })
  kiln.gumbel_softmax(l, 1, true)[1][1]:backward()
  check.truth(l.grad:abs():sum():item() > 0, "the gradient is that of the soft sample")
end)

test("a map that changes nothing samples the image itself", function()
  local image = kiln.randn(2, 3, 4, 5)
  local theta = kiln.tensor { { 1.0, 0.0, 0.0 }, { 0.0, 1.0, 0.0 } }:expand(2, 2, 3)
  for _, corners in ipairs { true, false } do
    local grid = kiln.affine_grid(theta, { 2, 3, 4, 5 }, corners)
    check.truth(kiln.grid_sample(image, grid, "bilinear", "zeros", corners):allclose(image, { atol = 1e-5 }), "the same")
  end
  raises(function() kiln.grid_sample(image, kiln.zeros(1, 2, 2, 2)) end, "grid_sample: an image [N,C,H,W] and a grid [N,OH,OW,2], or")
  raises(function() kiln.affine_grid(theta, { 2, 3, 4 }) end, "affine_grid: theta [N,2,3] and a size of four, or")
  raises(function() kiln.interpolate(image, { size = 3, mode = "linear" }) end, "interpolate: 'linear' is for [N,C,L], 'bilinear' and 'bicubic' for")
  raises(function() kiln.conv3d(image, image) end, "conv3d: a volume [N,C,D,H,W] and a weight of five dims are needed (got float32[2,3,4,5]")
  raises(function() kiln.max_pool3d(kiln.ones(2, 2), 2) end, "max_pool3d: a volume [N,C,D,H,W] or [C,D,H,W] is needed (got float32[2,2])")
  raises(function() kiln.avg_pool2d(image, 2, { divisor_override = -1 }) end, "avg_pool2d: divisor_override must be positive, or 0 for none, not -1")
end)

test("refusals of values", function()
  raises(function() x:topk(4) end, "topk: k must lie between 0 and the 3 elements of dim, not 4")
  raises(function() x:quantile(1.5) end, "quantile: q must lie in [0, 1], not 1.5")
  raises(function() x:prelu(kiln.ones(2, 2)) end, "prelu: the weight must have one dim (got float32[2,3], float32[2,2])")
  raises(function() kiln.bincount(kiln.tensor { 0 }) end, "bincount: 0 cannot be counted: values start at 1")
  raises(function() kiln.batch_norm(kiln.ones(1, 3), { training = true }) end,
    "batch_norm: training needs more than one value for each channel (got float32[1,3])")
  raises(function() x:glu() end, "glu: the size of dim must be even (got float32[2,3])")
  raises(function() x:layer_norm(4) end, "layer_norm: the input must end with normalized_shape (got float32[2,3])")
  raises(function() x:pad { pad = { 3, 0 }, mode = "reflect" } end, "pad: this mode pads with less than there is")
  raises(function() kiln.conv_transpose2d(x, x) end, "conv_transpose2d: an image [N,C,H,W] and a weight")
end)

-- The same function, captured: sizes are not known while it is recorded.
local captured = {
  gelu = function(a) return a:gelu("tanh") end,
  sort = function(a) local values, at = a:sort(2, true); return values + at end,
  topk = function(a) local values, at = a:topk(2); return values * at end,
  unique = function(a) local values, _, counts = kiln.unique(a); return values + counts end,
  median = function(a) return (a:median(2)) end,
  quantile = function(a) return a:quantile(0.3, 1) end,
  split = function(a) local parts = a:split({ 2, 4 }, 2); return parts[1]:sum() * parts[2] end,
  einsum = function(a) return kiln.einsum("ij,kj->ik", a, a) end,
  layer_norm = function(a) return kiln.layer_norm(a, 6) end,
  group_norm = function(a) return kiln.group_norm(a:reshape(2, 4, 3), 2) end,
  attention = function(a) return kiln.scaled_dot_product_attention(a, a, a, { is_causal = true }) end,
  pad = function(a) return a:pad({ 1, 2 }, "reflect") end,
  roll = function(a) return a:roll({ 1, -2 }, { 1, 2 }) end,
  tile = function(a) return a:tile(2, 3) end,
  norm = function(a) return a:norm(1, 2) end,
  glu = function(a) return a:glu() end,
  logsumexp = function(a) return a:logsumexp(2) end,
  cross_entropy = function(a) return kiln.cross_entropy(a, kiln.tensor { 1, 2, 3, 6 }, { label_smoothing = 0.1 }) end,
  index_put = function(a) return a:index_put({ kiln.tensor { 3, 1 } }, kiln.zeros(6)) end,
  upsample = function(a) return kiln.interpolate(a:reshape(1, 2, 4, 3), { scale_factor = 2 }) end,
  global_pool = function(a) return kiln.adaptive_avg_pool2d(a:reshape(1, 2, 4, 3), 1) end,
  volume = function(a) return kiln.conv3d(a:reshape(1, 2, 3, 2, 2), kiln.ones(2, 1, 2, 2, 2), { groups = 2, padding = 1 }) end,
  sampled = function(a) return kiln.grid_sample(a:reshape(1, 2, 4, 3), kiln.tensor { { { { -0.3, 0.4 }, { 1.2, -0.1 } } } }) end,
  sampled_cubic = function(a) return kiln.grid_sample(a:reshape(1, 2, 4, 3), (a:reshape(1, 4, 3, 2)), "bicubic", "reflection", true) end,
  pooled = function(a) return kiln.max_pool2d(a:reshape(1, 2, 4, 3), { kernel_size = 2, stride = 1, ceil_mode = true }) end,
  pooled3d = function(a) return kiln.avg_pool3d(a:reshape(1, 1, 4, 3, 2), 2, 1) end,
  places = function(a) local values, at = kiln.max_pool3d_with_indices(a:reshape(1, 1, 4, 3, 2), 2, 1); return values * at end,
  multi_margin = function(a) return kiln.multi_margin_loss(a, kiln.tensor { 1, 6, 2, 3 }) end,
  responses = function(a) return kiln.local_response_norm(a:reshape(1, 4, 6), 3) end,
  transposed = function(a) return kiln.conv_transpose2d(a:reshape(1, 2, 4, 3), kiln.ones(2, 1, 2, 2), { stride = 2, padding = 1 }) end,
}
for name, f in pairs(captured) do
  test("captured: " .. name, function()
    local a = kiln.randn(4, 6)
    local want, got = f(a), kiln.script(f)(a)
    equal(got.shape, want.shape)
    check.truth((got - want):abs():max():item() < 1e-5, name)
  end)
end

test("ops with an argument more", function()
  local a, b = kiln.tensor { 1.0, -2.0 }, kiln.tensor { 3.0, 4.0 }
  tensor(a:add(b, { alpha = 2 }), { 7.0, 6.0 })
  tensor(kiln.sub(a, 1, { alpha = 0.5 }), { 0.5, -2.5 })
  local p = a:clone()
  check.equal(p:add_(b, { alpha = -1 }), p)
  tensor(p, { -2.0, -6.0 })
  tensor(kiln.tensor { 7, -7 }:div(2, { rounding_mode = "trunc" }), { 3, -3 })
  tensor(kiln.tensor { 7, -7 }:div(2, { rounding_mode = "floor" }), { 3, -4 })
  tensor(kiln.tensor { 13.0, 27.0 }:round({ decimals = -1 }), { 10.0, 30.0 })
  tensor(a:clamp(b - 4, b), { 1.0, 0.0 })
  tensor(a:clamp(nil, b * 0), { 0.0, -2.0 })
  tensor(a:clamp(0), { 1.0, 0.0 })
  tensor(kiln.tensor { 5, 6, 7 }:repeat_interleave(kiln.tensor { 2, 0, 1 }), { 5, 5, 7 })
  tensor(kiln.zeros(2, 2):scatter(2, kiln.tensor { { 2 }, { 1 } }, 3.0), { { 0.0, 3.0 }, { 3.0, 0.0 } })
  tensor(kiln.zeros(2):scatter_reduce(1, kiln.tensor { 1, 1 }, b, "amax"), { 4.0, 0.0 })
  raises(function() a:add(b, { beta = 2 }) end, "add: there is no option 'beta'; there are alpha")
  raises(function() a:div(b, { rounding_mode = "up" }) end, "div: rounding_mode must be 'none', 'floor' or 'trunc', not 'up'")
  raises(function() kiln.tensor { 1, 2 }:add(1, { alpha = 1.5 }) end, "add_scaled: alpha must be a whole number beside integers")
  raises(function() a:repeat_interleave(kiln.tensor { 1, -1 }) end, "repeats must not be negative")
  raises(function() kiln.zeros(2):scatter_reduce(1, kiln.tensor { 1 }, b, "least") end, "reduce must be 'sum', 'prod', 'mean', 'amax' or 'amin', not 'least'")
end)

test("splitting, grids, turned fields", function()
  local function parts(list) local t = {} for i, x in ipairs(list) do t[i] = x:totable() end return t end
  local x = kiln.arange(7)
  check.equal(parts(x:tensor_split(3)), { { 0, 1, 2 }, { 3, 4 }, { 5, 6 } })
  check.equal(parts(x:tensor_split { 2, -2, 4 }), { { 0 }, { 1, 2, 3, 4 }, {}, { 3, 4, 5, 6 } })
  local m = kiln.arange(4):reshape(2, 2)
  check.equal(parts(m:hsplit(2)), { { { 0 }, { 2 } }, { { 1 }, { 3 } } })
  check.equal(parts(m:vsplit { 2 }), { { { 0, 1 } }, { { 2, 3 } } })
  check.equal(parts(m:reshape(1, 2, 2):dsplit(2)), { { { { 0 }, { 2 } } }, { { { 1 }, { 3 } } } })
  raises(function() x:hsplit(2) end, "hsplit: 7 elements do not make 2 even parts")
  raises(function() x:vsplit(1) end, "vsplit: at least 2 dims are needed")
  raises(function() x:tensor_split(0) end, "tensor_split: the number of parts must be at least 1, not 0")
  local a, b = kiln.tensor { 1, 2 }, kiln.tensor { 5, 6, 7 }
  check.equal(parts(kiln.meshgrid(a, b)), { { { 1, 1, 1 }, { 2, 2, 2 } }, { { 5, 6, 7 }, { 5, 6, 7 } } })
  check.equal(parts(kiln.meshgrid({ a, b }, { indexing = "xy" })), { { { 1, 2 }, { 1, 2 }, { 1, 2 } }, { { 5, 5 }, { 6, 6 }, { 7, 7 } } })
  raises(function() kiln.meshgrid(a, "yx") end, "meshgrid: indexing must be 'ij' or 'xy'")
  check.equal(parts(kiln.broadcast_tensors(a:reshape(2, 1), b)), { { { 1, 1, 1 }, { 2, 2, 2 } }, { { 5, 6, 7 }, { 5, 6, 7 } } })
  raises(function() kiln.broadcast_tensors(a, b) end, "broadcast_tensors: sizes 2 and 3 of tensor 2 do not broadcast")
  tensor(kiln.tensordot(m, m, 1), { { 2, 3 }, { 6, 11 } })
  tensor(kiln.tensordot(m, m, { { 1 }, { 1 } }), { { 4, 6 }, { 6, 10 } })
  tensor(kiln.tensordot(m, m:narrow(1, 1, 1), { { 1 }, { 1 } }), kiln.tensordot(m:sum(1), m[1], 0):totable())
  raises(function() kiln.tensordot(m, m, 3) end, "tensordot: there are no 3 dims in each of the tensors")
  tensor(m.T, { { 0, 2 }, { 1, 3 } })
  check.equal(kiln.zeros(2, 3, 4).mT.shape, { 2, 4, 3 })
  check.equal(kiln.zeros(2, 3, 4).T.shape, { 4, 3, 2 })
  raises(function() return x.mT end, "mT: matrices are needed (got int64[7])")
end)
