-- kiln.data: what holds examples. A Dataset knows how many there are and gives the i-th; an IterableDataset only gives
-- them one after the other. No batches here: those are the business of loader.lua.
local kiln = require "kiln"
local fail, is_tensor = kiln.fail, kiln.is_tensor

-- ---- the classes -----------------------------------------------------------------------------------------------

local function construct(class, ...)
  local self = setmetatable({}, class)
  self:init(...)
  return self
end

local function length(self) return self:len() end

local function base(name)
  local class = { name = name }
  class.__index = class
  --- A new class, as of nn.Module: `local Mine = kiln.data.Dataset:extend("Mine")`. Calling it makes one; `init` gets the
  --- arguments.
  function class:extend(own)
    if type(self) ~= "table" then fail("extend: a class is needed in front of the colon, as in Dataset:extend(\"Mine\")") end
    local sub = { name = own or self.name, __len = length }
    sub.__index = sub
    return setmetatable(sub, { __index = self, __call = construct })
  end
  function class:init() end
  return setmetatable(class, { __call = construct })
end

--- Dataset: `len()` says how many examples there are (so does `#`), `get(i)` gives the i-th, from 1 on: a value or several.
--- One that can give many at once, for whole batches, has `rows(indices)` too: it gets a tensor of places or, for examples
--- that follow each other, `{ first, last }`, and gives as many tensors as `get` gives values. One that reads files has
--- `request(i)`, a job for kiln.prefetcher or nothing, and `finish(i, decoded)`, which makes of the job's result what
--- `get(i)` gives; `describe(i)` may name an example for messages.
local Dataset = base "Dataset"
function Dataset:len() fail("%s: a Dataset needs a function len", self.name) end
function Dataset:get() fail("%s: a Dataset needs a function get", self.name) end
Dataset.__len = length

--- IterableDataset: `iter()` gives a function that gives the next example each time it is called, and nil at the end.
local IterableDataset = base "IterableDataset"
IterableDataset.iterable = true
function IterableDataset:iter() fail("%s: an IterableDataset needs a function iter", self.name) end
function IterableDataset:len() fail("%s: how many examples an IterableDataset gives is not known", self.name) end

local function check_place(self, i)
  local n = self:len()
  if math.type(i) ~= "integer" then fail("%s: the place of an example must be an integer, got %s", self.name, type(i)) end
  if i < 1 or i > n then fail("%s: there is no example %d of %d", self.name, i, n) end
end

-- A dataset, or a tensor or a plain list of examples made into one.
local List = Dataset:extend "List"
function List:init(list) self.list = list end
function List:len() return #self.list end
function List:get(i)
  check_place(self, i)
  return self.list[i]
end

local TensorDataset

local function as_dataset(value, where)
  if is_tensor(value) then return TensorDataset(value) end
  if type(value) ~= "table" then fail("%s: a dataset is needed, got %s", where, type(value)) end
  if value.get or value.iterable then return value end
  if getmetatable(value) == nil and #value > 0 then return List(value) end
  fail("%s: a dataset is needed: a table with functions len and get, or a list of examples", where)
end

-- For the other files.
Dataset.from = as_dataset

-- ---- tensors ---------------------------------------------------------------------------------------------------

--- TensorDataset(a, b, …): example i is a[i], b[i], …; the tensors have the same size in their first dimension.
TensorDataset = Dataset:extend "TensorDataset"
function TensorDataset:init(...)
  local tensors = { ... }
  if select("#", ...) == 0 then fail("TensorDataset: no tensors given") end
  for i = 1, select("#", ...) do
    local t = tensors[i]
    if not is_tensor(t) then fail("TensorDataset: argument %d must be a tensor, got %s", i, type(t)) end
    if t:dim() == 0 then fail("TensorDataset: tensor %d has no dimensions, so no examples", i) end
    if #t ~= #tensors[1] then fail("TensorDataset: tensor %d has %d examples, the first has %d", i, #t, #tensors[1]) end
  end
  self.tensors = tensors
end
function TensorDataset:len() return #self.tensors[1] end
function TensorDataset:get(i)
  check_place(self, i)
  local out = {}
  for k, t in ipairs(self.tensors) do out[k] = t[i] end
  return table.unpack(out)
end
function TensorDataset:rows(indices)
  local out = {}
  for k, t in ipairs(self.tensors) do
    if is_tensor(indices) then out[k] = t:index_select(indices:to(t.device), 1) else out[k] = t[{ indices }] end
  end
  return table.unpack(out)
end

-- ---- of other datasets -----------------------------------------------------------------------------------------

-- Places of examples as a list and as a tensor.
local function places(indices, n, where)
  local list = is_tensor(indices) and indices:totable() or indices
  if type(list) ~= "table" then fail("%s: a list of places or a tensor of them is needed, got %s", where, type(list)) end
  for k, i in ipairs(list) do
    if math.type(i) ~= "integer" then fail("%s: place %d must be an integer, got %s", where, k, type(i)) end
    if i < 1 or i > n then fail("%s: place %d is %d, but there are %d examples", where, k, i, n) end
  end
  return list
