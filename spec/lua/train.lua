-- Training from C: samples/train.lua saves a step, samples/train.c trains it without Lua, stops, goes on.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local program = check.program()
local build = os.getenv "KILN_BUILD" or program:match "^(.*)/[^/]*$" or "."
local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir " .. folder))
check.at_end(function() os.execute("rm -r " .. folder) end)
local model = folder .. "/train.kiln"

local function run(...)
  local pipe = assert(io.popen(table.concat({ ... }, " ") .. " 2>&1", "r"))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  equal(code, 0, text)
  return text
end

test("a C host trains what Lua captured", function()
  run(program, source .. "/samples/train.lua", "--save", model)
  local text = run(build .. "/samples/train", model, folder .. "/whole.safetensors", 6)
  local losses, right = {}, {}
  for loss, share in text:gmatch "loss (%S+), (%S+) %% right" do
    losses[#losses + 1], right[#right + 1] = tonumber(loss), tonumber(share)
  end
  equal(#losses, 6, text)
  truth(losses[6] < losses[1] / 2 and right[6] > 90, text)
end)

test("stopped and started again it ends with the same bytes", function()
  local first = run(build .. "/samples/train", model, folder .. "/parts.safetensors", 2)
  local rest = run(build .. "/samples/train", model, folder .. "/parts.safetensors", 6)
  truth(rest:find "^epoch 3" and not first:find "epoch 3", rest)
  truth(check.read(folder .. "/parts.safetensors") == check.read(folder .. "/whole.safetensors"), "the checkpoints are the same")
end)

test("its checkpoint is a plain safetensors file", function()
  local tensors, texts = kiln.from_safetensors(folder .. "/whole.safetensors")
  equal(tensors["net[1].weight"]:size(), { 64, 2 })
  equal(texts["kiln.checkpoint"], "1")
  equal(tensors["opt.state[1].step"]:item(), 6 * 48 + 2)
end)
