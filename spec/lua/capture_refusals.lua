-- What cannot be captured is refused with the place, the reason and what to write instead.
local check = require "check"
local T = kiln.tensor
local x = T { 1.0, 2, -3 }

-- f must be refused; the sentence starts with this file and the line `line` after the one that f starts on.
local function refused(name, f, line, ...)
  local parts = { ... }
  check.test(name, function()
    local at = debug.getinfo(f, "S").linedefined + line
    local ok, why = pcall(kiln.script(f), x)
    check.truth(not ok, "it was captured")
    local place = ("capture_refusals.lua:%d: "):format(at)
    check.truth(why:find(place, 1, true), place .. " in: " .. why)
    for _, part in ipairs(parts) do check.truth(why:find(part, 1, true), part .. " in: " .. why) end
    check.truth(not why:find("\n", 1, true), "one line: " .. why)
  end)
end

refused("printing a table made inside", function(t) print({ t }) return t end, 0, "a table", "its address")
refused("writing to a file", function(t)
  local file = io.tmpfile()
  return t, file
end, 1, "'io.tmpfile'")
refused("a write before an error on data, in pcall", function(t)
  local n = 0
  local ok = pcall(function()
    n = 1
    if t:sum() > 0 then error "late" end
  end)
  return n, ok
end, 4, "inside a protected call that has written to a table, variable or tensor")
refused("a table raised on data", function(t)
  local ok = pcall(function() if t:sum() > 0 then error {} end end)
  return ok
end, 1, "raises a table")
refused("coroutines", function(t)
  return coroutine.wrap(function() coroutine.yield(t) end)()
end, 1, "'coroutine.wrap'")
refused("math.random", function(t) return t * math.random() end, 0, "'math.random'", "kiln.rand")
refused("os.time", function(t) return t * os.time() end, 0, "'os.time'", "argument")
refused("a string of data, its length", function(t) return #("v=" .. t:sum():item()) end, 0, "a string depends on tensor data")
refused("tostring of data, compared", function(t)
  local s = tostring(t:sum():item())
  if s == "1.0" then return t end
  return -t
end, 2, "a string depends on tensor data", "printed, raised or returned")
refused("a string of data as key", function(t)
  local s = ("%d"):format(t:gt(0):sum():item())
  return ({ ["1"] = t })[s]
end, 2, "a string depends on tensor data", "look at the text outside")
refused("a method of a string of data", function(t) print((t:sum():item() .. ""):upper()) end, 0, "a string depends")
refused("a warning that may be a control message", function(t) warn("@", t:sum():item()) end, 0, "begins with '@'")
refused("a table indexed by data, too long", function(t)
  local list = {}
  for i = 1, 100 do list[i] = t * i end
  return list[t:gt(0):sum():item()]
end, 3, "indexed by", "kiln.stack")
refused("a hash set at data", function(t)
  local list = { [1] = t, [3] = t }
  list[t:gt(0):sum():item()] = -t
  return list
end, 2, "no list of integers", "kiln.stack")
refused("a length that depends on data", function(t)
  local list = { t }
  if t:sum() > 0 then list[2] = t end
  return #list
end, 3, "length of this table depends on tensor data")
refused("a list that grows in a loop on data", function(t)
  local list = {}
  while t:sum() > 0.1 do
    t = t * 0.5
    list[#list + 1] = t
  end
  return table.remove(list)
end, 6, "needs to know the length of a list whose length depends on tensor data", "kiln.stack")
refused("a number of values that depends on data", function(t)
  local function f() if t:sum() > 0 then return t, t end end
  return { f() }
end, 2, "the number of values depends on tensor data")
refused("recursion on data", function(t)
  local function f(y)
    if y:sum() > 1 then return f(y * 0.5) end
    return y
  end
  return f(t)
end, 2, "recursion that depends on tensor data", "inlined at")
refused("to-be-closed variables", function(t)
  local c <close> = setmetatable({}, { __close = function() end })
  return t, c
end, 1, "__close")
refused("a tensor whose size depends on data put where nothing was", function(t)
  refusals_made = t:nonzero()
  return t
end, 0, "'refusals_made', which exists outside and is nil", "sizes are only known when the graph runs; put a tensor there before")
refused("a table put where nothing was", function(t)
  refusals_made = { t }
  return t
end, 1, "writes 'refusals_made'", "only numbers, booleans and tensors")
refused("grad_fn", function(t) return t.grad_fn end, 0, "reads 'grad_fn'")
refused("an argument that is to require grad", function(t) t:requires_grad_() return t * 2 end, 0, "detach it first")
refused("backward for what is computed", function(t)
  local h = t:detach():requires_grad_() * 2
  h:sum():backward { inputs = h }
  return h
end, 2, "input 1 of backward is computed from what requires grad", "use kiln.grad")
refused("a loop that never ends", function(t)
  while true do t = t + 1 end
end, 1, "never ends")
refused("a function as result", function(t)
  return t, function() return t end
end, 0, "result 2 is a function")
refused("the inlining chain", function(t)
  local function inner(y) return #(y:sum():item() .. "") end
  local function outer(y) return inner(y) end
  return (outer(t))
end, 1, "inlined at", "capture_refusals.lua:")
