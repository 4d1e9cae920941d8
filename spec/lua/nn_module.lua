-- Module: names as PyTorch's, partial states, buffers that do not persist, hooks, moving, looking up; containers.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises
local nn = kiln.nn

local function names(iterator)
  local list = {}
  for name in iterator do list[#list + 1] = name end
  return list
end

local function keys(t)
  local list = {}
  for name in pairs(t) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local Block = nn.Module:extend "Block"
function Block:init(n)
  self.conv1 = nn.Linear(n, n)
  self.layers = nn.ModuleList { nn.Linear(n, n), nn.Sequential(nn.ReLU(), nn.Linear(n, 2, { bias = false })) }
  self:register_buffer("steps", kiln.tensor { 0 })
  self:register_buffer("mask", kiln.ones(n), { persistent = false })
end
function Block:forward(x) return self.layers[2](self.layers[1](self.conv1(x)) * self.mask) end

local all = { "conv1.bias", "conv1.weight", "layers.0.bias", "layers.0.weight", "layers.1.1.weight" }

test("entries of lists count from 0 in names, everywhere", function()
  local net = Block(3)
  equal(names(net:named_parameters()), all)
  equal(names(net:named_modules()), { "", "conv1", "layers", "layers.0", "layers.1", "layers.1.0", "layers.1.1" })
  equal(names(net.layers:named_children()), { "0", "1" })
  equal(net:get_submodule "layers.1.1" == net.layers[2][2], true)
  equal(net:get_submodule "" == net, true)
  equal(net:get_parameter "layers.0.weight" == net.layers[1].weight, true)
  equal(net:get_buffer "mask" == net.mask, true)
  equal(#net:children(), 2)
  raises(function() net:get_submodule "layers.2" end, "nn_module.lua:", "get_submodule: there is no '2' in 'layers.2'")
  raises(function() net:get_submodule "conv1.weight" end, "get_submodule: 'conv1.weight' is no module")
  raises(function() net:get_parameter "mask" end, "get_parameter: 'mask' is no parameter")
  raises(function() net:get_buffer "conv1.weight" end, "get_buffer: 'conv1.weight' is no buffer")
  raises(function() net:get_parameter "layers" end, "get_parameter: 'layers' is no parameter")
end)

test("a state without what does not persist", function()
  local net, other = Block(3), Block(3)
  local state = net:state_dict()
  local want = { table.unpack(all) }
  want[#want + 1] = "steps"
  equal(keys(state), want)
  equal(names(net:named_buffers()), { "mask", "steps" })
  net.steps:fill_(7)
  net.mask:fill_(5)
  local missing, unexpected = other:load_state_dict(state)
  equal({ missing, unexpected }, { {}, {} })
  tensor(other.steps, { 7 })
  tensor(other.mask, { 1.0, 1.0, 1.0 })
end)

test("loading a part of a state", function()
  local net, before = Block(3), nil
  local state = { ["conv1.bias"] = kiln.ones(3), ["head.weight"] = kiln.ones(1), ["layers.0.bias"] = kiln.zeros(3) }
  local missing, unexpected = net:load_state_dict(state, { strict = false })
  equal(missing, { "conv1.weight", "layers.0.weight", "layers.1.1.weight", "steps" })
  equal(unexpected, { "head.weight" })
  tensor(net.conv1.bias, { 1.0, 1.0, 1.0 })
  before = net.conv1.bias:clone()
  state["conv1.bias"], state["layers.0.bias"] = kiln.zeros(3), kiln.zeros(4)
  raises(function() net:load_state_dict(state, { strict = false }) end, "layers.0.bias is [4] there and [3] here")
  check.truth(net.conv1.bias:equal(before), "nothing is half loaded")
  raises(function() net:load_state_dict(state) end, "nn_module.lua:",
    "load_state_dict: missing conv1.weight; missing layers.0.weight; missing layers.1.1.weight; missing steps; unexpected head.weight; "
      .. "layers.0.bias is [4] there and [3] here")
  raises(function() net:load_state_dict({ ["conv1.bias"] = 3 }, { strict = false }) end, "conv1.bias is no tensor")
end)

test("modules without and with gradients, counted", function()
  local net = Block(3)
  equal(net:num_parameters(), 12 + 12 + 6)
  net.conv1:requires_grad_(false)
  equal(net:num_parameters(true), 18)
  equal(net:num_parameters(), 30)
  equal(names(net:named_parameters()), all)
  net:requires_grad_()
  equal(net:num_parameters(true), 30)
end)

test("apply goes from the leaves up", function()
  local seen = {}
  local net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
  equal(net:apply(function(m) seen[#seen + 1] = m.name end) == net, true)
  equal(seen[#seen], "Sequential")
  equal(#seen, 4)
  equal(seen[1], "ReLU")
  net:apply(function(m)
    if m.weight then nn.init.constant(m.weight, 3) end
  end)
  tensor(net[1].weight, { { 3.0 } })
end)

test("moved", function()
  local net = Block(2)
  net(kiln.ones(1, 2)):sum():backward()
  equal(net:double() == net, true)
  equal(net.conv1.weight.dtype, "float64")
  equal(net.conv1.weight.grad.dtype, "float64")
  equal(net.mask.dtype, "float64")
  equal(net.steps.dtype, "int64")
  equal(net:half().conv1.bias.dtype, "float16")
  equal(net:bfloat16().conv1.bias.dtype, "bfloat16")
  equal(net:float().conv1.bias.dtype, "float32")
  equal(net:to("cpu", "float64").conv1.bias.dtype, "float64")
  equal(#net:parameters(), 5)
  raises(function() net:to "int64" end, "nn_module.lua:", "to: modules are moved to floating dtypes, not to int64")
  raises(function() net:to "tape" end, "to: 'tape' is neither a dtype nor a device")
  equal(net.conv1.bias.dtype, "float64")
end)

test("a clone has its own tensors and the same sharing", function()
  local net = Block(2)
  net.again = net.conv1
  net.conv1.bias.requires_grad = false
  local other = net:clone()
  equal(other.again == other.conv1, true)
  equal(other.conv1 ~= net.conv1, true)
  equal(names(other:named_parameters()), names(net:named_parameters()))
  equal(other.conv1.bias.requires_grad, false)
  kiln.no_grad(function() other.conv1.weight:fill_(0) end)
  check.truth(not net.conv1.weight:eq(0):all():item(), "the first one is as it was")
  equal(keys(other:state_dict()), keys(net:state_dict()))
end)

-- ---- hooks -----------------------------------------------------------------------------------------------------

test("hooks before and after forward", function()
  local net = nn.Linear(2, 1)
  local x, seen = kiln.ones(1, 2), {}
  local plain = net(x)
  local first = net:register_forward_pre_hook(function(m, args)
    seen[#seen + 1] = { m == net, #args }
    return args[1] * 0
  end)
  check.truth(net(x):equal(net.bias:reshape(1, 1)), "another argument")
  local second = net:register_forward_hook(function(_, args, out)
    seen[#seen + 1] = { "after", args[1]:sum():item() }
    return out + 100
  end)
  check.truth(net(x):equal(net.bias:reshape(1, 1) + 100), "another result")
  equal(seen, { { true, 1 }, { true, 1 }, { "after", 0.0 } })
  first:remove()
  check.truth(net(x):equal(plain + 100), "one is gone")
  second:remove()
  second:remove()
  check.truth(net(x):equal(plain) and rawget(net, "_hooks") == nil, "both are gone")
  raises(function() net:register_forward_hook(3) end, "nn_module.lua:", "register_forward_hook: a function is needed, got number")
end)

test("a hook may take itself away, and those after it still run", function()
  local net, seen = nn.ReLU(), {}
  local h
  h = net:register_forward_hook(function() seen[#seen + 1] = 1; h:remove() end)
  net:register_forward_hook(function() seen[#seen + 1] = 2 end)
  net(kiln.ones(1))
  net(kiln.ones(1))
  equal(seen, { 1, 2, 2 })
end)

test("hooks on the way back", function()
  local net = nn.Linear(2, 3)
  local x = kiln.randn(4, 2, { requires_grad = true })
  net(x):pow(2):sum():backward()
  local gx, gw = x.grad, net.weight.grad
  x.grad = nil
  net:zero_grad()
  local seen
  local h = net:register_full_backward_hook(function(m, input, output) seen = { m, input, output } end)
  local y = net(x)
  y:pow(2):sum():backward()
  check.truth(x.grad:allclose(gx) and net.weight.grad:allclose(gw), "the gradients are those without it")
  equal(seen[1] == net, true)
  check.truth(seen[2][1]:allclose(gx) and seen[3][1]:allclose(2 * y:detach()), "what it is given")
  h:remove()
  h = net:register_full_backward_hook(function(_, input) return { input[1] * 2 } end)
  x.grad = nil
  net(x):pow(2):sum():backward()
  check.truth(x.grad:allclose(gx * 2), "what it returns goes on")
  h:remove()
  net:register_full_backward_hook(function(_, input) seen = #input end)
  net(x:detach()):sum():backward()
  equal(seen, 0)
  equal(kiln.no_grad(net, x).requires_grad, false)
end)

test("hooks are captured", function()
  local net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
  net[1]:register_forward_pre_hook(function(_, args) return args[1] + 1 end)
  net[2]:register_forward_hook(function(_, args, out) return out * args[1] end)
  local x = kiln.randn(3, 2)
  local g = kiln.script(net, { inputs = { kiln.spec("float32", { "N", 2 }) } })
  check.truth(g(x):allclose(net(x), { atol = 1e-6 }), "with hooks")
  local h = net[1]:register_forward_pre_hook(function(_, args) return args[1] * 3 end)
  check.truth(g(x):allclose(net(x), { atol = 1e-6 }), "one more: captured again")
  h:remove()
  check.truth(g(x):allclose(net(x), { atol = 1e-6 }), "one less")
end)

-- ---- containers ------------------------------------------------------------------------------------------------

test("lists of modules", function()
  local a, b, c, d = nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU()
  local list = nn.ModuleList { a, c }
  equal(list:insert(2, b) == list, true)
  equal(list:extend { d } == list, true)
  equal({ #list, list[2] == b, list[4] == d }, { 4, true, true })
  equal(list:pop() == d, true)
  equal(list:pop(1) == a, true)
  equal(#list, 2)
  local part = nn.Sequential(a, b, c, d):slice(2, -2)
  equal({ part.name, #part, part[1] == b, part[2] == c }, { "Sequential", 2, true, true })
  equal(#nn.Sequential(a):append(b):extend { c, function(x) return x end }, 4)
  local Mine = nn.Sequential:extend "Mine"
  equal(Mine(a, b).name, "Mine")
  raises(function() list:insert(4, a) end, "nn_module.lua:", "ModuleList: the place must be a number from 1 to 3, got 4")
  raises(function() list:extend { a, 3 } end, "ModuleList: entry 2 must be a module, got number")
  raises(function() nn.ModuleList { function() end } end, "ModuleList: entry 1 must be a module, got function")
  raises(function() nn.ModuleList(a) end, "ModuleList: a list of modules is needed, got table")
  raises(function() nn.ModuleList():pop() end, "ModuleList: it is empty")
  equal(#list, 2)
end)

test("modules by name", function()
  local dict = nn.ModuleDict { up = nn.Linear(1, 2), act = nn.ReLU() }
  equal(dict:keys(), { "act", "up" })
  equal(names(dict:named_parameters()), { "up.bias", "up.weight" })
  dict.down = nn.Linear(2, 1)
  equal(#dict:values(), 3)
  local seen = {}
  for name, part in dict:items() do seen[#seen + 1] = name .. " " .. part.name end
  equal(seen, { "act ReLU", "down Linear", "up Linear" })
  equal({ dict:contains "down", dict:contains "forward", dict:contains "training" }, { true, false, false })
  equal(dict:pop("down").name, "Linear")
  equal(dict:update { more = nn.Tanh() } == dict, true)
  equal(nn.ModuleDict(dict):keys(), { "act", "more", "up" })
  raises(function() nn.ModuleDict { forward = nn.ReLU() } end, "nn_module.lua:", "ModuleDict: the name 'forward' is taken")
  raises(function() nn.ModuleDict { ["a.b"] = nn.ReLU() } end, "ModuleDict: a name is a string without points, got a.b")
  raises(function() nn.ModuleDict { a = 3 } end, "ModuleDict: 'a' must be a module, got number")
  raises(function() dict:pop "none" end, "ModuleDict: there is no 'none'")
  dict:clear()
  equal(dict:keys(), {})
end)

test("lists and tables of parameters", function()
  local Net = nn.Module:extend "Net"
  function Net:init()
    self.steps = nn.ParameterList { kiln.ones(2), kiln.zeros(2) }
    self.named = nn.ParameterDict { scale = kiln.ones(1) }
  end
  function Net:forward(x)
    for i = 1, #self.steps do x = x + self.steps[i] end
    return x * self.named.scale
  end
  local net = Net()
  equal(names(net:named_parameters()), { "named.scale", "steps.0", "steps.1" })
  net.steps:append(kiln.ones(2))
  local x = kiln.tensor { 1.0, 2.0 }
  tensor(net(x):detach(), { 3.0, 4.0 })
  equal(net.steps[3].requires_grad, true)
  check.truth(kiln.script(net)(x):equal(net(x)), "captured")
  local frozen = nn.Parameter(kiln.ones(1), false)
  equal(nn.ParameterList { frozen }[1].requires_grad, false)
  equal(net:clone().named:keys(), { "scale" })
  raises(function() nn.ParameterList { 3 } end, "nn_module.lua:", "ParameterList: entry 1 must be a tensor, got number")
  raises(function() nn.ParameterDict { keys = kiln.ones(1) } end, "ParameterDict: the name 'keys' is taken")
end)

test("captured, with names and lists", function()
  local net = nn.ModuleDict { a = nn.Linear(2, 3), b = nn.ModuleList { nn.Linear(3, 3), nn.Linear(3, 1) } }
  local function run(x)
    x = net.a(x)
    for i = 1, #net.b do x = net.b[i](x):relu() end
    return x
  end
  local x = kiln.randn(4, 2)
  check.truth(kiln.script(run)(x):allclose(run(x), { atol = 1e-6 }), "the same")
end)
