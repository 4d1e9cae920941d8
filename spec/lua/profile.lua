-- g:profile: what each node and line takes, and that nothing of its runs stays.
local check = require "check"
local json = require "kiln.text.json"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises

local x = kiln.rand(4, 8)

local function read_json(path)
  return json.decode(check.read(path))
end

-- Every event lies within those that are open where it begins.
local function count_nested(events)
  local open, deepest = {}, 0
  for _, e in ipairs(events) do
    truth(e.ph == "X" and e.dur >= 0 and type(e.name) == "string" and e.pid == 1 and e.tid == 1, "an event")
    while #open > 0 and open[#open].ts + open[#open].dur <= e.ts + 1e-4 do open[#open] = nil end
    local around = open[#open]
    if around then truth(e.ts + e.dur <= around.ts + around.dur + 1e-4, e.name .. " within " .. around.name) end
    open[#open + 1] = e
    if #open > deepest then deepest = #open end
  end
  return deepest
end

local function find(list, key, pattern)
  for _, row in ipairs(list) do
    if tostring(row[key]):find(pattern) then return row end
  end
  error(("no row with %s %s"):format(key, pattern), 2)
end

test("nodes and lines, with times, work and who did it", function()
  local w = kiln.rand(8, 600) -- smaller products run with what follows them
  local function f(a)
    local h = a:matmul(w)
    return h:relu():mul(2):tanh():sum()
  end
  local g = kiln.script(f)
  local r = g:profile(x, { runs = 5 })
  equal(r.runs, 5)
  truth(r.time > 0 and r.timed > 0, "times")
  truth(r.peaks.gflops > 0 and r.peaks.gbs > 0 and r.peaks.threads >= 1, "peaks")
  local m = find(r.nodes, "op", "^matmul")
  equal(m.calls, 5)
  equal(m.flops, 2.0 * 4 * 600 * 8)
  equal(m.bytes, 4.0 * (4 * 8 + 8 * 600 + 4 * 600))
  truth(m.time > 0 and m.total >= m.time and m.share > 0 and m.share <= 1, "time and share")
  truth(math.abs(m.gflops - m.flops / m.time * 1e-9) < 1e-6 * m.gflops, "GFLOP/s are of the median")
  truth(math.abs(m.flops_of_peak - m.gflops / r.peaks.gflops) < 1e-6, "of the peak")
  truth(type(m.backend) == "string" and type(m.implementation) == "string", "who")
  truth(m.where:find "profile.lua:%d+", m.where)
  truth(#r.lines == 2 and r.lines[1].time >= r.lines[2].time, "lines by time")
  local line = find(r.lines, "where", m.where:match "profile.lua:%d+")
  truth(line.time > 0 and line.calls == 5 and line.flops == m.flops, "its line")
  local sum = 0
  for _, n in ipairs(r.nodes) do sum = sum + n.share end
  truth(sum <= 1 + 1e-9, "shares are of the whole")
  local text = tostring(r)
  for _, part in ipairs { ": 5 runs, median", "GFLOP/s", "matmul", "profile.lua:", "around them" } do
    truth(text:find(part, 1, true), part)
  end
end)

test("what follows a product whose weights change is one walk", function()
  if kiln.backends()[2].name == "ref" then check.skip "nothing fuses here" end
  local w = kiln.rand(64, 600)
  local g = kiln.script(function(a) return a:matmul(w):relu():mul(2):tanh():sum() end)
  local r = g:profile(kiln.rand(400, 64), { runs = 2 })
  find(r.nodes, "op", "^relu %+ mul %+ tanh %+ sum$")
end)

test("nodes that run as one are one row, or each its own", function()
  local function f(a) return (a * 2 + 1):tanh():exp() end
  local g = kiln.script(f)
  if kiln.backends()[2].name == "ref" then check.skip "nothing fuses here" end
  local fused = find(g:profile(x, { runs = 2 }).nodes, "op", "mul %+ add %+ tanh %+ exp")
  equal(#fused.nodes, 4)
  equal(fused.nodes[3].op, "tanh")
  equal(fused.bytes, 4.0 * 2 * 32 + 8) -- what lies between never leaves it; two numbers
  equal(fused.flops, 4.0 * 32)
  local alone = g:profile(x, { runs = 2, nodes = true })
  for _, name in ipairs { "mul", "add", "tanh", "exp" } do
    local row = find(alone.nodes, "op", "^" .. name .. "$")
    equal(row.nodes, nil)
    equal(row.calls, 2)
  end
  equal(find(g:profile(x, { runs = 2 }).nodes, "op", "tanh").op, fused.op) -- the plan is as it was
end)

test("loops and branches: trips, time of all trips, what lies inside is not counted twice", function()
  local function f(a, n)
    local i = 0
    while i < n do
      a = a * 0.5 + 1
      i = i + 1
    end
    if a:sum() > 0 then a = a:exp() else a = a:log() end
    return a
  end
  local g = kiln.script(f)
  local path = os.tmpname()
  local r = g:profile(x, 20, { runs = 3, trace = path })
  local loop, branch = find(r.nodes, "op", "^loop$"), nil
  for _, row in ipairs(r.nodes) do
    if row.op == "if" and row.depth == 1 then branch = row end
  end
  equal(loop.trips, 3 * 21) -- the last one finds that there is no more to do
  equal(loop.calls, 3)
  local inside = find(r.nodes, "op", "mul")
  equal(inside.calls, 60)
  truth(inside.depth > loop.depth, "deeper")
  truth(loop.inclusive >= loop.total + inside.total, "the loop's time holds that of its nodes")
  equal(branch.calls, 3)
  equal(find(r.nodes, "op", "exp").calls, 3)
  equal(find(r.nodes, "op", "log").calls, 0)
  equal(find(r.nodes, "op", "log").backend, nil)
  truth(tostring(r):find("21 trips", 1, true), "trips in the text")
  local trace = read_json(path)
  equal(trace.otherData.graph, g:captures().name)
  equal(trace.otherData.events_left_out, 0)
  truth(count_nested(trace.traceEvents) >= 5, "run, loop, trip, part, node")
  local trips, runs = 0, 0
  for _, e in ipairs(trace.traceEvents) do
    if e.cat == "trip" then trips = trips + 1 end
    if e.cat == "run" then runs = runs + 1 end
  end
  equal(trips, 63)
  equal(runs, 3)
  os.remove(path)
  equal(r:write(path), r)
  equal(#read_json(path).traceEvents, #trace.traceEvents)
  os.remove(path)
  raises(function() r:write "/nowhere/at/all.json" end, "profile.lua:", "/nowhere/at/all.json")
end)

test("nothing of the runs stays: state, arguments, the random stream", function()
  local count, box = 0, { mean = kiln.zeros(8) }
  local function f(a)
    count = count + 1
    box.mean = box.mean + a:mean(1)
    a:add_(1)
    return a + kiln.rand(4, 8), count
  end
  local g = kiln.script(f)
  local mine = x:clone()
  g(mine)
  kiln.manual_seed(3)
  local before, mean = mine:totable(), box.mean:totable()
  g:profile(mine, { runs = 4 })
  equal(mine:totable(), before)
  equal(box.mean:totable(), mean)
  equal(count, 1)
  local drawn = kiln.rand(2):totable()
  kiln.manual_seed(3)
  equal(kiln.rand(2):totable(), drawn)
  g(mine)
  equal(count, 2)
end)

test("steps of training, loaded graphs, tables of arguments", function()
  local net = kiln.nn.Linear(8, 3)
  local opt = kiln.optim.SGD(net:parameters(), { lr = 0.1 })
  local function step(batch)
    local loss = net(batch.x):square():mean()
    opt:zero_grad()
    loss:backward()
    opt:step()
    return loss
  end
  local g = kiln.script(step)
  g { x = x }
  local w = net.weight:totable()
  local r = g:profile({ x = x }, { runs = 3 })
  equal(net.weight:totable(), w)
  truth(#r.nodes > 3 and find(r.nodes, "op", "matmul").calls == 3, "nodes of the step")
  local predict = kiln.script(function(a) return net(a) end)
  local path = os.tmpname()
  kiln.no_grad(function() predict(x) end)
  predict:save(path)
  local loaded = kiln.load(path)
  os.remove(path)
  truth(find(loaded:profile(x).lines, "where", "profile.lua").calls == 10, "ten runs if nothing is said")
end)

test("a run that fails, and wrong options", function()
  local function f(a)
    if a:sum() > 0 then error "too much" end
    return a
  end
  local g = kiln.script(f)
  raises(function() g:profile(x) end, "profile.lua:", "too much")
  g(-x) -- it is still of use
  raises(function() g:profile(-x, { runs = 0 }) end, "profile.lua:", "runs")
  raises(function() g:profile(-x, { runs = 10 ^ 9 // 1 | 0 }) end, "profile.lua:", "runs")
  raises(function() g:profile(-x, { nodes = 3 }) end, "nodes")
  local r = g:profile(-x, { runs = 1 })
  equal(r.nonsense, nil)
end)
