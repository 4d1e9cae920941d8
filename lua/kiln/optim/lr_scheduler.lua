-- kiln.optim.lr_scheduler: learning rates that change with the epoch (or the step: whatever step() is called after). This file
-- is what schedules share: arguments, the first rate, state. The schedules are in the folder.
local kiln = require "kiln"
local fail = kiln.fail

local Scheduler = {}
local schedulers = {}

-- ---- arguments -------------------------------------------------------------------------------------------------

local function is_options(value)
  if type(value) ~= "table" or getmetatable(value) then return false end
  local key = next(value)
  return key == nil or type(key) == "string"
end

local function names_of(wanted)
  local names = {}
  for i, w in ipairs(wanted) do names[i] = w[1] end
  return table.concat(names, ", ")
end

local function check_kind(name, want, value)
  for kind in want[2]:gmatch "%a+" do
    if type(value) == kind or kind == "integer" and math.type(value) == "integer" then return end
  end
  fail("%s: %s must be a %s, got %s", name, want[1], want[2]:gsub("?", ""):gsub("|", " or "), type(value))
end

-- By place, by name in a table at the end, or both. `wanted`: { name, kind, default }; a kind with "?" may be missing.
local function arguments(name, wanted, ...)
  local n, given, by_name = select("#", ...), {}, {}
  if n > 0 and is_options((select(n, ...))) then
    by_name, n = select(n, ...), n - 1
  end
  if n > #wanted then fail("%s: at most %d arguments after the optimiser, got %d", name, #wanted, n) end
  for i = 1, n do given[wanted[i][1]] = (select(i, ...)) end
  local known = {}
  for _, w in ipairs(wanted) do known[w[1]] = true end
  for key, value in pairs(by_name) do
    if not known[key] then fail("%s: there is no option '%s'; there are %s", name, tostring(key), names_of(wanted)) end
    if given[key] ~= nil then fail("%s: %s is given twice", name, key) end
    given[key] = value
  end
  for _, want in ipairs(wanted) do
    local key = want[1]
    if given[key] == nil then given[key] = want[3] end
    if given[key] == nil then
      if not want[2]:find("?", 1, true) then fail("%s: %s is needed", name, key) end
    else
      check_kind(name, want, given[key])
    end
  end
  return given
end

-- ---- what all have ---------------------------------------------------------------------------------------------

