-- Functions whose loops end when numbers of the device say so: timed by spec/gpu/rows.lua; counted, and compared with what they are when they
-- are not captured, by cuda_counts.lua and cuda_software.lua.
local nn = kiln.nn
local loops = {}

-- x, w, b: trips through a small layer.
function loops.trips(most)
  return function(x, w, b)
    local n = 0
    while n < most and x:sum():item() < 100 do
      x = (x:matmul(w) + b):tanh()
      n = n + 1
    end
    return x
  end
end

-- token, h: a token after the other until one is 1, by a small network whose next input is its own answer.
function loops.decoder(width, vocab, most)
  local embed, cell, head = nn.Embedding(vocab, width):to "cuda", nn.Linear(2 * width, width):to "cuda", nn.Linear(width, vocab):to "cuda"
  return function(token, h)
    local n = 0
    while n < most and token:item() ~= 1 do
      h = cell(kiln.cat({ embed(token), h }, 2)):tanh()
      token = head(h):argmax(2)
      n = n + 1
    end
    return token, h
  end
end

return loops
