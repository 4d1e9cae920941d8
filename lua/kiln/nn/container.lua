-- Modules that hold others: Sequential, ModuleList.
local kiln = require "kiln"
local module = require "kiln.nn.module"
local Module, is_module, fail = module.Module, module.is_module, kiln.fail

local function fill_list(self, name, list, callable)
  if type(list) ~= "table" then fail("%s: a list of modules is needed, got %s", name, type(list)) end
  for i, part in ipairs(list) do
    if not is_module(part) and not (callable and type(part) == "function") then
      fail("%s: entry %d must be a module, got %s", name, i, type(part))
    end
    self[i] = part
  end
end

--- Sequential(a, b, …) or Sequential{ a, b, … }: one after the other. Entries may be plain functions too.
local Sequential = Module:extend "Sequential"
function Sequential:init(first, ...)
  local list = { first, ... }
  if select("#", ...) == 0 and type(first) == "table" and not is_module(first) then list = first end
  fill_list(self, "Sequential", list, true)
end
function Sequential:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

--- ModuleList{ a, b, … }: modules in a list, for code that calls them itself.
local ModuleList = Module:extend "ModuleList"
function ModuleList:init(list) fill_list(self, "ModuleList", list or {}) end
function ModuleList:append(part)
  if not is_module(part) then fail("ModuleList: a module is needed, got %s", type(part)) end
  self[#self + 1] = part
  return self
end

return { Sequential = Sequential, ModuleList = ModuleList }
