-- kiln.while_loop(cond, body, …): while cond(…) is true the values become body(…), as many as there are; gives the last ones.
-- Captured it is a loop; where a graph is traced or built by hand both functions are captured and become its loop.
local tracer = require "kiln".tracer
local emits, truth = tracer.emits, tracer.truth
local fail = require "kiln".fail

local function eager(cond, body, ...)
  local values, n = { ... }, select("#", ...)
  while truth(cond(table.unpack(values, 1, n))) do
    local new = table.pack(body(table.unpack(values, 1, n)))
    if new.n ~= n then fail("while_loop: the body gives %d values for %d", new.n, n) end
    for i = 1, n do values[i] = new[i] end
  end
  return table.unpack(values, 1, n)
end

local emit = tracer.make_while(eager)

local function check(f, what)
  local kind = type(f)
  if kind ~= "function" and kind ~= "table" and kind ~= "userdata" then fail("while_loop: %s must be a function, got %s", what, kind) end
end

return function(cond, body, ...)
  check(cond, "the condition")
  check(body, "the body")
  if emits(...) then return emit(cond, body, ...) end
  return eager(cond, body, ...)
end
