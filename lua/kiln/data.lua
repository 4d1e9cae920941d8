-- kiln.data: data sets as tensors. Reads IDX files (the format of MNIST) and cuts batches.
local kiln = require "kiln"
local fail = kiln.fail

local data = {}

-- Element types of the format: bytes, string.unpack code, dtype in kiln.
local kinds = {
  [8] = { 1, "B", "int64" }, [9] = { 1, "b", "int64" }, [11] = { 2, ">i2", "int64" }, [12] = { 4, ">i4", "int64" },
  [13] = { 4, ">f", "float32" }, [14] = { 8, ">d", "float64" },
}

local function unpack_all(bytes, kind, count)
  if kind[2] == "B" then
    local out, at = {}, 1
    while at <= count do -- string.byte gives thousands of values at once
      local last = math.min(at + 4095, count)
      table.move({ bytes:byte(at, last) }, 1, last - at + 1, at, out)
      at = last + 1
    end
    return out
  end
  local out, at = {}, 1
  for i = 1, count do out[i], at = string.unpack(kind[2], bytes, at) end
  return out
end

--- read_idx(path [, { dtype = }]): the tensor in an IDX file. Integers come as int64.
function data.read_idx(path, options)
  local file, why = io.open(path, "rb")
  if not file then fail("read_idx: %s", why) end
  local bytes = file:read "a"
  file:close()
  if #bytes < 4 then fail("read_idx: %s is too short for an IDX file", path) end
  local zero, code, rank = string.unpack(">I2BB", bytes)
  local kind = kinds[code]
  if zero ~= 0 or not kind then fail("read_idx: %s is not an IDX file", path) end
  if rank < 1 or rank > 8 or #bytes < 4 + 4 * rank then fail("read_idx: %s has a damaged header", path) end
  local shape, count = {}, 1
  for i = 1, rank do
    shape[i] = string.unpack(">I4", bytes, 1 + 4 * i)
    count = count * shape[i]
    if count > #bytes then fail("read_idx: %s is cut short: it should hold more than it does", path) end
  end
  local start = 4 + 4 * rank
  if #bytes - start ~= count * kind[1] then
    fail("read_idx: %s should have %d bytes of elements, it has %d", path, count * kind[1], #bytes - start)
  end
  local dtype = options and options.dtype or kind[3]
  return kiln.tensor(unpack_all(bytes:sub(start + 1), kind, count), { dtype = dtype }):reshape(shape)
end

--- batches(size, a, b, … [, { shuffle = true, drop_last = false }]): an iterator over batches of tensors that share their
--- first dimension: `for i, x, y in kiln.data.batches(64, images, labels, { shuffle = true }) do`.
function data.batches(size, ...)
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
      out[i] = order and t:index_select(order[{ { first, last } }], 1) or t[{ { first, last } }]
    end
    return batch, table.unpack(out)
  end, nil, nil
end

--- directory(name): where samples look for data: --data DIR, then $KILN_DATA, then samples/data; the first that has a file
--- of that name.
function data.find(name, given)
  local places = {}
  if given then
    places[1] = given
  else
    places[1] = os.getenv "KILN_DATA"
    local script = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
    places[#places + 1] = script .. "/data"
    places[#places + 1] = "samples/data"
  end
  for _, place in ipairs(places) do
    local file = io.open(place .. "/" .. name, "rb")
    if file then
      file:close()
      return place .. "/" .. name, place
    end
  end
  fail("there is no %s in %s", name, table.concat(places, ", "))
end

return data
