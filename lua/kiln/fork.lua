-- kiln.fork(f, …): f(…) as a part of its own, whose results kiln.wait(future) gives. The parts run one after the other, each at
-- its fork; they draw from random streams of their own, so their order is not seen, and capture refuses parts that write what
-- others use. An error in f is raised by wait.
local kiln = require "kiln"
local fail, mark, pack = kiln.fail, kiln.fork_mark, table.pack

local meta = { __name = "kiln.future" }
function meta:__tostring() return self.ok and ("future of %d results"):format(self.results.n) or "future of an error" end

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
  return setmetatable({ ok = ok, results = results, part = part }, meta)
end
