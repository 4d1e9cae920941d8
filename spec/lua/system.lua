-- The engine as a whole: memory and the collector, threads, backends, data files, progress.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises

local function peak_of(steps, step)
  collectgarbage()
  collectgarbage()
  local base, peak = kiln.memory_stats().allocated, 0
  for i = 1, steps do
    step(i)
    if i % 16 == 0 then peak = math.max(peak, kiln.memory_stats().allocated - base) end
  end
  return peak / 1e6
end

test("a loop of 10,000 dropped megabytes stays flat", function()
  for mode, steps in pairs { incremental = 10000, generational = 2000 } do
    collectgarbage(mode)
    local peak = peak_of(steps, function() return kiln.zeros(256, 1024) end)
    truth(peak < 200, ("%s: %.0f MB"):format(mode, peak))
  end
end)

test("so do tensors that live for a while, and graphs of gradients", function()
  for _, mode in ipairs { "generational", "incremental" } do
    collectgarbage(mode)
    local ring = {}
    local peak = peak_of(1000, function(i) ring[i % 20 + 1] = kiln.zeros(256, 1024) end)
    truth(peak < 250, ("%s ring: %.0f MB"):format(mode, peak))
    local w = kiln.ones(64, 64):requires_grad_()
    peak = peak_of(300, function()
      local h = w
      for _ = 1, 10 do h = h * w end
      h:sum():backward()
      w.grad = nil
    end)
    truth(peak < 150, ("%s tape: %.0f MB"):format(mode, peak))
  end
end)

test("a stopped collector stays stopped", function()
  collectgarbage()
  collectgarbage "stop"
  local before = kiln.memory_stats().allocated
  for _ = 1, 100 do kiln.zeros(256, 1024) end
  local grown = kiln.memory_stats().allocated - before
  collectgarbage "restart"
  truth(grown > 100e6, "nothing was freed")
end)

test("memory is counted and given back", function()
  collectgarbage()
  local before = kiln.memory_stats()
  local t = kiln.zeros(1000)
  local during = kiln.memory_stats()
  truth(during.allocated - before.allocated >= 4000 and during.peak >= during.allocated, "counted")
  truth(during.allocations > before.allocations and during.blocks > before.blocks, "blocks")
  t = nil
  collectgarbage()
  equal(kiln.memory_stats().allocated, before.allocated)
end)

