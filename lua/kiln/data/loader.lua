-- kiln.data.DataLoader: a dataset in batches, in an order that depends on a seed alone, with files read and decoded ahead
-- by threads in C where the dataset asks for that. It remembers where it is, so that a run goes on with the next batch.
local kiln = require "kiln"
local Dataset = require("kiln.data.dataset").Dataset
local collate = require("kiln.data.collate").default_collate
local read_options = require "kiln.data.options"
local fail, is_tensor = kiln.fail, kiln.is_tensor

--- DataLoader(dataset [, { batch_size = 1, shuffle = false, drop_last = false, collate = function, sampler =, workers = 0,
--- prefetch = 2, seed = }]): a dataset in batches: for i, x, y in loader:iter() do … end. A list and a tensor are datasets, too. Each round is
--- an epoch with an order of its own, which depends on seed alone.
local DataLoader = {}
DataLoader.__index = DataLoader

local known = {
  batch_size = { "integer", 1 },
  shuffle = { "boolean", false },
  drop_last = { "boolean", false },
  collate = { "function" },
  sampler = { "function or table or userdata" },
  workers = { "integer", 0 },
  prefetch = { "integer", 2 },
  seed = { "integer" },
}

local function make(_, dataset, options)
  if is_tensor(options) then fail("DataLoader: several tensors are made one dataset by kiln.data.TensorDataset(x, y)") end
  local self = setmetatable(read_options("DataLoader", options, known), DataLoader)
  self.dataset = Dataset.from(dataset, "DataLoader")
  if self.batch_size < 1 then fail("DataLoader: batch_size must be at least 1, got %d", self.batch_size) end
  if self.workers < 0 then fail("DataLoader: workers must not be negative, got %d", self.workers) end
  if self.prefetch < 1 then fail("DataLoader: prefetch must be at least 1, got %d", self.prefetch) end
  if self.sampler and self.shuffle then fail("DataLoader: give shuffle or a sampler, not both") end
  if self.dataset.iterable and (self.shuffle or self.sampler) then
    fail("DataLoader: an IterableDataset comes in its own order, so there is no shuffle and no sampler")
  end
  if not self.seed then self.seed = self.shuffle and kiln.randint(0, 0x7fffffff, { 1 }):item() or 0 end
  self.epoch, self.position = 0, 0
  return self
end

-- ---- order -----------------------------------------------------------------------------------------------------

-- A permutation of a stream of its own: kiln's stream is where it was afterwards.
local function permutation(n, seed, epoch)
  local before = kiln.get_rng_state()
  kiln.manual_seed((seed * 0x9e3779b97f4a7c15 + epoch) & math.maxinteger)
  local ok, order = pcall(kiln.randperm, n)
  kiln.set_rng_state(before)
  if not ok then error(order, 0) end
  return order
end

-- The places of this epoch as a tensor, or nil when they are 1, 2, 3, …; and how many there are.
local function order_of(self)
  local n = self.dataset:len()
  if self.shuffle then return permutation(n, self.seed, self.epoch), n end
  local order = self.sampler
  if not order then return nil, n end
  if type(order) == "function" then order = order(self.epoch) end
  if type(order) == "table" then order = kiln.tensor(order, { dtype = "int64" }) end
  if not is_tensor(order) or order:dim() ~= 1 or order.dtype ~= "int64" then
    fail("DataLoader: a sampler is a list or an int64 tensor of places, or a function of the epoch that gives one")
  end
  return order, #order
end

local function batches_of(self, n)
  return self.drop_last and n // self.batch_size or (n + self.batch_size - 1) // self.batch_size
end

-- ---- examples --------------------------------------------------------------------------------------------------

-- Examples as packed lists of what get gave, made into what the loop gets.
local function finish_batch(self, examples)
  local width = examples[1].n
  if self.collate then
    local list = {}
    for k, example in ipairs(examples) do list[k] = width == 1 and example[1] or example end
    return self.collate(list)
  end
  local out = {}
  for c = 1, width do
    local column = {}
    for k, example in ipairs(examples) do
      if example.n ~= width then
        fail("DataLoader: example %d of the batch is %d values, the first is %d", k, example.n, width)
      end
      column[k] = example[c]
    end
    out[c] = collate(column)
  end
  return table.unpack(out, 1, width)
end

-- Gives a function that makes the example at a place of the order, from first on to last, each once and in that order.
local function one_by_one(self, place)
  return function(k) return table.pack(self.dataset:get(place(k))) end
end

-- As one_by_one, with jobs given to threads in C so many examples ahead. Only reading and decoding is done there; what
-- draws random numbers happens in `finish`, here and in order, so the number of workers changes nothing.
local function read_ahead(self, place, first, last, reader)
  local dataset, ahead = self.dataset, self.prefetch * self.batch_size
  local asked, with_job = first - 1, {}
  local function ask(upto)
    while asked < upto do
      asked = asked + 1
      local job = dataset:request(place(asked))
      with_job[asked] = job ~= nil
      if job ~= nil and not reader:push(job) then fail("DataLoader: more was asked for ahead than there is room for") end
    end
  end
  return function(k)
    ask(math.min(k + ahead, last))
    local i, had = place(k), with_job[k]
    with_job[k] = nil
    if not had then return table.pack(dataset:get(i)) end
    local decoded, why = reader:pop()
    if decoded == nil then
      local name = dataset.describe and dataset:describe(i) or ""
      if not why:find(name, 1, true) then why = name .. ": " .. why end
      fail("DataLoader: example %d: %s", i, why)
    end
    return table.pack(dataset:finish(i, decoded))
  end
