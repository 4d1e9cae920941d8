-- Options of models: the names and defaults of the configurations of transformers, checked. What a model's `init` gets.
local kiln = require "kiln"
local fail = kiln.fail

--- The options given over the defaults, as a new table. An unknown one is an error, and so is one of another type.
local function read(name, given, defaults)
  if given ~= nil and type(given) ~= "table" then
    fail("%s: options must be a table such as { vocab_size = 65 }, got %s", name, type(given))
  end
  local out = {}
  for key, value in pairs(defaults) do out[key] = value end
  for key, value in pairs(given or {}) do
    local default = defaults[key]
    if default == nil then
      local known = {}
      for k in pairs(defaults) do known[#known + 1] = k end
      table.sort(known)
      fail("%s: there is no option '%s'; there are %s", name, tostring(key), table.concat(known, ", "))
    end
    local wanted, got = math.type(default) or type(default), math.type(value) or type(value)
    if wanted == "float" and got == "integer" then got = "float" end
    if got ~= wanted then fail("%s: option '%s' must be of type %s, got %s", name, key, wanted, got) end
    if wanted == "integer" and value < 1 then fail("%s: option '%s' must be positive, got %d", name, key, value) end
    out[key] = value
  end
  return out
end

--- The function of an activation by its name in those configurations.
local function activation(name, wanted)
  if wanted == "gelu" then return kiln.gelu end
  if wanted == "gelu_new" or wanted == "gelu_pytorch_tanh" then
    return function(x) return kiln.gelu(x, "tanh") end
  end
  if wanted == "relu" or wanted == "silu" or wanted == "tanh" then return kiln[wanted] end
  fail("%s: there is no activation '%s'; there are gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh", name, tostring(wanted))
end

--- Ids as [batch, length]: a list or a tensor of one dim is a batch of one.
local function ids_of(name, ids)
  if type(ids) == "table" then ids = kiln.tensor(ids) end
  if not kiln.is_tensor(ids) then fail("%s: ids must be a tensor or a list, got %s", name, type(ids)) end
  local rank = ids:dim()
  if rank == 1 then return ids:unsqueeze(1) end
  if rank ~= 2 then fail("%s: ids must have the sizes [batch, length], got %d dims", name, rank) end
  return ids
end

return { read = read, activation = activation, ids_of = ids_of }