end

--- Subset(dataset, indices): some examples of another dataset, in the order of the places given.
local Subset = Dataset:extend "Subset"
function Subset:init(dataset, indices)
  self.dataset = as_dataset(dataset, "Subset")
  self.indices = places(indices, self.dataset:len(), "Subset")
  if self.dataset.rows then self.rows = Subset.rows_of end
  if self.dataset.request then self.request, self.finish = Subset.request_of, Subset.finish_of end
end
function Subset:len() return #self.indices end
function Subset:get(i)
  check_place(self, i)
  return self.dataset:get(self.indices[i])
end
function Subset:rows_of(indices)
  self.places = self.places or kiln.tensor(self.indices, { dtype = "int64" })
  if is_tensor(indices) then return self.dataset:rows(self.places:index_select(indices, 1)) end
  return self.dataset:rows(self.places[{ indices }])
end
function Subset:request_of(i) return self.dataset:request(self.indices[i]) end
function Subset:finish_of(i, decoded) return self.dataset:finish(self.indices[i], decoded) end

--- ConcatDataset{ a, b, … }: the examples of all of them, one dataset after the other.
local ConcatDataset = Dataset:extend "ConcatDataset"
function ConcatDataset:init(list)
  if type(list) ~= "table" or #list == 0 then fail("ConcatDataset: a list of datasets is needed") end
  self.datasets, self.starts, self.count = {}, {}, 0
  local ahead = false
  for k, dataset in ipairs(list) do
    self.datasets[k] = as_dataset(dataset, "ConcatDataset")
    if self.datasets[k].iterable then fail("ConcatDataset: dataset %d is iterable: it has no places", k) end
    self.starts[k] = self.count
    self.count = self.count + self.datasets[k]:len()
    ahead = ahead or self.datasets[k].request ~= nil
  end
  if ahead then self.request, self.finish = ConcatDataset.request_of, ConcatDataset.finish_of end
end
function ConcatDataset:len() return self.count end
-- The dataset that holds example i, and its place there.
function ConcatDataset:where(i)
  check_place(self, i)
  for k = #self.starts, 1, -1 do
    if i > self.starts[k] then return self.datasets[k], i - self.starts[k] end
  end
end
function ConcatDataset:get(i)
  local dataset, place = self:where(i)
  return dataset:get(place)
end
function ConcatDataset:request_of(i)
  local dataset, place = self:where(i)
  if dataset.request then return dataset:request(place) end
end
function ConcatDataset:finish_of(i, decoded)
  local dataset, place = self:where(i)
  return dataset:finish(place, decoded)
end

-- How many examples each part gets: counts, or shares that add up to 1 (what is left over goes to the first ones).
local function part_sizes(lengths, n)
  if type(lengths) ~= "table" or #lengths == 0 then fail("random_split: a list of lengths or of shares is needed") end
  local sizes, sum, shares = {}, 0, false
  for k, size in ipairs(lengths) do
    if type(size) ~= "number" or size < 0 then fail("random_split: length %d must be a number from 0 on", k) end
    shares = shares or math.type(size) == "float"
    sum = sum + size
  end
  if shares then
    if math.abs(sum - 1) > 1e-6 then fail("random_split: shares must add up to 1, these add up to %g", sum) end
    sum = 0
    for k, share in ipairs(lengths) do
      sizes[k] = math.floor(n * share + 1e-9)
      sum = sum + sizes[k]
    end
    for k = 1, n - sum do sizes[(k - 1) % #sizes + 1] = sizes[(k - 1) % #sizes + 1] + 1 end
    return sizes
  end
  if sum ~= n then fail("random_split: the lengths add up to %d, but there are %d examples", sum, n) end
  return lengths
end

--- random_split(dataset, lengths): Subsets of those lengths, or of those shares (floats that add up to 1), of examples in an
--- order that kiln's stream of random numbers gives: `local train, test = kiln.data.random_split(all, { 0.8, 0.2 })`.
local function random_split(dataset, lengths)
  dataset = as_dataset(dataset, "random_split")
  local sizes = part_sizes(lengths, dataset:len())
  local order, at, parts = kiln.randperm(dataset:len()):totable(), 0, {}
  for k, size in ipairs(sizes) do
    parts[k] = Subset(dataset, table.move(order, at + 1, at + size, 1, {}))
    at = at + size
  end
  return table.unpack(parts)
end

return {
  Dataset = Dataset,
  IterableDataset = IterableDataset,
  TensorDataset = TensorDataset,
  Subset = Subset,
  ConcatDataset = ConcatDataset,
  random_split = random_split,
}
