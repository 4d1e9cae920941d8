-- Layers: arguments as in PyTorch, what they compute, each captured; and what is refused.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises
local nn, F = kiln.nn, kiln.nn.functional

local function gradient(f, x)
  x = x:detach():requires_grad_()
  local y = f(x)
  return y, kiln.grad({ (y * y):sum() }, { x })[1]
end

-- Each layer with an input: eager beside captured, the batch free, values and the gradient of the input.
local cases = {
  { "CELU", { 0.7 }, { 3, 4 } },
  { "ELU", { { alpha = 0.5 } }, { 3, 4 } },
  { "GELU", { "tanh" }, { 3, 4 } },
  { "GLU", { 2 }, { 3, 4 } },
  { "Hardshrink", {}, { 3, 4 } },
  { "Hardsigmoid", {}, { 3, 4 } },
  { "Hardswish", {}, { 3, 4 } },
  { "Hardtanh", { -0.5, 0.5 }, { 3, 4 } },
  { "LeakyReLU", { 0.2 }, { 3, 4 } },
  { "LogSigmoid", {}, { 3, 4 } },
  { "LogSoftmax", { 2 }, { 3, 4 } },
  { "Mish", {}, { 3, 4 } },
  { "PReLU", { 4 }, { 3, 4 } },
  { "ReLU", {}, { 3, 4 } },
  { "ReLU6", {}, { 3, 4 } },
  { "SELU", {}, { 3, 4 } },
  { "SiLU", {}, { 3, 4 } },
  { "Sigmoid", {}, { 3, 4 } },
  { "Softmax", { { dim = 2 } }, { 3, 4 } },
  { "Softmax2d", {}, { 2, 3, 4, 4 } },
  { "Softmin", { 2 }, { 3, 4 } },
  { "Softplus", { 2.0 }, { 3, 4 } },
  { "Softshrink", { { lambd = 0.3 } }, { 3, 4 } },
  { "Softsign", {}, { 3, 4 } },
  { "Tanh", {}, { 3, 4 } },
  { "Tanhshrink", {}, { 3, 4 } },
  { "Threshold", { 0.1, 20 }, { 3, 4 } },
  { "RReLU", {}, { 3, 4 }, "eval" },
  { "Dropout", { 0.3 }, { 3, 4 } },
  { "Dropout1d", {}, { 3, 4, 5 } },
  { "Dropout2d", {}, { 3, 4, 2, 2 } },
  { "Dropout3d", {}, { 3, 4, 2, 2, 2 } },
  { "AlphaDropout", {}, { 3, 4 } },
  { "FeatureAlphaDropout", {}, { 3, 4, 2 } },
  { "Linear", { 4, 2 }, { 3, 4 } },
  { "Linear", { 4, 2, false }, { 3, 4 } },
  { "Identity", { 1, 2 }, { 3, 4 } },
  { "Flatten", {}, { 3, 4, 2 } },
  { "Unflatten", { 2, { 2, -1 } }, { 3, 4 } },
  { "ReflectionPad1d", { 2 }, { 3, 2, 4 } },
  { "ReplicationPad2d", { { 1, 2, 0, 1 } }, { 3, 2, 4, 4 } },
  { "CircularPad3d", { 1 }, { 3, 2, 3, 3, 3 } },
  { "ConstantPad1d", { { 1, -1 }, 3.5 }, { 3, 2, 4 } },
  { "ZeroPad2d", { 1 }, { 3, 2, 4, 4 } },
  { "MaxPool1d", { 2 }, { 3, 2, 6 } },
  { "MaxPool2d", { 3, 2, 1 }, { 3, 2, 7, 7 } },
  { "MaxPool3d", { 2 }, { 3, 2, 4, 4, 4 } },
  { "AvgPool1d", { 2, { ceil_mode = true } }, { 3, 2, 5 } },
  { "AvgPool2d", { { 3, 2 }, 1, { 1, 0 } }, { 3, 2, 5, 5 } },
  { "AvgPool3d", { 2 }, { 3, 2, 4, 4, 4 } },
  { "LPPool1d", { 2, 2 }, { 3, 2, 6 } },
  { "LPPool2d", { 3, 2 }, { 3, 2, 6, 6 }, nil, "positive" },
  { "AdaptiveAvgPool1d", { 3 }, { 3, 2, 7 } },
  { "AdaptiveAvgPool2d", { { 2, 3 } }, { 3, 2, 7, 7 } },
  { "AdaptiveAvgPool3d", { 2 }, { 3, 2, 4, 5, 6 } },
  { "AdaptiveMaxPool1d", { 3 }, { 3, 2, 7 } },
  { "AdaptiveMaxPool2d", { 2 }, { 3, 2, 7, 7 } },
  { "AdaptiveMaxPool3d", { 2 }, { 3, 2, 4, 5, 6 } },
  { "Upsample", { { scale_factor = 2, mode = "bilinear" } }, { 3, 2, 3, 4 } },
  { "UpsamplingNearest2d", { { size = { 5, 6 } } }, { 3, 2, 3, 4 } },
  { "UpsamplingBilinear2d", { { scale_factor = 2 } }, { 3, 2, 3, 4 } },
  { "PixelShuffle", { 2 }, { 3, 4, 2, 2 } },
  { "PixelUnshuffle", { 2 }, { 3, 1, 4, 4 } },
  { "ChannelShuffle", { 2 }, { 3, 4, 2, 2 } },
  { "Unfold", { 2, { stride = 2 } }, { 3, 2, 4, 4 } },
  { "Fold", { 4, 2, 1, 0, 2 }, { 3, 8, 4 } },
  { "Conv1d", { 2, 3, 3, 1, 1 }, { 3, 2, 6 } },
  { "Conv2d", { 2, 4, 3, 2, { 1, 0 }, { groups = 2, bias = false } }, { 3, 2, 6, 6 } },
  { "Conv2d", { 2, 3, 3, { padding = "same", padding_mode = "reflect" } }, { 3, 2, 6, 6 } },
  { "Conv3d", { 2, 3, 2 }, { 3, 2, 4, 4, 4 } },
  { "ConvTranspose1d", { 2, 3, 3, 2, 1, 1 }, { 3, 2, 4 } },
  { "ConvTranspose2d", { 2, 4, 3, { stride = 2, groups = 2, dilation = 2 } }, { 3, 2, 4, 4 } },
  { "ConvTranspose3d", { 2, 3, 2 }, { 3, 2, 3, 3, 3 } },
}

