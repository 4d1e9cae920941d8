-- Iris flowers: a table of numbers read from CSV, and a small network that tells three species apart. Everything a first
-- program needs: reading, splitting, normalising, a loader, training, a test; five times, so that each flower is tested once.
--
--   kiln samples/iris.lua [--data DIR] [--epochs N] [--seed N] [--device cuda]
local kiln = kiln or require "kiln"
local nn, F, optim, data = kiln.nn, kiln.nn.functional, kiln.optim, kiln.data

local options = kiln.options({ epochs = 30, seed = 1, device = "cpu" }, { "data" })

-- ---- the data: five parts, each of which is once held out -------------------------------------------------------

kiln.manual_seed(options.seed)
if not os.getenv "KILN_NUM_THREADS" then kiln.set_num_threads(1) end -- so little work is done soonest by one
local flowers = data.read_csv(data.find("csv/iris.csv", options.data))
print(flowers)
local classes, species = flowers:classes "species"
local parts = { data.random_split(data.TensorDataset(flowers:tensor():to(options.device), classes:to(options.device)), { 0.2, 0.2, 0.2, 0.2, 0.2 }) }

-- ---- a network and its training --------------------------------------------------------------------------------

local function train(set)
  local _, all = data.DataLoader(set, { batch_size = #set }):iter()()
  local mean, spread = all:mean(1), all:std(1) -- the scale of what is learnt from, not of what is tested
  local layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, #species)):to(options.device)
  local function net(input) return layers((input - mean) / spread) end
  local opt = optim.Adam(layers:parameters(), { lr = 0.02, weight_decay = 0.01 })
  local loader = data.DataLoader(set, { batch_size = 16, shuffle = true })
  for _ = 1, options.epochs do
    for _, input, class in loader:iter() do
      opt:zero_grad()
      F.cross_entropy(net(input), class):backward()
      opt:step()
    end
  end
  return net, layers
end

-- ---- five tests ------------------------------------------------------------------------------------------------

local started, right, count = kiln.clock(), 0, 0
for k, test in ipairs(parts) do
  local others = {}
  for j, part in ipairs(parts) do
    if j ~= k then others[#others + 1] = part end
  end
  local net, layers = train(data.ConcatDataset(others))
  if k == 1 then print(layers) end
  for _, input, class in data.DataLoader(test, { batch_size = #test }):iter() do
    local answer = kiln.no_grad(function() return net(input):argmax(2) end)
    for i = 1, #test do
      count = count + 1
      local said, is = answer[i]:item(), class[i]:item()
      if said == is then right = right + 1 else print(("  a %s taken for a %s"):format(species[is], species[said])) end
    end
  end
end
print(("%d of %d flowers right that were held out: %.1f %%, five trainings in %.1f s"):format(right, count, 100 * right / count,
  kiln.clock() - started))
if options.epochs >= 30 then assert(right / count >= 0.93, "accuracy is below 93 %") end
