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

-- ---- files ----

local function with_file(bytes, f)
  local path = os.tmpname()
  if bytes then check.write(path, bytes) end
  local ok, why = pcall(f, path)
  os.remove(path)
  if not ok then error(why, 0) end
end

local function safetensors(header, data, size) return string.pack("<I8", size or #header) .. header .. (data or "") end

test("safetensors go there and back", function()
  local all = { ["a.weight"] = kiln.randn(3, 4), ["a.bias"] = kiln.randn(4):to "float64", ids = kiln.tensor { 1, 2, 3 },
    flag = kiln.tensor { true, false, true }, half = kiln.randn(5):half(), ["ü \"q\"\n"] = kiln.tensor(7, { dtype = "uint8" }),
    brain = kiln.randn(2):bfloat16(), none = kiln.zeros(0, 3), turned = kiln.randn(2, 3):t() }
  with_file(nil, function(path)
    kiln.to_safetensors(path, all, { format = "pt", ["\t"] = "é" })
    local back, meta = kiln.from_safetensors(path)
    equal(meta, { format = "pt", ["\t"] = "é" })
    for name, t in pairs(all) do
      equal(back[name].dtype, t.dtype)
      equal(back[name].shape, t.shape)
      check.truth(back[name]:equal(t), name)
    end
    for name in pairs(back) do check.truth(all[name], name) end
    local bytes = check.read(path)
    local n = string.unpack("<I8", bytes)
    equal((n + 8) % 8, 0)
    kiln.to_safetensors(path, all, { ["\t"] = "é", format = "pt" })
    check.truth(check.read(path) == bytes, "the same tensors give the same bytes")
    back["a.weight"]:fill_(1) -- neither the file nor a second reading sees it
    check.truth(kiln.from_safetensors(path)["a.weight"]:equal(all["a.weight"]))
    kiln.to_safetensors(path, back) -- over the file that is mapped
    check.truth(kiln.from_safetensors(path).ids:equal(all.ids))
    check.truth(back.half:equal(all.half))
    local _, no_meta = kiln.from_safetensors(path)
    equal(no_meta, {})
    kiln.to_safetensors(path, {})
    equal(kiln.from_safetensors(path), {})
  end)
end)

test("safetensors of others", function()
  local function read(bytes)
    local out
    with_file(bytes, function(path) out = { kiln.from_safetensors(path) } end)
    return table.unpack(out)
  end
  local header = '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
  check.tensor(read(safetensors(header, string.pack("<ff", 1, 2))).w, { 1.0, 2.0 }, "float32")
  check.tensor(read(safetensors(header .. "  \n\t\r ", string.pack("<ff", 1, 2))).w, { 1.0, 2.0 }) -- padding, odd alignment
  check.tensor(read(safetensors('{"s":{"shape":[],"data_offsets":[0,4],"dtype":"I32"}}', "\5\0\0\0")).s, 5, "int32")
  equal(read(safetensors '{"z":{"dtype":"F32","shape":[2,0],"data_offsets":[0,0]}}').z.shape, { 2, 0 })
  equal(select(2, read(safetensors '{"__metadata__":{"a":"b\\u00e9"}}')), { a = "bé" })
  -- in any order in the header, as long as the data has no holes
  local two = read(safetensors('{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "\1\2"))
  equal(two.a:item() + two.b:item() * 10, 21)
end)

test("safetensors that are not what they say are refused", function()
  local one = '{"w":{"dtype":"%s","shape":%s,"data_offsets":%s}}'
  local f32 = string.pack("<ff", 1, 2)
  local rows = {
    { "", "not a safetensors file: 0 bytes are too few" },
    { string.pack("<I8", 60), "header claims 60 bytes, the file has 0" },
    { "1234567", "7 bytes are too few" },
    { safetensors("{}", "", 100000001), "claims 100000001 bytes" },
    { safetensors("{}", "", math.maxinteger), "claims" },
    { safetensors("{}", "", -1), "claims 18446744073709551615 bytes" },
    { safetensors("{}", "", 3), "the file has 2" },
    { safetensors "{\"\xff\":{}}", "UTF-8" },
    { safetensors "\x80", "does not start with {" },
    { safetensors "[]", "does not start with {" },
    { safetensors "", "does not start with {" },
    { safetensors "{", "is missing" },
    { safetensors "{a}", "is missing" },
    { safetensors(" " .. one:format("F32", "[2]", "[0,8]"), f32), "does not start with {" },
    { safetensors(one:format("F32", "[2]", "[0,8]") .. "x", f32), "follows after the end" },
    { safetensors(one:format("F32", "[2]", "[0,4]"), "1234"), "8 bytes are claimed to be at 0 to 4" },
    { safetensors(one:format("F32", "[2]", "[0,8]"), f32 .. "!"), "1 bytes follow after the last tensor" },
    { safetensors(one:format("F32", "[2]", "[0,8]"), f32:sub(1, 6)), "at 0 to 8 of 6" },
    { safetensors(one:format("F32", "[2]", "[8,0]"), f32), "claimed" },
    { safetensors(one:format("F32", "[2]", "[1,9]"), "x" .. f32), "a hole or tensors overlap" },
    { safetensors('{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', "abcd"), "overlap" },
    { safetensors('{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}', "abcdef"), "overlap" },
    { safetensors('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}', "abcdef"), "hole" },
    { safetensors(one:format("F32", "[2,18446744073709551614]", "[0,16]"), f32 .. f32), "size is too large" },
    { safetensors(one:format("F32", "[4611686018427387904,4]", "[0,0]")), "sizes are too large" },
    { safetensors(one:format("F32", "[9223372036854775807,2]", "[0,8]"), f32), "sizes are too large" },
    { safetensors(one:format("F32", "[18446744073709551616]", "[0,8]"), f32), "number is too large" },
    { safetensors(one:format("F32", "[-2]", "[0,8]"), f32), "whole number is missing" },
    { safetensors(one:format("F32", "[2.0]", "[0,8]"), f32), "not whole" },
    { safetensors(one:format("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), f32), "9 dimensions, more than 8" },
    { safetensors(one:format("F4", "[3]", "[0,2]"), "ab"), "dtype F4 is not supported" },
    { safetensors(one:format("U16", "[4]", "[0,8]"), f32), "dtype U16 is not supported" },
    { safetensors(one:format("BOOL", "[8]", "[0,8]"), "\0\1\2\0\0\0\0\0"), "a bool is neither 0 nor 1" },
    { safetensors('{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', "ab"), "there twice" },
    { safetensors '{"__metadata__":{"a":"b","a":"c"}}', "there twice" },
    { safetensors '{"__metadata__":{},"__metadata__":{}}', "there twice" },
    { safetensors '{"__metadata__":{"a":1}}', "is missing" },
    { safetensors '{"__metadata__":["a"]}', "is missing" },
    { safetensors '{"__metadata__":{"a":null}}', "is missing" },
    { safetensors '{"w":{"dtype":"F32","shape":[2]}}', "data_offsets is missing" },
    { safetensors(('{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}'), f32), "field x is not known" },
    { safetensors(('{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'), f32), "there twice" },
    { safetensors '{"a\\u0000b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "zero byte" },
  }
  for _, row in ipairs(rows) do
    with_file(row[1], function(path) raises(function() kiln.from_safetensors(path) end, "io.lua:", "from_safetensors: " .. path, row[2]) end)
  end
  raises(function() kiln.from_safetensors "/nowhere/x" end, "from_safetensors: cannot open /nowhere/x: No such file")
  raises(function() kiln.from_safetensors "/tmp" end, "not a regular file")
  raises(function() kiln.from_safetensors() end, "a path is needed, got nil")
end)

test("what safetensors cannot hold is refused, and no file is left", function()
  local t = kiln.ones(2)
  with_file("before", function(path)
    local function refused(why, ...)
      local given = table.pack(...)
      raises(function() kiln.to_safetensors(path, table.unpack(given, 1, given.n)) end, "io.lua:", "to_safetensors: " .. why)
    end
    refused("a table of tensors by name is needed after the path, got a tensor", t)
    refused("names of tensors must be strings, got an integer", { t })
    refused("'w' must be a tensor, got a number", { w = 1.5 })
    refused("the name of a tensor is not valid UTF-8, or has a zero byte", { ["\xff"] = t })
    refused("the name of a tensor is not valid UTF-8, or has a zero byte", { ["a\0b"] = t })
    refused("no tensor may be called __metadata__", { ["__metadata__"] = t })
    refused("metadata must be a table of strings, got a string", { w = t }, "pt")
    refused("metadata 'n' must be a string, got an integer", { w = t }, { n = 1 })
    refused("names of metadata must be strings, got an integer", { w = t }, { "pt" })
    refused("metadata must be valid UTF-8 without zero bytes, 'k' is not", { w = t }, { k = "\xc3" })
    equal(check.read(path), "before")
  end)
  raises(function() kiln.to_safetensors("/nowhere/x", { w = t }) end, "to_safetensors: cannot write /nowhere/x")
end)
