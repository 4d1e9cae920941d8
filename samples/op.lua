-- What samples/op.c scripts with its own op, kiln.op.distance: lengths of the legs of a route, their gradient, a step that
-- moves a point, and a graph of it all, saved for programs without Lua.
--
--   build/samples/op samples/op.lua OP.kiln
local kiln = kiln or require "kiln"
local path = ...

local function degrees(list) return kiln.tensor(list, { dtype = "float64" }) * (math.pi / 180) end
local berlin, paris = degrees { { 52.52, 13.405 } }, degrees { { 48.857, 2.352 } }
print(("eager: %.1f km"):format(kiln.op.distance(berlin, paris):item() / 1000))
print(("on the moon: %.1f km"):format(kiln.op.distance(berlin, paris, { radius = 1737400 }):item() / 1000))

-- A method of numbers compares the vjp with differences.
local ok = kiln.gradcheck(function(a, b) return kiln.op.distance(a, b, { radius = 1 }) end,
  { berlin:clone():requires_grad_(), paris:clone():requires_grad_() })
print("gradcheck: " .. tostring(ok))

-- Where is it as far to three towns, all in all, as can be helped? Gradient descent, captured whole.
local towns = degrees { { 52.52, 13.405 }, { 48.857, 2.352 }, { 51.507, -0.128 } }
local place = berlin:clone():requires_grad_()
local opt = kiln.optim.SGD({ place }, { lr = 0.01 })
local step = kiln.script(function()
  opt:zero_grad()
  local far = kiln.op.distance(place:expand(3, 2), towns, { radius = 1 }):sum()
  far:backward()
  opt:step()
  return far
end)
local far
for _ = 1, 200 do far = step() end
print(("the place between: %.1f %.1f, %.1f km in all"):format(place[1][1]:item() * 180 / math.pi,
  place[1][2]:item() * 180 / math.pi, far:item() * 6371.0088))

local function legs(route) return kiln.op.distance(route[{ { 1, -2 } }], route[{ { 2, -1 } }]) end
local g = kiln.script(legs, { inputs = { kiln.spec("float64", { "N", 2 }) } })
print(g)
g:save(path)
