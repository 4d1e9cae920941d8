-- What is saved is a safetensors file to anybody: read here by a reader of its own, as strict as the format's description.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local sizes = { F64 = 8, I64 = 8, F32 = 4, I32 = 4, F16 = 2, BF16 = 2, I16 = 2, I8 = 1, U8 = 1, BOOL = 1 }

-- JSON of objects, arrays, strings and whole numbers; objects as lists of {key, value}, so that none is lost.
local function json(s)
  local at = 1
  local function take(pattern, what)
    local from, to, got = s:find("^[ \t\r\n]*" .. pattern, at)
    if not from then error(("byte %d: %s is missing"):format(at, what), 0) end
    at = to + 1
    return got
  end
  local value
  local function text()
    take('"', "a string")
    local out = {}
    while true do
      local plain = s:match('^[^"\\%c]+', at)
      if plain then
        out[#out + 1], at = plain, at + #plain
      elseif s:sub(at, at) == '"' then
        at = at + 1
        return table.concat(out)
      else
        local escape, hex = s:match('^\\(["\\/bfnrtu])(%x?%x?%x?%x?)', at)
        assert(escape, "a control character or unknown escape")
        if escape == "u" then
          assert(#hex == 4)
          out[#out + 1], at = utf8.char(tonumber(hex, 16)), at + 6
        else
          out[#out + 1], at = ({ b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" })[escape] or escape, at + 2
        end
      end
    end
  end
  local function list(open, close, item)
    local out = {}
    take(open, open)
    if s:find("^[ \t\r\n]*" .. close, at) then take(close, close) return out end
    repeat
      out[#out + 1] = item()
      local more = s:find("^[ \t\r\n]*,", at)
      if more then take(",", ",") end
    until not more
    take(close, close)
    return out
  end
  function value()
    local c = s:match("^[ \t\r\n]*(.)", at)
    if c == '"' then return text() end
    if c == "[" then return list("%[", "%]", value) end
    if c == "{" then return list("{", "}", function() local k = text() take(":", ":") return { k, value() } end) end
    local digits = take("(%d+)", "a whole number")
    truth(digits == "0" or digits:sub(1, 1) ~= "0")
    return math.tointeger(tonumber(digits))
  end
  local v = value()
  truth(s:find("^ *$", at), "blanks alone follow")
  return v
end

local function fields(object)
  local out = {}
  for _, f in ipairs(object) do
    equal(out[f[1]], nil)
    out[f[1]] = f[2]
  end
  return out
end

-- Bytes, dtype and shape of each tensor, and the metadata.
local function read(path)
  local f = assert(io.open(path, "rb"))
  local all = f:read "a"
  f:close()
  local n = string.unpack("<I8", all)
  truth(n <= 100000000 and n + 8 <= #all)
  local header, data = all:sub(9, 8 + n), all:sub(9 + n)
  equal(header:sub(1, 1), "{")
  truth(utf8.len(header), "valid UTF-8")
  equal((8 + n) % 8, 0)
  local tensors, at, meta = {}, 0
  for name, entry in pairs(fields(json(header))) do
    local e = fields(entry)
    if name == "__metadata__" then
      meta = e
      for _, v in pairs(e) do equal(type(v), "string") end
    else
      e.name = name
      tensors[#tensors + 1] = e
    end
  end
  table.sort(tensors, function(a, b) return a.data_offsets[1] < b.data_offsets[1] or
    (a.data_offsets[1] == b.data_offsets[1] and a.data_offsets[2] < b.data_offsets[2]) end)
  local by_name = {}
  for _, e in ipairs(tensors) do
    local bytes = assert(sizes[e.dtype], e.dtype)
    for _, d in ipairs(e.shape) do bytes = bytes * d end
    equal(e.data_offsets[1], at) -- neither hole nor overlap
    at = e.data_offsets[2]
    equal(at - e.data_offsets[1], bytes)
    equal(e.data_offsets[1] % sizes[e.dtype], 0) -- can be mapped
    by_name[e.name] = { dtype = e.dtype, shape = e.shape, bytes = data:sub(e.data_offsets[1] + 1, at) }
  end
  equal(at, #data) -- and nothing behind
  return by_name, meta
end

local names = { float64 = "F64", int64 = "I64", float32 = "F32", int32 = "I32", float16 = "F16", bfloat16 = "BF16", int16 = "I16",
  int8 = "I8", uint8 = "U8", bool = "BOOL" }

test("weights of every dtype are there, bit for bit", function()
  local path, w = os.tmpname(), {}
  for dtype in pairs(names) do w[dtype] = dtype == "bool" and kiln.rand(3, 5):gt(0.5) or (kiln.randn(3, 5) * 50):abs():to(dtype) end
  w.float32 = w.float32:t() -- lies otherwise
  w.empty, w.single, w['odd "name"\n\u{e9}'] = kiln.zeros(2, 0), kiln.tensor(3.5), kiln.randn(4)
  local g = kiln.script(function(x)
    local all = {}
    for k, t in pairs(w) do all[k] = t end
    return all, x
  end)
  g(kiln.ones(2))
  g:save(path, { vectors = { { kiln.ones(2) } }, notes = { a = 'b "c"\n' } })
  local tensors, meta = read(path)
  os.remove(path)
  equal(meta["kiln.note.a"], 'b "c"\n')
  local met = 0
  for k, t in pairs(w) do
    for name, e in pairs(tensors) do
      if name == "w." .. k or (k:find "odd" and name:find("odd", 1, true)) then
        equal(e.dtype, names[t.dtype])
        equal(e.shape, t.shape)
        equal(e.bytes, t:contiguous():tobytes())
        met = met + 1
      end
    end
  end
  truth(met >= 12, met)
end)

test("files that are kept for ever are such, too", function()
  local p = assert(io.popen(("ls '%s'/spec/golden/files/*.kiln"):format(os.getenv "KILN_SOURCE" or ".")))
  local n = 0
  for path in p:lines() do
    local tensors, meta = read(path)
    truth(next(tensors) and meta["kiln.version"] == "1" and meta["kiln.producer"] == "kiln 0.1.0", path)
    n = n + 1
  end
  p:close()
  truth(n >= 5)
end)
