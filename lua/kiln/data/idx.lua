-- kiln.data.read_idx: IDX files, the format of MNIST, as tensors; packed by gzip or not.
local kiln = require "kiln"
local read_bytes = require("kiln.data.file").read_bytes
local fail = kiln.fail

-- Element types of the format: bytes each, dtype of what lies there, dtype of the result.
local kinds = {
  [8] = { 1, "uint8", "int64" }, [9] = { 1, "int8", "int64" }, [11] = { 2, "int16", "int64" }, [12] = { 4, "int32", "int64" },
  [13] = { 4, "float32", "float32" }, [14] = { 8, "float64", "float64" },
}

--- read_idx(path [, { dtype = }]): the tensor in an IDX file. Integers come as int64 unless another dtype is asked for.
local function read_idx(path, options)
  local bytes = read_bytes(path, "read_idx")
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
  local t = kiln.frombuffer(bytes, { dtype = kind[2], shape = shape, offset = start, big_endian = true })
  return t:to(options and options.dtype or kind[3])
end

return { read_idx = read_idx }
