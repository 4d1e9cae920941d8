-- A Lua function becomes a graph: its branch and its loop on data are kept, its code can be printed, saved and run again
-- without being parsed.
--   kiln samples/capture.lua
local kiln = kiln or require "kiln"

-- Newton's method for the square root of one number, with a way out for what has none. How many rounds it takes depends
-- on the number, so there is a real loop here, and a real branch.
local tolerance = 1e-6
local function root(x)
  if x:item() < 0 then return x, 0 end
  local guess, rounds = x * 0.5 + 0.5, 0
  while (guess * guess - x):abs():item() > tolerance * x:abs():item() + 1e-12 do
    guess = (guess + x / guess) * 0.5
    rounds = rounds + 1
  end
  return guess, rounds
end

local graph = kiln.script(root, { inputs = { kiln.spec("float64", {}) } })
print(graph)

for _, value in ipairs { 2, 9, 1e6, -1 } do
  local x = kiln.tensor(value, { dtype = "float64" })
  local eager, eager_rounds = root(x)
  local captured, rounds = graph(x)
  print(("root of %g: eager %.9f in %d rounds, graph %.9f in %d"):format(value, eager:item(), eager_rounds, captured:item(),
    rounds))
  assert(captured:equal(eager) and rounds == eager_rounds)
end

-- What the graph relies on is listed: here, that `tolerance` is what it was. It is checked at every call.
for _, guard in ipairs(graph:guards()) do print("guard", guard.kind, guard.name, guard.value, guard.where) end

-- Saved and loaded, it does the same.
local path = os.tmpname()
graph:save(path)
print("loaded:", (kiln.load(path)(kiln.tensor(2.0, { dtype = "float64" }))))
os.remove(path)
