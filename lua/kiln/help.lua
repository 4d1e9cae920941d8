-- kiln.help(name): what there is to say of a name. Ops and functions written in C are told by the op table and by
-- bindings/lua/help.def; all that is written in Lua by the comments above it in these very files, which are embedded with them:
--   --- Name(arguments [, options]): what it does.
-- A layer that is a row of a table has the first part as a field, `about`, and in `computes` the function that it calls.
local kiln = require "kiln"
local fail = kiln.fail
local texts = kiln.help_texts

-- ---- the comments --------------------------------------------------------------------------------------------------

-- The names that a comment is about: what is called in front of its first ": ", outside of parentheses; or the word there.
local function called(text)
  local names, depth, at = { text:match "^([%a_][%w_]*): " }, 0, 1
  while at <= #text do
    local char = text:sub(at, at)
    local word = depth == 0 and text:match("^[%a_][%w_]*", at)
    if word then
      at = at + #word
      if text:find("^[({\"]", at) or text:find("^ \"", at) then names[#names + 1] = word end
    else
      if char:find "[%(%[{]" then depth = depth + 1 elseif char:find "[%)%]}]" then depth = depth - 1 end
      if depth == 0 and text:find("^: ", at) then break end
      at = at + 1
    end
  end
  return names
end

-- What the line below a comment defines: its name, its arguments, and the class that it is a method of.
local function defined(line)
  local class, mark, name, arguments = line:match "^%s*function ([%w_]+)([.:])([%w_]+)(%b())"
  if name then return name, arguments, mark == ":" and class or nil end
  return line:match "^%s*[%w_]+%(\"([%w_]+)\"" or line:match "^%s*local ([%w_]+) = [%w_.:]+ ?[%(]?[\"{]"
end

-- name -> list of { file =, name =, text =, class = }, of all files.
local function read_comments()
  local found = {}
  local function note(name, entry)
    found[name] = found[name] or {}
    table.insert(found[name], entry)
  end
  for file, source in pairs(texts.sources()) do
    local block, head = nil, true
    for line in source:gmatch "[^\n]*" do
      local comment = line:match "^%s*%-%-%-%s?(.*)" or head and line:match "^%-%-%s?(.*)"
      head = head and comment ~= nil
      if comment then
        block = block and block .. " " .. comment or comment
      elseif block then
        local name, arguments, class = defined(line)
        local names = called(block)
        if name and #names == 0 and arguments then block = name .. arguments .. ": " .. block end
        local seen = {}
        if name then names[#names + 1] = name end
        for _, one in ipairs(names) do
          if not seen[one] then note(one, { file = file, text = block, class = one == name and class or nil }) end
          seen[one] = true
        end
        block = nil
      end
    end
  end
  return found
end

-- ---- the names -----------------------------------------------------------------------------------------------------

local parts_in_c = { linalg = true, io = true, cuda = true } -- told of by help.def, too

-- Is that field a part with names of its own? (Classes start with a capital letter.)
local function is_part(name, value)
  return type(value) == "table" and name:find "^%l" and not (texts.of(name) and not parts_in_c[name])
end

-- Every path from kiln on, "nn.Linear", sorted, and the value at each.
local function public()
  local paths, values, seen = {}, {}, { [kiln] = true }
  local function walk(prefix, part)
    for name, value in next, part do
      if type(name) == "string" then
        local path = prefix .. name
        paths[#paths + 1], values[path] = path, value
        if is_part(name, value) and not seen[value] then
          seen[value] = true
          walk(path .. ".", value)
        end
      end
    end
  end
  for file in pairs(texts.sources()) do
    local name = file:match "^kiln%.([%w_]+)$"
    if name then local _ = kiln[name] end
  end
  walk("", kiln)
  table.sort(paths)
  return paths, values
end

local known -- made when first needed: comments, paths, values, and the shortest path of each function and table

local function look()
  if known then return known end
  local paths, values = public()
  local path_of = {}
  for _, path in ipairs(paths) do
    local value = values[path]
    if (type(value) == "function" or type(value) == "table") and (not path_of[value] or #path < #path_of[value]) then
      path_of[value] = path
    end
  end
  known = { comments = read_comments(), paths = paths, values = values, path_of = path_of }
  return known
end

-- ---- answers -------------------------------------------------------------------------------------------------------

-- The comment about `name` in the files of `part`, "nn.init", or of the parts around it.
local function comment_of(part, name)
  local list = look().comments[name] or {}
  while true do
    local own, inside
    for _, entry in ipairs(list) do
      local file = entry.file:match "^kiln%.(.*)"
      if not entry.class then
        if file == part or part == "" and file == name then own = entry.text end
        if part == "" or (file .. "."):sub(1, #part + 1) == part .. "." then inside = entry.text end
      end
    end
    if own or inside then return own or inside end
    if part == "" then return nil end
    part = part:match "^(.*)%.[%w_]+$" or ""
  end
end

-- Of layers of 1 to 3 dims one is told of.
local function comment_of_dims(part, name)
  local stem = name:match "^(.*)[123]d$"
  for dims = 1, stem and 3 or 0 do
    local text = comment_of(part, ("%s%dd"):format(stem, dims))
    if text then return ("%s, as %s"):format(name, text) end
  end
end

local function overview_of(path, part)
  local names = {}
  for name in next, part do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  local source = texts.sources()["kiln." .. path]
  local head = {}
  for line in (source or ""):gmatch "[^\n]*" do
    local words = line:match "^%-%- (.*)"
    if not words then break end
    head[#head + 1] = words
  end
  local about = source and table.concat(head, " ") or texts.of(path) or ("kiln.%s: a part of kiln.%s."):format(path, path:match "^%w+")
  return ("%s\n%s: %s"):format(about, path, table.concat(names, " "))
end

local explain

local function explain_value(path, value)
  local part, name = path:match "^(.*)%.([%w_]+)$"
  part, name = part or "", name or path
  local about = type(value) == "table" and rawget(value, "about")
  if about then
    local computed = look().path_of[rawget(value, "computes")]
    return about .. (computed and "\n" .. explain(computed) or "")
  end
  if is_part(name, value) then return overview_of(path, value) end
  local text = comment_of(part, name) or comment_of_dims(part, name) or comment_of(part, name .. "_")
    or part == "nn.functional" and texts.of(name) or nil
  if text and part == "" then return text end
  if text then return text:find(name, 1, true) == 1 and part .. "." .. text or path .. ": " .. text end
  local same = look().path_of[value]
  if same and same ~= path then return explain(same) end
end

-- The text of a path, or nil.
function explain(path)
  local text = texts.of(path)
  if text and not parts_in_c[path] then return text end
  local value = look().values[path]
  if value ~= nil then return explain_value(path, value) end
end

-- Methods of that name, "step", or of that class, "Optimizer.step".
local function methods(name)
  local class, method = name:match "([%w_]+)[.:]([%w_]+)$"
  local list, files = {}, {}
  for _, entry in ipairs(class and look().comments[class] or {}) do files[entry.file] = true end
  for _, entry in ipairs(look().comments[method or name] or {}) do
    if entry.class and (not class or entry.class == class or files[entry.file]) then
      list[#list + 1] = ("%s:%s"):format(class or entry.class, (entry.text:gsub("^%l[%w_]*:", "")))
    end
  end
  table.sort(list)
  return list
end

-- All that has this as its last name.
local function anywhere(name)
  local list, seen = {}, {}
  for _, path in ipairs(look().paths) do
    if path:match "[%w_]+$" == name then
      local text = explain(path)
      if text and not seen[text] then list[#list + 1] = text end
      seen[text or ""] = true
    end
  end
  for _, text in ipairs(methods(name)) do list[#list + 1] = text end
  return #list > 0 and table.concat(list, "\n") or nil
end

local function overview()
  local list = { "kiln.help \"conv2d\" tells of an op, kiln.help \"nn.Linear\" or kiln.help(kiln.nn.Linear) of what the library has, "
    .. "kiln.help \"nn\" of a part of it. The parts:" }
  local _ = look()
  for _, path in ipairs(known.paths) do
    local value = known.values[path]
    if is_part(path:match "[%w_]+$", value) and known.path_of[value] == path then
      local text = explain(path):gsub("^kiln%.[%w_.]+: ", "")
      list[#list + 1] = ("  %-20s %s"):format(path, text:match "^([^\n]-%.)%s" or text:match "[^\n]*")
    end
  end
  return table.concat(list, "\n")
end

-- Names that hold the word, for whom did not find one.
local function like(word)
  local list = {}
  word = word:lower():match "[%w_]+$" or word
  for _, path in ipairs(look().paths) do
    if #list < 8 and path:match "[%w_]+$":lower():find(word, 1, true) then list[#list + 1] = path end
  end
  return #list > 0 and "; names like it: " .. table.concat(list, ", ") or ""
end

--- help([name]): what there is to say of an op, a function, a class, a method or a part of the library, as a text. Names are
--- as they are written, "nn.Linear", or only the last of them; the function or class itself does too. Without one: the parts.
return function(what)
  if what == nil then return overview() end
  local name = what
  if type(what) ~= "string" then
    name = look().path_of[what] or look().path_of[getmetatable(what)]
    if not name then fail("help: the name of an op, a function, a class or a part is needed, got %s", type(what)) end
  end
  name = name:gsub("^kiln%.", "")
  local text = explain(name) or anywhere(name) or anywhere(name:match "([%w_]+)_$" or "")
  if not text and name:find "[.:]" then text = methods(name)[1] end
  if not text then fail("help: there is no op, function, class or part '%s'%s", name, like(name)) end
  return text
end