test("every layer is captured, the batch free", function()
  local seen = {}
  for _, case in ipairs(cases) do
    local name, arguments, sizes, mode, positive = table.unpack(case, 1, 5)
    local layer = nn[name](table.unpack(arguments))
    if mode == "eval" then layer:eval() end
    local symbolic = { table.unpack(sizes) }
    symbolic[1] = "N"
    local g = kiln.script(layer, { inputs = { kiln.spec("float32", symbolic, { requires_grad = false }) } })
    for _, n in ipairs { 3, 2 } do
      sizes[1] = n
      local x = kiln.randn(sizes)
      if positive then x = x:abs() + 0.1 end
      kiln.manual_seed(5)
      local want, slope = gradient(layer, x)
      kiln.manual_seed(5)
      local got, got_slope = gradient(g, x)
      check.truth(got:allclose(want, { atol = 1e-6 }), name .. ": values")
      check.truth(got_slope:allclose(slope, { atol = 1e-5 }), name .. ": gradient")
    end
    seen[name] = true
  end
  -- All that takes one tensor, of these files, must be in the list.
  for _, file in ipairs { "activation", "dropout", "padding", "resample", "conv" } do
    for name in pairs(require("kiln.nn." .. file)) do
      check.truth(seen[name] or file == "padding", name .. " in the list")
    end
  end
end)

-- What needs sizes: their places or weights are worked out while capturing.
local sized = { AdaptiveAvgPool1d = true, AdaptiveAvgPool2d = true, AdaptiveAvgPool3d = true, AdaptiveMaxPool1d = true,
  AdaptiveMaxPool2d = true, AdaptiveMaxPool3d = true }

