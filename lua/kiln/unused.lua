-- kiln.unused(f): stands for f where it is never to be called: reached, eager or captured, it raises.
local fail = require "kiln".fail

return function(f)
  if type(f) ~= "function" and type(f) ~= "table" then fail("unused: a function or module is needed, got %s", type(f)) end
  return function() error("this function was marked kiln.unused, and is called", 2) end
end
