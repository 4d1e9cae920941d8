-- A training step for programs without Lua: forward, backward and the optimiser's step are captured as one graph and
-- saved, in one file with what the network is trained for. samples/train.c trains it, on points in three spiral arms.
--
--   kiln samples/train.lua [--save train.kiln] [--seed N]
local kiln = kiln or require "kiln"
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim

local options = kiln.options { save = "train.kiln", seed = 1 }
kiln.manual_seed(options.seed)

local net = nn.Sequential(nn.Linear(2, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
local opt = optim.Adam(net:parameters())

-- Points [N, 2], the arms [N] that they are in, 1 to 3, and the learning rate, which the host decides.
local function step(x, y, rate)
  local loss = F.cross_entropy(net(x), y)
  opt.lr = rate
  opt:zero_grad()
  loss:backward()
  opt:step()
  return loss:item()
end

local function predict(x) return net(x):argmax(2) end

-- Gradients and the optimiser's averages are there only after a first step, and nothing can be saved before. With a rate
-- of 0 it leaves the weights as they are.
local points = { kiln.spec("float32", { "N", 2 }), kiln.spec("int64", { "N" }), "float" }
local training = kiln.script(step, { inputs = points })
for _ = 1, 2 do training(kiln.randn(64, 2), kiln.randint(1, 4, { 64 }), 0.0) end

net:eval()
kiln.save(options.save, { step = training, predict = kiln.script(predict, { inputs = { points[1] } }) })
