-- The early-exit network of samples/digits.lua: what an image takes eager, captured, and captured, saved and loaded. The
-- sample itself trains and measures.
local top = arg[0]:match "^(.*)/spec/bench/[^/]*$" or "."
local model = os.tmpname()
arg = { [0] = top .. "/samples/digits.lua", "--quiet", "--data", top .. "/samples/data", "--save", model }
local seconds = assert(loadfile(arg[0]))()
os.remove(model)
for _, name in ipairs { "eager", "graph", "loaded" } do
  print(("%-20s %8.1f us   %6.2f of eager"):format(name, seconds[name] * 1e6, seconds[name] / seconds.eager))
end
