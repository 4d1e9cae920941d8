-- kiln.fork(f, …): f(…) as a part of its own, whose results kiln.wait(future) gives. Eager the parts run one after the other, each at
-- its fork; in a graph they run on several threads where that is faster, with the same results to the bit. They draw from random
-- streams of their own, so their order is not seen, and capture refuses parts that write what others use. An error in f is raised by
-- wait.
local kiln = require "kiln"
local fail, mark, pack = kiln.fail, kiln.fork_mark, table.pack

local meta = { __name = "kiln.future" }
function meta:__tostring()
  local r = self.results
  return type(r) == "table" and r.n and ("future of %d results"):format(r.n) or "future of an error"
end

local function collect(f, ...) return pack(f(...)) end

return function(f, ...)
  local kind = type(f)
  if kind ~= "function" and kind ~= "table" and kind ~= "userdata" then
    fail("fork: a function to run is needed, got %s", kind)
  end
  local stream = kiln.fork_random()
  local part = mark "fork"
  local ok, results = pcall(collect, f, ...)
  mark("end", part)
  kiln.join_random(stream)
  -- An error's message stands in the place of the results, so that where capture knows neither one union holds both.
  if not ok and type(results) ~= "string" then results = { value = results } end
  return setmetatable({ results = results, part = part }, meta)
end