test("every layer is captured with all but the channels free, or says that it needs sizes", function()
  for _, case in ipairs(cases) do
    local name, arguments, sizes, mode, positive = table.unpack(case, 1, 5)
    if #sizes > 2 then
      local layer = nn[name](table.unpack(arguments))
      if mode == "eval" then layer:eval() end
      local symbolic = { "N", sizes[2], "A", "B", "C" }
      local inputs = { inputs = { kiln.spec("float32", { table.unpack(symbolic, 1, #sizes) }) } }
      if sized[name] then
        raises(function() kiln.script(layer, inputs) end, "the sizes must be known here")
      else
        local g = kiln.script(layer, inputs)
        for step = 0, 1 do
          local now = { table.unpack(sizes) }
          for d = 3, #sizes do now[d] = now[d] + (name == "PixelUnshuffle" and 2 or name == "Fold" and 0 or 1) * step end
          local x = kiln.randn(now)
          if positive then x = x:abs() + 0.1 end
          kiln.manual_seed(5)
          local want, slope = gradient(layer, x)
          kiln.manual_seed(5)
          local got, got_slope = gradient(g, x)
          check.truth(got:equal(want), name .. ": values")
          check.truth(got_slope:allclose(slope, { atol = 1e-5 }), name .. ": gradient")
        end
      end
    end
  end
end)

test("interpolate with free sizes has the bits of interpolate with known ones", function()
  local modes = { { "nearest" }, { "nearest-exact" }, { "linear", 1 }, { "bilinear", 2 }, { "bicubic", 2 }, { "trilinear", 3 } }
  for _, m in ipairs(modes) do
    for _, o in ipairs { { scale_factor = 2.0 }, { scale_factor = 0.7 }, { scale_factor = 1.6, align_corners = true }, { size = 5 },
                         { size = 3, align_corners = true }, { size = 1, align_corners = true } } do
      local dims, plain = m[2] or 2, m[1]:find "nearest"
      local options = { mode = m[1], scale_factor = o.scale_factor, size = o.size, align_corners = not plain and o.align_corners or nil }
      local function f(x) return kiln.interpolate(x, options) end
      local g = kiln.script(f, { inputs = { kiln.spec("float32", { table.unpack({ "N", "C", "A", "B", "D" }, 1, dims + 2) }) } })
      for _, n in ipairs { 4, 7 } do
        local x = kiln.randn(2, 1, table.unpack({ n, 11 - n, 3 }, 1, dims))
        local want, slope = gradient(f, x)
        local got, got_slope = gradient(g, x)
        check.truth(got:equal(want), m[1] .. ": values")
        check.truth(got_slope:allclose(slope, { atol = 1e-5 }), m[1] .. ": gradient")
      end
      if o.scale_factor == 0.7 then raises(function() g(kiln.ones(1, 1, table.unpack({ 1, 1, 1 }, 1, dims))) end, "nn_layers.lua:") end
    end
  end
end)

test("arguments in order or by name", function()
  equal(nn.Conv2d(3, 8, 3, 2, 1).stride, { 2, 2 })
  equal(nn.Conv2d(3, 8, 3, 2, { padding = 1 }).padding, { 1, 1 })
  equal(nn.Conv2d(3, 8, { 3, 1 }, { 2, 1 }).stride, { 2, 1 })
  equal(nn.MaxPool2d(3, 2, 1).padding, 1)
  equal(nn.Linear(2, 3, false).bias, nil)
  equal(nn.Linear(2, 3, { bias = false }).bias, nil)
  equal(nn.Dropout { p = 0.1 }.p, 0.1)
  equal(nn.LSTM(2, 3, 2, false).num_layers, 2)
  equal(nn.RNN(2, 3, 1, "relu").op == kiln.rnn_relu, true)
  equal(tostring(nn.LeakyReLU(0.2)), "LeakyReLU(negative_slope 0.2)")
  equal(tostring(nn.Threshold(1, 2)), "Threshold(threshold 1, value 2)")
  raises(function() nn.Conv2d(3, 8, 3, { stirde = 2 }) end, "nn_layers.lua:",
    "Conv2d: there is no option 'stirde'; there are stride, padding, dilation, groups, bias, padding_mode")
  raises(function() nn.ReLU(true) end, "ReLU: there are 1 arguments too many")
  raises(function() nn.Linear(2, 3, 0) end, "Linear: bias must be true or false, got 0")
  raises(function() nn.Threshold(1) end, "Threshold: value is needed")
  raises(function() nn.ELU "x" end, "ELU: alpha must be a number, got x")
  raises(function() nn.Upsample { mode = "nearest" } end, "Upsample: either size or scale_factor is needed")
  raises(function() nn.Upsample { size = 3, scale_factor = 2 } end, "Upsample: either size or scale_factor is needed")
  raises(function() nn.PixelShuffle(0) end, "PixelShuffle: the factor must be a positive integer, got 0")
  raises(function() nn.RReLU(0.5, 0.1) end, "RReLU: two slopes are needed, the lower one first, got 0.5 and 0.1")
  raises(function() nn.Unflatten(2, 3) end, "Unflatten: sizes must be a table of integers, got 3")
  raises(function() nn.ConvTranspose2d(1, 1, 3, { padding_mode = "reflect" }) end, "ConvTranspose2d: padding_mode can only be 'zeros'")
  raises(function() nn.Conv2d(1, 1, 0) end, "Conv2d: a size of the kernel must be a positive integer, got 0")
  raises(function() nn.Softmax2d()(kiln.ones(2, 2)) end, "Softmax2d: x must be [N,C,H,W] or [C,H,W], got 2 dims")
end)

test("a slope that is learnt, one that is drawn", function()
  local prelu = nn.PReLU { num_parameters = 2, init = 0.5 }
  tensor(prelu(kiln.tensor { { -2.0, 3.0 } }):detach(), { { -1.0, 3.0 } })
  equal(#prelu:parameters(), 1)
  local drawn, x = nn.RReLU(0.1, 0.3), kiln.full({ 1000 }, -1.0)
  local y = -drawn(x)
  check.truth(y:min():item() >= 0.1 - 1e-6 and y:max():item() <= 0.3 + 1e-6 and y:std():item() > 0.04, "slopes")
  drawn:eval()
  check.near(drawn(x)[1]:item(), -0.2)
end)

test("Bilinear, Identity", function()
  local layer = nn.Bilinear(3, 4, 2)
  local a, b = kiln.randn(5, 3), kiln.randn(5, 4)
  local y = layer(a, b)
  local want = (a:unsqueeze(2):unsqueeze(2):matmul(layer.weight):squeeze(3) * b:unsqueeze(2)):sum(3) + layer.bias
  check.truth(y:allclose(want, { atol = 1e-5 }), "values")
  equal(layer(kiln.randn(2, 5, 3), kiln.randn(2, 5, 4)).shape, { 2, 5, 2 })
  equal(layer(a[1], b[1]).shape, { 2 })
  equal(nn.Bilinear(3, 4, 2, { bias = false }).bias, nil)
  check.truth(kiln.script(layer)(a, b):allclose(y, { atol = 1e-6 }), "captured")
  local one, two = nn.Identity()(a, b)
  equal({ one == a, two == b }, { true, true })
end)

test("a transposed convolution of a wanted size", function()
  for dims = 1, 3 do
    local conv = nn[("Conv%dd"):format(dims)](2, 3, 3, { stride = 2, padding = 1 })
    local back = nn[("ConvTranspose%dd"):format(dims)](3, 2, 3, { stride = 2, padding = 1 })
    for _, n in ipairs { 7, 8 } do
      local x = kiln.randn(1, 2, table.unpack({ n, n, n }, 1, dims))
      local size = { table.unpack(x.shape, 3) }
      equal(back(conv(x), size).shape, x.shape)
      equal(back(conv(x), x.shape).shape, x.shape)
    end
  end
  for dims = 1, 3 do -- captured, all sizes free
    local back = nn[("ConvTranspose%dd"):format(dims)](3, 2, 3, { stride = 2, padding = 1 })
    local x, like = { "N", 3, "A", "B", "C" }, { "N", 3, "E", "F", "G" }
    local function f(x, like) return back(x, { table.unpack(like.shape, 3) }) end
    local g = kiln.script(f, { inputs = { kiln.spec("float32", { table.unpack(x, 1, dims + 2) }),
      kiln.spec("float32", { table.unpack(like, 1, dims + 2) }) } })
    for _, n in ipairs { 7, 8 } do
      local x = kiln.randn(2, 3, table.unpack({ 4, 4, 4 }, 1, dims))
      local like = kiln.randn(2, 3, table.unpack({ n, 15 - n, n }, 1, dims))
      local y, slope = gradient(function(x) return f(x, like) end, x)
      local z, got_slope = gradient(function(x) return g(x, like) end, x)
      equal(z:totable(), y:totable())
      check.truth(got_slope:allclose(slope, { atol = 1e-5 }), "gradient")
    end
    local x = kiln.ones(1, 3, table.unpack({ 4, 4, 4 }, 1, dims))
    raises(function() g(x, kiln.ones(1, 3, table.unpack({ 9, 9, 9 }, 1, dims))) end, "nn_layers.lua:",
      "output_size 9 is not between 7 and 8 in dimension 3")
  end
  local back = nn.ConvTranspose1d(1, 1, 3, 2, 1)
  equal(back(kiln.ones(1, 4)).shape, { 1, 7 })
  raises(function() back(kiln.ones(1, 1, 4), { 9 }) end, "nn_layers.lua:",
    "ConvTranspose1d: output_size 9 is not between 7 and 8 in dimension 3")
  raises(function() back(kiln.ones(1, 1, 4), { 9, 9 }) end, "ConvTranspose1d: output_size must have 1 sizes")
end)

test("images in another layout and back", function()
  local x = kiln.randn(2, 3, 4, 6)
  check.truth(nn.PixelShuffle(2)(nn.PixelUnshuffle(2)(x)):equal(x), "shuffled")
  local columns = nn.Unfold({ 2, 3 }, { stride = { 2, 3 } })(x)
  equal(columns.shape, { 2, 18, 4 })
  check.truth(nn.Fold({ 4, 6 }, { 2, 3 }, { stride = { 2, 3 } })(columns):equal(x), "folded")
  check.truth(nn.UpsamplingBilinear2d { size = { 7, 11 } }(x):select(3, 7):select(3, 11):allclose(x:select(3, 4):select(3, 6)), "corners")
  check.truth(nn.Unflatten(2, { 3, 1 })(x):equal(x:unsqueeze(3)), "Unflatten")
end)

test("dropout of probability 0 and 1", function()
  for _, name in ipairs { "Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout" } do
    local x = kiln.randn(3, 4, 2, 2)
    check.truth(nn[name](0)(x):allclose(x), name .. " of 0")
    check.truth(nn[name](1)(x):eq(0):all():item(), name .. " of 1")
    check.truth(nn[name](0.5):eval()(x):equal(x), name .. " in eval")
    raises(function() nn[name](-1) end, name .. ": the probability must be in [0, 1], got -1")
  end
end)

test("LSTM with proj_size", function()
  -- Without the product it is an LSTM whose weight_hh is the product of both.
  local net, plain = nn.LSTM(3, 5, { proj_size = 2 }), nn.LSTM(3, 5)
  plain:load_state_dict { weight_ih_l0 = net.weight_ih_l0, weight_hh_l0 = net.weight_hh_l0:matmul(net.weight_hr_l0),
                          bias_ih_l0 = net.bias_ih_l0, bias_hh_l0 = net.bias_hh_l0 }
  local x = kiln.randn(4, 2, 3)
  equal(net.weight_hr_l0.shape, { 2, 5 })
  equal(net.weight_hh_l0.shape, { 20, 2 })
  local whole, want = plain(x)
  local out, last = net(x)
  equal({ out.shape, last[1].shape, last[2].shape }, { { 4, 2, 2 }, { 1, 2, 2 }, { 1, 2, 5 } })
  check.truth(out:allclose(kiln.linear(whole, net.weight_hr_l0), { atol = 1e-6 }), "values")
  check.truth(last[2]:allclose(want[2], { atol = 1e-6 }), "the cell")
  check.truth(out[4]:equal(last[1][1]), "the last step")
  local rest = net(x:narrow(1, 3, 2), select(2, net(x:narrow(1, 1, 2))))
  check.truth(rest:allclose(out:narrow(1, 3, 2), { atol = 1e-6 }), "in two parts")
  local both = nn.LSTM(3, 5, { proj_size = 2, bidirectional = true, num_layers = 2, batch_first = true, bias = false })
  equal(both.weight_ih_l1_reverse.shape, { 20, 4 })
  local y = both(kiln.randn(2, 4, 3))
  equal(y.shape, { 2, 4, 4 })
  local function run(s) local o = both(s); return o end
  local g = kiln.script(run, { inputs = { kiln.spec("float32", { "N", "T", 3 }) } })
  for _, t in ipairs { 1, 4 } do
    x = kiln.randn(2, t, 3)
    check.truth(g(x):allclose(run(x), { atol = 1e-6 }), "captured")
  end
  equal(tostring(net), "LSTM(3 -> 5 -> 2)  150 parameters")
end)

test("windows in drawn places", function()
  for dims = 2, 3 do
    local Pool = nn[("FractionalMaxPool%dd"):format(dims)]
    local x = kiln.randn(2, 3, table.unpack({ 7, 8, 6 }, 1, dims))
    local y, at = Pool(2, { output_size = { table.unpack({ 4, 5, 3 }, 1, dims) }, return_indices = true })(x)
    equal(y.shape, { 2, 3, table.unpack({ 4, 5, 3 }, 1, dims) })
    check.truth(x:flatten(3):gather(3, at:flatten(3)):equal(y:flatten(3)), "the places")
    local all = Pool(1, { output_size = { table.unpack(x.shape, 3) } })(x)
    check.truth(all:equal(x), "every place once")
    local half, copy = Pool(2, { output_ratio = 0.5 }), x:clone():requires_grad_()
    local g = kiln.script(half, { inputs = { kiln.spec("float32", { "N", 3, table.unpack({ 7, 8, 6 }, 1, dims) }) } })
    kiln.manual_seed(2)
    local want = half(copy)
    kiln.manual_seed(2)
    check.truth(g(x):equal(want), "captured")
    want:sum():backward()
    equal(copy.grad:sum():item(), want:numel() * 1.0)
    equal(half(x[1]).shape, { table.unpack(want.shape, 2) })
    raises(function() Pool(3, { output_size = 9 })(x) end, "nn_layers.lua:", "9 windows of 3 do not fit into 7 in dimension 3")
    local free = { 1, 1, table.unpack({ "D", "H", "W" }, 1, dims) }
    local many = kiln.script(Pool(3, { output_size = 4 }), { inputs = { kiln.spec("float32", free) } })
    equal(many(kiln.ones(1, 1, table.unpack({ 6, 7, 8 }, 1, dims))):dim(), dims + 2)
    raises(function() many(kiln.ones(1, 1, table.unpack({ 5, 7, 8 }, 1, dims))) end, "there are more windows than places in x")
    raises(function() Pool(3) end, "either output_size or output_ratio is needed")
    raises(function() Pool(3, { output_ratio = 1.5 }) end, "output_ratio must be numbers between 0 and 1, got 1.5")
  end
end)

test("every activation is in functional too", function()
  local x = kiln.randn(3, 4)
  check.truth(nn.Softmin(2)(x):equal(F.softmin(x, 2)), "softmin")
  check.truth(nn.Hardtanh(-0.5, 0.5)(x):equal(F.hardtanh(x, -0.5, 0.5)), "hardtanh")
end)
