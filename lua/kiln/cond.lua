-- kiln.cond(pred, f, g, …): f(…) when pred, a boolean or a tensor of one element, is true, else g(…). Eager it runs one of
-- them; captured it is a branch; where a graph is traced or built by hand both functions are captured and become its sides.
local kiln = require "kiln"
local tracer, number = kiln.tracer, kiln.linalg.cond
local fail = kiln.fail
local emits, truth, emit = tracer.emits, tracer.truth, tracer.cond

return function(pred, f, g, ...)
  local kind = type(f)
  if kind == "nil" or kind == "string" or kind == "number" then return number(pred, f) end -- the condition of a matrix
  if kind ~= "function" and kind ~= "table" and kind ~= "userdata" then fail("cond: the first side must be a function, got a %s", kind) end
  kind = type(g)
  if kind ~= "function" and kind ~= "table" and kind ~= "userdata" then fail("cond: the second side must be a function, got %s", kind) end
  if emits(pred, ...) then return emit(pred, f, g, ...) end
  if truth(pred) then return f(...) end
  return g(...)
end
