-- Makes a failing function small: takes statements away, one at a time, for as long as it still fails in the same way.
-- A statement with blocks may also be replaced by one of its blocks, and what stands in parentheses by something small.
local M = {}

local function copy(node)
  if type(node) ~= "table" then return node end
  local made = {}
  for k, v in pairs(node) do made[k] = copy(v) end
  return made
end

--- Lists in which statements stand: the body, and the blocks of its statements.
local function lists(node, out)
  out[#out + 1] = node
  for _, statement in ipairs(node) do
    if type(statement) == "table" then
      for _, part in ipairs(statement) do
        if type(part) == "table" then lists(part, out) end
      end
    end
  end
  return out
end

--- The trees that are one step smaller than the i-th place of list number n: without it, or its blocks in its place.
local function smaller(tree, n, i)
  local made = {}
  local function try(change)
    local t = copy(tree)
    change(lists(t.body, {})[n])
    made[#made + 1] = t
  end
  try(function(list) table.remove(list, i) end)
  local statement = lists(tree.body, {})[n][i]
  for k, part in ipairs(type(statement) == "table" and statement or {}) do
    if type(part) == "table" then
      try(function(list)
        local block = list[i][k]
        table.remove(list, i)
        for m = #block, 1, -1 do table.insert(list, i, block[m]) end
      end)
    end
  end
  return made
end

local small = { "(x)", "(1)", "(true)", "{ x }" }

local function shorter(text, at)
  local group = text:match("^%b()", at) or text:match("^%b{}", at)
  local made = {}
  for _, s in ipairs(group and small or {}) do
    if #s < #group then made[#made + 1] = text:sub(1, at - 1) .. s .. text:sub(at + #group) end
  end
  return made
end

local function reduce_text(tree, holder, key, fails)
  local at = 1
  while at <= #holder[key] do
    local before = holder[key]
    for _, text in ipairs(shorter(before, at)) do
      holder[key] = text
      if fails(tree) then break end
      holder[key] = before
    end
    at = at + 1
  end
end

local function reduce_texts(tree, node, fails)
  for i, part in ipairs(node) do
    if type(part) == "string" then reduce_text(tree, node, i, fails) else reduce_texts(tree, part, fails) end
  end
end

local function reduce_statements(tree, fails)
  local again = true
  while again do
    again = false
    local n = 1
    while n <= #lists(tree.body, {}) do
      local i = #lists(tree.body, {})[n]
      while i >= 1 do
        for _, t in ipairs(smaller(tree, n, i)) do
          if fails(t) then
            tree, again = t, true
            break
          end
        end
        local list = lists(tree.body, {})[n]
        i = math.min(i - 1, list and #list or 0)
      end
      n = n + 1
    end
  end
  return tree
end

--- The smallest tree found for which fails(tree) still holds.
function M.reduce(tree, fails)
  tree = copy(reduce_statements(tree, fails))
  reduce_text(tree, tree, "result", fails)
  reduce_texts(tree, tree.body, fails)
  return reduce_statements(tree, fails)
end

return M
