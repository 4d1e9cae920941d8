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

-- ---- bytes, archives, .npz ----

test("files are written whole and read back, packed or not", function()
  with_file("before", function(path)
    kiln.io.write_file(path, "ab\0c")
    equal(kiln.io.read_file(path), "ab\0c")
    kiln.io.write_file(path, kiln.tensor({ 1, 2, 255 }, { dtype = "uint8" }))
    equal(kiln.io.read_file(path), "\1\2\255")
    kiln.io.write_file(path, "")
    equal(kiln.io.read_file(path), "")
    raises(function() kiln.io.read_file(path, { max_bytes = 0 }) end, "max_bytes must be at least 1")
    raises(function() kiln.io.write_file(path, 1) end, "write_file: a string of bytes (or a uint8 tensor) is needed, got an integer")
    raises(function() kiln.io.write_file(path, kiln.ones(2)) end, "a string or a contiguous uint8 tensor")
  end)
  raises(function() kiln.io.read_file "/nowhere/x" end, "io.lua:", "read_file: /nowhere/x: No such file or directory")
  raises(function() kiln.io.write_file("/nowhere/x", "a") end, "write_file: /nowhere/x: No such file or directory")
  raises(function() kiln.io.read_file "/tmp" end, "not a regular file")
  raises(function() kiln.io.read_file() end, "a path is needed, got nil")
end)

-- gzip of stored blocks, made by hand: checksum and all.
local function crc32(s)
  local crc = 0xffffffff
  for i = 1, #s do
    crc = crc ~ s:byte(i)
    for _ = 1, 8 do crc = (crc >> 1) ~ (crc & 1 == 1 and 0xedb88320 or 0) end
  end
  return crc ~ 0xffffffff
end

