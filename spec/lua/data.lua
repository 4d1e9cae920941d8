-- kiln.data: datasets, loaders and what they promise about order; CSV and text files; kiln.progress around iterators.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local data = kiln.data

local function with_file(bytes, body, ending)
  local path = os.tmpname() .. (ending or "")
  check.write(path, bytes)
  local ok, why = pcall(body, path)
  os.remove(path)
  if not ok then error(why, 0) end
end

-- ---- datasets --------------------------------------------------------------------------------------------------

local Squares = data.Dataset:extend "Squares"
function Squares:init(n) self.n = n end
function Squares:len() return self.n end
function Squares:get(i) return i, i * i end

test("a Dataset of one's own", function()
  local squares = Squares(5)
  equal(#squares, 5)
  equal({ squares:get(3) }, { 3, 9 })
  equal(squares.name, "Squares")
  local Bare = data.Dataset:extend "Bare"
  raises(function() local _ = Bare():get(1) end, "lua/data.lua:", "Bare: a Dataset needs a function get")
  raises(function() return #Bare() end, "Bare: a Dataset needs a function len")
  local More = Squares:extend "More"
  function More:get(i) return Squares.get(self, i + 100) end
  equal({ More(5):get(1) }, { 101, 10201 })
end)

test("TensorDataset", function()
  local set = data.TensorDataset(kiln.arange(6):reshape(3, 2), kiln.tensor { 7, 8, 9 })
  equal(#set, 3)
  local x, y = set:get(2)
  check.tensor(x, { 2, 3 })
  equal(y:item(), 8)
  raises(function() set:get(4) end, "lua/data.lua:", "TensorDataset: there is no example 4 of 3")
  raises(function() set:get "a" end, "the place of an example must be an integer, got string")
  raises(function() data.TensorDataset() end, "no tensors given")
  raises(function() data.TensorDataset(kiln.zeros(2), 3) end, "argument 2 must be a tensor, got number")
  raises(function() data.TensorDataset(kiln.zeros(2), kiln.zeros(3)) end, "tensor 2 has 3 examples, the first has 2")
  raises(function() data.TensorDataset(kiln.zeros({})) end, "tensor 1 has no dimensions")
end)

test("Subset and ConcatDataset", function()
  local some = data.Subset(Squares(10), { 10, 1, 4 })
  equal(#some, 3)
  equal({ some:get(1) }, { 10, 100 })
  local both = data.ConcatDataset { some, Squares(0), Squares(2) }
  equal(#both, 5)
  local seen = {}
  for i = 1, #both do seen[i] = both:get(i) end
  equal(seen, { 10, 1, 4, 1, 2 })
  raises(function() both:get(6) end, "there is no example 6 of 5")
  raises(function() data.Subset(Squares(3), { 1, 4 }) end, "Subset: place 2 is 4, but there are 3 examples")
  raises(function() data.Subset(Squares(3), 1) end, "a list of places or a tensor of them is needed, got number")
  raises(function() data.Subset(3, {}) end, "Subset: a dataset is needed, got number")
  raises(function() data.ConcatDataset {} end, "a list of datasets is needed")
end)

test("random_split covers everything once, as the seed says", function()
  local function split(seed, lengths)
    kiln.manual_seed(seed)
    local parts, seen, places = { data.random_split(Squares(10), lengths) }, {}, {}
    for _, part in ipairs(parts) do
      for i = 1, #part do
        local n = part:get(i)
        truth(not seen[n], "once")
        seen[n] = true
        places[#places + 1] = n
      end
    end
    equal(#places, 10)
    return places, parts
  end
  local a, parts = split(1, { 7, 3 })
  equal({ #parts[1], #parts[2] }, { 7, 3 })
  equal(split(1, { 7, 3 }), a)
  truth(not pcall(equal, split(2, { 7, 3 }), a), "another seed, another split")
  _, parts = split(1, { 0.55, 0.45 })
  equal({ #parts[1], #parts[2] }, { 6, 4 }) -- floors are 5 and 4: the rest goes to the first
  raises(function() data.random_split(Squares(10), { 7, 4 }) end, "the lengths add up to 11, but there are 10 examples")
  raises(function() data.random_split(Squares(10), { 0.5, 0.4 }) end, "shares must add up to 1, these add up to 0.9")
  raises(function() data.random_split(Squares(10), { -1, 11 }) end, "length 1 must be a number from 0 on")
end)

-- ---- loaders ---------------------------------------------------------------------------------------------------

local function numbers(loader)
  local out = {}
  for i, x in loader:iter() do out[i] = x:totable() end
  return out
end

test("a DataLoader in order", function()
  local loader = data.DataLoader(Squares(5), { batch_size = 2 })
  equal(#loader, 3)
  local seen = {}
  for i, x, y in loader() do
    seen[i] = { x:totable(), y:totable() }
    equal(x.dtype, "int64")
  end
  equal(seen, { { { 1, 2 }, { 1, 4 } }, { { 3, 4 }, { 9, 16 } }, { { 5 }, { 25 } } })
  local dropped = data.DataLoader(Squares(5), { batch_size = 2, drop_last = true })
  equal(#dropped, 2)
  equal(numbers(dropped), { { 1, 2 }, { 3, 4 } })
  equal(numbers(data.DataLoader(Squares(2))), { { 1 }, { 2 } })
  equal(numbers(data.DataLoader(Squares(0))), {})
  equal(numbers(data.DataLoader({ 5, 6, 7 }, { batch_size = 3 })), { { 5, 6, 7 } })
end)

test("tensors take the short way, and give the same", function()
  local x, y = kiln.randn(11, 3), kiln.arange(11)
  local set = data.TensorDataset(x, y)
  local Slow = data.Dataset:extend "Slow"
  function Slow:len() return #set end
  function Slow:get(i) return set:get(i) end
  for _, options in ipairs { { batch_size = 4 }, { batch_size = 4, shuffle = true, seed = 5 },
                             { batch_size = 3, drop_last = true, sampler = { 3, 1, 2, 11, 4 } } } do
    local fast, slow = {}, {}
    for i, a, b in data.DataLoader(set, options):iter() do fast[i] = { a, b } end
    for i, a, b in data.DataLoader(Slow(), options):iter() do slow[i] = { a, b } end
    truth(#fast > 0 and check.identical(fast, slow), "the same batches")
    local part = data.Subset(set, { 11, 3, 5, 6, 9 })
    if not options.sampler then
      local sub, sub_slow = {}, {}
      for i, a, b in data.DataLoader(part, options):iter() do sub[i] = { a, b } end
      for i, a, b in data.DataLoader(data.Subset(Slow(), { 11, 3, 5, 6, 9 }), options):iter() do sub_slow[i] = { a, b } end
      truth(#sub == 2 and check.identical(sub, sub_slow), "of a Subset")
    end
  end
end)

test("shuffled: everything once, another order each epoch, all from the seed", function()
  local function epochs(options)
    local loader = data.DataLoader(Squares(20), options)
    return { numbers(loader), numbers(loader) }
  end
  local a = epochs { batch_size = 6, shuffle = true, seed = 1 }
  kiln.manual_seed(77)
  local before = kiln.get_rng_state()
  local again = epochs { batch_size = 6, shuffle = true, seed = 1 }
  truth(check.identical(a, again), "the same seed, the same order")
  truth(check.identical(before, kiln.get_rng_state()), "kiln's own stream is where it was")
  truth(not check.identical(a[1], a[2]), "epochs differ")
  truth(not check.identical(a, epochs { batch_size = 6, shuffle = true, seed = 2 }), "seeds differ")
  local seen = {}
  for _, batch in ipairs(a[1]) do
    for _, n in ipairs(batch) do seen[n] = (seen[n] or 0) + 1 end
  end
  for n = 1, 20 do equal(seen[n], 1) end
  kiln.manual_seed(3)
  local first = epochs { batch_size = 6, shuffle = true }
  kiln.manual_seed(3)
  truth(check.identical(first, epochs { batch_size = 6, shuffle = true }), "without a seed it comes from kiln's stream")
end)

test("samplers", function()
  equal(numbers(data.DataLoader(Squares(9), { batch_size = 2, sampler = { 9, 9, 1 } })), { { 9, 9 }, { 1 } })
  local loader = data.DataLoader(Squares(9), { batch_size = 2, sampler = function(epoch) return kiln.tensor { epoch + 1, epoch + 2 } end })
  equal(#loader, 1)
  equal(numbers(loader), { { 1, 2 } })
  equal(numbers(loader), { { 2, 3 } })
  raises(function() numbers(data.DataLoader(Squares(9), { sampler = kiln.zeros(3) })) end, "a sampler is a list or an int64 tensor")
end)

test("collate: by kind, by field, by one's own", function()
  local Mixed = data.Dataset:extend "Mixed"
  function Mixed:len() return 3 end
  function Mixed:get(i) return { image = kiln.full({ 2 }, i), label = i, name = "n" .. i, at = { i / 2, i > 1 } } end
  local _, batch = data.DataLoader(Mixed(), { batch_size = 3 }):iter()()
  check.tensor(batch.image, { { 1, 1 }, { 2, 2 }, { 3, 3 } })
  check.tensor(batch.label, { 1, 2, 3 }, "int64")
  equal(batch.name, { "n1", "n2", "n3" })
  check.tensor(batch.at[1], { 0.5, 1.0, 1.5 }, "float32")
  check.tensor(batch.at[2], { false, true, true }, "bool")
  local sums = {}
  local loader = data.DataLoader(Squares(3), { batch_size = 2, collate = function(list)
    return #list, list[1][2]
  end })
  for i, n, first in loader:iter() do sums[i] = { n, first } end
  equal(sums, { { 2, 1 }, { 1, 9 } })
  raises(function() numbers(data.DataLoader({ kiln.zeros(2), kiln.zeros(3) }, { batch_size = 2 })) end,
    "lua/data.lua:", "examples differ in shape: [2] in the first of the batch, [3] in number 2")
  raises(function() numbers(data.DataLoader({ 1, "a" }, { batch_size = 2 })) end, "examples differ in kind: a number first, a string")
  raises(function() numbers(data.DataLoader({ { a = 1 }, { b = 1 } }, { batch_size = 2 })) end, "field a of examples is missing in number 2")
  raises(function() numbers(data.DataLoader({ print, print }, { batch_size = 2 })) end, "of type function, which makes no batch")
end)

test("a run that was stopped goes on with the next batch", function()
  for _, options in ipairs { { batch_size = 3, shuffle = true, seed = 4 }, { batch_size = 3 }, { batch_size = 3, drop_last = true } } do
    for _, set in ipairs { Squares(10), data.TensorDataset(kiln.arange(10)) } do
      local all, state_after = {}, {}
      local loader = data.DataLoader(set, options)
      for _ = 1, 3 do
        for _, x in loader:iter() do
          all[#all + 1] = x:totable()
          state_after[#all] = loader:state_dict()
        end
        state_after[#all .. " end"] = loader:state_dict()
      end
      for _, key in ipairs { 1, 2, 4, 5, #all // 3, (#all // 3) .. " end" } do
        local other = data.DataLoader(set, options)
        other:load_state_dict(state_after[key])
        local at = math.tointeger(tostring(key):match "^%d+")
        while at < #all do
          for _, x in other:iter() do
            at = at + 1
            truth(check.identical(x:totable(), all[at]), ("batch %d after %s"):format(at, key))
            if at == #all then break end
          end
        end
      end
    end
  end
  local loader = data.DataLoader(Squares(4), { batch_size = 2 })
  for _ in loader:iter() do break end
  equal(loader:state_dict(), { epoch = 0, position = 1, seed = 0, batch_size = 2 })
  equal(numbers(loader), { { 1, 2 }, { 3, 4 } }) -- a loop that was left is not gone on with by itself
  equal(loader:state_dict().epoch, 2)
  raises(function() loader:load_state_dict {} end, "epoch of a DataLoader must be an integer")
  raises(function() loader:load_state_dict { epoch = 0, position = 1, seed = 0, batch_size = 3 } end,
    "gave batches of 3, this one gives batches of 2")
end)

test("an IterableDataset", function()
  local Stream = data.IterableDataset:extend "Stream"
  function Stream:iter()
    local i = 0
    return function()
      i = i + 1
      if i <= 5 then return i, -i end
    end
  end
  local loader = data.DataLoader(Stream(), { batch_size = 2 })
  equal(numbers(loader), { { 1, 2 }, { 3, 4 }, { 5 } })
  equal(numbers(data.DataLoader(Stream(), { batch_size = 2, drop_last = true })), { { 1, 2 }, { 3, 4 } })
  loader:load_state_dict { epoch = 0, position = 1, seed = 0, batch_size = 2 }
  local seen = {}
  for i, x, y in loader:iter() do seen[#seen + 1] = { i, x:totable(), y:totable() } end
  equal(seen, { { 2, { 3, 4 }, { -3, -4 } }, { 3, { 5 }, { -5 } } })
  raises(function() return #loader end, "Stream: how many examples an IterableDataset gives is not known")
  raises(function() data.DataLoader(Stream(), { shuffle = true }) end, "no shuffle and no sampler")
end)

test("a loader says what is wrong with its options", function()
  local set = Squares(3)
  raises(function() data.DataLoader(set, { batchsize = 3 }) end, "lua/data.lua:", "there is no option 'batchsize'; there are batch_size, collate")
  raises(function() data.DataLoader(set, { batch_size = 2.5 }) end, "option 'batch_size' must be a integer, got number")
  raises(function() data.DataLoader(set, { batch_size = 0 }) end, "batch_size must be at least 1, got 0")
  raises(function() data.DataLoader(set, { workers = -1 }) end, "workers must not be negative")
  raises(function() data.DataLoader(set, { shuffle = true, sampler = { 1 } }) end, "give shuffle or a sampler, not both")
  raises(function() data.DataLoader(set, 3) end, "options must be a table, got number")
  raises(function() data.DataLoader "set" end, "a dataset is needed, got string")
  raises(function() data.DataLoader {} end, "a table with functions len and get, or a list of examples")
end)

-- ---- CSV -------------------------------------------------------------------------------------------------------

test("CSV: quotes, types, missing values", function()
  local text = 'id,name,weight,ok,"a ""b"", c"\r\n1,Ann,2.5,true,x\r\n2,"Bo, the\nsecond",,false,""\r\n+3,"say ""hi""",-1e3,TRUE,NA\r\n'
  local t = data.parse_csv(text)
  equal(t.names, { "id", "name", "weight", "ok", 'a "b", c' })
  equal(t.rows, 3)
  equal(#t, 3)
  equal(t.types, { id = "integer", name = "string", weight = "number", ok = "boolean", ['a "b", c'] = "string" })
  equal(t.columns.id, { 1, 2, 3 })
  equal(t.columns.name, { "Ann", "Bo, the\nsecond", 'say "hi"' })
  equal(t:column "weight", { 2.5, 0 / 0, -1000.0 })
  equal(t.columns.ok, { true, false, true })
  equal(t.columns['a "b", c'], { "x", "", false }) -- a text in quotes is none that is missing
  check.tensor(t:tensor { "id" }, { { 1.0 }, { 2.0 }, { 3.0 } }, "float32")
  equal(t:tensor().shape, { 3, 2 })
  equal(#t:without_missing(), 1)
  equal(t:without_missing({ "weight" }).columns.id, { 1, 3 })
  equal(tostring(t), '3 rows: id (integer), name (string), weight (number), ok (boolean), a "b", c (string)')
end)

test("CSV: classes", function()
  local t = data.parse_csv "kind;x\nrose;1\niris;2\nrose;3\n"
  equal(t.names, { "kind;x" })
  t = data.parse_csv("kind;x\nrose;1\niris;2\nrose;3", { delimiter = ";" })
  local codes, names = t:classes "kind"
  check.tensor(codes, { 2, 1, 2 }, "int64")
  equal(names, { "iris", "rose" })
  raises(function() data.parse_csv("a,b\n1,\n2,x"):classes "b" end, "lua/data.lua:", "classes: b is missing in row 1")
end)

test("CSV: headers, types given, integers", function()
  local t = data.parse_csv("1,2\n3,4", { header = false })
  equal(t.names, { "column1", "column2" })
  equal(t.columns.column2, { 2, 4 })
  t = data.parse_csv("1,2\n3,4", { header = { "a", "b" }, types = { a = "string", b = "number" } })
  equal(t.columns, { a = { "1", "3" }, b = { 2.0, 4.0 } })
  t = data.parse_csv "a,b,c,d\n1,1.0,9223372036854775807,0x10\n,2,9223372036854775808,inf\n"
  equal(t.types, { a = "number", b = "number", c = "number", d = "string" })
  t = data.parse_csv "\xef\xbb\xbfa\n\n1\n\n2"
  equal(t.columns, { a = { 1, 2 } })
  equal(data.parse_csv("a,b\n").rows, 0)
  equal(data.parse_csv("x\n-inf\n1").columns.x, { -math.huge, 1.0 })
end)

test("CSV: what is wrong, with line and column", function()
  for _, case in ipairs {
    { "", "there is nothing in it" },
    { 'a,b\n1,"x', "line 2, column 3: this quote is never closed" },
    { 'a,b\n"x"y,2', "line 2, column 4: behind a closing quote there must be ','" },
    { 'a,b\n1,x"y', "line 2, column 4: a quote inside a field" },
    { 'a,b\n"1\n2",3\n4', "line 4 has 1 field, the first line has 2" },
    { "a,b\n1,2,3", "line 2 has 3 fields, the first line has 2" },
    { "a,a\n1,2", "two columns are called 'a': 1 and 2" },
    { "a,b\n1,x", "line 2, column 3: b should be of type integer, got 'x'", { types = { b = "integer" } } },
    { "a,b\n1,", "line 2, column 3: b is missing, and integer columns have no value for that", { types = { b = "integer" } } },
    { "a,b\n1,2", "a type is given for 'c', but there are a, b", { types = { c = "integer" } } },
    { "a,b\n1,2", "the type of a must be one of integer, number, boolean, string, got real", { types = { a = "real" } } },
    { "a,b\n1,2", "the delimiter must be one character", { delimiter = "ab" } },
    { "a,b\n1,2", "1 names are given for 2 columns", { header = { "x" } } },
  } do
    raises(function() data.parse_csv(case[1], case[3]) end, "lua/data.lua:", "parse_csv: ", case[2])
  end
  with_file('a\n"', function(path)
    raises(function() data.read_csv(path) end, "lua/data.lua:", "read_csv: " .. path .. ": line 2, column 1:")
  end)
  raises(function() data.read_csv "/no/such.csv" end, "read_csv: /no/such.csv")
  raises(function() data.parse_csv(3) end, "a string is needed, got number")
  raises(function() return data.parse_csv("a\nx"):tensor() end, "there is no column of numbers")
  raises(function() return data.parse_csv("a\nx"):tensor { "a" } end, "a holds strings; classes('a') numbers them")
  raises(function() return data.parse_csv("a\nx"):column "b" end, "there is no 'b'; there are a")
end)

-- ---- text ------------------------------------------------------------------------------------------------------

test("lines of text", function()
  with_file("one\r\n\n two \nthree", function(path)
    equal(data.read_lines(path), { "one", "", " two ", "three" })
    equal(data.read_lines(path, { skip_empty = true, trim = true }), { "one", "two", "three" })
    local lines = data.TextLines(path, { skip_empty = true }, function(line) return #line end)
    equal(#lines, 3)
    equal(numbers(data.DataLoader(lines, { batch_size = 3 })), { { 3, 5, 5 } })
    raises(function() lines:get(4) end, "lua/data.lua:", "TextLines: there is no line 4 of 3")
  end)
  with_file("", function(path) equal(data.read_lines(path), {}) end)
  raises(function() data.read_lines "/no/such.txt" end, "lua/data.lua:", "read_lines: /no/such.txt")
end)

test("packed files are unpacked", function()
  with_file(string.pack(">I2BBI4I4", 0, 11, 2, 1, 2) .. "\1\0\xff\xfe", function(path)
    check.tensor(data.read_idx(path), { { 256, -2 } }, "int64")
    local packed = path .. ".gz"
    if not os.execute(("gzip -c '%s' > '%s'"):format(path, packed)) then check.skip "there is no gzip" end
    local t = data.read_idx(packed, { dtype = "float32" })
    os.remove(packed)
    check.tensor(t, { { 256.0, -2.0 } }, "float32")
  end)
end)

-- ---- pictures --------------------------------------------------------------------------------------------------

-- A tar archive of { name = bytes } entries, by hand.
local function tar(entries)
  local parts = {}
  for _, entry in ipairs(entries) do
    local name, bytes = entry[1], entry[2]
    local head = name .. ("\0"):rep(100 - #name) .. "0000644\0" .. ("0000000\0"):rep(2) .. ("%011o\0"):format(#bytes)
      .. ("%011o\0"):format(0) .. (" "):rep(8) .. "0" .. ("\0"):rep(100) .. "ustar\00000"
    head = head .. ("\0"):rep(512 - #head)
    local sum = 0
    for i = 1, 512 do sum = sum + head:byte(i) end
    parts[#parts + 1] = head:sub(1, 148) .. ("%06o\0 "):format(sum) .. head:sub(157) .. bytes .. ("\0"):rep(-#bytes % 512)
  end
  return table.concat(parts) .. ("\0"):rep(1024)
end

local function picture(value) return kiln.full({ 3, 4, 5 }, value, { dtype = "uint8" }) end

-- Nine pictures in two classes, each of one value.
local function pictures()
  local list = {}
  for i = 1, 9 do
    list[i] = { ("%s/%02d.png"):format(i % 3 == 0 and "cat" or "ant", i), kiln.io.encode_png(picture(10 * i)) }
  end
  list[#list + 1] = { "cat/notes.txt", "no picture" }
  return list
end

-- body(directory) of a new directory, which is removed afterwards.
local function with_directory(body)
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute(("mkdir -p '%s'"):format(path)))
  local ok, why = pcall(body, path)
  os.execute(("rm -r '%s'"):format(path))
  if not ok then error(why, 0) end
end

local function check_folder(folder)
  equal(folder.classes, { "ant", "cat" })
  equal(folder.class_to_index, { ant = 1, cat = 2 })
  equal(#folder, 9)
  equal(folder.targets, { 1, 1, 1, 1, 1, 1, 2, 2, 2 })
  local image, class = folder:get(7)
  truth(image:equal(picture(30)) and class == 2, "the first cat")
end

test("image folders and archives of them", function()
  with_directory(function(path)
    assert(os.execute(("mkdir '%s/ant' '%s/cat' '%s/cat/more'"):format(path, path, path)))
    for i, entry in ipairs(pictures()) do
      check.write(path .. "/" .. (i == 9 and "cat/more/09.png" or entry[1]), entry[2])
    end
    check_folder(data.ImageFolder(path))
    local grey = data.ImageFolder(path, { mode = "GRAY", transform = function(x) return x:float() / 10 end })
    check.tensor(grey:get(7)[{ {}, 1, 1 }], { 3.0 }, "float32")
    check.write(path .. "/cat/0.png", "no png")
    for workers = 0, 1 do
      local loader = data.DataLoader(data.ImageFolder(path), { batch_size = 8, workers = workers })
      raises(function() for _ in loader:iter() do end end, "lua/data.lua:", ("example 7: %s/cat/0.png: this is no PNG"):format(path))
    end
    raises(function() data.ImageFolder(path .. "/cat/more") end, "there are no folders of classes")
    assert(os.execute(("mkdir '%s/empty'"):format(path)))
    raises(function() data.ImageFolder(path) end, "lua/data.lua:", "there are no pictures in the folder empty")
  end)
  with_file(tar(pictures()), function(path) check_folder(data.ImageFolder(path)) end, ".tar")
  local below = pictures()
  for _, entry in ipairs(below) do entry[1] = "./train/" .. entry[1] end
  with_file(tar(below), function(path)
    check_folder(data.ImageFolder(path, { under = "train" }))
    raises(function() data.ImageFolder(path, { under = "test" }) end, "there are no folders of classes in " .. path .. "/test")
  end, ".tar")
  local broken = pictures()
  broken[2][2] = "no png"
  with_file(tar(broken), function(path)
    for workers = 0, 1 do
      local loader = data.DataLoader(data.ImageFolder(path), { batch_size = 8, workers = workers })
      raises(function() for _ in loader:iter() do end end, "lua/data.lua:", "example 2: ant/02.png: this is no PNG")
    end
  end, ".tar")
  raises(function() data.ImageFolder "/no/such/place" end, "lua/data.lua:", "there is no folder and no archive /no/such/place")
  raises(function() kiln.list_directory "/no/such/place" end, "lua/data.lua:", "list_directory: /no/such/place: ")
  raises(function() kiln.list_directory(3) end, "list_directory: a path is needed, got an integer")
end)

test("reading ahead changes nothing, whatever the number of workers", function()
  with_file(tar(pictures()), function(path)
    local function run(workers, prefetch)
      kiln.manual_seed(9)
      local noisy = function(x) return x:float() + kiln.rand(1) end
      local folder = data.ImageFolder(path, { transform = noisy })
      local both = data.ConcatDataset { folder, data.Subset(folder, { 1, 9, 4 }) }
      local loader = data.DataLoader(both, { batch_size = 4, shuffle = true, seed = 2, workers = workers, prefetch = prefetch })
      local out = {}
      for _ = 1, 2 do
        for _, x, y in loader:iter() do out[#out + 1] = { x, y } end
      end
      for _, x in loader:iter() do -- left in the middle, then gone on with
        out[#out + 1] = x
        break
      end
      local state, rng = loader:state_dict(), kiln.get_rng_state()
      for _, x in loader:iter() do out[#out + 1] = x end
      kiln.set_rng_state(rng)
      loader:load_state_dict(state)
      for _, x in loader:iter() do out[#out + 1] = x end
      return out
    end
    local want = run(0, 2)
    equal(#want, 6 + 1 + 3 + 2)
    for _, case in ipairs { { 1, 1 }, { 2, 2 }, { 4, 1 }, { 3, 7 } } do
      truth(check.identical(run(case[1], case[2]), want), ("%d workers, %d batches ahead"):format(case[1], case[2]))
    end
  end, ".tar")
end)

test("loops that are left, by break, by an error or for good, leave no reader behind", function()
  with_file(tar(pictures()), function(path)
    local folder = data.ImageFolder(path)
    local loader = data.DataLoader(folder, { batch_size = 2, workers = 3 })
    for round = 1, 4 do
      local step = loader:iter()
      step()
      raises(function() for _ in loader:iter() do error "out" end end, "out")
      for i in loader:iter() do
        if i == round then break end
      end
    end
    collectgarbage()
    local count = 0
    for _, x in loader:iter() do count = count + #x end
    equal(count, 9)
  end, ".tar")
end)

-- ---- progress --------------------------------------------------------------------------------------------------

-- What a script writes to standard error, which is no terminal here.
local function errors_of(script)
  local path = os.tmpname()
  check.write(path, script)
  local pipe = assert(io.popen(("'%s' '%s' 2>&1"):format(check.program(), path)))
  local text = pipe:read "a"
  pipe:close()
  os.remove(path)
  return text
end

test("kiln.progress around loaders, lists and iterators", function()
  local text = errors_of [[
    local bar = kiln.progress(kiln.data.DataLoader({ 1, 2, 3, 4 }, { batch_size = 2 }), { label = "epoch 1", every = 0 })
    for i, x in bar do bar:metric("sum %d", x:sum():item()) end
    for i, word in kiln.progress({ "a", "b" }, { label = "list" }) do assert(({ "a", "b" })[i] == word) end
    local n = 3
    for left in kiln.progress(function() n = n - 1; return n > 0 and n or nil end, { label = "until" }) do assert(left == n) end
    for i in kiln.progress({ 1, 2, 3 }, { label = "left" }) do if i == 2 then break end end
    for i, row in kiln.progress(kiln.arange(2), { label = "rows" }) do assert(row:item() == i - 1) end
    kiln.progress(3, { label = "by hand" }):done()
  ]]
  for _, line in ipairs {
    "^epoch 1 %[############            %] 1/2  %d+%.%d s < %d+%.%d s, %S+/s  sum 3\n",
    "\nepoch 1 %[########################%] 2/2  %d+%.%d s, %S+/s  sum 7\n",
    "\nlist %[########################%] 2/2  ",
    "\nuntil 2  %d+%.%d s, %S+/s\n",
    "\nleft %[########                %] 1/3  ",
    "\nrows %[########################%] 2/2  ",
    "\nby hand %[                        %] 0/3  ",
  } do
    truth(text:find(line), ("%s in\n%s"):format(line, text))
  end
  raises(function() kiln.progress(true) end, "lua/data.lua:", "progress: a count, an iterator, a list")
  raises(function() kiln.progress(3, 4) end, "progress: options must be a table, got number")
end)
