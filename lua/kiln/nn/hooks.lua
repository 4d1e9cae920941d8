-- Functions that are called before and after the forward of a module, and on the way back: the methods that register them,
-- and the call of a module that has some.
local kiln = require "kiln"
local fail = kiln.fail

-- any: whether a module has ever got one. Calls look at this first, so that captured functions need not watch each module.
local hooks = { methods = {}, any = false }

local Handle = {}
Handle.__index = Handle

--- Takes the hook away again. A second time does nothing.
function Handle:remove()
  local module, list = self.module, {}
  if not module or not rawget(module, "_hooks") then return end
  local all = module._hooks
  for _, f in ipairs(all[self.kind]) do
    if f ~= self.entry then list[#list + 1] = f end
  end
  all[self.kind], self.module = list, nil
  if #all.before + #all.after + #all.back == 0 then module._hooks = nil end
end

local function add(name, kind)
  hooks.methods[name] = function(self, f)
    if type(f) ~= "function" then fail("%s: a function is needed, got %s", name, type(f)) end
    local all = rawget(self, "_hooks") or { before = {}, after = {}, back = {} }
    self._hooks, hooks.any = all, true
    local list, entry = { table.unpack(all[kind]) }, { f = f } -- a list that is being gone through stays as it is
    list[#list + 1] = entry
    all[kind] = list
    return setmetatable({ module = self, kind = kind, entry = entry }, Handle)
  end
end

--- module:register_forward_pre_hook(f): f(module, args) before forward, args being the list of its arguments. What f returns,
--- unless that is nothing, are the arguments instead. Gives a handle with remove().
add("register_forward_pre_hook", "before")

--- module:register_forward_hook(f): f(module, args, result, …) after forward. What f returns, unless that is nothing, are the
--- results instead.
add("register_forward_hook", "after")

--- module:register_full_backward_hook(f): f(module, grad_input, grad_output) when the gradients of the tensors among the
--- arguments are known; two lists, by the places of the arguments and of the results. A list that f returns takes the place
--- of grad_input.
add("register_full_backward_hook", "back")

local function is_wanted(args)
  for i = 1, args.n do
    if kiln.is_tensor(args[i]) and args[i].requires_grad then return true end
  end
  return false
end

-- The same tensors as new results of an op, which calls `back` with the list of their gradients, and goes on with the list
-- that it gives.
local function watched(name, args, back)
  local same = kiln.custom_function {
    name = name,
    forward = function(_, ...)
      local list = table.pack(...)
      for i = 1, list.n do
        if kiln.is_tensor(list[i]) then list[i] = list[i]:detach() end
      end
      return table.unpack(list, 1, list.n)
    end,
    backward = function(_, ...)
      local list = back(table.pack(...))
      return table.unpack(list, 1, args.n)
    end,
  }
  return table.pack(same(table.unpack(args, 1, args.n)))
end

-- Forward between two watched places: what comes back past the results is kept until the arguments' gradients are there.
local function with_way_back(self, list, args)
  local grad_output
  local function run(grad_input)
    for i = 1, #list do
      local other = list[i].f(self, grad_input, grad_output)
      if other ~= nil then
        if type(other) ~= "table" then fail("%s: a backward hook gives a list of gradients, not %s", self.name, type(other)) end
        grad_input = other
      end
    end
    return grad_input
  end
  local inside = is_wanted(args)
  if inside then args = watched(self.name .. ": arguments of a backward hook", args, run) end
  local results = table.pack(self:forward(table.unpack(args, 1, args.n)))
  if not is_wanted(results) then return results end
  return watched(self.name .. ": results of a backward hook", results, function(gradients)
    grad_output = gradients
    if not inside then run {} end
    return gradients
  end)
end

--- What calling a module does when it has hooks.
function hooks.call(self, ...)
  local all, args = self._hooks, table.pack(...)
  local list = all.before
  for i = 1, #list do
    local other = table.pack(list[i].f(self, args))
    if other[1] ~= nil then args = other end
  end
  local results
  if #all.back > 0 and kiln.is_grad_enabled() then
    results = with_way_back(self, all.back, args)
  else
    results = table.pack(self:forward(table.unpack(args, 1, args.n)))
  end
  list = all.after
  for i = 1, #list do
    local other = table.pack(list[i].f(self, args, table.unpack(results, 1, results.n)))
    if other[1] ~= nil then results = other end
  end
  return table.unpack(results, 1, results.n)
end

return hooks
