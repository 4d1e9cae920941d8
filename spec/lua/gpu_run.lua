-- spec/gpu/run.sh, which is for whoever has a GPU, tried on the software device: its benchmark with small sizes, results written, a step that is
-- cut, PyTorch missing, no device.
local check = require "check"
local test, truth, equal = check.test, check.truth, check.equal
if not kiln.cuda.is_available() or kiln.cuda.get_device_name() ~= "software device" then return end

local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

-- What it printed, its exit code, and the results that it wrote.
local function run(environment, arguments)
  local out = os.tmpname()
  os.remove(out)
  local build = os.getenv "KILN_BUILD" or source .. "/build"
  local pipe = assert(io.popen(("env -u KILN_CUDA_LIBRARIES KILN_BUILD='%s' KILN_PEER_PYTHON=/no/such/python %s '%s/spec/gpu/run.sh' --out '%s' %s 2>&1"):format(
    build, environment, source, out, arguments)))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  local list = io.popen(("cat '%s'/*-gpu.md 2>/dev/null; rm -rf '%s'"):format(out, out))
  local results = list:read "a"
  list:close()
  return text, code, results
end

test("the benchmark with small sizes, without PyTorch", function()
  local text, code, results = run("", "--software bench")
  truth(code == 0, text .. results)
  truth(text:find "\n%d+ passed, 0 failed\n$", text)
  for _, said in ipairs { "^# kiln on a GPU", "software device of the tests", "PyTorch: not there: /no/such/python does not run", "cold start to the first result",
    "host time of a launch", "| GPT%-2 small, training step", "memory of the device", "## bench: %d+ passed, 0 failed" } do
    truth(results:find(said), said .. "\n" .. results)
  end
end)

test("a step that has no time, and one that is cut, are said", function()
  local _, code, results = run("KILN_GPU_SECONDS=1", "--software bench")
  equal(code, 1)
  truth(results:find("## bench: no time was left", 1, true), results)
  truth(results:find "\n0 passed, 1 failed\n$", results)
end)

test("mistakes", function()
  local text, code = run("", "--hardware")
  equal(code, 2)
  truth(text:find("run.sh [--carry FOLDER]", 1, true), text)
end)
