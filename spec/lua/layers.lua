-- Convolutions, pooling and padding as modules, of one to three dims.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local nn, F = kiln.nn, kiln.nn.functional

local sizes = { { 9 }, { 9, 7 }, { 5, 6, 7 } }
local function image(dims, channels) return kiln.randn(2, channels, table.unpack(sizes[dims])) end

test("convolutions of all dims", function()
  for dims = 1, 3 do
    local conv = nn[("Conv%dd"):format(dims)](4, 6, 3, { stride = 2, padding = 1, groups = 2 })
    equal(conv.weight:dim(), dims + 2)
    equal(conv.weight:size(2), 2)
    local x = image(dims, 4)
    local y = conv(x)
    check.truth(y:equal(kiln[("conv%dd"):format(dims)](x, conv.weight, conv.bias, { stride = 2, padding = 1, groups = 2 })), "the op")
    local back = nn[("ConvTranspose%dd"):format(dims)](6, 4, 3, { stride = 2, padding = 1, output_padding = 0, groups = 2 })
    equal(back.weight:size(1), 6)
    equal(back(y):size(2), 4)
  end
  equal(tostring(nn.Conv3d(1, 2, { 1, 2, 3 })), "Conv3d(1 -> 2, 1x2x3)  14 parameters")
  equal(tostring(nn.ConvTranspose2d(4, 2, 3, { bias = false })), "ConvTranspose2d(4 -> 2, 3)  72 parameters")
end)

