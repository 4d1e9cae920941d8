-- kiln.gradgradcheck(f, inputs [, options]): gradcheck of the gradients of f, as functions of its inputs and of the
-- gradients that come in. `inputs` and options are those of kiln.gradcheck.
local kiln = require "kiln"
local fail = kiln.fail

local function floating(list)
  local out = {}
  for _, t in ipairs(list) do
    if kiln.is_tensor(t) and t.requires_grad then out[#out + 1] = t end
  end
  return out
end

return function(f, inputs, options)
  if kiln.is_tensor(inputs) then inputs = { inputs } end
  local n, all = #inputs, { table.unpack(inputs) }
  for i, y in ipairs(floating { f(table.unpack(inputs)) }) do
    local k = kiln.arange(1, y:numel() + 1, { device = y.device }):double() * (1.3 + 0.4 * i)
    all[n + i] = (k:sin() + 1.2):reshape(y.shape):to(y.dtype):requires_grad_()
  end
  if #all == n then fail("gradgradcheck: no result of the function requires grad") end
  return kiln.gradcheck(function(...)
    local given = { ... }
    local ys, xs = floating { f(table.unpack(given, 1, n)) }, floating { table.unpack(given, 1, n) }
    local gs = kiln.grad(ys, xs, { grad_outputs = { table.unpack(given, n + 1) }, create_graph = true, allow_unused = true })
    local out = {}
    for i in ipairs(xs) do out[#out + 1] = gs[i] or nil end
    return table.unpack(out)
  end, all, options)
end
