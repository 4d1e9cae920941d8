-- The kiln executable as a stand-in for lua: options, arguments, exit codes, messages, the prompt.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local program, read, write = check.program(), check.read, check.write

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- run{ "-e", "print(1)", input =, env = } gives what it printed, what it complained about, and its exit code.
local function run(options)
  local out, err, input = os.tmpname(), os.tmpname(), os.tmpname()
  write(input, options.input or "")
  local words = { "env -u LUA_INIT -u LUA_INIT_5_4", options.env or "", quote(options.program or program) }
  for _, word in ipairs(options) do words[#words + 1] = quote(word) end
  local command = ("%s <%s >%s 2>%s"):format(table.concat(words, " "), input, out, err)
  local _, _, code = os.execute(command)
  local said, complained = read(out), read(err)
  for _, path in ipairs { out, err, input } do os.remove(path) end
  return said, complained, code
end

local function script(text, body)
  local path = os.tmpname()
  write(path, text)
  local ok, why = pcall(body, path)
  os.remove(path)
  if not ok then error(why, 0) end
end

test("-e, glued and apart, several times, shares globals", function()
  equal(run { "-e", "x = 3", "-eprint(x)" }, "3\n")
  equal(run { "-e", "print(kiln.zeros(2):size(1))" }, "2\n")
  equal(run { "-e", "assert(require 'kiln' == kiln)" }, "")
end)

test("-l requires into a global", function()
  equal(run { "-l", "string", "-e", "print(string.rep('a', 3))" }, "aaa\n")
  equal(run { "-lnets=kiln.nn", "-e", "print(nets.Linear.name)" }, "Linear\n")
  local _, err, code = run { "-l", "no.such.thing" }
  truth(err:find("module 'no.such.thing' not found", 1, true), err)
  equal(code, 1)
end)

test("-v shows Lua's line, -W turns warnings on, -E hides the environment", function()
  truth(run { "-v" }:find "^Lua 5%.4.*PUC%-Rio\n$", "the version line")
  local _, err = run { "-W", "-e", "warn 'careful'" }
  equal(err, "Lua warning: careful\n")
  equal(select(2, run { "-e", "warn 'careful'" }), "")
  equal(run { "-e", "print(a)", env = "LUA_INIT='a = 1'" }, "1\n")
  equal(run { "-e", "print(a)", env = "LUA_INIT='a = 1' LUA_INIT_5_4='a = 2'" }, "2\n")
  equal(run { "-E", "-e", "print(a)", env = "LUA_INIT='a = 1'" }, "nil\n")
  equal(run { "-e", "print(package.path)", env = "LUA_PATH='x;;y'" }:sub(1, 2), "x;")
  equal(run { "-E", "-e", "print(package.path:sub(1, 2))", env = "LUA_PATH='x;;y'" } ~= "x;\n", true)
  local _, complained, code = run { "-e", "print(1)", env = "LUA_INIT='error(\"broken\", 0)'" }
  truth(complained:find("broken", 1, true), complained)
  equal(code, 1)
end)

test("LUA_INIT may name a file", function()
  script("from_file = 5", function(path) equal(run { "-e", "print(from_file)", env = "LUA_INIT=@" .. path }, "5\n") end)
end)

test("arguments of scripts", function()
  script("print(#arg, arg[1], arg[2], arg[0] ~= nil, arg[-1], ...)", function(path)
    equal(run { path, "a", "b c" }, "2\ta\tb c\ttrue\t" .. program .. "\ta\tb c\n")
    equal(run { "-e", "", path, "-e" }, "1\t-e\tnil\ttrue\t\t-e\n")
    equal(run { "--", path, "x" }, "1\tx\tnil\ttrue\t--\tx\n")
  end)
  equal(run { "-", "q", input = "print(arg[0], ...)" }, "-\tq\n")
  equal(run { input = "print(#arg)" }, "0\n")
end)

test("a first line with # is passed over", function()
  script("#!/usr/bin/env kiln\nprint(debug.getinfo(1, 'l').currentline)", function(path) equal(run { path }, "2\n") end)
end)

test("exit codes and messages", function()
  local _, err, code = run { "-e", "error 'gone wrong'" }
  equal(code, 1)
  truth(err:find(program .. ": (command line):1: gone wrong\nstack traceback:", 1, true), err)
  equal(select(3, run { "-e", "os.exit(7)" }), 7)
  equal(select(3, run { "-e", "os.exit(true, true)" }), 0)
  _, err, code = run { "-e", "x = = 1" }
  equal(code, 1)
  truth(err:find("unexpected symbol near '='", 1, true), err)
  _, err, code = run { "/no/such/file.lua" }
  equal(code, 1)
  truth(err:find("cannot open /no/such/file.lua", 1, true), err)
  _, err = run { "-e", "error(setmetatable({}, { __tostring = function() return 'speaks' end }))" }
  equal(err, program .. ": speaks\n")
  _, err = run { "-e", "error({})" }
  truth(err:find("(error object is a table value)", 1, true), err)
  _, err = run { "-e", "return kiln.zeros(2) + kiln.zeros(3)" }
  truth(err:find("(command line):1: add: ", 1, true), err)
end)

test("options that do not exist", function()
  for _, bad in ipairs { "-h", "---", "-vv", "-Ex", "-iv", "-x", "--help" } do
    local _, err, code = run { bad }
    equal(code, 1)
    truth(err:find(program .. ": unrecognized option '" .. bad .. "'\nusage: ", 1, true), err)
  end
  for _, bad in ipairs { "-e", "-l" } do
    local _, err, code = run { bad }
    equal(code, 1)
    truth(err:find("'" .. bad .. "' needs argument", 1, true), err)
  end
end)

test("the prompt", function()
  equal(run { "-e", "_PROMPT = ''", "-i", input = "1 + 1\n= 3\nx = 4\nx, 'y'\n" }:gsub("^Lua[^\n]*\n", ""),
    "2\n3\n4\ty\n\n")
  local out = run { "-e", "_PROMPT, _PROMPT2 = '[', '{'", "-i", input = "function f()\n  return 5\nend\nf()\n" }
  equal((out:gsub("^Lua[^\n]*\n", "")), "[{{[5\n[\n")
  local _, err = run { "-i", input = "error 'oh'\nnil .. 1\n'unfinished\n" }
  truth(err:find("^stdin:1: oh\n"), err)
  truth(err:find("unfinished string", 1, true), err)
  out = run { "-e", "_PROMPT = ''", "-i", input = "kiln.tensor { 1, 2 }\n" }
  truth(out:find("{1, 2}\nint64[2]", 1, true), out)
  _, err = run { "-i", input = "print = nil\n1\n" }
  truth(err:find("error calling 'print' (attempt to call a nil value)", 1, true), err)
end)

test("an interrupt is an error that can be caught", function()
  script([[
    local pid = io.open("/proc/self/stat"):read("n")
    os.execute("(sleep 0.2; kill -INT " .. pid .. ") >/dev/null 2>&1 &")
    local stop = os.clock() + 5
    local ok, why = pcall(function() while os.clock() < stop do end return "none came" end)
    print(ok, why:match "interrupted!")
  ]], function(path)
    if not io.open "/proc/self/stat" then check.skip "there is no /proc here" end
    equal(run { path }, "false\tinterrupted!\n")
  end)
end)

test("an interrupt ends graphs that run, and their gradients, too", function()
  if not io.open "/proc/self/stat" then check.skip "there is no /proc here" end
  for _, body in ipairs {
    "g(kiln.ones(3))", "local y = h(kiln.ones(3):requires_grad_(true)) y:sum():backward()"
  } do
    script([[
      local function endless(x)
        while x:sum():item() >= 0 do x = x * 1 end
        return x
      end
      local g, h = kiln.script(endless), kiln.script(endless)
      local pid = io.open("/proc/self/stat"):read("n")
      os.execute("(sleep 0.3; kill -INT " .. pid .. ") >/dev/null 2>&1 &")
      local function call() ]] .. body .. [[ end
      local ok, why = pcall(function() call() end)
      print(ok, why:match "interrupted!" or why:match "stopped by the host")
    ]], function(path)
      local said, complained = run { path }
      truth(said == "false\tstopped by the host\n" or complained:find "interrupted!", said .. complained)
    end)
  end
end)

test("the environment of kiln", function()
  local _, err = run { "-e", "", env = "KILN_DEBUG=exec,nonsense" }
  truth(err:find("KILN_DEBUG: there is no topic nonsense", 1, true), err)
  equal(run { "-e", "print(kiln.get_num_threads())", env = "KILN_NUM_THREADS=3" }, "3\n")
  _, err = run { "-e", "", env = "KILN_NUM_THREADS=many" }
  truth(err:find("'many' is not a number of threads", 1, true), err)
  local complained, code
  _, complained, code = run { "-e", "", env = "KILN_BACKEND=abacus" }
  equal(code, 1)
  truth(complained:find("abacus", 1, true), complained)
  equal(run { "-e", "print((kiln.ones(2):matmul(kiln.ones(2))):item())", env = "KILN_BACKEND=ref" }, "2.0\n")
end)

test("another Lua state can be left while tensors live", function()
  local _, err, code = run { "-e", "x = kiln.ones(1000):requires_grad_(); y = (x * x):sum(); os.exit(0, true)" }
  equal({ err, code }, { "", 0 })
  _, err, code = run { "-e", "t = setmetatable({}, { __gc = function() pcall(function() return kiln.ones(3) end) end })" }
  equal({ err, code }, { "", 0 })
end)
