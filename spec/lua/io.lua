-- Bytes and files of others as tensors: buffers, safetensors, archives, images, sound, prefetching.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises

test("buffers of every dtype go there and back, in both byte orders", function()
  for _, dtype in ipairs { "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64" } do
    local t = kiln.tensor({ { 1, 0, 1 }, { 0, 1, 1 } }, { dtype = "int64" }):to(dtype)
    for _, big in ipairs { false, true } do
      local bytes = t:tobytes { big_endian = big }
      local back = kiln.frombuffer(bytes, { dtype = dtype, shape = { 2, 3 }, big_endian = big })
      equal(back.dtype, dtype)
      check.truth(back:equal(t), dtype)
      equal(t:t():tobytes(), t:t():clone():contiguous():tobytes())
    end
  end
  equal(kiln.tensor({ 1, 2 }, { dtype = "int32" }):tobytes(), string.pack("<i4i4", 1, 2))
  equal(kiln.tensor({ 1, -2 }, { dtype = "int16" }):tobytes { big_endian = true }, string.pack(">i2i2", 1, -2))
  equal(kiln.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "uint8" }):t():tobytes(), "\1\3\2\4")
  equal(kiln.zeros(0, 3):tobytes(), "")
  check.tensor(kiln.frombuffer(string.pack("<ff", 1.5, -2)), { 1.5, -2.0 }, "float32")
  check.tensor(kiln.frombuffer("\0\1\2\255", { dtype = "bool" }), { false, true, true, true }, "bool")
  check.tensor(kiln.frombuffer("xxx" .. string.pack(">i4", 258) .. "tail", { dtype = "int32", offset = 3, count = 1, big_endian = true }),
    { 258 }, "int32")
  check.tensor(kiln.frombuffer("ab", { dtype = "uint8", shape = {} , offset = 1 }), 98, "uint8")
  equal(kiln.frombuffer("", { shape = { 0, 7 } }).shape, { 0, 7 })
end)

test("buffers that do not fit are refused", function()
  raises(function() kiln.frombuffer(3) end, "io.lua:", "frombuffer: a string of bytes is needed, got an integer")
  raises(function() kiln.frombuffer "abc" end, "3 bytes are no whole number of float32 elements")
  raises(function() kiln.frombuffer("abcd", { shape = { 2 } }) end, "float32[2] does not fit into the 4 bytes from offset 0 on")
  raises(function() kiln.frombuffer("abcd", { dtype = "uint8", offset = 5 }) end, "offset is 5, but there are 4 bytes")
  raises(function() kiln.frombuffer("abcd", { dtype = "uint8", count = 5 }) end, "uint8[5] does not fit")
  raises(function() kiln.frombuffer("abcd", { shape = { math.maxinteger, math.maxinteger } }) end, "does not fit")
  raises(function() kiln.frombuffer("abcd", { dtype = "uint16" }) end, "there is no dtype 'uint16'")
  raises(function() kiln.frombuffer("abcd", { offset = -1 }) end, "offset must be at least 0, got -1")
  raises(function() kiln.frombuffer("abcd", { shape = { -1 } }) end, "shape must be a table of sizes")
  raises(function() kiln.frombuffer("abcd", { shape = 1 }) end, "shape must be a table of sizes, got an integer")
  raises(function() kiln.frombuffer("abcd", { shape = { 1 }, count = 1 }) end, "not both")
  raises(function() kiln.frombuffer("abcd", { size = 1 }) end, "there is no option 'size'; there are dtype, shape")
  raises(function() kiln.frombuffer("abcd", "uint8") end, "options must be a table, got a string")
  raises(function() kiln.zeros(2):tobytes { order = "big" } end, "there is no option 'order'")
end)
