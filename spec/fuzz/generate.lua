-- Random Lua functions from a seed, made of the productions of distribution.lua, as trees of statements (so that
-- reduce.lua can take statements away) and as text.
--
-- The notation of templates: <kind> is a production of that kind; <var kind> a variable of that kind in scope; <inner kind> a
-- production inside a function; $name a
-- fresh name, the same one throughout a production; $name:kind a fresh variable, in scope in the production's blocks, with
-- `!` in all that follows in the block, with `?` up to the next "end".
local D = require "distribution"
local M = {}

--- A stream of numbers of our own: capture must not meet math.random. pick(n) gives 1 to n.
function M.stream(seed)
  local state = seed * 2654435761 + 12345
  return function(n)
    state = state * 6364136223846793005 + 1442695040888963407
    return (state >> 33) % n + 1
  end
end

local Maker = {}
Maker.__index = Maker

local totals = {}
local function total(list)
  local sum = totals[list]
  if not sum then
    sum = 0
    for _, p in ipairs(list) do sum = sum + p[1] end
    totals[list] = sum
  end
  return sum
end

local function allowed(g, p)
  local need = p.need
  if not need then return true end
  if need == "main" then return g.ret == "main" end
  if need == "loop" then return g.loop end
  if need == "in place" or need == "replacing" then return g.sort == need end
  return g.label
end

function Maker:choose(list)
  for _ = 1, 20 do
    local at = self.pick(total(list))
    for _, p in ipairs(list) do
      at = at - p[1]
      if at <= 0 then
        if allowed(self, p) then return p end
        break
      end
    end
  end
  return list[1]
end

function Maker:use(feature)
  if not feature then return end
  self.features[feature] = true
  if feature == "tensor branches" and self.loops > 0 then self.features["tensor branches in loops"] = true end
end

