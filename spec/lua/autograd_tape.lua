-- Functions on the tape: hooks, kept gradients, custom functions, checkpoints, anomalies, inference mode; what
-- backward and grad take; kiln.autograd. Values are PyTorch's.
local check = require "check"
local test, tensor, equal, raises, near, truth = check.test, check.tensor, check.equal, check.raises, check.near, check.truth

local function leaf(values) return kiln.tensor(values, { dtype = "float64", requires_grad = true }) end
local function here() return "autograd_tape.lua:" .. debug.getinfo(2, "l").currentline .. ": " end

-- ---- hooks ----

test("a hook sees the complete gradient and may replace it", function()
  local x = leaf { 1, 2 }
  local y = x * 2
  local seen = {}
  local first = y:register_hook(function(g) seen[#seen + 1] = g:totable() end)
  y:register_hook(function(g) return g * 10 end)
  y:register_hook(function(g) seen[#seen + 1] = g:totable() end) -- in the order they came
  ;(y * 3 + y):sum():backward()
  equal(seen, { { 4.0, 4.0 }, { 40.0, 40.0 } })
  tensor(x.grad, { 80.0, 80.0 })
  first:remove()
  first:remove() -- twice is once
  seen = {}
  tensor(kiln.grad(y:sum(), x), { 20.0, 20.0 })
  equal(#seen, 1)
  tensor(kiln.grad(y:sum(), y), { 10.0, 10.0 }) -- of an asked-for gradient too
end)

test("hooks of leaves run before accumulation, others after it", function()
  local x = leaf { 1, 2 }
  x:register_hook(function(g) return g + 1 end)
  local after
  x:register_post_accumulate_grad_hook(function(t)
    truth(t == x, "it gets the leaf")
    after = t.grad:totable()
  end)
  ;(x * 3):sum():backward()
  tensor(x.grad, { 4.0, 4.0 })
  ;(x * 3):sum():backward()
  equal(after, { 8.0, 8.0 })
  tensor(kiln.grad((x * 3):sum(), x), { 4.0, 4.0 })
  equal(after, { 8.0, 8.0 })
  local cleared = leaf { 1 } -- an optimiser in backward: use the gradient and drop it
  cleared:register_post_accumulate_grad_hook(function(t)
    kiln.no_grad(function() t:sub_(t.grad * 0.5) end)
    t.grad = nil
  end)
  ;(cleared * 4):sum():backward()
  tensor(cleared, { -1.0 })
  equal(cleared.grad, nil)
end)

test("an error in a hook is the error of backward, and nothing has changed", function()
  local x, w = leaf { 1, 2 }, leaf { 3, 4 }
  local y = x * w
  y:retain_grad()
  local h = x:register_hook(function() error "boom" end)
  raises(function() y:sum():backward() end, "boom", "autograd_tape.lua:")
  equal({ x.grad, w.grad, y.grad }, {})
  h:remove()
  local thrown = setmetatable({}, { __name = "mine" })
  h = y:register_hook(function() error(thrown) end)
  local ok, why = pcall(function() y:sum():backward() end)
  truth(not ok and why == thrown, "an error that is no text comes through as it is")
  equal({ x.grad, w.grad, y.grad }, {})
  h:remove()
  y:sum():backward()
  tensor(x.grad, { 3.0, 4.0 })
  truth(kiln.is_grad_enabled(), "grad mode is back")
end)

test("what hooks may not do is told", function()
  local x = leaf { 1, 2 }
  local y = x * 2
  raises(function() kiln.ones(2):register_hook(print) end, here(), "register_hook: a hook needs a tensor that requires grad")
  raises(function() x:register_hook(3) end, "register_hook: a function is needed, got an integer")
  raises(function() y:register_post_accumulate_grad_hook(print) end, "accumulated into leaves only", "result of mul", "register_hook")
  y:register_hook(function() return 5 end)
  raises(function() y:sum():backward() end, "a hook must return a tensor or nil, not an integer")
  local z = x * 2
  z:register_hook(function() return kiln.ones(3) end)
  raises(function() z:sum():backward() end, "a hook gave float32[3] in place of a gradient float64[2]")
end)

test("hooks that remove themselves and add others", function()
  local x, seen = leaf { 1 }, {}
  local first
  first = x:register_hook(function()
    seen[#seen + 1] = "first"
    first:remove()
    x:register_hook(function() seen[#seen + 1] = "third" end)
  end)
  x:register_hook(function() seen[#seen + 1] = "second" end)
  for _ = 1, 2 do (x * 2):sum():backward() end
  equal(seen, { "first", "second", "third", "second", "third" })
  local blocks
  for i = 1, 200 do -- removed ones do not pile up
    x:register_hook(print):remove()
    collectgarbage()
    if i == 100 then blocks = kiln.memory_stats().blocks end
  end
  equal(kiln.memory_stats().blocks, blocks)
end)

test("hooks and kept gradients when a tensor is written to", function()
  local x = leaf { 1, 2, 3 }
  local y = x * 2
  local seen
  y:register_hook(function(g) seen = g:totable() end)
  y:mul_(3)
  y:sum():backward()
  equal(seen, { 3.0, 3.0, 3.0 }) -- of what it was when the hook came
  y = x * 2
  y:retain_grad()
  y:mul_(3)
  y:sum():backward()
  tensor(y.grad, { 1.0, 1.0, 1.0 }) -- of what it is
end)

test("retain_grad", function()
  local x = leaf { 1, 2 }
  local y = x * 2
  equal(y:retain_grad() == y, true)
  x:retain_grad() -- nothing to do
  ;(y * y):sum():backward()
  tensor(y.grad, { 4.0, 8.0 })
  ;(y * y):sum():backward()
  tensor(y.grad, { 8.0, 16.0 })
  raises(function() kiln.ones(2):retain_grad() end, "retain_grad: the tensor does not require grad")
end)

test("hooked graphs in a loop leave nothing behind", function()
  local x = leaf { 1, 2 }
  local double = kiln.custom_function {
    forward = function(ctx, a) ctx:save_for_backward(a) return a * 2 end,
    backward = function(ctx, g) return g * 2 + ctx.saved_tensors[1] * 0 end,
  }
  local function round()
    for _ = 1, 300 do
      local y = double(x * 2)
      local count = 0
      y:register_hook(function(g) count = count + 1 return g end)
      kiln.checkpoint(function(v) return (v * v):sum() end, y):backward()
      x.grad = nil
    end
    collectgarbage()
    collectgarbage()
    return kiln.memory_stats().blocks
  end
  round()
  local before = round()
  equal(round(), before)
  local functions = collectgarbage "count"
  for _ = 1, 3 do round() end
  truth(collectgarbage "count" < functions + 50, "Lua's own memory stays flat")
end)

-- ---- custom functions ----

local cube = kiln.custom_function {
  name = "cube",
  forward = function(ctx, x, scale)
    local square = x * x
    ctx:save_for_backward(x, square)
    ctx.scale = scale
    return square * x * scale, square
  end,
  backward = function(ctx, g, h)
    local x, square = table.unpack(ctx.saved_tensors)
    return g * 3 * square * ctx.scale + h * 2 * x
  end,
}

test("a custom function with several results and plain arguments", function()
  local x = leaf { 1, 2 }
  local y, square = cube(x, 2)
  tensor(y, { 2.0, 16.0 })
  equal({ y.requires_grad, square.requires_grad, y.is_leaf }, { true, true, false })
  y:sum():backward() -- no gradient came for the other: zeros
  tensor(x.grad, { 6.0, 24.0 })
  equal(kiln.gradcheck(function(a) return cube(a, 2) end, x), true)
  equal((kiln.no_grad(cube, x, 2)).requires_grad, false)
  equal((cube(kiln.ones(2), 1)).requires_grad, false)
end)

-- The second saved tensor is a value that no history leads to, so backward is written with the first alone.
local sine = kiln.custom_function {
  forward = function(ctx, x, y) ctx:save_for_backward(x, y) return x:sin() * y end,
  backward = function(ctx, g)
    local x, y = table.unpack(ctx.saved_tensors)
    local gx = ctx.needs_input_grad[1] and g * x:cos() * y or nil
    return gx, ctx.needs_input_grad[2] and g * x:sin() or nil
  end,
}

test("backward of a custom function is differentiated in turn", function()
  local x, y = leaf { 0.3, 0.7 }, leaf { 2, 3 }
  equal(kiln.gradgradcheck(sine, { x, y }), true)
  local g = kiln.grad(sine(x, y):sum(), x, { create_graph = true })
  near(kiln.grad(g:sum(), x):totable(), (-(x:sin()) * y):totable(), 1e-12)
  sine(x, kiln.ones(2, { dtype = "float64" })):sum():backward()
  near(x.grad:totable(), x:cos():totable(), 1e-12)
end)

test("what a custom function saved must stay as it was", function()
  local x = leaf { 1, 2 }
  local v = x * 1
  local y, square = cube(v, 1)
  square:detach():zero_()
  raises(function() y:sum():backward() end, "backward of cube: result 2 was changed in place by")
  y = cube(v, 1)
  v:add_(1)
  raises(function() y:sum():backward() end, "backward of cube: input 1 was changed in place by add_ after it was saved for backward")
end)

test("results without a gradient, inputs given back, errors", function()
  local split = kiln.custom_function {
    forward = function(ctx, x)
      local where = x:gt(0):to(x.dtype)
      ctx:mark_non_differentiable(where)
      return x, where, "text"
    end,
    backward = function(_, g) return g * 5 end,
  }
  local x = leaf { 1, -2 }
  local same, where, text = split(x)
  equal({ same == x, same.requires_grad, where.requires_grad, text }, { false, true, false, "text" })
  same:sum():backward()
  tensor(x.grad, { 5.0, 5.0 })
  local function bad(backward)
    local f = kiln.custom_function { name = "bad", forward = function(_, a) return a * 2 end, backward = backward }
    f(leaf { 1, 2 }, 7):sum():backward()
  end
  raises(function() bad(function() error "inside" end) end, "backward of bad: ", "inside")
  raises(function() bad(function() return 1 end) end, "backward of bad", "gradient 1 must be a tensor or nil, got an integer")
  raises(function() bad(function(_, g) return g, g end) end, "bad: backward gave a gradient for argument 2, which is no tensor")
  raises(function() bad(function(_, g) return g, nil, g end) end, "backward gave 3 gradients for 2 arguments")
  raises(function() bad(function() return kiln.ones(3, { dtype = "float64" }) end) end, "the gradient of input 1, float64[2], is float64[3]")
  bad(function(_, g) return g:float() end) -- cast
  bad(function() return nil end)
  raises(function() kiln.custom_function { forward = print } end, "custom_function: a table with the functions forward and backward")
  raises(function() kiln.custom_function { forward = print, backward = print, foward = 1 } end, "there is no option 'foward'")
end)

test("many results", function()
  local spread = kiln.custom_function {
    forward = function(_, x) return table.unpack(x:unbind()) end,
    backward = function(_, ...) return kiln.stack { ... } end,
  }
  local x = leaf { 1, 2, 3, 4, 5, 6 }
  local parts = { spread(x) }
  ;(parts[2] * 3 + parts[6] * 5):backward()
  tensor(x.grad, { 0.0, 3.0, 0.0, 0.0, 0.0, 5.0 })
end)

-- ---- checkpoints ----

local function block(w) return function(x) return kiln.dropout((x:matmul(w)):tanh(), 0.5) * x:sin() end end

test("a checkpoint gives the same values and gradients, dropout masks included", function()
  local w, x = kiln.randn(4, 4, { dtype = "float64", requires_grad = true }), kiln.randn(3, 4, { dtype = "float64", requires_grad = true })
  local f = block(w)
  local function run(how)
    kiln.manual_seed(5)
    local y = how(f, how(f, x))
    local after = kiln.rand(1)
    local gx, gw = table.unpack(kiln.grad((y * y):sum(), { x, w }))
    return y, gx, gw, after, kiln.rand(1)
  end
  local plain = { run(function(g, v) return g(v) end) }
  for i, t in ipairs { run(kiln.checkpoint) } do truth(t:equal(plain[i]), "result " .. i) end
  local nested = { run(function(g, v) return kiln.checkpoint(function(u) return kiln.checkpoint(g, u) end, v) end) }
  for i, t in ipairs(nested) do truth(t:equal(plain[i]), "nested, result " .. i) end
  kiln.manual_seed(5)
  f(f(x)):sum():backward()
  local want = w.grad
  w.grad = nil
  kiln.manual_seed(5)
  local y = kiln.checkpoint(f, kiln.checkpoint(f, x)):sum()
  y:backward()
  truth(w.grad:equal(want), "parameters of closures")
  y:backward() -- again
  truth(w.grad:equal(want * 2), "a second time")
end)

test("gradients of gradients through a checkpoint", function()
  local function f(x) return kiln.checkpoint(function(v) return (v * v * v):sin() end, x) end
  equal(kiln.gradcheck(f, leaf { 0.5, 0.7 }), true)
  equal(kiln.gradgradcheck(f, leaf { 0.5, 0.7 }), true)
end)

test("a checkpoint keeps less", function()
  local x = kiln.randn(64, 64):requires_grad_()
  local function deep(v)
    for _ = 1, 20 do v = v:sin() * v end
    return v
  end
  local function kept(run)
    collectgarbage()
    collectgarbage()
    local before = kiln.memory_stats().allocated
    local y = run(deep, x)
    collectgarbage()
    collectgarbage()
    return kiln.memory_stats().allocated - before, y
  end
  local plain, checked = kept(function(f, v) return f(v) end), kept(kiln.checkpoint)
  truth(checked < plain / 10, ("%d bytes and %d bytes"):format(checked, plain))
end)

test("a checkpoint whose function changes its mind is an error", function()
  local x, times = leaf { 1, 2 }, 1
  local y = kiln.checkpoint(function(v)
    for _ = 1, times do v = v * v end
    return v
  end, x)
  times = 2
  raises(function() y:sum():backward() end, "checkpoint: the function saved 2 values for backward, and 4 when it was run again")
  local size = 2
  local z = kiln.checkpoint(function(v) return v[{ { 1, size } }]:sin() end, x)
  size = 1
  raises(function() z:sum():backward() end, "saved float64[2] for backward, and float64[1] in its place")
  local fails = false
  local q = kiln.checkpoint(function(v)
    if fails then error "not again" end
    return v:sin()
  end, x)
  fails = true
  raises(function() q:sum():backward() end, "not again")
  equal(x.grad, nil)
  raises(function() kiln.checkpoint(function() error "at once" end, x) end, "at once")
  raises(function() kiln.checkpoint(3) end, "checkpoint: a function is needed")
  ;(x * x):sum():backward() -- the mode is off again
  tensor(x.grad, { 2.0, 4.0 })
end)

-- ---- anomalies ----

test("detect_anomaly names the line that made the bad gradient", function()
  local x = leaf { 0, 1 }
  local line
  local function f()
    local y = x:sqrt() * 0
    line = debug.getinfo(1, "l").currentline - 1
    return y:sum()
  end
  f():backward() -- nan goes unnoticed
  x.grad = nil
  raises(function() kiln.detect_anomaly(function() f():backward() end) end,
    "in the gradient of what was computed at ", "autograd_tape.lua:" .. line .. ": backward of sqrt gave nan for input 1")
  equal(x.grad, nil)
  local y = f()
  raises(function() kiln.detect_anomaly(function() y:backward() end) end, "outside of detect_anomaly", "backward of sqrt gave nan")
  equal(kiln.detect_anomaly(true), false)
  local z = x * 2
  local product = (z * z):sum()
  local at = debug.getinfo(1, "l").currentline - 1
  z:add_(1)
  raises(function() product:backward() end, "autograd_tape.lua:" .. at .. ": backward of mul: input", "changed in place by add_")
  equal(kiln.detect_anomaly(false), true)
  equal(kiln.detect_anomaly(function(...) return select("#", ...), ... end, 1, 2), 2)
end)

-- ---- inference mode ----

test("tensors made in inference mode stay out of gradients", function()
  local x = leaf { 1, 2 }
  local i, v = kiln.inference_mode(function()
    equal({ kiln.is_inference_mode_enabled(), kiln.is_grad_enabled() }, { true, false })
    kiln.enable_grad(function() equal((x * 2).requires_grad, false) end)
    local made = kiln.ones(2, { dtype = "float64" })
    made:add_(1)
    return made, x[{ {} }]
  end)
  equal({ i:is_inference(), x:is_inference(), v:is_inference(), i:clone():is_inference(), i[1]:is_inference() }, { true, false, false, false, true })
  raises(function() return x * i end, here(), "mul: a tensor made in inference mode cannot be saved for backward; clone it")
  equal((x + i).requires_grad, true) -- nothing to save
  equal((x * i:clone()).requires_grad, true)
  raises(function() i:add_(1) end, "add_: a tensor made in inference mode can be changed in place only there; clone it")
  raises(function() i[1] = 0 end, "made in inference mode")
  raises(function() i:requires_grad_() end, "requires_grad: the tensor was made in inference mode")
  kiln.inference_mode(function() i:add_(1) end)
  tensor(i, { 3.0, 3.0 })
  equal(kiln.is_inference_mode_enabled(), false)
  raises(function() kiln.inference_mode(4) end, "inference_mode: a function to call is needed, got an integer")
end)

-- ---- what backward and grad take ----

test("backward into some inputs only", function()
  local x, w = leaf { 1, 2 }, leaf { 3, 4 }
  local y = x * w
  y:sum():backward { inputs = { w } }
  equal(x.grad, nil)
  tensor(w.grad, { 1.0, 2.0 })
  y:sum():backward(nil, { inputs = y, retain_graph = true }) -- no leaf: its grad all the same
  tensor(y.grad, { 1.0, 1.0 })
  equal(x.grad, nil)
  raises(function() y:sum():backward { inputs = kiln.ones(1) } end, "backward: input 1 does not require grad")
  raises(function() y:sum():backward { input = w } end, "backward: there is no option 'input'")
  raises(function() y:sum():backward { inputs = {} } end, "backward: inputs must be 1 to")
  raises(function() kiln.grad(y:sum(), x, { create = true }) end, "grad: there is no option 'create'")
end)

test("gradients of views and expanded tensors", function()
  local x = leaf { 1, 2 }
  x:expand(3, 2):sum():backward()
  tensor(x.grad, { 3.0, 3.0 })
  local y = x * 1
  local v = y:view(2, 1)
  tensor(kiln.grad((v * v):sum(), v), { { 2.0 }, { 4.0 } })
  y:mul_(2) -- v has another history now
  raises(function() kiln.grad((y * 1):sum(), v) end, "grad: input 1 takes no part")
  tensor(kiln.grad((v * 1):sum(), x), { 2.0, 2.0 })
end)

-- ---- kiln.autograd ----

test("jacobian, hessian, jvp, vjp, hvp", function()
  local A = kiln.autograd
  local x, v = kiln.tensor { 1.0, 2.0, 3.0 }, kiln.tensor { 1.0, 0.0, 2.0 }
  local function f(a) return a * a * a:sum() end
  tensor(A.jacobian(f, x), { { 13.0, 1.0, 1.0 }, { 4.0, 28.0, 4.0 }, { 9.0, 9.0, 45.0 } })
  local y, product = A.jvp(f, x, v)
  tensor(y, { 6.0, 24.0, 54.0 })
  tensor(product, { 15.0, 12.0, 99.0 })
  y, product = A.vjp(f, x, v)
  tensor(product, { 31.0, 19.0, 91.0 })
  local function g(a) return (a * a * a):sum() * a[1] end
  tensor(A.hessian(g, x), { { 12.0, 12.0, 27.0 }, { 12.0, 12.0, 0.0 }, { 27.0, 0.0, 18.0 } })
  y, product = A.hvp(g, x, v)
  tensor(y, 36.0)
  tensor(product, { 66.0, 12.0, 63.0 })
  local both = A.jacobian(function(a, b) return a * 2 + b[1] end, { x, kiln.ones(2) })
  tensor(both[2], { { 1.0, 0.0 }, { 1.0, 0.0 }, { 1.0, 0.0 } })
  local blocks = A.hessian(function(a, b) return (a * b):sum() end, { kiln.ones(2), kiln.ones(2) })
  tensor(blocks[1][2], { { 1.0, 0.0 }, { 0.0, 1.0 } })
  tensor(blocks[2][2], { { 0.0, 0.0 }, { 0.0, 0.0 } })
  tensor(A.jacobian(function() return kiln.ones(2) end, kiln.ones(1)), { { 0.0 }, { 0.0 } })
  equal(x.requires_grad, false)
  local p = leaf { 1, 2 }
  local h = A.hessian(function(a) return (a * a * a):sum() end, p, { create_graph = true })
  tensor(kiln.grad(h:sum(), p), { 6.0, 6.0 })
  raises(function() A.jvp(f, x, kiln.ones(2)) end, here(), "jvp: entry 1 of v has the shape [2], not [3]")
  raises(function() A.hessian(f, x) end, "hessian: the function must give one number")
  raises(function() A.vjp(f, 3) end, "vjp: inputs must be a tensor or a list of tensors")
end)

test("in a captured function, what cannot be captured says so", function()
  local w = kiln.ones(2)
  for said, body in pairs {
    ["calls the C function 'tensor.register_hook', which cannot be captured"] = function(x) x:register_hook(print) return x end,
    ["'print' is given to kiln.checkpoint; give it a Lua function that calls that"] = function(x) return kiln.checkpoint(print, x) end,
  } do
    raises(function() return kiln.script(body)(w) end, "autograd_tape.lua:", said)
  end
end)
