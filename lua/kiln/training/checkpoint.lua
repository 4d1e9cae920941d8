-- kiln.training.save_checkpoint and load_checkpoint: the state of a run in one safetensors file, written beside the old one and
-- then put in its place. Tensors are the file's tensors, all else is JSON text in its metadata: nothing in it is run.
local kiln = require "kiln"
local plain = require "kiln.training.plain"
local fail, no_grad = kiln.fail, kiln.no_grad

local FORMAT, VERSION = "kiln.checkpoint", "1"
local checkpoint = {}

local function check(op, path, parts)
  if type(path) ~= "string" then fail("%s: a path is needed, got %s", op, type(path)) end
  if type(parts) ~= "table" then fail("%s: a table such as { model = net, epoch = 3 } is needed, got %s", op, type(parts)) end
  if kiln.nn.is_module(parts) then fail("%s: a table such as { model = net, epoch = 3 } is needed, got a module", op) end
  for name in pairs(parts) do
    if type(name) ~= "string" then fail("%s: names must be strings, got %s", op, type(name)) end
  end
end

-- Has it a state of its own?
local function is_part(value)
  return type(value) == "table" and type(value.state_dict) == "function" and type(value.load_state_dict) == "function"
end

--- save_checkpoint(path, { model = net, optimizer = opt, scheduler = s, loader = l, epoch = 3, … }): what has a state_dict is
--- saved by it, the rest must be plain data and tensors. The state of kiln's random stream goes with it.
function checkpoint.save(path, parts)
  check("save_checkpoint", path, parts)
  local tree, tensors = {}, {}
  for name, value in pairs(parts) do
    if is_part(value) then value = value:state_dict() end
    tree[name] = value
  end
  local text = plain.encode(tree, tensors, "save_checkpoint")
  for name, t in pairs(tensors) do tensors[name] = t:detach() end
  local random = plain.encode(kiln.get_rng_state(), {}, "save_checkpoint")
  kiln.to_safetensors(path, tensors, { format = FORMAT, version = VERSION, state = text, random = random })
end

local function read(path)
  local tensors, metadata = kiln.from_safetensors(path)
  metadata = metadata or {}
  if metadata.format ~= FORMAT or not metadata.state or not metadata.random then
    fail("load_checkpoint: %s is no checkpoint", path)
  end
  if metadata.version ~= VERSION then
    fail("load_checkpoint: %s has version %s, this reads version %s", path, tostring(metadata.version), VERSION)
  end
  return plain.decode(metadata.state, tensors, path), plain.decode(metadata.random, tensors, path)
end

-- Schedules set an optimiser's rates, so it comes after them; modules, whose values are overwritten, come last.
local function rank(part)
  if kiln.nn.is_module(part) then return 3 end
  return part.param_groups and 2 or 1
end

local function copy(value)
  if kiln.is_tensor(value) then return value:detach():clone() end
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = copy(v) end
  return out
end

-- Loads all parts, or none: those that are loaded get back what they had.
local function load_all(names, parts, tree)
  local done = {}
  for i, name in ipairs(names) do
    local part = parts[name]
    local before = i < #names and no_grad(copy, part:state_dict()) or nil
    local ok, why = pcall(part.load_state_dict, part, tree[name])
    if not ok then
      for k = 1, #done do parts[names[k]]:load_state_dict(done[k]) end
      fail("load_checkpoint: %s: %s", name, (tostring(why):gsub("^[^\n]-:%d+: ", "")))
    end
    done[i] = before
  end
end

--- load_checkpoint(path [, { model = net, optimizer = opt, … }]): puts these as they were, and the random stream; gives a table
--- of everything else in the file by name. Nothing is changed when something does not fit.
function checkpoint.load(path, parts)
  parts = parts or {}
  check("load_checkpoint", path, parts)
  local tree, random = read(path)
  local names = {}
  for name, part in pairs(parts) do
    if not is_part(part) then fail("load_checkpoint: %s must have state_dict and load_state_dict, got %s", name, type(part)) end
    if type(tree[name]) ~= "table" then
      local there = {}
      for key in pairs(tree) do there[#there + 1] = key end
      table.sort(there)
      fail("load_checkpoint: %s holds no state of %s; there are %s", path, name, table.concat(there, ", "))
    end
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    local x, y = rank(parts[a]), rank(parts[b])
    if x ~= y then return x < y end
    return a < b
  end)
  load_all(names, parts, tree)
  if next(parts) ~= nil then kiln.set_rng_state(random) end
  for name in pairs(parts) do tree[name] = nil end
  return tree
end

return checkpoint
