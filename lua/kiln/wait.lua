-- kiln.wait(future): the results of what kiln.fork ran, as often as they are asked for; an error there is raised here.
local kiln = require "kiln"
local fail, mark, unpack = kiln.fail, kiln.fork_mark, table.unpack

return function(future)
  local meta = type(future) == "table" and getmetatable(future)
  if not meta or meta.__name ~= "kiln.future" then
    fail("wait: a future is needed, as kiln.fork gives it, got %s", kiln.is_tensor(future) and "a tensor" or type(future))
  end
  mark("wait", future.part)
  local results = future.results
  if type(results) == "string" then error(results, 0) end
  if not results.n then error(results.value, 0) end
  return unpack(results, 1, results.n)
end
