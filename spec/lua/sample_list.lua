-- The samples that train or infer, for samples.lua and device_samples.lua: what they need besides nothing, arguments that keep them short, what
-- of the text that they print is their result (a pattern, and how far two runs of it may be apart); own: a spec of its own runs it on the
-- CPU; saves: it takes --save; quick: short enough for a device of software, too;
-- host: it is for a program in C beside it, and is not run alone.
return {
  ["cifar.lua"] = { needs = "cifar10/cifar10-jpeg-subset.tar.xz", arguments = "--limit 32 --epochs 1", says = "loss ([%d.]+)", within = 0.02 },
  ["digits.lua"] = { arguments = "--limit 150 --epochs 2", saves = true, says = "loss ([%d.]+)", within = 0.01, own = true, quick = true },
  ["game.lua"] = { own = true, host = true },
  ["iris.lua"] = { needs = "csv/iris.csv", arguments = "--epochs 1", says = "(%d+) of 150 flowers", within = 1, quick = true },
  ["mnist.lua"] = { needs = "mnist/t10k-images-idx3-ubyte.gz", arguments = "--limit 160 --epochs 1", says = "loss ([%d.]+)", within = 0.02 },
  ["mnist_pretrained.lua"] = { needs = "models/mnist_burn/mnist.safetensors", arguments = "--limit 100", says = "(%d+) of 100 images", within = 0 },
  ["names.lua"] = { needs = "text/names.txt", arguments = "--steps 2 --validate 32 --names 2", says = "validation loss ([%d.]+)", within = 0.01, own = true },
  ["op.lua"] = { own = true, host = true },
  ["shakespeare.lua"] = { needs = "text/tinyshakespeare.txt", arguments = "--steps 2 --validate 2 --characters 5 --captured",
    says = "validation loss ([%d.]+)", within = 0.02, own = true },
  ["train.lua"] = { own = true, host = true },
  ["stories.lua"] = { needs = "llama2c/stories260K.bin", arguments = "--steps 20", says = "(.+)", own = true, quick = true },
}
