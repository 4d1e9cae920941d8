-- kiln.trace(f, inputs [, {check_inputs =, strict =, rtol =, atol =, warn =}]): runs f once, and a graph of the ops it did. What f decides in Lua is decided then: where
-- tensor data becomes a Lua value a warning names the line. Tensors from outside are found again by their place (a field,
-- an upvalue) at every call; what f does to them in place, or puts in their place, the graph does too.
local kiln = require "kiln"
local fail, tracer = kiln.fail, kiln.tracer

local MOST = 20000 -- objects looked at for names

-- Everything that f can reach: the list of tensors with their places, numbers and sizes of tables, to see what changes.
local function look(f)
  local found, seen, count = { tensors = {}, plain = {}, tables = {} }, {}, 0
  for _, library in pairs(package.loaded) do seen[library] = true end
  seen[_G] = nil
  local function visit(value, name, container, key)
    local kind = type(value)
    if kiln.is_tensor(value) then
      if not seen[value] then
        seen[value] = true
        found.tensors[#found.tensors + 1] = { tensor = value, name = name, container = container, key = key }
      end
    elseif kind == "number" or kind == "boolean" or kind == "string" then
      found.plain[#found.plain + 1] = { value = value, name = name, container = container, key = key }
    elseif (kind == "table" or kind == "function") and not seen[value] and count < MOST then
      seen[value], count = true, count + 1
      if kind == "function" then
        local i = 1
        while true do
          local n, v = tracer.upvalue(value, i)
          if not n then break end
          visit(v, n == "_ENV" and "" or n ~= "" and n or name .. ".up" .. i, value, i)
          i = i + 1
        end
        return
      end
      local size = 0
      for k, v in next, value do
        local path = name == "" and tostring(k) or name .. "." .. tostring(k)
        if value ~= _G or not seen[v] then visit(v, path, value, k) end
        size = size + 1
      end
      found.tables[#found.tables + 1] = { table = value, name = name, size = size }
      local meta = tracer.metatable(value)
      if meta then visit(meta, name, nil, nil) end
    end
  end
  if type(f) == "table" then visit(f, "self") else visit(f, "f") end
  return found
end

local function now(place)
  if type(place.container) == "function" then
    local _, value = tracer.upvalue(place.container, place.key)
    return value
  end
  return place.container and rawget(place.container, place.key)
end

-- What f left changed: tensors in other places' stead become state of the graph; the rest is told.
local function changes(run, found, warn)
  for i, place in ipairs(found.tensors) do
    local value = place.container and now(place)
    if place.container and not rawequal(value, place.tensor) then
      if kiln.is_tensor(value) then
        place.replace = tracer.replaced(run, i, value)
      else
        warn(("'%s' was a tensor and is none after the run: a graph does not repeat that"):format(place.name))
      end
    end
  end
  for _, place in ipairs(found.plain) do
    local value = place.container and now(place)
    if place.container and not rawequal(value, place.value) then
      warn(("'%s' changed from %s to %s: a graph does not repeat that; keep it in a tensor, or use kiln.script"):format(place.name,
        tostring(place.value), tostring(value)))
    end
  end
  for _, t in ipairs(found.tables) do
    local size = 0
    for _ in next, t.table do size = size + 1 end
    if t.table ~= _G and size ~= t.size then
      warn(("'%s' has %d entries after the run, %d before: a graph does not repeat that; run the function once before "
        .. "it is traced"):format(t.name, size, t.size))
    end
  end
end

-- Another input of the same types: floats somewhat larger, of the other sign where `sign` is -1, the rest as it is.
local function perturbed(value, seen, sign)
  if kiln.is_tensor(value) then
    local d = value.dtype
    if not d:find "float" then return value:clone() end
    return kiln.no_grad(function()
      local n = value:numel()
      local wave = kiln.arange(n, { dtype = "float64", device = value.device }):mul(1.7):sin():mul(0.1)
      return (value:reshape { n }:to "float64" * ((wave + 1) * sign) + wave * 0.1):reshape(value.shape):to(d)
    end)
  elseif type(value) == "table" and not getmetatable(value) then
    if seen[value] then return seen[value] end
    local copy = {}
    seen[value] = copy
    for k, v in next, value do copy[k] = perturbed(v, seen, sign) end
    return copy
  end
  return value
end

local options = { check_inputs = "table", strict = "boolean", rtol = "number", atol = "number", warn = "function" }

local function read(f, inputs, opts)
  local meta = getmetatable(f)
  if type(f) ~= "function" and not (type(f) == "table" and meta and meta.__call) then
    fail("trace: a function or module is needed, got %s", kiln.is_tensor(f) and "a tensor" or "a " .. type(f))
  end
  if kiln.is_tensor(inputs) then inputs = { inputs } end
  if type(inputs) ~= "table" then fail("trace: inputs must be a table of arguments, got %s", type(inputs)) end
  if opts ~= nil and type(opts) ~= "table" then fail("trace: options must be a table, got %s", type(opts)) end
  for key, value in pairs(opts or {}) do
    if not options[key] then
      fail("trace: there is no option '%s'; there are check_inputs, strict, rtol, atol, warn", tostring(key))
    end
    if type(value) ~= options[key] and not (key == "check_inputs" and value == false) then
      fail("trace: %s must be a %s, got %s", key, options[key], type(value))
    end
  end
  return inputs, opts or {}
end

local function check(g, inputs, opts, warn)
  local lists = opts.check_inputs
  if lists == false then return end
  if lists == nil then
    -- Loops that go on a condition may never end on quite another input.
    local gentle = tostring(g):find(" = loop (", 1, true)
    local other = perturbed(inputs, {}, gentle and 1 or -1)
    lists = { inputs, other }
    other.n = inputs.n
  end
  for i, list in ipairs(lists) do
    if kiln.is_tensor(list) then list = { list } end
    if type(list) ~= "table" then fail("trace: check_inputs[%d] must be a table of arguments, got %s", i, type(list)) end
    local n = list.n or #list
    list = table.move(list, 1, n, 1, {})
    if opts.rtol or opts.atol then
      n = n + 1
      list[n] = { rtol = opts.rtol, atol = opts.atol }
    end
    local ok, why = pcall(tracer.limited, g.verify, g, table.unpack(list, 1, n))
    if not ok then
      local set = opts.check_inputs and ("check_inputs[%d]"):format(i) or i == 1 and "the inputs" or "the inputs perturbed"
      warn(("with %s the graph does not do what the function does: %s"):format(set, tostring(why)))
    end
  end
end

return function(f, inputs, opts)
  inputs, opts = read(f, inputs, opts)
  local here, warnings = tracer.where(), {}
  local function warn(text)
    if opts.strict then error(here .. "trace: " .. text, 0) end
    warnings[#warnings + 1] = here .. text
  end
  local found = look(f)
  local run = tracer.run(f, inputs, inputs.n or #inputs, found.tensors, warnings, opts.strict or false)
  changes(run, found, warn)
  local g = tracer.finish(run, f, found.tensors)
  local random = kiln.get_rng_state()
  check(g, inputs, opts, warn)
  kiln.set_rng_state(random)
  for _, text in ipairs(warnings) do
    if opts.warn then opts.warn(text) else tracer.log("trace: " .. text) end
  end
  return g
end
