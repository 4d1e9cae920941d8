-- Modules that hold others, and parameters, in lists and by name: Sequential, ModuleList, ModuleDict, ParameterList,
-- ParameterDict. Entries are plain fields: list[1], dict.name.
local kiln = require "kiln"
local module = require "kiln.nn.module"
local Module, Parameter, is_module, module_of, fail = module.Module, module.Parameter, module.is_module, module.module_of, kiln.fail

-- Also one that was read from a file, whose weights are its own.
local function is_graph(value)
  if type(value) ~= "userdata" or kiln.is_tensor(value) then return false end
  local meta = getmetatable(value)
  return type(meta) == "table" and meta.__name == "Graph"
end

-- ---- lists -----------------------------------------------------------------------------------------------------

-- What `class` may hold: gives the entry, or says what is wrong with it.
local function checked(class, what, entry)
  if class.holds == "parameters" then
    if not kiln.is_tensor(entry) then fail("%s: %s must be a tensor, got %s", class.name, what, type(entry)) end
    return module.is_parameter(entry) and entry or Parameter(entry)
  end
  if module_of(entry) or class.holds == "functions too" and (type(entry) == "function" or is_graph(entry)) then return entry end
  if is_graph(entry) then fail("%s: %s must be a module, got a Graph of a function", class.name, what) end
  if type(entry) == "table" and rawget(entry, "__index") and entry.forward then
    fail("%s: %s must be a module, got the class %s: call it to make one, %s()", class.name, what, entry.name, entry.name)
  end
  fail("%s: %s must be a module, got %s", class.name, what, kiln.is_tensor(entry) and "tensor" or type(entry))
end

local List = Module:extend "List"

local function check_list(self, list)
  if type(list) ~= "table" or is_module(list) and not list.holds then
    fail("%s: a list of %s is needed, got %s", self.name, self.holds == "parameters" and "tensors" or "modules", type(list))
  end
  local out = {}
  for i, entry in ipairs(list) do out[i] = checked(self, "entry " .. i, entry) end
  return out
end

function List:init(list) self:extend_with(list or {}) end

function List:append(entry)
  self[#self + 1] = checked(self, "the entry", entry)
  return self
end

--- insert(i, entry): entry i, those from there on move up.
function List:insert(i, entry)
  if math.type(i) ~= "integer" or i < 1 or i > #self + 1 then
    fail("%s: the place must be a number from 1 to %d, got %s", self.name, #self + 1, tostring(i))
  end
  table.insert(self, i, checked(self, "the entry", entry))
  return self
end

--- Appends all entries of a list.
function List:extend_with(list)
  table.move(check_list(self, list), 1, #list, #self + 1, self)
  return self
end

--- Takes entry i (the last) out and gives it.
function List:pop(i)
  if #self == 0 then fail("%s: it is empty", self.name) end
  if i ~= nil and (math.type(i) ~= "integer" or i < 1 or i > #self) then
    fail("%s: the place must be a number from 1 to %d, got %s", self.name, #self, tostring(i))
  end
  return table.remove(self, i)
end

--- slice(first [, last]): a list of its own with the same entries, both ends included; negative places count from the end.
function List:slice(first, last)
  local n = #self
  first, last = first or 1, last or n
  if math.type(first) ~= "integer" or math.type(last) ~= "integer" then fail("%s: slice takes two places", self.name) end
  if first < 0 then first = n + 1 + first end
  if last < 0 then last = n + 1 + last end
  local out = setmetatable({ training = self.training }, getmetatable(self))
  table.move(self, math.max(first, 1), math.min(last, n), 1, out)
  return out
end

-- extend(list) of an instance; of a class it makes a class, as everywhere.
local function list_class(name, holds)
  local class = List:extend(name)
  class.holds = holds
  function class:extend(other)
    if rawget(self, "__index") then return Module.extend(self, other) end
    return self:extend_with(other)
  end
  return class
end

--- Sequential(a, b, …) or Sequential{ a, b, … }: one after the other. Entries may be plain functions and Graphs, too.
local Sequential = list_class("Sequential", "functions too")
function Sequential:init(first, ...)
  local list, count = { first, ... }, select("#", ...) + 1
  if count == 1 and (first == nil or type(first) == "table" and not is_module(first) and not rawget(first, "__index")) then
    return self:extend_with(first or {})
  end
  for i = 1, count do
    if list[i] == nil then fail("Sequential: entry %d is nil", i) end
  end
  self:extend_with(list)
end
function Sequential:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

--- ModuleList{ a, b, … }: modules in a list, for code that calls them itself.
local ModuleList = list_class("ModuleList", "modules")

--- ParameterList{ a, b, … }: tensors, which become parameters.
local ParameterList = list_class("ParameterList", "parameters")

-- ---- by name ---------------------------------------------------------------------------------------------------

local Dict = Module:extend "Dict"

local function check_name(self, name)
  if type(name) ~= "string" or name == "" or name:find("%.") then
    fail("%s: a name is a string without points, got %s", self.name, tostring(name))
  end
  if self[name] ~= nil and rawget(self, name) == nil or name == "training" or name:sub(1, 1) == "_" then
    fail("%s: the name '%s' is taken", self.name, name)
  end
end

local function is_entry(self, name)
  local value = rawget(self, name)
  return name ~= "training" and (module_of(value) ~= nil or self.holds == "parameters" and kiln.is_tensor(value))
end

function Dict:init(entries) self:update(entries or {}) end

--- Sets the entries of a table.
function Dict:update(entries)
  if type(entries) ~= "table" then fail("%s: a table by name is needed, got %s", self.name, type(entries)) end
  local new = {}
  for name, entry in pairs(entries) do
    if not (entries.holds and not is_entry(entries, name)) then
      check_name(self, name)
      new[name] = checked(self, "'" .. name .. "'", entry)
    end
  end
  for name, entry in pairs(new) do self[name] = entry end
  return self
end

--- The names, in order.
function Dict:keys()
  local list = {}
  for name in next, self do
    if is_entry(self, name) then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

function Dict:values()
  local list = self:keys()
  for i, name in ipairs(list) do list[i] = rawget(self, name) end
  return list
end

--- `for name, entry in dict:items() do`, in the order of the names.
function Dict:items()
  local list, i = self:keys(), 0
  return function()
    i = i + 1
    if list[i] then return list[i], rawget(self, list[i]) end
  end
end

function Dict:contains(name) return is_entry(self, name) end

--- Takes an entry out and gives it.
function Dict:pop(name)
  if not is_entry(self, name) then fail("%s: there is no '%s'", self.name, tostring(name)) end
  local entry = rawget(self, name)
  self[name] = nil
  return entry
end

function Dict:clear()
  for _, name in ipairs(self:keys()) do self[name] = nil end
end

--- ModuleDict{ name = module, … }
local ModuleDict = Dict:extend "ModuleDict"
ModuleDict.holds = "modules"

--- ParameterDict{ name = tensor, … }: tensors, which become parameters.
local ParameterDict = Dict:extend "ParameterDict"
ParameterDict.holds = "parameters"

return {
  Sequential = Sequential,
  ModuleList = ModuleList,
  ModuleDict = ModuleDict,
  ParameterList = ParameterList,
  ParameterDict = ParameterDict,
}
