-- Whole programs on the software device (spec/cuda/sim), each in a kiln of its own: what kiln.backends() says, tensors
-- there and back, memory, what the driver is asked for, and what happens when it refuses.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local folder = (os.getenv "KILN_BUILD" or "build") .. "/spec/cuda/sim"
local there = io.open(folder .. "/libcuda.so.1", "rb")
if there then there:close() end

-- What a program printed, errors included, and its exit code. `env` is put before it; $TMP is a fresh folder.
local function run(program, env)
  if not there then check.skip "the software device was not built" end
  local path = os.tmpname()
  check.write(path, program)
  local pipe = assert(io.popen(("env KILN_CACHE='' XDG_CACHE_HOME='' HOME='' KILN_CUDA_LIBRARIES='%s' %s '%s' '%s' 2>&1"):format(
    folder, env or "", check.program(), path)))
  local said = check.said(pipe:read "a")
  local _, _, code = pipe:close()
  os.remove(path)
  return said:gsub(path:gsub("%p", "%%%0"), "PROGRAM"), code
end

local function gives(program, wanted, env)
  local said, code = run(program, env)
  equal(said, wanted)
  equal(code, 0)
end

test("the row, the device, its memory", function()
  gives([[
    local row = kiln.backends()[1]
    print(row.name, row.available, row.version)
    print(kiln.cuda.is_available(), kiln.cuda.device_count(), kiln.cuda.get_device_capability())
    print(table.concat(kiln.devices(), " "))
    print(kiln.cuda.memory_allocated(), kiln.cuda.memory_reserved())
    local x = kiln.zeros(1000):to("cuda")
    print(kiln.cuda.memory_allocated(), kiln.cuda.memory_reserved())
    local y = kiln.zeros(3, 1 << 20):to("cuda")
    print(kiln.cuda.memory_allocated(), kiln.cuda.memory_reserved())
    x, y = nil, nil
    collectgarbage() collectgarbage()
    print(kiln.cuda.memory_allocated(), kiln.cuda.memory_reserved(), kiln.cuda.max_memory_allocated())
    kiln.cuda.empty_cache()
    print(kiln.cuda.memory_reserved(), kiln.cuda.max_memory_reserved())
    print(pcall(kiln.cuda.set_device, 1))
  ]], [[
cuda	true	CUDA 13.0 (not verified on a device), sm_90, software device
true	1	9	0
cpu cuda
0	0
4096	2097152
12587008	14680064
0	14680064	12587008
0	14680064
false	PROGRAM:15: there is no device 1; there are 0 to 0
]])
end)

test("tensors of every size, there and back", function()
  gives([[
    for _, n in ipairs { 0, 1, 3, 1000, 262143, 262144, 262145, 1000003 } do
      local x = kiln.arange(0, n):float()
      local there = x:to("cuda")
      assert(there.device == "cuda" and there.is_cuda)
      assert(there:cpu():equal(x), n)
      x:fill_(-1) -- the copy is its own, though it may not have been made yet
      assert(n == 0 or there:cpu()[1]:item() == 0)
    end
    local t = kiln.randn(7, 5):t()
    assert(t:to("cuda"):cpu():equal(t))
    print "same"
  ]], "same\n")
end)

test("what the driver is asked for", function()
  local trace = os.tmpname()
  gives([[
    local x = kiln.tensor{ 1, 2, 3 }:to("cuda")
    local y = x * 2
    print(y:sum():item())
    x:copy_(y)
    kiln.cuda.synchronize()
  ]], "12\n", "SIM_TRACE=" .. trace)
  local said = check.read(trace)
  os.remove(trace)
  equal(said, [[
cuMemAlloc 2097152 -> m1
launch copy 24 host -> m1
launch kernel chain <1 1 1, 256, 0>
launch kernel chain <1 1 1, 256, 0>
launch copy 8 m1+1024 -> host
wait
launch kernel chain <1 1 1, 256, 0>
wait
wait
cuMemFree m1
]])
end)

