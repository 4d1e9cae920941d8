-- The state of a module as tensors by name, out and in: methods of Module. Names are made in module.lua.
local kiln = require "kiln"
local is_tensor, fail = kiln.is_tensor, kiln.fail

local function shape_text(t) return "[" .. table.concat(t.shape, ", ") .. "]" end

-- All that keeps the tensors of `state` from going into `own`: sentences, and the names that only one side has.
local function compare(own, state)
  local wrong, missing, unexpected = {}, {}, {}
  for name, old in pairs(own) do
    local new = state[name]
    if new == nil then
      missing[#missing + 1] = name
    elseif not is_tensor(new) then
      wrong[#wrong + 1] = name .. " is no tensor"
    elseif shape_text(new) ~= shape_text(old) then
      wrong[#wrong + 1] = ("%s is %s there and %s here"):format(name, shape_text(new), shape_text(old))
    end
  end
  for name in pairs(state) do
    if own[name] == nil then unexpected[#unexpected + 1] = tostring(name) end
  end
  table.sort(wrong)
  table.sort(missing)
  table.sort(unexpected)
  return wrong, missing, unexpected
end

return function(Module, collect)
  --- Parameters and buffers by name: the live tensors. Buffers that do not persist are left out.
  function Module:state_dict()
    local out = {}
    for _, entry in ipairs(collect(self, nil, true)) do
      if entry.kind == "parameter" or entry.module._buffers[entry.key] then out[entry.name] = entry.tensor end
    end
    return out
  end

  --- Copies values in. Names must match on both sides unless { strict = false }; sizes always. Nothing is changed when
  --- something does not fit. Returns two lists: the names that `state` lacks, and those that are not known here.
  function Module:load_state_dict(state, options)
    if type(state) ~= "table" then fail("load_state_dict: a table of tensors by name is needed, got %s", type(state)) end
    if type(options) == "table" then options = options.strict end
    local own = self:state_dict()
    local wrong, missing, unexpected = compare(own, state)
    local problems = {}
    if options ~= false then
      for _, name in ipairs(missing) do problems[#problems + 1] = "missing " .. name end
      for _, name in ipairs(unexpected) do problems[#problems + 1] = "unexpected " .. name end
    end
    table.move(wrong, 1, #wrong, #problems + 1, problems)
    if #problems > 0 then fail("load_state_dict: %s", table.concat(problems, "; ")) end
    kiln.no_grad(function()
      for name, t in pairs(own) do
        if state[name] ~= nil then t:copy_(state[name]) end
      end
    end)
    return missing, unexpected
  end
end
