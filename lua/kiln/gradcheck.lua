-- kiln.gradcheck(f, inputs [, { eps = 1e-6, atol = 1e-5, rtol = 1e-3 }]): compares the gradients of f with central
-- differences. `inputs` is a tensor or a list; those that require grad are checked and should be float64. f gives one
-- tensor or several; their sum, each weighted element by element, is what is differentiated. Returns true, or raises an
-- error that names the input, the element and both values.
local kiln = require "kiln"
local fail = kiln.fail

-- The weighted sum of the outputs. Weights differ from element to element so that no error cancels out.
local function total(outputs)
  local sum
  for i, y in ipairs(outputs) do
    if kiln.is_tensor(y) and y.dtype:find "float" then
      local n = y:numel()
      local weights = (kiln.arange(1, n + 1, { device = y.device }):double() * (0.7 + i)):sin() + 1.5
      local part = (y:reshape(-1):double() * weights):sum()
      sum = sum and sum + part or part
    end
  end
  return sum or fail("gradcheck: the function gives no floating tensor")
end

local function arguments(name, f, inputs, options)
  if type(f) ~= "function" and not (getmetatable(f) or {}).__call then
    fail("%s: a function is needed, got %s", name, type(f))
  end
  if not kiln.is_tensor(inputs) and type(inputs) ~= "table" then
    fail("%s: a tensor or a list of inputs is needed, got %s", name, type(inputs))
  end
  if options ~= nil and type(options) ~= "table" then fail("%s: options must be a table, got %s", name, type(options)) end
end

return function(f, inputs, options)
  arguments("gradcheck", f, inputs, options)
  options = options or {}
  local eps, atol, rtol = options.eps or 1e-6, options.atol or 1e-5, options.rtol or 1e-3
  if kiln.is_tensor(inputs) then inputs = { inputs } end
  local checked = {}
  for i, x in ipairs(inputs) do
    if kiln.is_tensor(x) and x.requires_grad then
      if x.dtype ~= "float64" then fail("gradcheck: input %d must be float64, not %s", i, x.dtype) end
      checked[#checked + 1] = i
    end
  end
  if #checked == 0 then fail("gradcheck: no input requires grad") end

  local function value() return total(table.pack(f(table.unpack(inputs)))) end
  local wanted = {}
  for k, i in ipairs(checked) do wanted[k] = inputs[i] end
  local first = value()
  if not first.requires_grad then fail("gradcheck: the result of the function does not require grad") end
  local grads = kiln.grad(first, wanted, { allow_unused = true })

  for k, i in ipairs(checked) do
    local x = inputs[i]
    local flat = x:detach():view(-1)
    local grad = grads[k] and grads[k]:reshape(-1) or kiln.zeros(flat:size(1), { dtype = "float64", device = flat.device })
    local function moved(j, value_there) kiln.no_grad(function() flat[j] = value_there end) end
    for j = 1, flat:size(1) do
      local at = flat[j]:item()
      moved(j, at + eps)
      local above = value():item()
      moved(j, at - eps)
      local below = value():item()
      moved(j, at)
      local numeric, analytic = (above - below) / (2 * eps), grad[j]:item()
      if not (math.abs(numeric - analytic) <= atol + rtol * math.abs(numeric)) then
        fail("gradcheck: input %d, element %d: the gradient is %.9g, differences give %.9g", i, j, analytic, numeric)
      end
    end
  end
  return true
end