test("padding by name", function()
  for dims = 1, 3 do
    local name, x = ("Conv%dd"):format(dims), image(dims, 2)
    local same = nn[name](2, 3, 4, { padding = "same", dilation = 2 - dims // 3 })
    local y, want = same(x), x.shape
    want[2] = 3
    equal(y.shape, want)
    check.truth(y:equal(F[("conv%dd"):format(dims)](x, same.weight, same.bias, 1, "same", 2 - dims // 3)), "the function")
    check.truth(nn[name](2, 3, 3, { padding = "valid" })(x):size(3) == x:size(3) - 2, "valid")
    for _, mode in ipairs { "reflect", "replicate", "circular" } do
      local conv = nn[name](2, 3, 3, { padding = 1, padding_mode = mode })
      local margins = {}
      for i = 1, 2 * dims do margins[i] = 1 end
      check.truth(conv(x):equal(kiln[("conv%dd"):format(dims)](kiln.pad(x, margins, mode), conv.weight, conv.bias)), mode)
    end
  end
  raises(function() nn.Conv2d(1, 1, 3, { padding = "same", stride = 2 }) end, "layers.lua:", 'Conv2d: padding = "same" needs a stride of 1')
  raises(function() nn.Conv2d(1, 1, 3, { padding = "full" }) end, 'Conv2d: padding must be numbers, "same" or "valid", got "full"')
  raises(function() nn.Conv1d(1, 1, 3, { padding_mode = "mirror" }) end, "Conv1d: padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular'")
  raises(function() nn.Conv2d(3, 4, 3, { groups = 2 }) end, "Conv2d: groups = 2 does not divide 3 inputs and 4 outputs")
  raises(function() nn.Conv2d(3, 4, { 3, 3, 3 }) end, "Conv2d: kernel must be an integer or a table of two")
end)

test("pooling of all dims, there and back", function()
  for dims = 1, 3 do
    local d = ("%dd"):format(dims)
    local x = kiln.randn(2, 3, table.unpack({ 8, 6, 4 }, 1, dims))
    local values, places = nn["MaxPool" .. d](2, { return_indices = true })(x)
    check.truth(values:equal(nn["MaxPool" .. d](2)(x)), "the same maxima")
    local again, at = F["max_pool" .. d](x, 2, { return_indices = true })
    check.truth(again:equal(values) and at:equal(places), "the function")
    local back = nn["MaxUnpool" .. d](2)(values, places)
    equal(back.shape, x.shape)
    check.truth(back:sum():allclose(values:sum()), "each maximum once")
    check.truth((back:eq(x) | back:eq(0)):all():item(), "where it was")
    equal(nn["AvgPool" .. d](3, { stride = 2, padding = 1, ceil_mode = true })(x):dim(), dims + 2)
    check.truth(nn["LPPool" .. d](2, 2)(x):allclose((nn["AvgPool" .. d](2)(x * x) * 2 ^ dims):sqrt()), "LPPool")
    equal(nn["AdaptiveAvgPool" .. d](3)(x):size(3), 3)
    check.truth(nn["AdaptiveMaxPool" .. d](1)(x):reshape(2, 3):allclose(x:flatten(3):amax(3)), "AdaptiveMaxPool")
    equal(nn["ConstantPad" .. d](1, 5)(x):size(3), 10)
    equal(nn["CircularPad" .. d](1)(x):select(3, 1):equal(nn["CircularPad" .. d](1)(x):select(3, 9)), true)
    local drop = nn["Dropout" .. d](0.5):eval()
    check.truth(drop(x):equal(x), "Dropout")
  end
  equal(nn.Upsample { scale_factor = 2, mode = "bilinear" }(kiln.randn(1, 1, 2, 3)).shape, { 1, 1, 4, 6 })
  equal(nn.Upsample { size = { 5, 4 }, mode = "nearest-exact" }(kiln.randn(1, 1, 2, 3)).shape, { 1, 1, 5, 4 })
  raises(function() nn.MaxPool2d({ 1, 2, 3 }) end, "MaxPool2d: kernel must be an integer or a table of")
  raises(function() nn.ReflectionPad2d({ 1, 2 }) end, "ReflectionPad2d: padding must be an integer or a table of 4")
end)

test("captured", function()
  local net = nn.Sequential(nn.Conv2d(2, 4, 3, { padding = "same" }), nn.MaxPool2d(3, { stride = 2, ceil_mode = true }),
    nn.Conv2d(4, 4, 3, { padding = 1, padding_mode = "circular" }), nn.AdaptiveAvgPool2d(2))
  local x = kiln.randn(3, 2, 7, 9)
  local g = kiln.script(net, { inputs = { kiln.spec("float32", { "N", 2, 7, 9 }) } })
  check.truth(g(x):allclose(net(x), { atol = 1e-5 }), "a network")
end)

test("ctc_loss", function()
  -- One label in two steps: blank and label, label and blank, or the label twice.
  local logits = kiln.randn(2, 1, 3, { dtype = "float64", requires_grad = true })
  local p = logits:softmax(3):select(2, 1)
  local want = -(p[1][1] * p[2][2] + p[1][2] * p[2][1] + p[1][2] * p[2][2]):log()
  local loss = F.ctc_loss(logits:log_softmax(3), kiln.tensor { { 2 } }, { 2 }, { 1 })
  check.truth(loss:allclose(want), "by hand")
  local g, h = kiln.grad({ loss }, { logits })[1], kiln.grad({ want }, { logits })[1]
  check.truth(g:allclose(h), "gradient")
  local far = F.ctc_loss(logits:log_softmax(3), kiln.tensor { { 2, 2 } }, { 2 }, { 2 })
  equal(far:item(), math.huge)
  raises(function() kiln.ctc_loss(logits, kiln.tensor { { 1.0 } }, kiln.tensor { 2 }, kiln.tensor { 1 }) end,
    "ctc_loss: targets and lengths must be int64 or int32")
  raises(function() kiln.ctc_loss(logits, kiln.tensor { { 2 } }, kiln.tensor { 2, 2 }, kiln.tensor { 1 }) end,
    "ctc_loss: one length for each sample is needed")
  raises(function() kiln.ctc_loss(logits, kiln.tensor { { 2 } }, kiln.tensor { 2 }, kiln.tensor { 1 }, { blank = 4 }) end,
    "ctc_loss: there must be a step, and blank must be one of the classes")
  local f = kiln.script(function(x) return kiln.ctc_loss(x:log_softmax(3), kiln.tensor { { 2 } }, kiln.tensor { 2 }, kiln.tensor { 1 }) end,
    { inputs = { kiln.spec("float64", { 2, 1, 3 }) } })
  check.truth(f(logits:detach()):allclose(loss), "captured")
end)
