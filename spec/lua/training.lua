-- kiln.training: a run stopped, saved and taken up by new objects goes on to the bit, eager and captured; what does not fit
-- changes nothing; the log of rows.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local nn, F, optim, training = kiln.nn, kiln.nn.functional, kiln.optim, kiln.training
local plain = require "kiln.training.plain"

local path = os.tmpname()

-- ---- plain data ------------------------------------------------------------------------------------------------

test("plain data is the same again, to the bit", function()
  local value = {
    whole = 3, float = 3.0, third = 1 / 3, tiny = 5e-324, minus = -0.0, big = math.maxinteger, small = math.mininteger,
    inf = math.huge, less = -math.huge, nan = 0 / 0, yes = true, no = false, text = 'a "b"\n\\ ü', bytes = "\255\0\1",
    list = { 1, 2.5, { "x" } }, empty = {}, holes = { [1] = "a", [3] = "c" }, mixed = { 1, 2, key = "v" },
    numbers = { [0] = "zero", [-1.5] = "half", [true] = false }, ["$odd"] = { ["$tensor"] = "no tensor" },
    t = kiln.tensor { 1, 2 }, deep = { a = { kiln.tensor(0.5) } },
  }
  value.same = value.t
  local tensors = {}
  local text = plain.encode(value, tensors, "test")
  local n = 0
  for _ in pairs(tensors) do n = n + 1 end
  equal(n, 2)
  equal(tensors["deep.a.1"]:item(), 0.5)
  local back = plain.decode(text, tensors, "text")
  truth(check.identical(back, value), text)
  truth(back.same == back.t, "one tensor stays one")
  truth(1 / back.minus < 0, "minus zero")
end)

test("what is not plain data is told by its path", function()
  local function encode(v) return function() plain.encode(v, {}, "save_checkpoint") end end
  raises(encode { a = { f = print } }, "training.lua:", "save_checkpoint: a.f is a function; plain data and tensors can be saved")
  raises(encode { a = setmetatable({}, {}) }, "a is an object without state_dict")
  raises(encode { a = { [{}] = 1 } }, "a key in a is a table")
  local loop = {}
  loop.again = loop
  raises(encode { loop = loop }, "tables deep, or holds itself")
  raises(function() plain.decode('{"a":{"$tensor":"b"}}', {}, "f") end, "f is damaged: the tensor b is missing")
  raises(function() plain.decode('{"a":{"$number":"pi"}}', {}, "f") end, "f is damaged: no number pi")
  raises(function() plain.decode('{"a":{"$table":[[1,2],3]}}', {}, "f") end, "f is damaged: a table's row without key")
  raises(function() plain.decode('{"a":', {}, "f") end, "f: line 1")
end)

-- ---- runs ------------------------------------------------------------------------------------------------------