end

-- ---- iteration -------------------------------------------------------------------------------------------------

-- Ends what threads still do for a loop that has ended or was left.
local closing = { __close = function(self) self.stop() end }

-- batch(k) gives the k-th batch of a dataset with places, or nothing; stop ends reading ahead.
local function by_place(self)
  local order, n = order_of(self)
  local count, size = batches_of(self, n), self.batch_size
  local dataset = self.dataset
  if dataset.rows and not self.collate then
    return function(k)
      if k > count then return nil end
      local range = { (k - 1) * size + 1, math.min(k * size, n) }
      return dataset:rows(order and order[{ range }] or range)
    end, function() end
  end
  local list = order and order:totable()
  local function place(k) return list and list[k] or k end
  local last = math.min(n, count * size)
  local reader = self.workers > 0 and dataset.request
    and kiln.prefetcher { workers = self.workers, depth = (self.prefetch + 1) * size }
  local example = reader and read_ahead(self, place, self.position * size + 1, last, reader) or one_by_one(self, place)
  return function(k)
    if k > count then return nil end
    local examples = {}
    for at = (k - 1) * size + 1, math.min(k * size, n) do examples[#examples + 1] = example(at) end
    return finish_batch(self, examples)
  end, function()
    if reader then reader:close() end
    reader = nil
  end
end

-- The same for one that gives examples one after the other: those of batches that were given before are passed over.
local function one_after_the_other(self)
  local next_example = self.dataset:iter()
  if type(next_example) ~= "function" then fail("DataLoader: iter of an IterableDataset must give a function") end
  for _ = 1, self.position * self.batch_size do next_example() end
  local ended = false
  return function()
    local examples = {}
    while #examples < self.batch_size and not ended do
      local example = table.pack(next_example())
      if example[1] == nil then ended = true else examples[#examples + 1] = example end
    end
    if #examples == 0 or self.drop_last and #examples < self.batch_size then return nil end
    return finish_batch(self, examples)
  end, function() end
end

--- One epoch: `for i, x, y in loader:iter() do`, or `in loader() do`. i is the number of the batch in its epoch; the others
--- are what the dataset gives, of a whole batch, or what collate makes of it. After load_state_dict it goes on where that
--- was.
function DataLoader:iter()
  if self.resumed then
    self.resumed = nil
  elseif self.position > 0 then -- the last loop was left
    self.epoch, self.position = self.epoch + 1, 0
  end
  local batch, stop = (self.dataset.iterable and one_after_the_other or by_place)(self)
  local at, mine = self.position, {}
  self.mine = mine
  local function give(...)
    if ... == nil then
      stop()
      batch = nil
      if self.mine == mine then self.epoch, self.position = self.epoch + 1, 0 end
      return nil
    end
    if self.mine == mine then self.position = at end
    return at, ...
  end
  return function()
    if not batch then return nil end
    at = at + 1
    return give(batch(at))
  end, nil, nil, setmetatable({ stop = stop }, closing)
end

-- loader() is loader:iter(); `for … in loader do` would call it once for each round.
function DataLoader:__call(...)
  if select("#", ...) > 0 then fail("DataLoader: call iter where a loop begins: for i, x, y in loader:iter() do") end
  return self:iter()
end

--- How many batches an epoch has; `#loader` too.
function DataLoader:len()
  local sampler = self.sampler
  if type(sampler) == "function" then sampler = sampler(self.epoch) end
  return batches_of(self, sampler and #sampler or self.dataset:len())
end
DataLoader.__len = DataLoader.len

-- ---- state -----------------------------------------------------------------------------------------------------

--- Where it is, as plain numbers: epochs that are over, batches of this one that were given, the seed of the order.
function DataLoader:state_dict()
  return { epoch = self.epoch, position = self.position, seed = self.seed, batch_size = self.batch_size }
end

--- The next loop gives the batch after the last one that was given then.
function DataLoader:load_state_dict(state)
  local names = { "epoch", "position", "seed", "batch_size" }
  if type(state) ~= "table" then fail("load_state_dict: what state_dict() gave is needed, got %s", type(state)) end
  for _, name in ipairs(names) do
    if math.type(state[name]) ~= "integer" then fail("load_state_dict: %s of a DataLoader must be an integer", name) end
  end
  if state.epoch < 0 or state.position < 0 then fail("load_state_dict: epoch and position must not be negative") end
  if state.batch_size ~= self.batch_size then
    fail("load_state_dict: that DataLoader gave batches of %d, this one gives batches of %d", state.batch_size, self.batch_size)
  end
  self.epoch, self.position, self.seed, self.resumed = state.epoch, state.position, state.seed, true
end

return { DataLoader = setmetatable({}, { __call = make, __index = DataLoader }) }
