-- Schedules made of others on the same optimiser: all at once, or one after the other.
local fail = require("kiln").fail

local function check_list(self, list, optimizer)
  local name = self.name
  if type(list) ~= "table" or #list == 0 then fail("%s: a list of schedules is needed, got %s", name, type(list)) end
  for i, s in ipairs(list) do
    if type(s) ~= "table" or type(s.optimizer) ~= "table" or not s.row then
      fail("%s: entry %d must be a schedule, got %s", name, i, type(s))
    end
    if s.name == "ReduceLROnPlateau" then fail("%s: ReduceLROnPlateau steps by a value, so it cannot be a part", name) end
    if s.optimizer ~= (optimizer or list[1].optimizer) then fail("%s: entry %d is of another optimiser", name, i) end
  end
end

-- Which of the parts is on at this epoch.
local function part_at(self, epoch)
  local k = 1
  while self.milestones[k] and self.milestones[k] <= epoch do k = k + 1 end
  return k
end

local function save_parts(self, out)
  out.schedulers = {}
  for i, s in ipairs(self.schedulers) do out.schedulers[i] = s:state_dict() end
  return out
end

local function load_parts(self, dict)
  if type(dict) ~= "table" or type(dict.schedulers) ~= "table" or #dict.schedulers ~= #self.schedulers then
    fail("load_state_dict: what state_dict() of a %s of %d schedules gave is needed", self.name, #self.schedulers)
  end
  for i, s in ipairs(self.schedulers) do s:load_state_dict(dict.schedulers[i]) end
  self.last_epoch = dict.last_epoch
  for i, group in ipairs(self.optimizer.param_groups) do group.lr = dict.last_lr[i] end
  self.last_lr = table.move(dict.last_lr, 1, #dict.last_lr, 1, {})
end

local function save(self)
  local out = { last_epoch = self.last_epoch, last_lr = self:get_last_lr() }
  if self.milestones then out.milestones = table.move(self.milestones, 1, #self.milestones, 1, {}) end
  return save_parts(self, out)
end

return function(define, note)
  --- ChainedScheduler({ s1, s2, … } [, optimizer]): steps all of them, so their factors are multiplied.
  define("ChainedScheduler", {
    arguments = {},
    reads = function(self, list, optimizer)
      check_list(self, list, optimizer)
      return optimizer or list[1].optimizer, list
    end,
    methods = {
      start = note,
      restart = function(self)
        self.last_epoch = 0
        for _, s in ipairs(self.schedulers) do s:restart() end
        note(self)
      end,
      step = function(self)
        self.last_epoch = self.last_epoch + 1
        for _, s in ipairs(self.schedulers) do s:step() end
        note(self)
      end,
      state_dict = save,
      load_state_dict = load_parts,
    },
  })

  --- SequentialLR(optimizer, { s1, s2, … }, { milestone, … }): s1 until the first milestone, there s2 from its epoch 0, …
  define("SequentialLR", {
    arguments = {},
    reads = function(self, optimizer, list, milestones)
      if type(list) == "table" and list.schedulers then list, milestones = list.schedulers, list.milestones end
      if type(optimizer) ~= "table" then fail("SequentialLR: an optimiser is needed, got %s", type(optimizer)) end
      check_list(self, list, optimizer)
      if type(milestones) ~= "table" or #milestones ~= #list - 1 then
        fail("SequentialLR: %d schedules need a list of %d milestones, got %s", #list, #list - 1,
          type(milestones) == "table" and #milestones or type(milestones))
      end
      self.milestones = milestones
      return optimizer, list
    end,
    methods = {
      start = function(self)
        for _, group in ipairs(self.optimizer.param_groups) do group.lr = group.initial_lr end
        self.last_epoch = 0
        self.schedulers[part_at(self, 0)]:start()
        note(self)
      end,
      restart = function(self)
        self.last_epoch = 0
        self.schedulers[part_at(self, 0)]:restart()
        note(self)
      end,
      step = function(self)
        self.last_epoch = self.last_epoch + 1
        local k = part_at(self, self.last_epoch)
        local s = self.schedulers[k]
        if k > 1 and self.milestones[k - 1] == self.last_epoch then s:restart() else s:step() end
        note(self)
      end,
      state_dict = save,
      load_state_dict = load_parts,
    },
  })
end