-- A run of `epochs` epochs of 4 batches in an order drawn for each; stopped and taken up by new objects before epoch `stop`.
local function run(script, make, epochs, stop)
  kiln.manual_seed(5)
  local x, y = kiln.randn(24, 4), kiln.randint(1, 4, { 24 })
  local net, opt, schedule, step
  local function build()
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d and nn.BatchNorm1d(8) or nn.Tanh(), nn.Dropout(0.25), nn.Linear(8, 3))
    opt, schedule = make(net)
    step = script(function(a, b)
      opt:zero_grad()
      local loss = F.cross_entropy(net(a), b)
      loss:backward()
      opt:step()
      return loss
    end)
  end
  build()
  local left, order = {}, nil
  for epoch = 1, epochs do
    if epoch == stop then
      training.save_checkpoint(path, { model = net, optimizer = opt, scheduler = schedule, epoch = epoch, losses = left, order = order })
      local random = kiln.rand(3):totable()
      kiln.manual_seed(99)
      build()
      local rest = training.load_checkpoint(path, { model = net, optimizer = opt, scheduler = schedule })
      equal(kiln.rand(3):totable(), random)
      rest = training.load_checkpoint(path, { model = net, optimizer = opt, scheduler = schedule })
      equal(rest.epoch, epoch)
      truth(rest.order:equal(order))
      left = rest.losses
    end
    order = kiln.randperm(24)
    for k = 1, 4 do
      local rows = order[{ { 6 * k - 5, 6 * k } }]
      left[#left + 1] = step(x[rows], y[rows]):item()
    end
    schedule:step()
  end
  for _, t in pairs(net:state_dict()) do left[#left + 1] = t:sum():item() end
  table.sort(left)
  left[#left + 1] = opt.lr
  left[#left + 1] = kiln.rand(1):item()
  return left
end

local s = optim.lr_scheduler
local runs = {
  SGD = function(net)
    local opt = optim.SGD({ { params = net:parameters(), momentum = 0.5 } }, { lr = 0.1 })
    return opt, s.OneCycleLR(opt, 0.2, 20)
  end,
  Adam = function(net)
    local opt = optim.Adam(net:parameters(), { lr = 0.01, amsgrad = true })
    local warm = s.LinearLR(opt, { start_factor = 0.5, total_iters = 2 })
    return opt, s.SequentialLR(opt, { warm, s.CosineAnnealingWarmRestarts(opt, 2, 2) }, { 2 })
  end,
  NAdam = function(net)
    local opt = optim.NAdam(net:named_parameters())
    return opt, s.ChainedScheduler { s.ExponentialLR(opt, 0.9), s.ConstantLR(opt, 0.5, 3) }
  end,
}
for name, make in pairs(runs) do
  test("a run with " .. name .. ", stopped and taken up, goes on to the bit", function()
    local threads = kiln.get_num_threads()
    kiln.set_num_threads(1)
    kiln.use_deterministic_algorithms(true)
    local want = run(function(f) return f end, make, 5)
    equal(run(function(f) return f end, make, 5, 4), want)
    equal(run(kiln.script, make, 5, 3), want)
    kiln.use_deterministic_algorithms(false)
    kiln.set_num_threads(threads)
  end)
end

test("LBFGS goes on to the bit", function()
  local p = kiln.tensor({ -1.2, 1.0 }, { dtype = "float64", requires_grad = true })
  local function steps(opt, q, n)
    for _ = 1, n do
      opt:step(function()
        opt:zero_grad()
        local loss = (1 - q[1]) ^ 2 + (q[2] - q[1] ^ 2) ^ 2 * 100
        loss:backward()
        return loss
      end)
    end
  end
  local options = { max_iter = 3, history_size = 4, line_search_fn = "strong_wolfe" }
  local opt = optim.LBFGS({ p }, options)
  steps(opt, p, 3)
  training.save_checkpoint(path, { optimizer = opt, p = p })
  local q = training.load_checkpoint(path).p:clone():requires_grad_()
  local other = optim.LBFGS({ q })
  training.load_checkpoint(path, { optimizer = other })
  steps(opt, p, 3)
  steps(other, q, 3)
  equal(q:totable(), p:totable())
end)

-- Saved in the middle of an epoch: the order of the data goes on with the next batch.
test("the order of a DataLoader goes on", function()
  local function run(stop)
    kiln.manual_seed(7)
    local data = kiln.data.TensorDataset(kiln.randn(22, 3), kiln.randint(1, 3, { 22 }))
    local net, opt, loader
    local function build()
      net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
      opt = optim.AdamW(net:parameters(), { lr = 0.05 })
      loader = kiln.data.DataLoader(data, { batch_size = 4, shuffle = true })
    end
    build()
    local losses = {}
    while #losses < 18 do
      for _, x, y in loader:iter() do
        opt:zero_grad()
        local loss = F.cross_entropy(net(x), y)
        loss:backward()
        opt:step()
        losses[#losses + 1] = loss:item()
        if #losses == stop then break end
      end
      if #losses == stop then
        training.save_checkpoint(path, { model = net, optimizer = opt, loader = loader })
        kiln.manual_seed(1)
        build()
        training.load_checkpoint(path, { model = net, optimizer = opt, loader = loader })
      end
    end
    return losses
  end
  local want = run()
  equal(run(8), want)
  equal(run(12), want)
end)

test("what does not fit is named, and nothing is changed", function()
  local net = nn.Linear(2, 2)
  local opt = optim.Adam(net:parameters(), { lr = 0.5 })
  training.save_checkpoint(path, { model = net, optimizer = opt, note = "x" })
  local bigger = nn.Linear(3, 2)
  local other = optim.Adam(bigger:parameters(), { lr = 0.25 })
  local before, state = bigger.weight:totable(), kiln.get_rng_state()
  raises(function() training.load_checkpoint(path, { model = bigger, optimizer = other }) end, "training.lua:",
    "load_checkpoint: model: ", "weight is [2, 2] there and [2, 3] here")
  equal(other.lr, 0.25)
  equal(bigger.weight:totable(), before)
  equal(kiln.get_rng_state(), state)
  raises(function() training.load_checkpoint(path, { net = net }) end, "holds no state of net; there are model, note, optimizer")
  raises(function() training.load_checkpoint(path, { note = 3 }) end, "note must have state_dict and load_state_dict, got number")
  raises(function() training.load_checkpoint(path .. ".none") end, "training.lua:", "No such file")
  raises(function() training.save_checkpoint(path, { f = print }) end, "f is a function")
  raises(function() training.save_checkpoint("/nonexistent/x", { model = net }) end, "/nonexistent/x")
  raises(function() training.save_checkpoint(path) end, "a table such as { model = net, epoch = 3 } is needed, got nil")
  equal(training.load_checkpoint(path).note, "x")
  kiln.to_safetensors(path, { a = kiln.ones(2) })
  raises(function() training.load_checkpoint(path) end, "is no checkpoint")
end)

-- ---- the log ---------------------------------------------------------------------------------------------------

test("a CSV log: header once, each row there at once, taken up again", function()
  os.remove(path)
  local log = training.CSVLogger(path, { "epoch", "loss", "a, b" })
  log:log { epoch = 1, loss = kiln.tensor(0.5), ["a, b"] = 'say "x"' }
  equal(check.read(path), 'epoch,loss,"a, b"\n1,0.5,"say ""x"""\n')
  log:log { epoch = 2, loss = 1 / 3, ["a, b"] = "two\nlines" }
  equal(log:state_dict(), { rows = 2 })
  training.save_checkpoint(path .. ".ckpt", { log = log })
  log:log { epoch = 3 }
  log:close()
  local text = check.read(path)
  truth(text:find("2,0.33333333333333331,", 1, true) or text:find("2,0.3333333333333333,", 1, true), text)
  equal(text:sub(-4), "3,,\n")
  check.write(path, text .. "4,0.")
  log = training.CSVLogger(path, { "epoch", "loss", "a, b" })
  equal(log.rows, 3)
  equal(check.read(path), text)
  training.load_checkpoint(path .. ".ckpt", { log = log })
  log:log { epoch = 3, loss = math.huge }
  equal(check.read(path), text:sub(1, -5) .. "3,inf,\n")
  raises(function() log:log { step = 1 } end, "training.lua:", "there is no column 'step'; there are epoch, loss, a, b")
  raises(function() log:log { epoch = {} } end, "column 'epoch' must be a number, string or boolean, got table")
  raises(function() log:load_state_dict { rows = 9 } end, "has 3 rows, fewer than the 9 it had")
  log:close()
  raises(function() log:log {} end, "is closed")
  raises(function() training.CSVLogger(path, { "epoch" }) end, "has other columns: epoch,loss,\"a, b\"")
  raises(function() training.CSVLogger(path, { "a", "a" }) end, "the column 'a' is there twice")
  raises(function() training.CSVLogger("/nonexistent/x.csv", { "a" }) end, "CSVLogger: /nonexistent/x.csv: No such file")
  training.CSVLogger(path, { "a" }, { append = false }):close()
  equal(check.read(path), "a\n")
  os.remove(path .. ".ckpt")
end)

os.remove(path)
