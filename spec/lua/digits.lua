-- The whole path: digits.lua trains, captures and saves; kiln-run and the C host load what it saved, with each backend, and
-- must answer every test image as eager did.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local THRESHOLD = 0.9 -- of samples/digits.lua

local program = check.program()
local build = os.getenv "KILN_BUILD" or program:match "^(.*)/[^/]*$" or "."
local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- Output and errors together, and the exit code.
local function run(environment, ...)
  local words = { "env", environment }
  for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
  local pipe = assert(io.popen(table.concat(words, " ") .. " 2>&1", "r"))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  return text, code
end

local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir " .. quote(folder)))
local model, images, labels = folder .. "/digits.kiln", folder .. "/digits-images.idx3-ubyte", folder .. "/digits-labels.idx1-ubyte"

-- class, confidence, deep of each line
local function read_predictions(path)
  local list = {}
  for line in io.lines(path) do
    local class, confidence, deep = line:match "^(%d+) (%S+) (%a+)$"
    list[#list + 1] = { tonumber(class), tonumber(confidence), deep == "true" }
  end
  return list
end

local eager

-- A confidence within 1e-5 of the threshold may fall on either side of it where rounding differs.
local function doubtful(a, b)
  return math.abs(a[2] - THRESHOLD) < 1e-5 or math.abs(b[2] - THRESHOLD) < 1e-5
end

local function compare(answers)
  equal(#answers, #eager)
  local close = 0
  for i, a in ipairs(answers) do
    local b = eager[i]
    if doubtful(a, b) then
      close = close + 1
    else
      truth(a[1] == b[1] and a[3] == b[3] and math.abs(a[2] - b[2]) < 1e-4,
        ("image %d: %d %.6f %s, eager says %d %.6f %s"):format(i, a[1], a[2], a[3], b[1], b[2], b[3]))
    end
  end
  if close > 0 then print(("  %d images within 1e-5 of the threshold"):format(close)) end
end

test("the sample trains, captures, verifies, saves and reloads", function()
  local text, code = run("", program, source .. "/samples/digits.lua", "--data", source .. "/samples/data", "--save", model,
    "--predictions", folder .. "/eager.txt", "--export", folder)
  equal(code, 0, text)
  for _, name in ipairs { "eager", "graph", "reloaded graph" } do
    local accuracy, early, all = text:match(name .. "%s+([%d.]+) %%%s+(%d+) of (%d+)")
    truth(accuracy and tonumber(accuracy) >= 97, name .. ": " .. text)
    truth(tonumber(early) > 0 and tonumber(early) < tonumber(all), name .. " takes both sides of the branch")
  end
  truth(text:find("; 0 answers differ from eager", 1, true), text)
  for _, word in ipairs { "if ", "while true do", "conv2d", "break" } do truth(text:find(word, 1, true), "the graph shows " .. word) end
  eager = read_predictions(folder .. "/eager.txt")
  equal(#eager, 1797 // 5)
end)

for _, backend in ipairs { "onednn", "ref" } do
  local available = false
  for _, b in ipairs(kiln.backends()) do available = available or b.name == backend and b.available end
  local function need()
    if not available then check.skip(backend .. " is not available") end
    if not eager then check.skip "the sample failed" end
  end

  test("the C host agrees, with " .. backend, function()
    need()
    local out = folder .. "/host.txt"
    local text, code = run("KILN_BACKEND=" .. backend, build .. "/samples/host", model, images, labels, out)
    equal(code, 0, text)
    compare(read_predictions(out))
  end)

  test("kiln-run agrees, with " .. backend, function()
    need()
    local info = run("", build .. "/kiln-run", model, "--info")
    truth(info:find("float32", 1, true), info)
    local names = { "1", "2", "3" }
    local text, code = run("", build .. "/kiln-run", model, "--backend", backend, "--each", "x", "--input",
      "x=" .. folder .. "/images.npy", "--output", names[1] .. "=" .. folder .. "/class.npy", "--output",
      names[2] .. "=" .. folder .. "/confidence.npy", "--output", names[3] .. "=" .. folder .. "/deep.npy")
    equal(code, 0, text)
    local class = kiln.from_npy(folder .. "/class.npy"):totable()
    local confidence = kiln.from_npy(folder .. "/confidence.npy"):totable()
    local deep = kiln.from_npy(folder .. "/deep.npy"):totable()
    local answers = {}
    for i = 1, #class do answers[i] = { class[i], confidence[i], deep[i] } end
    compare(answers)
  end)

  test("the log says who computed what, with " .. backend, function()
    need()
    local one = folder .. "/one.npy"
    kiln.to_npy(one, kiln.from_npy(folder .. "/images.npy")[{ { 1, 1 } }])
    local text = run("KILN_DEBUG=exec", build .. "/kiln-run", model, "--backend", backend, "--input", "x=" .. one)
    -- oneDNN 3 has nothing but reference code for some convolutions, and does not get those.
    local count, left = 0, false
    for _, b in ipairs(kiln.backends()) do left = left or b.name == backend and (b.version or ""):find "^3" end
    for line in text:gmatch "[^\n]+" do
      if line:find("conv2d", 1, true) or line:find("matmul", 1, true) then
        count = count + 1
        truth(line:find(backend, 1, true) or left and line:find("conv2d", 1, true), line)
      end
    end
    truth(count >= 2, "convolutions and products are logged:\n" .. text)
  end)

  test("kiln loads what it saved, with " .. backend, function()
    need()
    local text, code = run("KILN_BACKEND=" .. backend, program, "-e", ([[
      local g = kiln.load %q
      local x = kiln.from_npy %q
      for i = 1, #x do print(("%%d %%.9g %%s"):format(g(x[{ { i, i } }]))) end
    ]]):format(model, folder .. "/images.npy"))
    equal(code, 0, text)
    local path = folder .. "/loaded.txt"
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    compare(read_predictions(path))
  end)
end

test("the programs that run it contain no Lua", function()
  if not eager then check.skip "the sample failed" end
  for _, path in ipairs { build .. "/kiln-run", build .. "/samples/host" } do
    local text, code = run("", "ldd", path)
    if code ~= 0 then check.skip "ldd is not here, or the program is static" end
    truth(not text:find "lua", text)
  end
end)

os.execute("rm -r " .. quote(folder))