test("memory that runs out is an error like any other, and the program goes on", function()
  gives([[
    local ok, why = pcall(function() return kiln.zeros(1 << 20):to("cuda") end)
    print(ok, why)
    local x = kiln.ones(8):to("cuda")
    print(x:sum():item())
  ]], [[
false	PROGRAM:1: to_device: out of memory on cuda: 4194304 bytes were asked for, 0 are in use, 0 kept for others of kiln, 3000000 of 3000000 free
8.0
]], "SIM_MEMORY=3000000")
end)

test("tensors that nobody holds make room", function()
  gives([[
    collectgarbage "stop"
    for i = 1, 20 do
      local x = kiln.zeros(1 << 18):to("cuda")
      assert(x:sum():item() == 0)
    end
    print "done"
  ]], "done\n", "SIM_MEMORY=8000000")
end)

test("kernels are compiled once, and read from disk by the next program", function()
  local cache = os.tmpname()
  os.remove(cache)
  local program = "local x = kiln.tensor{ 1.5, 2.5 }:to('cuda') print((x * x):sum():item())"
  local with = ("KILN_DEBUG=dispatch KILN_CACHE='%s'"):format(cache)
  local first, second = run(program, with), run(program, with)
  truth(first:find("dispatch: cuda compiled ", 1, true), first)
  truth(not second:find("compiled", 1, true) and second:find("8.5\n", 1, true), second)
  for path in io.popen(("ls '%s'/cuda/*"):format(cache)):lines() do check.write(path, check.read(path):sub(1, -2)) end
  local third = run(program, with) -- the files are damaged
  truth(third:find("compiled", 1, true) and third:find("8.5\n", 1, true), third)
  os.execute(("rm -rf '%s'"):format(cache))
end)

-- What KILN_DEBUG=exec says of a program: launches, waits, and whatever ran by itself.
local function launches(program)
  local helper = package.searchpath("loops", package.path)
  local said, code = run(("local loops = dofile %q\n"):format(helper) .. program, "KILN_DEBUG=exec")
  equal(code, 0)
  local _, count = said:gsub("one launch of", "")
  local _, waits = said:gsub("one launch of [^\n]*, waits", "")
  return count, waits, said:match "[^\n]*by itself[^\n]*" or said:match "[^\n]*step by step[^\n]*"
end

test("a while of many trips, which may give back its argument, is one launch", function()
  local count, waits, by_itself = launches [[
    local on = { device = "cuda" }
    local f = kiln.script(loops.trips(1000))
    local x, w, b = kiln.randn(8, 8, on), kiln.randn(8, 8, on) * 0.1, kiln.randn(8, on) * 0.1
    local y = f(x, w, b)
    assert(not rawequal(y, x))
    x = x * 0 + 2
    assert(rawequal(f(x, w, b), x))
  ]]
  equal(count, 2)
  equal(waits, 2) -- which tensor it was
  equal(by_itself, nil)
end)

test("a decoder that stops early is one launch", function()
  local count, waits, by_itself = launches [[
    local on, width = { device = "cuda" }, 16
    local f = loops.decoder(width, 32, 24)
    local g = kiln.script(f)
    kiln.no_grad(function()
      for _, first in ipairs { 2, 1, 3 } do
        local token, h = kiln.tensor({ first }, on), kiln.zeros(1, width, on)
        local a, b = g(token, h)
        local c, d = f(token, h)
        assert(a:cpu():equal(c:cpu()) and kiln.allclose(b:cpu(), d:cpu()))
        assert(rawequal(a, token) == (first == 1) and rawequal(b, h) == (first == 1))
      end
    end)
  ]]
  equal(count, 3)
  equal(waits, 3)
  equal(by_itself, nil)
end)

