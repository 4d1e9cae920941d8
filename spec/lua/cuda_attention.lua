-- Attention of halves on a device: one op where cuDNN has a plan for it and for its gradient, by its parts elsewhere; eager, with the tape, and
-- whole training steps captured. Against the CPU, which has it in parts. Runs where there is a device, be it one of software
-- (`meson test cuda_lua`).
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth
if not kiln.cuda.is_available() then return end

local attend = kiln.scaled_dot_product_attention

local function half(...) return (kiln.randn(...) * 0.5):bfloat16() end

local function near(a, b, what)
  local far = (a:cpu():float() - b:cpu():float()):abs():amax():item()
  truth(far < 0.03, what .. ": " .. far) -- false for nan, too
end

-- The result and the gradients of q, k, v and a mask that wants one.
local function both_ways(device, inputs, options)
  local x, leaves = {}, {}
  for i = 1, 4 do
    local t = inputs[i]
    x[i] = t and t:to(device):detach()
    if x[i] and x[i].dtype ~= "bool" and not (i == 4 and not options.learn) then leaves[#leaves + 1] = x[i]:requires_grad_() end
  end
  local y = attend(x[1], x[2], x[3], x[4], options.o)
  local weight = kiln.arange(0, y:numel()):float():sin():to(device):reshape_as(y)
  return y, kiln.grad((y:float() * weight):sum(), leaves)
end

-- ops: what a trace of it holds; "" for its parts alone.
local function agree(what, ops, inputs, options)
  options = options or {}
  local y, dy = both_ways("cuda", inputs, options)
  local z, dz = both_ways("cpu", inputs, options)
  near(y, z, what)
  equal(#dy, #dz)
  for i = 1, #dy do near(dy[i], dz[i], what .. ", gradient " .. i) end
  local there = {}
  for i = 1, 3 do there[i] = inputs[i]:to("cuda") end
  local mask = inputs[4] and inputs[4]:to("cuda")
  local text = tostring(kiln.trace(function(q, k, v)
    q:requires_grad_()
    local out = attend(q, k, v, mask, options.o)
    return out, kiln.grad(out:float():sum(), { q })[1]
  end, there))
  local found = {}
  for op in text:gmatch("(fused_attention[%w_]*) %%") do found[#found + 1] = op end
  equal(table.concat(found, " "), ops, what)
end
local BOTH, FORWARD, PARTS = "fused_attention fused_attention_grad", "fused_attention", ""

test("forms of it, with their gradients", function()
  kiln.manual_seed(5)
  local q, k, v = half(2, 4, 6, 8), half(2, 4, 10, 8), half(2, 4, 10, 8)
  agree("as it is", BOTH, { q, k, v })
  agree("causal", BOTH, { q, k, v }, { o = { is_causal = true } })
  agree("with a scale", BOTH, { q, k, v }, { o = { scale = 0.7 } })
  agree("float16", BOTH, { q:half(), k:half(), v:half() })
  agree("three dims", BOTH, { q[1], k[1], v[1] })
  agree("rows that lie between those of other heads", BOTH,
    { half(2, 6, 4, 8):transpose(2, 3), half(2, 10, 4, 8):transpose(2, 3), half(2, 10, 4, 8):transpose(2, 3) }, { o = { is_causal = true } })
  local packed = half(2, 6, 60):narrow(3, 5, 48):unflatten(3, { 6, 8 }):transpose(2, 3)
  agree("rows at odd places", BOTH, { packed:narrow(2, 1, 2), packed:narrow(2, 3, 2), packed:narrow(2, 5, 2) })
end)

test("masks, also such that nothing may be looked at, and shared keys", function()
  kiln.manual_seed(6)
  local q, k, v = half(2, 4, 6, 8), half(2, 4, 10, 8), half(2, 4, 10, 8)
  local keys = kiln.rand(2, 1, 1, 10):lt(0.5)
  keys[2] = false
  agree("booleans", BOTH, { q, k, v, kiln.rand(2, 1, 6, 10):lt(0.6) })
  agree("of keys, and a sample that sees none", BOTH, { q, k, v, keys })
  agree("a row of keys", BOTH, { q, k, v, kiln.rand(10):lt(0.7) })
  agree("halves that are added", BOTH, { q, k, v, half(4, 6, 10) })
  agree("one that is learnt", BOTH, { q, k, v, half(4, 6, 10) }, { learn = true })
  agree("-inf", BOTH, { q, k, v, kiln.zeros(6, 10):bfloat16():masked_fill(kiln.ones(6, 10):triu(1):bool(), -math.huge) })
  agree("two heads share keys", BOTH, { q, half(2, 2, 10, 8), half(2, 2, 10, 8) }, { o = { enable_gqa = true } })
  agree("all do, with a mask", BOTH, { q, half(2, 1, 10, 8), half(2, 1, 10, 8), keys }, { o = { enable_gqa = true } })
end)

test("what cuDNN does not take", function()
  kiln.manual_seed(7)
  local q, k, v = half(2, 4, 6, 8), half(2, 4, 10, 8), half(2, 4, 10, 8)
  agree("float32", PARTS, { q:float(), k:float(), v:float() })
  agree("an odd depth", PARTS, { half(2, 4, 6, 12), half(2, 4, 10, 12), v })
  agree("keys that are broadcast", PARTS, { q, half(1, 4, 10, 8), half(1, 4, 10, 8) })
  agree("values of another depth", FORWARD, { q, k, half(2, 4, 10, 16) })
  kiln.use_deterministic_algorithms(true)
  local ok, why = pcall(agree, "deterministic", FORWARD, { q, k, v })
  kiln.use_deterministic_algorithms(false)
  truth(ok, why)
end)

test("a gradient of its gradient goes by the parts", function()
  kiln.manual_seed(8)
  local function twice(device)
    local q = half(1, 2, 6, 8):to(device):requires_grad_()
    local g = kiln.grad(attend(q, q, q):float():pow(2):sum(), { q }, { create_graph = true })[1]
    return kiln.grad(g:float():pow(2):sum(), { q })[1]
  end
  local a = twice("cuda")
  kiln.manual_seed(8)
  local b = twice("cpu")
  truth((a:cpu():float() - b:float()):abs():amax():item() < 0.05 * b:float():abs():amax():item())
end)

-- Projections of x into heads, attention over them, and a step down the gradient: the losses of three steps.
local function train(device, captured, mask)
  kiln.manual_seed(9)
  local x, w, o = half(2, 16, 32):to(device), half(96, 32):to(device):requires_grad_(), half(32, 32):to(device):requires_grad_()
  mask = mask and mask:to(device)
  local function step(x)
    local heads = {}
    for i, t in ipairs(kiln.linear(x, w):chunk(3, -1)) do heads[i] = t:view(2, 16, 4, 8):transpose(2, 3) end
    local y = attend(heads[1], heads[2], heads[3], mask, { is_causal = mask == nil })
    local loss = kiln.linear(y:transpose(2, 3):reshape(2, 16, 32), o):float():pow(2):mean()
    local d = kiln.grad(loss, { w, o })
    kiln.no_grad(function()
      w:sub_(d[1] * 0.5)
      o:sub_(d[2] * 0.5)
    end)
    return loss
  end
  local f, losses = captured and kiln.script(step) or step, {}
  for i = 1, 3 do losses[i] = f(x):item() end
  if not captured then return losses end
  kiln.cuda.synchronize()
  local before = kiln.cuda.launch_stats()
  f(x)
  equal(kiln.cuda.launch_stats().launches - before.launches, 1)
  truth(tostring(f):find("fused_attention_grad", 1, true) ~= nil)
  return losses
end

test("training steps are one launch, with the losses of eager ones", function()
  for _, mask in ipairs { false, kiln.rand(2, 1, 1, 16):gt(0.3) } do
    local eager, captured, parts = train("cuda", false, mask), train("cuda", true, mask), train("cpu", false, mask)
    for i = 1, 3 do
      equal(eager[i], captured[i])
      truth(math.abs(eager[i] - parts[i]) < 0.01 * parts[i], eager[i] .. " instead of " .. parts[i])
    end
  end
end)
