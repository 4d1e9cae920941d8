-- What the machine and the programs on it are: measured peaks, versions of the peers, start-up time, sizes of libraries.
local common = require "common"
local quoted = common.quoted
local machine = {}

-- ---- peaks -----------------------------------------------------------------------------------------------------

-- Seconds of the fastest of some runs of what direct.c does for this order.
local function fastest(direct, order)
  if direct:ask("row " .. order) ~= "ok" then return nil end
  direct:run(1)
  local best, spent = math.huge, 0
  for _ = 1, 50 do
    local t = direct:run(1)
    best, spent = math.min(best, t), spent + t
    if spent > 0.15 then break end
  end
  return best
end

--- Flops a second of the largest of some products, bytes a second of memcpy at some sizes. `least(flops, bytes)`: the seconds
--- that they take at least, and which of the two it is.
function machine.peaks(environment)
  local path = common.build .. "/spec/bench-direct"
  if not common.exists(path) then common.die("bench: there is no " .. path) end
  local direct = common.start("direct", quoted(path), environment)
  local peaks, copies, words = { flops = nil }, {}, {}
  for _, n in ipairs { 512, 1024, 2048 } do
    local t = fastest(direct, ("matmul 1 %d %d %d 0"):format(n, n, n))
    if t then peaks.flops = math.max(peaks.flops or 0, 2 * n ^ 3 / t) end
  end
  for _, bytes in ipairs { 1 << 15, 1 << 18, 1 << 21, 1 << 24, 1 << 27 } do -- read and written
    local t = fastest(direct, ("copy %d"):format(bytes // 8))
    if t then
      copies[bytes] = bytes / t
      words[#words + 1] = ("%.1f GB/s at %g MB"):format(bytes / t * 1e-9, bytes * 1e-6)
    end
  end
  direct:close()
  local function copied(bytes)
    local near
    for size in pairs(copies) do
      if not near or math.abs(math.log(size / bytes)) < math.abs(math.log(near / bytes)) then near = size end
    end
    return copies[near]
  end
  function peaks.least(flops, bytes)
    local compute, move = peaks.flops and flops / peaks.flops or 0, bytes / copied(math.max(bytes, 1))
    if compute >= move then return compute, "flops" end
    return move, "bytes"
  end
  peaks.text = ("%s; memcpy, bytes read and written, %s"):format(
    peaks.flops and ("%.0f GFLOP/s of the best large product"):format(peaks.flops * 1e-9) or "no oneDNN to tell flops",
    table.concat(words, ", "))
  return peaks
end

-- ---- peers -----------------------------------------------------------------------------------------------------

local ask_versions = [[
import importlib, os
for name, folder in (("torch", "lib"), ("torchvision", None), ("onnxruntime", "capi"), ("onnx", None), ("onnxscript", None)):
    try:
        module = importlib.import_module(name)
    except ImportError:
        print(name, "none", 0)
        continue
    size, top = 0, os.path.join(os.path.dirname(module.__file__), folder or "")
    for at, _, files in os.walk(top) if folder else ():
        size += sum(os.path.getsize(os.path.join(at, f)) for f in files if "cuda" not in f and ".so" in f)
    print(name, module.__version__, size)
]]

--- Versions of the peers, or nil when there is no PyTorch.
function machine.peers()
  local said = common.output_of(("%s -c %s"):format(quoted(common.python), quoted(ask_versions)))
  if not said or said:match "torch none" == "torch none" then return nil end
  local words, sizes = {}, {}
  for name, version, size in said:gmatch "(%S+) (%S+) (%d+)" do
    words[#words + 1] = ("%s %s"):format(name, version)
    if size ~= "0" then sizes[#sizes + 1] = ("%s %.0f MB"):format(name, size * 1e-6) end
  end
  local compiler = common.output_of "g++ -dumpfullversion"
  words[#words + 1] = compiler and "g++ " .. compiler or "no g++ for torch.compile"
  return { text = table.concat(words, ", "), sizes = table.concat(sizes, ", ") }
end

-- ---- programs --------------------------------------------------------------------------------------------------

-- The median time of a command: of many batches of a few.
local function start_up(command)
  local batch, times = (command .. ";"):rep(5), {}
  for i = 1, 21 do
    local at = kiln.clock()
    os.execute(batch)
    times[i] = (kiln.clock() - at) / 5
  end
  return common.middle(times)
end

local function size_text(path)
  local stripped = os.tmpname()
  local size = common.output_of("stat -Lc %s " .. quoted(path))
  local less = os.execute(("strip -o %s %s 2>/dev/null"):format(stripped, quoted(path))) and common.output_of("stat -c %s " .. stripped)
  os.remove(stripped)
  return ("%.1f MB%s"):format(size * 1e-6, less and (", %.1f without symbols"):format(less * 1e-6) or "")
end

--- How long kiln takes to start, and how big it is.
function machine.report(peers)
  common.say "\n## Start and size\n"
  common.say(("- `kiln -e ''`: %s (at most 5 ms is asked for); `true`, started the same way: %s"):format(
    common.time_text(start_up(quoted(common.kiln) .. " -e ''")), common.time_text(start_up "/bin/true")))
  for _, name in ipairs { "libkiln.so", "libkiln-lua.so", "kiln" } do
    local path = common.build .. "/" .. name
    if common.exists(path) then common.say(("- %s: %s"):format(name, size_text(path))) end
  end
  if peers and peers.sizes ~= "" then common.say("- shared libraries of the peers, those for CUDA left out: " .. peers.sizes) end
end

return machine