-- Three calls of the program's function: each one launch, of which so many wait, and one graph in all.
local function is_one_launch(program, waits)
  local said, code = run(program, "KILN_TUNE=0 KILN_DEBUG=exec")
  equal(code, 0)
  local launches, waited = 0, 0
  for line in said:gmatch "[^\n]+" do
    truth(not line:find("runs by itself", 1, true) and not line:find("step by step", 1, true), line)
    if line:find("one launch of", 1, true) then
      launches = launches + 1
      truth(line:find("1 graph so far", 1, true), line)
      if line:find("waits", 1, true) then waited = waited + 1 end
    end
  end
  equal(launches, 3)
  equal(waited, waits)
end

test("what is one launch: draws in loops", function()
  is_one_launch([[
    local drop = kiln.nn.Dropout(0.5)
    local g = kiln.script(function(x)
      local y = x * 1
      while y:sum():item() < 20 do
        if y:amax():item() > 2 then y = y + kiln.rand_like(y) else y = drop(y) + 1 end
      end
      return y * 2
    end)
    for i = 1, 3 do g(kiln.ones(4):cuda()) end
  ]], 3)
end)

test("what is one launch: places by a counter, errors with values", function()
  is_one_launch([[
    local g = kiln.script(function(x)
      local out, h = kiln.zeros_like(x), x[1] * 0
      for t = 1, x:size(1) do
        h = (x[t] + h):tanh()
        out[t] = h
        local s = h:sum():item()
        assert(s < 100, "trip " .. t .. ": " .. s)
      end
      return out * 1, h * 1
    end)
    for i = 1, 3 do g(kiln.ones(5, 4):cuda()) end
  ]], 3)
  is_one_launch([[ -- counters that sizes bound are within range
    local g = kiln.script(function(x)
      local out, h = kiln.zeros_like(x), x[1] * 0
      for t = x:size(1), 1, -1 do
        h = (x[t] + h):tanh()
        out[t] = h
      end
      for i = 1, x:size(1) do
        for j = 2, x:size(2) do out[i][j] = out[i][j] + x[i][j - 1] end
      end
      return out * 1, h * 1
    end)
    for i = 1, 3 do g(kiln.ones(40, 30):cuda()) end
  ]], 0)
end)

test("what is one launch: training through a loop", function()
  is_one_launch([[
    local cell = kiln.nn.Linear(8, 4):cuda()
    local opt = kiln.optim.SGD(cell:parameters(), { lr = 0.1 })
    local step = kiln.script(function(x)
      opt:zero_grad()
      local h = x[1] * 0
      for t = 1, x:size(1) do h = cell(kiln.cat({ x[t], h }, 1)):tanh() end
      local loss = (h * h):sum()
      loss:backward()
      opt:step()
      return loss
    end)
    for i = 1, 3 do step(kiln.ones(70, 4):cuda()) end
  ]], 3)
end)

test("what modules make, and zeros for results that get no gradient, lie beside their inputs", function()
  gives([[
    local nn = kiln.nn
    local x, one = kiln.rand(5, 2, 3):cuda(), kiln.rand(2, 3):cuda()
    for _, name in ipairs { "LSTM", "GRU", "RNN" } do
      local m = nn[name](3, 4):cuda()
      kiln.script(m)(x):sum():backward() -- the states at the end are not used
      local cell = nn[name .. "Cell"](3, 4):cuda()
      print(name, m.weight_hh_l0.grad.device, cell(one).device, cell(one[1]).device)
    end
    print(nn.init.sparse_(kiln.empty(6, 4, { device = "cuda" }), 0.5):ne(0):sum():item())
    print(kiln.distributions.Categorical(kiln.rand(3, 4):double():cuda()).mean)
  ]], [[
LSTM	cuda	cuda	cuda
GRU	cuda	cuda	cuda
RNN	cuda	cuda	cuda
12
{nan, nan, nan}
float64[3]@cuda
]], "KILN_TUNE=0")
end)
