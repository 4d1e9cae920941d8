-- Replays spec/golden/opinfo.txt: PyTorch's own sample inputs, as calls of kiln. Values, dtypes, sizes and gradients must
-- be PyTorch's; then the same again with inputs that are not contiguous. spec/golden/opinfo.py tells how it is written.
local check = require "check"
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local golden = os.getenv "KILN_SOURCE" and os.getenv "KILN_SOURCE" .. "/spec/golden/" or here .. "/../golden/"

local KINDS = {
  f = "float64", s = "float32", l = "int64", n = "int32", h = "int16", y = "int8", u = "uint8", b = "bool", e = "float16",
  z = "bfloat16",
}
local SPECIAL = { inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 }
local ROUGH = { float32 = 1e-5, float16 = 2e-3, bfloat16 = 2e-2 } -- relative; the others have the case's tolerance

local function numbers(text)
  local list, n = {}, 0
  for word in text:gmatch "%S+" do
    n = n + 1
    list[n] = SPECIAL[word] or tonumber(word)
  end
  return list
end

--- "f 2,3 values"
local function record(text)
  local kind, sizes, rest = text:match "^(%a) (%S+) ?(.*)$"
  local dims = {}
  for size in sizes:gmatch "%d+" do dims[#dims + 1] = tonumber(size) end
  return { dtype = KINDS[kind:lower()], grad = kind ~= kind:lower(), dims = dims, values = numbers(rest) }
end

local function make(values, dims, dtype)
  if dtype == "bool" then
    local flags = {}
    for i, v in ipairs(values) do flags[i] = v ~= 0 end
    values = flags
  end
  return kiln.tensor(values, { dtype = dtype }):reshape(dims)
end

--- The same tensor with other strides: every second element of a longer one.
local function spread(t) return kiln.stack({ t, t }, t:dim() + 1):select(t:dim() + 1, 2) end

local function flatten(list, out)
  for i = 1, list.n or #list do
    local v = list[i]
    if type(v) == "table" then flatten(v, out) else out[#out + 1] = v end
  end
  return out
end

local function sizes(dims) return "[" .. table.concat(dims, ",") .. "]" end

local function compare(what, got, want, tolerance)
  if want.scalar then got = kiln.tensor(got, { dtype = "float64" }) end
  if not kiln.is_tensor(got) then error(("%s is %s, no tensor"):format(what, tostring(got)), 0) end
  local dtype = want.scalar and "float64" or want.dtype
  if got.dtype ~= dtype or sizes(got.shape) ~= sizes(want.dims) then
    error(("%s is %s%s, wanted %s%s"):format(what, got.dtype, sizes(got.shape), dtype, sizes(want.dims)), 0)
  end
  local list, relative = got:detach():reshape(-1):totable(), ROUGH[dtype] or tolerance
  for i, w in ipairs(want.values) do
    local g = list[i]
    if g == true then g = 1 elseif g == false then g = 0 end
    local same = g == w or g ~= g and w ~= w or math.abs(g - w) <= relative * math.max(1, math.abs(w))
    if not same then error(("%s: element %d is %.12g, wanted %.12g"):format(what, i, g, w), 0) end
  end
end

local function cotangent(t, j)
  local w = {}
  for k = 0, t:numel() - 1 do w[k + 1] = ((7 * (k + 3 * j)) % 11 - 5) / 4 + 0.1 end
  return kiln.tensor(w, { dtype = t.dtype }):reshape(t.shape)
end

--- Those of several results.
local function pick(which, ...)
  local out = {}
  for i, n in ipairs(which) do out[i] = (select(n, ...)) end
  return out
end

--- What is a method only, as a function.
local function method(name)
  return function(x, ...)
    local f = x[name]
    if f == nil then error("there is no function or method " .. name, 0) end
    return f(x, ...)
  end
end

local function environment(inputs)
  local env = { inf = math.huge, nan = 0 / 0, F = kiln.nn.functional, pick = pick }
  for i, t in ipairs(inputs) do env["x" .. i] = t end
  return setmetatable(env, { __index = function(_, name) return kiln[name] or method(name) end })
end

local function run(case, change)
  local inputs = {}
  for i, r in ipairs(case.inputs) do
    inputs[i] = change(make(r.values, r.dims, r.dtype))
    if r.grad then inputs[i]:requires_grad_() end
  end
  local f = assert(load("return " .. case.call, "call", "t", environment(inputs)))
  local results = flatten(table.pack(f()), {})
  if #results ~= #case.results then error(("%d results, wanted %d"):format(#results, #case.results), 0) end
  for i, want in ipairs(case.results) do compare("result " .. i, results[i], want, case.tolerance) end
  if not next(case.grads) then return end
  local heads, weights, wants, at = {}, {}, {}, {}
  for j, r in ipairs(results) do
    if kiln.is_tensor(r) and r.requires_grad then
      heads[#heads + 1], weights[#weights + 1] = r, cotangent(r, j - 1)
    end
  end
  for n in pairs(case.grads) do
    wants[#wants + 1], at[#at + 1] = inputs[n], n
  end
  if #heads == 0 then error("no result requires grad", 0) end
  local grads = table.pack(kiln.grad(heads, wants, { grad_outputs = weights, allow_unused = true }))
  if type(grads[1]) == "table" then grads = grads[1] end
  for k, n in ipairs(at) do
    local x = inputs[n]
    local want = { dtype = x.dtype, dims = x.shape, values = case.grads[n] }
    compare("gradient " .. n, grads[k] or kiln.zeros_like(x), want, case.tolerance)
  end
end

local function read(path)
  local ops, op, case = {}, nil, nil
  for line in io.lines(path) do
    local tag, text = line:sub(1, 1), line:sub(3)
    if line:sub(1, 3) == "op " then
      op = { name = line:sub(4) }
      ops[#ops + 1] = op
    elseif tag == "c" then
      local call, tolerance = text:match "^(.*) @ (%S+)$"
      case = { call = call or text, tolerance = tonumber(tolerance or 1e-9), inputs = {}, results = {}, grads = {} }
      op[#op + 1] = case
    elseif tag == "i" then
      case.inputs[#case.inputs + 1] = record(text)
    elseif tag == "o" then
      case.results[#case.results + 1] = record(text:gsub("^v", "f"))
      case.results[#case.results].scalar = text:sub(1, 1) == "v"
    elseif tag == "g" then
      local n, rest = text:match "^(%d+) ?(.*)$"
      case.grads[tonumber(n)] = numbers(rest)
    end
  end
  return ops
end

local only, all = os.getenv "OPINFO", os.getenv "OPINFO_ALL"
for _, op in ipairs(read(golden .. "opinfo.txt")) do
  if not only or op.name:find(only) then
    check.test(op.name, function()
      local faults = {}
      for i, case in ipairs(op) do
        local ok, why = pcall(run, case, function(t) return t end)
        if ok then
          ok, why = pcall(run, case, spread)
          if not ok then why = "not contiguous: " .. tostring(why) end
        end
        if not ok then
          local types = {}
          for k, r in ipairs(case.inputs) do types[k] = r.dtype .. sizes(r.dims) end
          faults[#faults + 1] = ("sample %d, %s with %s: %s"):format(i, case.call, table.concat(types, " "), tostring(why))
        end
      end
      if #faults > 0 then
        error(("%d of %d samples differ; %s"):format(#faults, #op, all and table.concat(faults, "\n  ") or faults[1]), 0)
      end
    end)
  end
end
