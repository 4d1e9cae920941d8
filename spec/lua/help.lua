-- kiln.help: every public name has something said of it, found under the whole name, the last of it, or the value itself.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local internal = "for the library's own files"

-- Calls visit(path, value) for all that can be reached from kiln by names: parts have names of small letters.
local function each_public(visit)
  local seen = { [kiln] = true }
  local function walk(prefix, part)
    for name, value in next, part do
      if type(name) == "string" then
        local path = prefix .. name
        local inside = visit(path, value)
        if inside and type(value) == "table" and name:find "^%l" and not seen[value] then
          seen[value] = true
          walk(path .. ".", value)
        end
      end
    end
  end
  walk("", kiln)
end

test("each public name has a help text", function()
  kiln.help() -- loads all parts
  local count, missing = 0, {}
  each_public(function(path)
    local ok, text = pcall(kiln.help, path)
    count = count + 1
    if not ok then missing[#missing + 1] = path end
    truth(not ok or #text > #path // 2, path)
    return not (ok and text:find(internal, 1, true))
  end)
  table.sort(missing)
  equal(table.concat(missing, " "), "")
  truth(count > 900, "names looked at: " .. count)
end)

-- The tables of methods and of fields are upvalues of the function that finds them.
test("methods of tensors have one, too", function()
  local find, missing = debug.getmetatable(kiln.zeros(1)).__index, {}
  for i = 1, 2 do
    local _, list = debug.getupvalue(find, i)
    for name, value in next, type(list) == "table" and list or {} do
      if type(value) == "function" and not kiln[name] and not pcall(kiln.help, name) then missing[#missing + 1] = name end
    end
  end
  table.sort(missing)
  equal(table.concat(missing, " "), "")
end)

local function says(name, words)
  truth(kiln.help(name):find(words, 1, true), kiln.help(name))
end

test("what is said, of each kind of thing", function()
  says("nn.Linear", "nn.Linear(")
  says("kiln.nn.Linear", "nn.Linear(")
  says("Linear", "nn.Linear(")
  says(kiln.nn.Linear, "nn.Linear(")
  says(kiln.optim.AdamW, "optim.AdamW(parameters [, { lr = 0.001")
  says(kiln.relu, "relu: ")
  says("conv2d", "options, in order: stride = 1, padding = 0, dilation = 1, groups = 1")
  says("topk", "k (required), dim = -1, largest = true")
  says("gelu", 'approximate = "none"')
  says("nn.Conv1d", "nn.Conv1d, as Conv2d(inputs, outputs, kernel")
  says("nn.GELU", "nn.GELU([approximate = none])\ngelu: ")
  says("nn.CrossEntropyLoss", "label_smoothing")
  says("nn.functional.max_pool2d", "max_pool2d: ")
  says("nn.init.ones", "ones_(t)")
  says("relu_", "in place, relu: ")
  says("linalg.svd", "svd: ")
  says("io.read_file", "io.read_file(path")
  says("data.DataLoader", "batch_size = 1, shuffle = false")
  says("load_state_dict", "Module:load_state_dict")
  says("CSVLogger:log", "CSVLogger:log{ epoch = 3")
  says(kiln.nn.Linear(1, 2), "nn.Linear(")
  says("Optimizer:step", "One step from the grads")
  says("frombuffer", "frombuffer(bytes")
  says("options", "options(defaults")
  says("progress", "kiln.progress")
  says("nn", "Sequential")
  says("vision.models", "resnet18")
end)

test("without a name: the parts", function()
  for _, part in ipairs { "nn", "optim", "data", "vision", "text", "metrics", "training", "io", "linalg" } do
    truth(kiln.help():find("\n  " .. part .. " ", 1, true), part)
  end
end)

test("a name that is not there: those like it", function()
  check.raises(function() kiln.help "Adagrid" end, "help.lua:", "help: there is no op, function, class or part 'Adagrid'")
  check.raises(function() kiln.help "nn.Attention" end, "help.lua:", "names like it: fused_attention, fused_attention_grad, nn.MultiheadAttention")
  check.raises(function() kiln.help {} end, "help.lua:", "is needed, got table")
end)

-- ---- the first script of lua/kiln/README.md --------------------------------------------------------------------------

test("the first script of the library's README runs as it stands", function()
  local file = assert(io.open((arg[0]:match "^(.*)/spec/" or ".") .. "/lua/kiln/README.md"))
  local text = file:read "a"
  file:close()
  local lines = {}
  for line in text:match("## A first script\n(.-)\n`kiln"):gmatch "[^\n]*" do lines[#lines + 1] = line:match "^    (.*)" or "" end
  local checkpoint, graph, printed = os.tmpname(), os.tmpname(), {}
  local code = table.concat(lines, "\n"):gsub('"run.safetensors"', ("%q"):format(checkpoint)):gsub('"net.kiln"', ("%q"):format(graph))
  local env = setmetatable({ print = function(...) printed[#printed + 1] = { ... } end }, { __index = _G })
  assert(load(code, "=README.md", "t", env))()
  equal(#printed, 41)
  equal(printed[41][1], "held out")
  truth(printed[1][2] > 0.1 and printed[40][2] < 0.05 and printed[41][2] < 0.1, "it learns")
  equal(kiln.training.load_checkpoint(checkpoint, {}).epoch, 40)
  equal(kiln.load(graph)(kiln.zeros(2, 3)).shape, { 2, 1 })
  os.remove(checkpoint)
  os.remove(graph)
end)