--- One number for each group of parameters: the number itself, or a list of them.
function Scheduler:by_group(what, value)
  local n, list = #self.optimizer.param_groups, {}
  if type(value) == "table" and #value ~= n then
    fail("%s: %s has %d entries, the optimiser %d groups", self.name, what, #value, n)
  end
  for i = 1, n do
    list[i] = type(value) == "table" and value[i] or value
    if type(value) == "table" and type(list[i]) ~= "number" and type(list[i]) ~= "function" then
      fail("%s: %s must hold numbers, got %s", self.name, what, type(list[i]))
    end
  end
  return list
end

local function note(self)
  if not self.last_lr then self.last_lr = {} end -- and the same table from then on: a captured step may write numbers to it
  for i, group in ipairs(self.optimizer.param_groups) do self.last_lr[i] = group.lr end
end

-- Sets the rate of each group to rate(current, base, number of the group).
local function set(self, rate)
  local groups = self.optimizer.param_groups
  if #groups ~= #self.base_lrs then
    fail("%s: the optimiser has %d groups, and had %d when this was made", self.name, #groups, #self.base_lrs)
  end
  local new = {}
  for i, group in ipairs(groups) do
    new[i] = rate(self, group.lr, self.base_lrs[i], i)
    if type(new[i]) ~= "number" then fail("%s: the rate must be a number, got %s", self.name, type(new[i])) end
  end
  for i, group in ipairs(groups) do group.lr = new[i] + 0.0 end
  note(self)
end

local function current_rate(_, current) return current end

--- The rates of epoch 0.
function Scheduler:start()
  self.last_epoch = 0
  set(self, self.row.start or current_rate)
end

--- Epoch 0 once more, from the rates the optimiser was made with.
function Scheduler:restart()
  self.last_epoch = 0
  local row = self.row
  local start = row.start or current_rate
  set(self, row.restart or function(s, _, base, i) return start(s, base, base, i) end)
end

function Scheduler:step()
  self.last_epoch = self.last_epoch + 1
  local ok, why = pcall(set, self, self.row.rate)
  if ok then return end
  self.last_epoch = self.last_epoch - 1
  error(why, 0)
end

--- The rates set last, one for each group.
function Scheduler:get_last_lr() return table.move(self.last_lr, 1, #self.last_lr, 1, {}) end

-- Functions are left out, and lists that hold them.
local function plain(value)
  if type(value) == "function" then return nil end
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do
    out[k] = plain(v)
    if out[k] == nil then return nil end
  end
  return out
end

local function kept(self)
  local keys = { "last_epoch", "base_lrs", "last_lr" }
  for _, want in ipairs(self.row.arguments) do keys[#keys + 1] = want[1] end
  for _, key in ipairs(self.row.state or {}) do keys[#keys + 1] = key end
  return keys
end

--- Plain data: what was given (functions aside), and how far it has come.
function Scheduler:state_dict()
  local out = {}
  for _, key in ipairs(kept(self)) do out[key] = plain(self[key]) end
  return out
end

--- Takes it up, and sets the rates that were set last. (A schedule sets rates when it is made: load the optimiser after that.)
function Scheduler:load_state_dict(dict)
  if type(dict) ~= "table" or type(dict.last_lr) ~= "table" or type(dict.last_epoch) ~= "number" then
    fail("load_state_dict: what state_dict() of a %s gave is needed", self.name)
  end
  local groups = self.optimizer.param_groups
  if #dict.last_lr ~= #groups then
    fail("load_state_dict: it holds rates of %d groups, the optimiser has %d", #dict.last_lr, #groups)
  end
  for _, key in ipairs(kept(self)) do
    if dict[key] ~= nil then self[key] = plain(dict[key]) end
  end
  if self.row.closed then return set(self, self.row.rate) end
  for i, group in ipairs(groups) do group.lr = dict.last_lr[i] end
end

-- ---- making one ------------------------------------------------------------------------------------------------

-- row: arguments, rate(self, current, base, group number) after step(); start: the same for epoch 0 (the rate as it is);
-- restart: for epoch 0 once more; closed: rate needs the epoch only; init(self): checks and what follows from the arguments; state: further fields to keep;
-- methods: in place of those above.
local function define(name, row)
  local class = {}
  for key, method in pairs(Scheduler) do class[key] = method end
  for key, method in pairs(row.methods or {}) do class[key] = method end
  class.__index = class
  schedulers[name] = function(optimizer, ...)
    local self = setmetatable({ name = name, row = row, last_epoch = 0, base_lrs = {} }, class)
    if row.reads then optimizer, self.schedulers = row.reads(self, optimizer, ...) end
    if type(optimizer) ~= "table" or type(optimizer.param_groups) ~= "table" then
      fail("%s: an optimiser is needed, got %s", name, type(optimizer))
    end
    self.optimizer = optimizer
    local given = row.reads and {} or arguments(name, row.arguments, ...)
    for key, value in pairs(given) do self[key] = value end
    if row.init then row.init(self) end
    for i, group in ipairs(optimizer.param_groups) do
      group.initial_lr = group.initial_lr or group.lr
      self.base_lrs[i] = self.base_lrs[i] or group.initial_lr
    end
    self:start()
    return self
  end
end

for _, part in ipairs { "decay", "cosine", "cycle", "plateau", "combined" } do
  require("kiln.optim.lr_scheduler." .. part)(define, note)
end

return schedulers
