-- g:grad{ inputs = {1, …}, memory = BYTES, value = true }: a Graph that takes what g takes and gives the gradient of g's
-- first result, a tensor of one element, for each of these arguments (the floating tensors among them when none are
-- named), nil for one that takes no part; behind g's own result when `value` is set. With `memory` loops keep no more
-- than so many bytes.
local kiln = require "kiln"
local fail = kiln.fail

local known = { inputs = "table", memory = "number", value = "boolean" }

local function check(options)
  if type(options) ~= "table" then fail("grad: options must be a table, got %s", type(options)) end
  for key, value in pairs(options) do
    if not known[key] then fail("grad: there is no option '%s'; there are inputs, memory, value", tostring(key)) end
    if type(value) ~= known[key] then fail("grad: option '%s' must be a %s, got %s", key, known[key], type(value)) end
  end
  for i, position in ipairs(options.inputs or {}) do
    if math.type(position) ~= "integer" or position < 1 then
      fail("grad: entry %d of inputs must be the position of an argument, got %s", i, tostring(position))
    end
  end
end

local floating = { float32 = true, float64 = true, float16 = true, bfloat16 = true }
local function differentiable(x) return kiln.is_tensor(x) and floating[x.dtype] end

return function(f, options)
  options = options or {}
  check(options)
  local named, memory, value = options.inputs, options.memory, options.value
  return kiln.script(function(...)
    local args, n, which, xs = { ... }, select("#", ...), named, {}
    if not which then
      which = {}
      for i = 1, n do
        if differentiable(args[i]) then which[#which + 1] = i end
      end
    end
    for k, i in ipairs(which) do
      if not differentiable(args[i]) then error("grad: argument " .. i .. " is no floating tensor", 0) end
      xs[k] = args[i]:detach():requires_grad_()
      args[i] = xs[k]
    end
    local y = f(table.unpack(args, 1, n))
    local gs = kiln.grad(y, xs, { allow_unused = true, memory = memory })
    local out = {}
    for k = 1, #xs do out[k] = gs[k] or nil end
    if value then return y:detach(), table.unpack(out, 1, #xs) end
    return table.unpack(out, 1, #xs)
  end)
end