test("threads, clock, devices, versions", function()
  local n = kiln.get_num_threads()
  kiln.set_num_threads(1)
  equal(kiln.get_num_threads(), 1)
  kiln.set_num_threads(n)
  local a = kiln.clock()
  truth(kiln.clock() >= a, "time goes on")
  equal(kiln.devices()[1], "cpu")
  equal(type(kiln.version), "string")
  local names = {}
  for _, b in ipairs(kiln.backends()) do
    names[b.name] = b
    truth(b.available or #b.reason > 0, b.name .. " says why not")
  end
  truth(names.ref and names.ref.available, "the reference is always there")
  kiln.use_deterministic_algorithms(true)
  equal(kiln.are_deterministic_algorithms_enabled(), true)
  kiln.use_deterministic_algorithms(false)
  equal(kiln.get_float32_matmul_precision(), "highest")
  kiln.set_float32_matmul_precision("high")
  equal(kiln.get_float32_matmul_precision(), "high")
  kiln.set_float32_matmul_precision("highest")
end)

test("results do not depend on the number of threads", function()
  local n = kiln.get_num_threads()
  local x = kiln.randn(200, 300)
  local function all() return { x:sum(), x:sum(1), x:softmax(2), x:matmul(x:t()), x:exp() } end
  local one = (kiln.set_num_threads(1) or all)()
  local four = (kiln.set_num_threads(4) or all)()
  kiln.set_num_threads(n)
  for i in ipairs(one) do
    if i ~= 4 then truth(one[i]:equal(four[i]), "result " .. i) end
  end
  truth(one[4]:allclose(four[4], { rtol = 1e-5, atol = 1e-4 }), "matmul")
end)

-- ---- data ------------------------------------------------------------------------------------------------------

local function with_file(bytes, body)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  local ok, why = pcall(body, path)
  os.remove(path)
  if not ok then error(why, 0) end
end

test("IDX files", function()
  with_file(string.pack(">I2BBI4I4", 0, 8, 2, 2, 3) .. "\0\1\2\3\4\255", function(path)
    check.tensor(kiln.data.read_idx(path), { { 0, 1, 2 }, { 3, 4, 255 } }, "int64")
    equal(kiln.data.read_idx(path, { dtype = "float32" }).dtype, "float32")
  end)
  with_file(string.pack(">I2BBI4ff", 0, 13, 1, 2, 1.5, -2), function(path)
    check.tensor(kiln.data.read_idx(path), { 1.5, -2.0 }, "float32")
  end)
  with_file(string.pack(">I2BBI4", 0, 8, 1, 5000) .. ("\7"):rep(5000), function(path)
    equal(kiln.data.read_idx(path):sum():item(), 35000)
  end)
end)

test("damaged IDX files are refused", function()
  local good = string.pack(">I2BBI4I4", 0, 8, 2, 2, 3) .. "\0\1\2\3\4\5"
  for _, case in ipairs {
    { "ab", "too short" },
    { "\1" .. good:sub(2), "not an IDX file" },
    { good:sub(1, 2) .. "\99" .. good:sub(4), "not an IDX file" },
    { good:sub(1, 3) .. "\9" .. good:sub(5), "damaged header" },
    { good:sub(1, -2), "should have 6 bytes of elements, it has 5" },
    { good .. "x", "it has 7" },
    { string.pack(">I2BBI4I4", 0, 8, 2, 0xffffffff, 0xffffffff), "cut short" },
  } do
    with_file(case[1], function(path) raises(function() kiln.data.read_idx(path) end, "system.lua:", "read_idx", case[2]) end)
  end
  raises(function() kiln.data.read_idx "/no/such/file" end, "read_idx: /no/such/file")
end)

test("batches", function()
  local x, y = kiln.arange(1, 8), kiln.arange(11, 18)
  local seen = {}
  for i, a, b in kiln.data.batches(3, x, y) do seen[i] = { a:totable(), b:totable() } end
  equal(seen, { { { 1, 2, 3 }, { 11, 12, 13 } }, { { 4, 5, 6 }, { 14, 15, 16 } }, { { 7 }, { 17 } } })
  local count, sum = 0, 0
  for _, a, b in kiln.data.batches(3, x, y, { shuffle = true, drop_last = true }) do
    count = count + 1
    equal(a:size(1), 3)
    check.truth((a + 10):equal(b), "pairs stay together")
    sum = sum + a:sum():item()
  end
  equal(count, 2)
  raises(function() kiln.data.batches(0, x) end, "batches: the size")
  raises(function() kiln.data.batches(2, x, kiln.zeros(3)) end, "tensor 2 has 3 entries, the first has 7")
end)

test(".npy files there and back", function()
  local path = os.tmpname()
  for _, t in ipairs { kiln.randn(2, 3), kiln.arange(5), kiln.tensor { true, false }, kiln.ones({}, { dtype = "float64" }),
                       kiln.arange(6):reshape(2, 3):t(), kiln.zeros(0, 3) } do
    kiln.to_npy(path, t)
    local back = kiln.from_npy(path)
    equal(back.dtype, t.dtype)
    equal(back.shape, t.shape)
    truth(back:equal(t), "the same elements")
  end
  os.remove(path)
  raises(function() kiln.from_npy(path) end, "system.lua:", path)
  with_file("not an array", function(p) raises(function() kiln.from_npy(p) end, "npy") end)
  raises(function() kiln.from_npy(3) end, "from_npy: a path is needed, got an integer")
  raises(function() kiln.to_npy(path, 3) end, "to_npy: a tensor is needed after the path")
end)

test("options of a script are read by their defaults", function()
  local function read(...) return kiln.options({ epochs = 3, rate = 0.5, eager = false, prompt = "x" }, { "data" }, { ... }) end
  local o = read()
  equal({ o.epochs, o.rate, o.eager, o.prompt, o.data == nil }, { 3, 0.5, false, "x", true })
  o = read("--eager", "--epochs", "7", "--rate", "2", "--data", "--there", "--prompt", "")
  equal({ o.epochs, o.rate, o.eager, o.prompt, o.data }, { 7, 2, true, "", "--there" })
  raises(function() read "--epoch" end, "there is no option --epoch; there are --data, --eager, --epochs, --prompt, --rate")
  raises(function() read("--epochs", "1.5") end, "--epochs needs a whole number")
  raises(function() read("--epochs", "many") end, "--epochs needs a whole number")
  raises(function() read "--epochs" end, "--epochs needs a whole number")
  raises(function() read("--rate", "x") end, "--rate needs a number")
  raises(function() read "--data" end, "--data needs a value")
  raises(function() read "epochs" end, "there is no option epochs")
  local _, why = pcall(kiln.complain, "no %s", "data")
  equal(tostring(why), "no data")
end)
