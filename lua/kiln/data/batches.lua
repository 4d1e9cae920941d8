-- kiln.data.batches: tensors cut into batches, in one line. DataLoader (loader.lua) does the same of any dataset, and more.
local kiln = require "kiln"
local fail = kiln.fail

--- batches(size, a, b, … [, { shuffle = true, drop_last = false }]): an iterator over batches of tensors that share their
--- first dimension: `for i, x, y in kiln.data.batches(64, images, labels, { shuffle = true }) do`.
local function batches(size, ...)
  local tensors = { ... }
  local options = {}
  if #tensors > 0 and not kiln.is_tensor(tensors[#tensors]) then options = table.remove(tensors) end
  if math.type(size) ~= "integer" or size < 1 then fail("batches: the size must be a positive integer") end
  if #tensors == 0 then fail("batches: no tensors given") end
  local n = #tensors[1]
  for i, t in ipairs(tensors) do
    if #t ~= n then fail("batches: tensor %d has %d entries, the first has %d", i, #t, n) end
  end
  local order = options.shuffle and kiln.randperm(n)
  local count = options.drop_last and n // size or (n + size - 1) // size
  local batch = 0
  return function()
    batch = batch + 1
    if batch > count then return nil end
    local first, last = (batch - 1) * size + 1, math.min(batch * size, n)
    local out = {}
    for i, t in ipairs(tensors) do
      out[i] = order and t:index_select(order[{ { first, last } }]:to(t.device), 1) or t[{ { first, last } }]
    end
    return batch, table.unpack(out)
  end, nil, nil
end

return { batches = batches }