local function gzip(s)
  return "\31\139\8\0\0\0\0\0\0\3\1" .. string.pack("<I2I2", #s, #s ~ 0xffff) .. s .. string.pack("<I4I4", crc32(s), #s)
end

test("gzip is unpacked by its content, and checked", function()
  local function read(bytes, options)
    local out
    with_file(bytes, function(path) out = kiln.io.read_file(path, options) end)
    return out
  end
  equal(read(gzip "hello"), "hello")
  equal(read(gzip ""), "")
  equal(read(gzip "one " .. gzip "two"), "one two") -- members after each other
  equal(read(gzip "hello" .. "\0\0\0\0"), "hello") -- padding
  equal(read(gzip "hello", { raw = true }), gzip "hello")
  equal(read(gzip(("x"):rep(60000)), { max_bytes = 60100 }), ("x"):rep(60000))
  raises(function() read(gzip(("x"):rep(200)):sub(1, -9) .. "\0\0\0\0\0\0\0\0") end, "the gzip data is damaged: incorrect data check")
  raises(function() read(gzip "hello":sub(1, -5) .. "\9\0\0\0") end, "incorrect length check")
  raises(function() read("\31\139\8\0\0\0\0\0\0\3\7") end, "damaged")
  -- a small file that unpacks to much: a run of 258 zeros, again and again
  local bomb = gzip(("\0"):rep(65000)) .. gzip(("\0"):rep(65000))
  raises(function() read(bomb, { max_bytes = #bomb - 10 }) end, "more than the limit")
  raises(function() read(bomb:rep(3), { max_bytes = 200000 }) end, "more than the limit")
  local good = gzip "hello"
  for cut = 3, #good - 1 do
    raises(function() read(good:sub(1, cut)) end, "the gzip data ends too early")
  end
end)

local function tar(entries)
  local out = {}
  for _, e in ipairs(entries) do
    local head = string.pack("c100c8c8c8c12c12", e[1], "0000644\0", "0000000\0", "0000000\0", ("%011o\0"):format(e.size or #e[2]), "00000000000\0")
      .. "        " .. (e.type or "0") .. string.pack("c100", e.link or "") .. "ustar\0" .. "00" .. ("\0"):rep(247)
    local sum = 0
    for i = 1, 512 do sum = sum + head:byte(i) end
    head = head:sub(1, 148) .. ("%06o\0 "):format(sum) .. head:sub(157)
    out[#out + 1] = head .. e[2] .. ("\0"):rep(-#e[2] % 512)
  end
  return table.concat(out) .. ("\0"):rep(1024)
end

local function entries_of(bytes, options)
  local out = {}
  with_file(bytes, function(path)
    for name, content in kiln.io.archive(path, options) do out[#out + 1] = { name, content } end
  end)
  return out
end

test("archives are gone through entry by entry", function()
  local files = { { "a.txt", "AAA" }, { "dir/b", ("b"):rep(2000) }, { "empty", "" } }
  local bytes = tar(files)
  equal(entries_of(bytes), files)
  equal(entries_of(gzip(bytes)), files)
  local odd = tar { { "dir/", "", type = "5" }, { "../up", "kept as text" }, { "link", "", type = "2", link = "/etc/passwd" },
    { "hard", "", type = "1", link = "../up" }, { "/absolute", "x" }, { "dev", "", type = "3" } }
  equal(entries_of(odd), { { "../up", "kept as text" }, { "/absolute", "x" } }) -- files alone, names as they are
  equal(#entries_of(bytes, { max_entry = 2000, max_total = 2003, max_entries = 3 }), 3)
  raises(function() entries_of(bytes, { max_entry = 1999 }) end, "archive: ", "entry dir/b has more bytes than the limit leaves, which is 1999")
  raises(function() entries_of(bytes, { max_total = 2002 }) end, "entry dir/b has more bytes than the limit leaves, which is 1999")
  raises(function() entries_of(bytes, { max_entries = 2 }) end, "more entries than the limit of 2")
  raises(function() entries_of "this is no archive at all" end, "Unrecognized archive format")
  raises(function() entries_of(bytes:sub(1, 1600)) end, "archive: ", "runcated")
  raises(function() kiln.io.archive "/nowhere/x" end, "archive: /nowhere/x: ", "/nowhere/x")
  raises(function() kiln.io.archive("/tmp", { most = 1 }) end, "there is no option 'most'")
  with_file(bytes, function(path) -- left early, and used after its end
    for _ in kiln.io.archive(path) do break end
    local next_one = kiln.io.archive(path)
    for _ = 1, 3 do check.truth(next_one()) end
    equal(next_one(), nil)
    raises(next_one, "archive: it has come to its end")
  end)
end)

test(".npz go there and back", function()
  local all = { a = kiln.randn(3, 4), ["b.c/d"] = kiln.tensor { 1, 2 }, ["ü"] = kiln.zeros(0, 2):bool(), s = kiln.tensor(2.5),
    turned = kiln.randn(2, 3):t(), half = kiln.randn(70):half() }
  with_file(nil, function(path)
    kiln.to_npz(path, all)
    local back, count = kiln.from_npz(path), 0
    for name, t in pairs(back) do
      count = count + 1
      equal(t.dtype, all[name].dtype)
      equal(t.shape, all[name].shape)
      check.truth(t:equal(all[name]), name)
    end
    equal(count, 6)
    local bytes = check.read(path)
    kiln.to_npz(path, all)
    check.truth(check.read(path) == bytes, "the same arrays give the same bytes")
    raises(function() kiln.to_npz(path, { w = kiln.ones(2):bfloat16() }) end, "to_npz: " .. path, "array w: the .npy format has no bfloat16")
    raises(function() kiln.to_npz(path, { kiln.ones(2) }) end, "names of arrays must be strings, got an integer")
    raises(function() kiln.to_npz(path, { w = 1 }) end, "'w' must be a tensor, got an integer")
    raises(function() kiln.to_npz(path, { [("w"):rep(600)] = kiln.ones(2) }) end, "names of arrays have 1 to")
    raises(function() kiln.to_npz(path, kiln.ones(2)) end, "a table of tensors by name is needed")
    check.truth(check.read(path) == bytes, "refused files leave what was there")
    -- every byte of the contents matters: a flipped one is found by the checksum of its entry
    local at = bytes:find("NUMPY", 1, true) + 140
    check.write(path, bytes:sub(1, at) .. string.char(bytes:byte(at + 1) ~ 1) .. bytes:sub(at + 2))
    raises(function() kiln.from_npz(path) end, "from_npz: " .. path, "CRC")
    check.write(path, bytes:sub(1, #bytes // 2))
    raises(function() kiln.from_npz(path) end, "from_npz: " .. path)
  end)
  with_file(tar { { "x.txt", "no array" } }, function(path)
    raises(function() kiln.from_npz(path) end, "entry x.txt is no .npy file: this is no .npz file")
  end)
  local object = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
  with_file(tar { { "o.npy", "\x93NUMPY\1\0" .. string.pack("<s2", object) .. "pickle" } }, function(path)
    raises(function() kiln.from_npz(path) end, "array o: arrays of Python objects are not supported")
  end)
  local one = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }\n"
  local array = "\x93NUMPY\1\0" .. string.pack("<s2", one) .. "\5"
  with_file(tar { { "o.npy", array }, { "o.npy", array } }, function(path)
    raises(function() kiln.from_npz(path) end, "array o is there twice")
  end)
  raises(function() kiln.to_npz("/nowhere/x", {}) end, "to_npz: /nowhere/x: No such file or directory")
  raises(function() kiln.from_npz(1) end, "from_npz: a path is needed, got an integer")
end)

-- ---- pictures ----

--- Every value once along the rows, so that planes that are exchanged are seen.
local function picture(channels, height, width)
  return (kiln.arange(channels * height * width):reshape(channels, height, width) * 7 % 256):to "uint8"
end

test("pictures go there and back without loss", function()
  for channels = 1, 4 do
    for _, size in ipairs { { 1, 1 }, { 5, 3 }, { 16, 33 } } do
      local t = picture(channels, size[1], size[2])
      for _, level in ipairs { 0, 9 } do
        check.truth(kiln.io.decode_image(kiln.io.encode_png(t, { compression_level = level })):equal(t))
      end
      if channels % 2 == 1 then check.truth(kiln.io.decode_image(kiln.io.encode_ppm(t)):equal(t)) end
    end
  end
  local t = picture(3, 6, 8)
  check.truth(kiln.io.decode_image(kiln.io.encode_png(t:transpose(2, 3))):equal(t:transpose(2, 3))) -- not contiguous
  check.truth(kiln.io.decode_image(kiln.io.encode_png(t[1])):equal(t[{ { 1, 1 } }])) -- [height, width]
  local bytes = kiln.io.encode_png(t)
  check.truth(kiln.io.decode_image(kiln.frombuffer(bytes, { dtype = "uint8" })):equal(t)) -- a tensor of bytes
end)

test("pictures in the mode asked for", function()
  local rgb = kiln.tensor({ { { 255, 10, 0 } }, { { 0, 20, 0 } }, { { 0, 30, 9 } } }, { dtype = "uint8" })
  local grey = kiln.tensor({ { { 76, 18, 1 } } }, { dtype = "uint8" })
  local opaque = kiln.full({ 1, 1, 3 }, 255, { dtype = "uint8" })
  local bytes = kiln.io.encode_png(rgb)
  check.truth(kiln.io.decode_image(bytes, "UNCHANGED"):equal(rgb))
  check.truth(kiln.io.decode_image(bytes, "RGB"):equal(rgb))
  check.tensor(kiln.io.decode_image(bytes, "GRAY"), grey:totable(), "uint8")
  check.truth(kiln.io.decode_image(bytes, { mode = "GRAY_ALPHA" }):equal(kiln.cat { grey, opaque }))
  check.truth(kiln.io.decode_image(bytes, "RGB_ALPHA"):equal(kiln.cat { rgb, opaque }))
  local alpha = kiln.tensor({ { { 1, 2, 3 } } }, { dtype = "uint8" })
  bytes = kiln.io.encode_png(kiln.cat { grey, alpha })
  equal(kiln.io.decode_image(bytes).shape, { 2, 1, 3 })
  check.truth(kiln.io.decode_image(bytes, "RGB"):equal(kiln.cat { grey, grey, grey }))
  check.truth(kiln.io.decode_image(bytes, "RGB_ALPHA"):equal(kiln.cat { grey, grey, grey, alpha }))
  raises(function() kiln.io.decode_image(bytes, "BGR") end, "there is no mode 'BGR'; there are UNCHANGED GRAY GRAY_ALPHA RGB RGB_ALPHA")
end)

test("JPEG", function()
  local y = kiln.arange(32):reshape(32, 1):expand(32, 40)
  local x = kiln.arange(40):reshape(1, 40):expand(32, 40)
  local smooth = kiln.stack({ y * 7, x * 6, y + x }, 1):to "uint8"
  local bytes = kiln.io.encode_jpeg(smooth, { quality = 95 })
  local back = kiln.io.decode_image(bytes)
  equal(back.shape, { 3, 32, 40 })
  check.truth((back:int() - smooth:int()):abs():max():item() <= 12, "near the picture that was written")
  check.truth(#kiln.io.encode_jpeg(smooth, { quality = 10 }) < #bytes)
  local grey = kiln.io.encode_jpeg(smooth[{ { 1, 1 } }])
  equal(kiln.io.decode_image(grey).shape, { 1, 32, 40 })
  equal(kiln.io.decode_image(grey, "RGB").shape, { 3, 32, 40 })
  equal(kiln.io.decode_image(bytes, "GRAY").shape, { 1, 32, 40 })
  raises(function() kiln.io.encode_jpeg(smooth, { quality = 0 }) end, "quality must be at least 1")
  raises(function() kiln.io.encode_jpeg(smooth, { quality = 101 }) end, "quality must be at most 100")
  raises(function() kiln.io.encode_jpeg(picture(4, 2, 2)) end, "a JPEG has 1 or 3 channels, not 4")
end)

--- A PNG from its chunks: what our own writer does not write.
local function png(chunks)
  local out = { "\x89PNG\r\n\26\n" }
  for _, c in ipairs(chunks) do
    out[#out + 1] = string.pack(">I4", #c[2]) .. c[1] .. c[2] .. string.pack(">I4", crc32(c[1] .. c[2]))
  end
  return table.concat(out)
end

local function zlib(s)
  local a, b = 1, 0
  for i = 1, #s do
    a = (a + s:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return "\x78\1\1" .. string.pack("<I2I2", #s, #s ~ 0xffff) .. s .. string.pack(">I2I2", b, a)
end

local function ihdr(width, height, depth, colour, interlaced)
  return { "IHDR", string.pack(">I4I4BBBBB", width, height, depth, colour, 0, 0, interlaced and 1 or 0) }
end

test("PNG of all kinds", function()
  local iend = { "IEND", "" }
  local function read(...) return kiln.io.decode_image(png { ... }) end
  -- 16 bits, brought to 8 with rounding
  check.tensor(read(ihdr(3, 1, 16, 0), { "IDAT", zlib("\0" .. string.pack(">I2I2I2", 128, 129, 65535)) }, iend), { { { 0, 1, 255 } } })
  -- one, two and four bits
  check.tensor(read(ihdr(3, 1, 1, 0), { "IDAT", zlib "\0\xa0" }, iend), { { { 255, 0, 255 } } })
  check.tensor(read(ihdr(3, 1, 2, 0), { "IDAT", zlib "\0\x1b" }, iend), { { { 0, 85, 170 } } })
  check.tensor(read(ihdr(2, 1, 4, 0), { "IDAT", zlib "\0\x1f" }, iend), { { { 17, 255 } } })
  -- palettes, with and without transparency
  local plte = { "PLTE", "\1\2\3\4\5\6" }
  check.tensor(read(ihdr(2, 1, 8, 3), plte, { "IDAT", zlib "\0\1\0" }, iend), { { { 4, 1 } }, { { 5, 2 } }, { { 6, 3 } } })
  check.tensor(read(ihdr(2, 1, 8, 3), plte, { "tRNS", "\9" }, { "IDAT", zlib "\0\1\0" }, iend),
    { { { 4, 1 } }, { { 5, 2 } }, { { 6, 3 } }, { { 255, 9 } } })
  -- a colour that is transparent
  check.tensor(read(ihdr(2, 1, 8, 0), { "tRNS", "\0\7" }, { "IDAT", zlib "\0\7\8" }, iend), { { { 7, 8 } }, { { 0, 255 } } })
  -- interlaced, 2 x 2: the passes are (1,1), then (1,2), then the second row
  check.tensor(read(ihdr(2, 2, 8, 0, true), { "IDAT", zlib "\0\1\0\2\0\3\4" }, iend), { { { 1, 2 }, { 3, 4 } } })
  -- chunks nobody needs
  check.tensor(read(ihdr(1, 1, 8, 0), { "tEXt", "a\0b" }, { "zzZz", "x" }, { "IDAT", zlib "\0\5" }, iend), { { { 5 } } })

  local function refused(why, ...)
    local bytes = png { ... }
    raises(function() kiln.io.decode_image(bytes) end, "io.lua:", "decode_image: ", why)
  end
  refused("the PNG cannot be read: ", ihdr(2, 1, 8, 0), { "IDAT", zlib "\0\1" }, iend) -- too little
  refused("the PNG cannot be read: the file ends too early", ihdr(1, 1, 8, 0))
  refused("the PNG cannot be read: the file ends too early", ihdr(1, 1, 8, 0), { "IDAT", zlib "\0\1" })
  refused("the PNG cannot be read: ", ihdr(0, 1, 8, 0), { "IDAT", zlib "\0\1" }, iend)
  refused("the PNG cannot be read: ", ihdr(1, 1, 3, 0), { "IDAT", zlib "\0\1" }, iend)
  refused("the PNG cannot be read: ", ihdr(1, 1, 8, 3), { "IDAT", zlib "\0\1" }, iend) -- no palette
  refused("the PNG cannot be read: ", ihdr(1, 1, 8, 0), iend)
  refused("a picture of 2147483647 x 2147483647 pixels is more than the limit of 268435456", ihdr(0x7fffffff, 0x7fffffff, 8, 0), { "IDAT", zlib "\0\1" }, iend)
  raises(function() kiln.io.decode_image(kiln.io.encode_png(picture(3, 10, 10)), { max_pixels = 99 }) end, "10 x 10 pixels is more than the limit of 99")
end)

test("PPM and PGM of all kinds", function()
  local read = kiln.io.decode_image
  check.tensor(read "P2\n# a comment\n 3 1\n15\n0 #x\n 7 15\n", { { { 0, 119, 255 } } }, "uint8")
  check.tensor(read "P3 1 2 255 1 2 3\t4 5 6", { { { 1 }, { 4 } }, { { 2 }, { 5 } }, { { 3 }, { 6 } } })
  check.tensor(read "P5 2 1 255 ab", { { { 97, 98 } } })
  check.tensor(read "P5 2 1 65535\n\255\255\128\0", { { { 255, 128 } } })
  check.tensor(read "P6\n1 1\n255\nabc", { { { 97 } }, { { 98 } }, { { 99 } } })
  for _, row in ipairs {
    { "P1 1 1 1", "P1 (PBM) is not supported" }, { "P7\nWIDTH 1", "P7 (PAM) is not supported" }, { "P5", "header of the P5 picture is damaged" },
    { "P5 2 1 0 ab", "header" }, { "P5 2 1 65536 ab", "header" }, { "P5 -2 1 255 ab", "header" }, { "P5 2 1 255", "header" },
    { "P5 99999999999 1 255 a", "header" }, { "P5 0 1 255 a", "no pixels" }, { "P5 2 2 255 abc", "ends too early: 3 bytes follow its header" },
    { "P6 2147483647 2147483647 255 abc", "ends too early" }, { "P2 2 1 255 1", "ends too early" }, { "P2 2 1 255 1 x", "row 1 of the P2 picture is damaged" },
    { "P2 2 1 255 1 256", "row 1" }, { "P5 2 1 100 ab\200", "" }, { "P5 1 1 100 \200", "row 1 of the P5 picture" },
  } do
    if row[2] ~= "" then raises(function() read(row[1]) end, "decode_image: ", row[2]) end
  end
end)

test("what is no picture, or cannot be one, is refused", function()
  for _, bytes in ipairs { "", "x", "GIF89a", "\x89PNG", "\xff\xd8", "P8 1 1" } do
    raises(function() kiln.io.decode_image(bytes) end, "decode_image: this is no PNG, JPEG, PPM or PGM picture")
  end
  raises(function() kiln.io.decode_image "\xff\xd8\xff" end, "the JPEG cannot be read: the file ends too early")
  raises(function() kiln.io.decode_image() end, "a string of bytes (or a uint8 tensor) is needed, got nil")
  raises(function() kiln.io.encode_png(kiln.ones(3, 2, 2)) end, "a uint8 tensor of sizes [channels, height, width] is needed, got float32[3,2,2]")
  raises(function() kiln.io.encode_png(picture(5, 2, 2)) end, "a PNG has 1 to 4 channels, not 5")
  raises(function() kiln.io.encode_ppm(picture(2, 2, 2)) end, "a PPM has 1 or 3 channels, not 2")
  raises(function() kiln.io.encode_ppm(picture(3, 0, 2)) end, "1 to 2147483647 rows and columns, got uint8[3,0,2]")
  raises(function() kiln.io.encode_png(3) end, "encode_png: a tensor is needed, got an integer")
  raises(function() kiln.io.encode_png(picture(1, 2, 2), { compression_level = 10 }) end, "compression_level must be at most 9, got 10")
end)

test("damaged pictures are refused or decoded, never more", function()
  kiln.manual_seed(7)
  local seeds = { kiln.io.encode_png(picture(3, 9, 11)), kiln.io.encode_jpeg(picture(3, 24, 24)), kiln.io.encode_ppm(picture(3, 5, 4)),
    png { ihdr(4, 4, 8, 3, true), { "PLTE", "\1\2\3\4\5\6" }, { "IDAT", zlib(("\0\1"):rep(14)) }, { "IEND", "" } } }
  local refused, taken = 0, 0
  local function try(bytes)
    local ok, t = pcall(kiln.io.decode_image, bytes, { max_pixels = 1 << 16 })
    if ok then
      taken = taken + 1
      check.truth(t:numel() <= 4 << 16 and t.dtype == "uint8" and t:dim() == 3)
    else
      refused = refused + 1
      check.truth(t:find "decode_image: ", t)
    end
  end
  for _, seed in ipairs(seeds) do
    for cut = 0, #seed - 1, 3 do
      local ok = pcall(kiln.io.decode_image, seed:sub(1, cut))
      check.truth(not ok or cut > #seed - 3, "a file that is cut is refused")
    end
    local places, values = kiln.randint(1, #seed + 1, { 120 }):totable(), kiln.randint(0, 256, { 120 }):totable()
    for i, at in ipairs(places) do try(seed:sub(1, at - 1) .. string.char(values[i]) .. seed:sub(at + 1)) end
  end
  check.truth(refused > 50 and taken > 20)
end)

-- ---- sound ----

test("WAV goes there and back", function()
  local t = kiln.tensor { { 0, 0.5, -1, 0.25 }, { -0.5, 0, 0.125, -0.75 } }
  for _, dtype in ipairs { "uint8", "int16", "int24", "int32", "float32" } do
    local bytes = kiln.io.encode_wav(t, 16000, { dtype = dtype })
    local back, rate = kiln.io.decode_wav(bytes)
    equal(rate, 16000)
    check.truth(back:equal(t), dtype)
    check.truth(kiln.io.decode_wav(kiln.io.encode_wav(t:t():contiguous():t(), 8000, { dtype = dtype })):equal(t))
  end
  local loud = kiln.tensor { 2, -2, 1, 0 / 0 } -- clipped
  check.near(kiln.io.decode_wav(kiln.io.encode_wav(loud, 8000)):totable(), { { 1, -1, 1, 0 } }, 1e-4)
  equal(kiln.io.decode_wav(kiln.io.encode_wav(loud, 8000, { dtype = "float32" })):totable()[1][1], 2.0)
  equal(#kiln.io.encode_wav(kiln.zeros(1, 3), 8000, { dtype = "uint8" }), 44 + 3 + 1) -- padded to an even place
  equal(kiln.io.decode_wav(kiln.io.encode_wav(kiln.zeros(1, 0), 8000)).shape, { 1, 0 })
end)

test("WAV of others, and what is refused", function()
  local function wav(format, data, before, size)
    return "RIFF" .. string.pack("<I4", 0) .. "WAVE" .. (before or "") .. "fmt " .. string.pack("<s4", format) .. "data"
      .. string.pack("<I4", size or #data) .. data
  end
  local function fmt(code, channels, bits, rest) return string.pack("<I2I2I4I4I2I2", code, channels, 8000, 0, channels * bits // 8, bits) .. (rest or "") end
  local read = kiln.io.decode_wav
  check.tensor(read(wav(fmt(1, 1, 16), "\0\x40\0\x80")), { { 0.5, -1.0 } })
  check.tensor(read(wav(fmt(3, 1, 64), string.pack("<d", -0.25))), { { -0.25 } })
  check.tensor(read(wav(fmt(0xfffe, 1, 16, string.pack("<I2I2I4I2", 22, 16, 4, 1) .. ("\0"):rep(14)), "\0\x40")), { { 0.5 } })
  check.tensor(read(wav(fmt(1, 1, 8), "\192", "LIST" .. string.pack("<s4", "odd") .. "\0")), { { 0.5 } })
  check.tensor(read(wav(fmt(1, 1, 8), "\192", nil, 0xffffffff)), { { 0.5 } }) -- written to a pipe
  for _, row in ipairs {
    { "", "this is no WAV file" }, { "RIFF\0\0\0\0AVI ", "this is no WAV file" }, { "RIFF\0\0\0\0WAVE", "has no format chunk" },
    { wav(fmt(1, 1, 16), "\0\1", nil, 3), "a chunk of 3 bytes is promised, 2 are left" }, { wav(fmt(1, 1, 12), ""), "WAV format 1 of 12 bits is not supported" },
    { wav(fmt(6, 1, 8), ""), "WAV format 6 of 8 bits is not supported" }, { wav(fmt(1, 0, 16), ""), "0 channels" },
    { wav(fmt(1, 2, 16), "\0\1\2"), "no whole number of frames of 4" }, { wav("abc", ""), "format chunk has 3 bytes" },
    { wav(fmt(1, 2000, 16), ""), "2000 channels" },
  } do
    raises(function() read(row[1]) end, "io.lua:", "decode_wav: ", row[2])
  end
  local t = kiln.zeros(1, 4)
  raises(function() kiln.io.encode_wav(t, 0) end, "the rate must be a positive integer")
  raises(function() kiln.io.encode_wav(t, 8000, { dtype = "int8" }) end, "a WAV cannot hold 'int8'; it can uint8 int16 int24 int32 float32")
  raises(function() kiln.io.encode_wav(t:double(), 8000) end, "a float32 tensor of sizes [channels, frames] is needed, got float64[1,4]")
  raises(function() kiln.io.encode_wav(kiln.zeros(2000, 4), 8000) end, "a WAV has 1 to 1024 channels")
end)

-- ---- prefetching ----

test("results come in the order of the jobs, whoever does them", function()
  local pictures = {}
  for i = 1, 12 do pictures[i] = picture(3, i, 20) end
  for _, workers in ipairs { 0, 1, 3 } do
    local p <close> = kiln.prefetcher { workers = workers, depth = 5 }
    equal(p:pending(), 0)
    local pushed, popped = 0, 0
    while popped < 12 do
      while pushed < 12 and p:push { bytes = kiln.io.encode_png(pictures[pushed + 1]), mode = "RGB" } do pushed = pushed + 1 end
      check.truth(p:pending() <= 5)
      popped = popped + 1
      check.truth(p:pop():equal(pictures[popped]))
    end
    equal(pushed, 12)
    raises(function() p:pop() end, "io.lua:", "pop: nothing is pending")
  end
end)

test("a job that fails costs only its own result", function()
  with_file(kiln.io.encode_png(picture(1, 4, 4)), function(path)
    for _, workers in ipairs { 0, 2 } do
      local p = kiln.prefetcher { workers = workers, depth = 10, max_pixels = 100 }
      check.truth(p:push { path = path, mode = "RGB" })
      check.truth(p:push { path = "/nowhere/x.png" })
      check.truth(p:push { bytes = "no picture" })
      check.truth(p:push { bytes = "raw\0bytes", decode = "bytes" })
      check.truth(p:push { path = path, decode = "bytes" })
      check.truth(p:push { bytes = kiln.io.encode_png(picture(1, 11, 10)) })
      check.truth(p:push { bytes = "", decode = "bytes" })
      equal(p:pending(), 7)
      equal(p:pop().shape, { 3, 4, 4 })
      equal({ p:pop() }, { nil, "/nowhere/x.png: No such file or directory" })
      equal({ p:pop() }, { nil, "this is no PNG, JPEG, PPM or PGM picture" })
      equal(p:pop():tobytes(), "raw\0bytes")
      equal(p:pop():tobytes(), check.read(path))
      equal({ p:pop() }, { nil, "a picture of 10 x 11 pixels is more than the limit of 100" })
      equal(p:pop().shape, { 0 })
      p:close()
      p:close()
      raises(function() p:push { path = path } end, "push: the prefetcher is closed")
      raises(function() p:pop() end, "pop: the prefetcher is closed")
    end
  end)
end)

test("prefetchers end with work left, closed or collected", function()
  local bytes = kiln.io.encode_png(picture(3, 60, 60))
  for i = 1, 12 do
    local p = kiln.prefetcher { workers = 3, depth = 16 }
    for _ = 1, 16 do p:push { bytes = bytes } end
    if i % 3 == 0 then p:pop() end
    if i % 2 == 0 then p:close() end
  end
  collectgarbage()
  local p = kiln.prefetcher {}
  raises(function() p:push "x.png" end, "push: a job is a table with path or bytes, got a string")
  raises(function() p:push {} end, "a job has either path or bytes")
  raises(function() p:push { path = "a", bytes = "b" } end, "a job has either path or bytes")
  raises(function() p:push { path = "a", decode = "video" } end, "decode must be 'image' or 'bytes', not 'video'")
  raises(function() p:push { path = "a", mode = "CMYK" } end, "there is no mode 'CMYK'")
  raises(function() kiln.prefetcher { workers = -1 } end, "workers must be at least 0, got -1")
  raises(function() kiln.prefetcher { workers = 1000 } end, "workers must be 0 to 256, not 1000")
  raises(function() kiln.prefetcher { depth = 0 } end, "depth must be at least 1, got 0")
  raises(function() p.pop {} end, "pop: a prefetcher is needed, got a table")
end)

test("kiln.vision and kiln.data read and write files", function()
  local vision, data, t = kiln.vision, kiln.data, picture(3, 4, 5)
  with_file(nil, function(path)
    vision.write_png(t, path)
    check.truth(vision.read_image(path):equal(t))
    equal(vision.read_image(path, "GRAY").shape, { 1, 4, 5 })
    vision.write_jpeg(t, path, 90)
    equal(vision.read_image(path).shape, { 3, 4, 5 })
    vision.write_ppm(t, path)
    check.truth(vision.read_image(path, "UNCHANGED"):equal(t))
    raises(function() vision.read_image(path, "X") end, "io.lua:", "read_image: " .. path .. ": there is no mode 'X'")
    raises(function() vision.write_png(t, path, 11) end, "compression_level must be at most 9")
    data.write_wav(path, kiln.full({ 2, 5 }, 0.5), 8000)
    local sound, rate = data.read_wav(path)
    check.truth(rate == 8000 and sound:equal(kiln.full({ 2, 5 }, 0.5)))
    raises(function() vision.read_image(path) end, "read_image: " .. path .. ": this is no PNG, JPEG, PPM or PGM picture")
    vision.write_png(t, path)
    raises(function() data.read_wav(path) end, "io.lua:", "read_wav: " .. path .. ": this is no WAV file")
  end)
end)
