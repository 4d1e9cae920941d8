-- How the creatures of game.c behave, and what saves their brains.
--   kiln samples/game.lua seek|flee BRAIN.kiln     captures such a brain and saves it
--   game samples/game.lua BRAIN.kiln               plays it: game.c calls `adopt` and `tick`
local kiln = kiln or require "kiln"

local flag = kiln.tensor { 2.0, -1.0 }

-- game.c has loaded a file as the global `candidate`: it is taken only if it can steer.
local brain
function adopt()
  local push = candidate(kiln.zeros(3, 2), flag)
  assert(push.dtype == "float32" and push:dim() == 2 and push:size(1) == 3 and push:size(2) == 2,
    "a brain takes places and the flag, and gives a push for each place")
  brain = candidate
end

-- Moves the creatures, in game.c's own memory, and tells how far from the flag they are.
function tick(places)
  if not brain then return end
  places:add_(brain(places, flag):clamp(-0.2, 0.2)):clamp_(-20, 20)
  return (places - flag):square():sum(2):sqrt():mean():item()
end

-- ---- saving a brain ----

if not arg then return end
local mood, path = arg[1], arg[2]
if (mood ~= "seek" and mood ~= "flee") or not path then error("usage: game.lua seek|flee BRAIN.kiln", 0) end

local step = mood == "seek" and 0.1 or -0.1

-- Nobody pushes into the crowd that stands at the flag already.
local function think(places, flag)
  local away = flag - places
  local distance = away:square():sum(2, true):sqrt()
  if distance:mean():item() < 0.5 and step > 0 then return away * 0 end
  return away / (distance + 0.1) * step
end

kiln.script(think, { inputs = { kiln.spec("float32", { "N", 2 }), kiln.spec("float32", { 2 }) } }):save(path)
print(path .. ": a brain that would " .. mood)