function Maker:variable(kind)
  local list = self.scope[kind]
  return list[self.pick(#list)]
end

function Maker:declare(kind, name)
  local scope = self.scope
  scope[kind] = table.move(scope[kind], 1, #scope[kind], 1, {})
  table.insert(scope[kind], name)
end

--- What make gives in a scope of its own.
function Maker:within(make)
  local before = self.scope
  self.scope = setmetatable({}, { __index = before })
  local made = make()
  self.scope = before
  return made
end

--- The same where no variable function may be called: bodies of functions, which would else call themselves.
function Maker:hiding(make)
  return self:within(function()
    self.scope.f = { "base" }
    return make()
  end)
end

--- The template with everything in it replaced; `names` are the production's own, `later` the variables to declare.
function Maker:fill(template, names, later)
  template = template:gsub("%$(%a+)(:?)(%a?)([!?]?)()", function(name, colon, kind, stays, after)
    local method = kind ~= "" and template:find("^%a", after) and kind -- $a:sum()
    if method then kind = "" end
    if not names[name] then
      self.fresh = self.fresh + 1
      names[name] = name .. self.fresh
    end
    if kind ~= "" then later[#later + 1] = { kind, names[name], stays } end
    return names[name] .. (kind == "" and colon .. (method or "") or "")
  end)
  return (template:gsub("<(%a[%a, ]*)>", function(kind)
    local variable = kind:match "^var (%a)$"
    if variable then return self:variable(variable) end
    local inner = kind:match "^inner (%a)$"
    if inner then return self:hiding(function() return self:expression(inner) end) end
    if kind == "return" then return self:fill(self.returns[self.ret], {}, {}) end
    if kind == "label" then return self.label end
    return self:expression(kind)
  end))
end

function Maker:expression(kind)
  local list = D[kind]
  self.nesting = self.nesting + 1
  local p = list[1]
  if self.nesting <= D.expression or #kind > 1 then p = self:choose(list) end
  self:use(p[2])
  local text = self:fill(p[3], {}, {})
  self.nesting = self.nesting - 1
  return text
end

function Maker:block(sizes)
  local list = {}
  for _ = 1, sizes[1] + self.pick(sizes[2] - sizes[1] + 1) - 1 do
    local compound = self.depth < D.depth and self.pick(1000) <= D.compound * 1000
    list[#list + 1] = self:statement(self:choose(compound and D.compounds or D.simple))
  end
  return list
end

local kept = { "loop", "loops", "label", "ret", "depth" }

--- A block of a compound statement: "{}", "{loop}", "{loop $label}", "{function kind}".
function Maker:inner(template, names)
  local before = {}
  for _, field in ipairs(kept) do before[field] = self[field] end
  local what, rest = template:match "^{(%a*) ?(.*)}$"
  self.depth = self.depth + 1
  if what == "loop" then
    self.loop, self.loops = true, self.loops + 1
    self.label = rest ~= "" and self:fill(rest, names, {}) or nil
  elseif what == "function" then
    self.loop, self.label, self.ret = false, nil, rest
  end
  local list = self:within(function()
    if what == "function" then self.scope.f = { "base" } end
    return self:block(D.block)
  end)
  for _, field in ipairs(kept) do self[field] = before[field] end
  return list
end

--- The parameters among these variables are out of scope.
function Maker:forget(later)
  for _, v in ipairs(later) do
    local left = {}
    for _, name in ipairs(self.scope[v[1]]) do
      if v[3] ~= "?" or name ~= v[2] then left[#left + 1] = name end
    end
    self.scope[v[1]] = left
  end
end

--- A node: a list of texts and of lists of nodes.
function Maker:statement(p)
  local node, names, later = {}, {}, {}
  self:use(p[2])
  self:within(function()
    for i = 3, #p do
      local declared = #later
      if p[i]:byte() == 123 then -- {
        node[#node + 1] = self:inner(p[i], names)
      else
        node[#node + 1] = self:fill(p[i], names, later)
        if p[i] == "end" then self:forget(later) end
      end
      for k = declared + 1, #later do -- what stays is declared at the end: a function's name is not for its own body
        if later[k][3] ~= "!" then self:declare(later[k][1], later[k][2]) end
      end
    end
  end)
  for _, v in ipairs(later) do
    if v[3] == "!" then self:declare(v[1], v[2]) end
  end
  return node
end

local function lines(node, out)
  if type(node) == "string" then
    out[#out + 1] = node
  else
    for _, part in ipairs(node) do lines(part, out) end
  end
end

--- The chunk of a tree: it gives the function, poke(i), peek() and put(what peek gave).
function M.text(tree)
  local out = {}
  lines(tree.before, out)
  out[#out + 1] = "local function f(x, y, q, k, flag, rec, ...)"
  lines(tree.body, out)
  out[#out + 1] = "return " .. tree.result
  out[#out + 1] = "end"
  out[#out + 1] = "return f, function(i)"
  lines(tree.poke, out)
  local state = table.concat(D.peek, ", ")
  out[#out + 1] = ("end, function() return %s end, function(...) %s = ... end"):format(state, state)
  return table.concat(out, "\n") .. "\n"
end

local MAKERS = { ["kiln.ones"] = true, ["kiln.rand"] = true, ["kiln.randn"] = true, ["kiln.randint"] = true, ["kiln.arange"] = true }

--- The same chunk with what it makes on that device.
function M.on_device(text, device)
  local on = ("device = '%s'"):format(device)
  text = text:gsub("kiln%.tensor (%b{})", ("kiln.tensor(%%1, { %s })"):format(on))
  return (text:gsub("(kiln%.%l+)(%b())", function(name, given)
    local inner = "(" .. M.on_device(given:sub(2), device) -- arguments may make some, too
    if not MAKERS[name] then return name .. inner end
    local at = inner:find("{ dtype = '%l+%d+' }%)$")
    if at then return name .. inner:sub(1, at) .. " " .. on .. "," .. inner:sub(at + 1) end
    return ("%s%s, { %s })"):format(name, inner:sub(1, -2), on)
  end))
end

--- The tree of function number `seed`, the set of its features, and its sort.
function M.tree(seed)
  local g = setmetatable({ pick = M.stream(seed), features = {}, scope = {}, fresh = 0, nesting = 0, depth = 0,
    loops = 0, ret = "main", returns = {} }, Maker)
  g.sort = g.pick(2) == 1 and "in place" or "replacing"
  for _, what in ipairs { "main", "v", "v, n" } do
    local list = D.returns[what]
    local p = #list == 1 and list[1] or g:choose(list)
    g:use(p[2])
    g.returns[what] = p[3]
  end
  for kind in ("v s m i b n j J L r l f h p w"):gmatch "%a" do g.scope[kind] = {} end
  local before, body = {}, {}
  for i, line in ipairs(D.before) do before[i] = g:fill(line, {}, {}) end
  for i, list in ipairs(D.locals) do body[i] = g:statement { 1, false, table.unpack(list) } end
  for _, node in ipairs(g:block(D.top)) do body[#body + 1] = node end
  local result = g:fill("<return>", {}, {})
  local poke = {}
  for i, line in ipairs(D.poke) do poke[i] = g:fill(line, {}, {}) end
  return { before = before, body = body, result = result, poke = poke }, g.features, g.sort
end

return M
