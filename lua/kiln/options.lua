-- kiln.options: the command line of a script as a table. For a few options with defaults; no sub-commands, no help texts.
local kiln = require "kiln"

-- How an option is read, by the kind of its default: the value, or nothing where the words do not fit.
local kinds = {
  integer = { "a whole number", function(word) return math.tointeger(tonumber(word)) end },
  float = { "a number", tonumber },
  string = { "a value", function(word) return word end },
}

-- A device that does not work is a complaint, with the reason.
local function check_device(name)
  local backend = name:match "^%a+"
  for _, row in ipairs(name ~= "cpu" and kiln.backends() or {}) do
    if row.name == backend and row.available then return end
    if row.name == backend then kiln.complain("--device %s: %s", name, row.reason) end
  end
  if name ~= "cpu" then kiln.complain("--device must be cpu or cuda, not %s", name) end
end

--- options(defaults [, texts] [, words]): { epochs = 18, rate = 0.1, eager = false } with what the command line says:
--- `--epochs 3`, `--rate 0.2`, and `--eager`, which makes it true. A whole number as default asks for whole numbers. `texts`
--- lists options that are texts and may be missing; one called `device` must name one that works; words are those of the global `arg` unless given. An unknown option is an
--- error that lists the known ones, for who calls the script: see kiln.complain.
return function(defaults, texts, words)
  words = words or arg or {}
  local out, kind_of, names = {}, {}, {}
  for name, value in pairs(defaults) do
    out[name] = value
    kind_of[name] = math.type(value) or type(value)
  end
  for _, name in ipairs(texts or {}) do kind_of[name] = "string" end
  for name in pairs(kind_of) do names[#names + 1] = "--" .. name end
  table.sort(names)
  local i = 1
  while words[i] do
    local name = words[i]:match "^%-%-([%w_]+)$"
    local kind = name and kind_of[name]
    if not kind then
      kiln.complain("there is no option %s; there are %s", words[i], table.concat(names, ", "))
    elseif kind == "boolean" then
      out[name] = true
    else
      local what, read = table.unpack(kinds[kind])
      i = i + 1
      local value
      if words[i] then value = read(words[i]) end
      if value == nil then kiln.complain("--%s needs %s", name, what) end
      out[name] = value
    end
    if name == "device" then check_device(out.device) end
    i = i + 1
  end
  return out
end
